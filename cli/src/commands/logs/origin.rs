//! `ninefold logs --origin`: lines with the trace, the configuration and the measurements that they come from.

use std::collections::HashMap;

use ninefold_proto::ninefold::monitor::v1::{
    GetLogOriginRequest, GetLogOriginResponse, LogRecord, MetricSeries, metric_point,
};
use ninefold_proto::ninefold::registry::v1::Instance;
use serde_json::{Value, json};

use super::text;
use crate::client::Platform;
use crate::commands::ps;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Label that holds the name of the metric.
const NAME: &str = "__name__";
/// Lines whose origin is told.
const LINES_MAX: usize = 50;

/// Prints lines, each with what was around it.
pub(super) async fn tell(platform: &Platform, records: &[LogRecord], format: Format) -> Result<(), Failure> {
    if records.len() > LINES_MAX {
        return Err(Failure::Usage(format!("--origin tells of at most {LINES_MAX} lines: use -n {LINES_MAX}")));
    }
    let instances: HashMap<String, Instance> =
        platform.instances("").await?.into_iter().map(|instance| (instance.instance_id.clone(), instance)).collect();
    let mut told = Vec::with_capacity(records.len());
    for record in records {
        let request = GetLogOriginRequest {
            service: record.service.clone(),
            instance_id: record.instance_id.clone(),
            time: record.time,
            trace_id: record.trace_id.clone(),
        };
        let origin = platform.search(platform.monitor().get_log_origin(request)).await?;
        output::missing(&origin.missing_nodes);
        told.push((record, instances.get(&record.instance_id), origin));
    }
    let values: Vec<Value> = told.iter().map(|(record, instance, origin)| value(record, *instance, origin)).collect();
    output::print_painted(format, &Value::Array(values), || {
        let one = |(record, instance, origin): &(&LogRecord, Option<&Instance>, GetLogOriginResponse)| {
            format!("{}\n{}", text(record), around(*instance, origin))
        };
        told.iter().map(one).collect::<Vec<_>>().join("\n")
    })
}

fn value(record: &LogRecord, instance: Option<&Instance>, origin: &GetLogOriginResponse) -> Value {
    json!({
        "record": output::json("ninefold.monitor.v1.LogRecord", record),
        "instance": instance.map(|instance| output::json("ninefold.registry.v1.Instance", instance)),
        "origin": output::json("ninefold.monitor.v1.GetLogOriginResponse", origin),
    })
}

fn around(instance: Option<&Instance>, origin: &GetLogOriginResponse) -> String {
    let mut lines = Vec::new();
    if let Some(trace) = &origin.trace {
        let failed = if trace.failed { ", failed" } else { "" };
        lines.push(format!(
            "trace     {}: {} {}, {} spans{failed}",
            trace.trace_id,
            output::cell(&trace.service),
            output::cell(&trace.name),
            trace.spans
        ));
    }
    lines.push(match instance {
        Some(known) => {
            let version = output::cell(&known.version);
            format!("instance  {} now, at {}, version {version}", ps::state(known), ps::address(known))
        }
        None => "instance  gone".to_owned(),
    });
    for document in &origin.configured_with {
        let environment = output::cell(&document.environment);
        let service = output::cell(&document.service);
        lines.push(format!("config    {service} in {environment}, revision {}", document.revision));
    }
    let used = [("process_cpu_utilization_ratio", "of a core"), ("process_memory_usage_bytes", "bytes resident")];
    for (name, unit) in used {
        if let Some(value) = origin.metrics.iter().find_map(|series| number(series, name)) {
            lines.push(format!("used      {value:.0} {unit}"));
        }
    }
    lines.push(format!("measured  {} series; -o json has them", origin.metrics.len()));
    lines.iter().map(|line| format!("    {line}\n")).collect()
}

fn number(series: &MetricSeries, name: &str) -> Option<f64> {
    match series.points.first()?.value.as_ref()? {
        metric_point::Value::Number(number) if series.labels.get(NAME).is_some_and(|known| known == name) => {
            Some(*number)
        }
        metric_point::Value::Number(_) | metric_point::Value::Histogram(_) => None,
    }
}
