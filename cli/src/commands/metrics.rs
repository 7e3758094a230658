//! `ninefold metrics`: PromQL at the terminal.

use std::time::SystemTime;

use clap::Args;
use ninefold_proto::ninefold::monitor::v1::{
    ListMetricsRequest, MetricPoint, MetricSeries, QueryMetricsRequest, metric_point,
};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Label that holds the name of the metric.
const NAME: &str = "__name__";
/// How many points of a range are drawn.
const DRAWN: usize = 60;
/// What they are drawn with, from the least to the greatest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What `metrics` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct MetricsArgs {
    /// A query of PromQL.
    pub(crate) query: Option<String>,
    /// Over the last while, such as 1h, rather than now.
    #[arg(long, value_parser = ninefold::settings::duration::parse, requires = "query")]
    pub(crate) since: Option<std::time::Duration>,
    /// From one time to the next, such as 1m. A hundredth of the while unless it is said.
    #[arg(long, value_parser = ninefold::settings::duration::parse, requires = "since")]
    pub(crate) step: Option<std::time::Duration>,
}

/// Prints what a query says, or which metrics there are.
pub(crate) async fn metrics(platform: &Platform, args: MetricsArgs, format: Format) -> Result<(), Failure> {
    let Some(query) = args.query else { return list(platform, format).await };
    let start = args.since.map(|since| prost_types::Timestamp::from(SystemTime::now() - since));
    let step = args.step.and_then(|step| prost_types::Duration::try_from(step).ok());
    let request = QueryMetricsRequest { query, start_time: start, step, ..QueryMetricsRequest::default() };
    let answer = platform.search(platform.metrics().query_metrics(request)).await?;
    for warning in &answer.warnings {
        output::talk(warning);
    }
    if answer.series.is_empty() && answer.text.is_empty() {
        output::talk("no series");
    }
    output::print(format, &output::json("ninefold.monitor.v1.QueryMetricsResponse", &answer), || {
        if !answer.text.is_empty() {
            return format!("{}\n", output::tame(&answer.text));
        }
        let is_range = args.since.is_some();
        let mut table =
            Table::new(if is_range { &["SERIES", "LAST", "LEAST", "MOST", "COURSE"] } else { &["SERIES", "VALUE"] });
        for series in &answer.series {
            let name = output::cell(&name(series));
            match is_range {
                true => table.row([name].into_iter().chain(course(&series.points))),
                false => table.row([name, series.points.last().map(value).unwrap_or_default()]),
            }
        }
        table.render()
    })
}

async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let answer = platform.search(platform.metrics().list_metrics(ListMetricsRequest {})).await?;
    answer.warnings.iter().for_each(output::talk);
    let metrics = answer.metrics;
    if metrics.is_empty() {
        output::talk("no metrics yet");
    }
    output::print(format, &output::json_all("ninefold.monitor.v1.Metric", &metrics), || {
        let mut table = Table::new(&["METRIC", "SERIES", "TYPE", "UNIT", "WHAT IT IS"]);
        for metric in &metrics {
            table.row([
                metric.name.clone(),
                metric.series.to_string(),
                metric.r#type.clone(),
                output::cell(&metric.unit),
                output::cell(&metric.help),
            ]);
        }
        table.render()
    })
}

fn name(series: &MetricSeries) -> String {
    let mut labels: Vec<(&String, &String)> = series.labels.iter().filter(|(label, _)| *label != NAME).collect();
    labels.sort();
    let labels: Vec<String> = labels.into_iter().map(|(label, value)| format!("{label}={value:?}")).collect();
    format!("{}{{{}}}", series.labels.get(NAME).map_or("", String::as_str), labels.join(", "))
}

fn value(point: &MetricPoint) -> String {
    match &point.value {
        Some(metric_point::Value::Number(number)) => number.to_string(),
        Some(metric_point::Value::Histogram(of)) => format!("{} values, sum {}", of.count, of.sum),
        None => String::new(),
    }
}

/// The last, the least and the greatest, and how it went.
fn course(points: &[MetricPoint]) -> [String; 4] {
    let number = |point: &MetricPoint| match point.value {
        Some(metric_point::Value::Number(number)) if number.is_finite() => Some(number),
        _ => None,
    };
    let numbers: Vec<f64> = points.iter().filter_map(number).collect();
    let (least, most) = numbers
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), number| (least.min(*number), most.max(*number)));
    let each = numbers.len().div_ceil(DRAWN).max(1);
    let drawn: String =
        numbers.chunks(each).filter_map(<[f64]>::last).map(|number| block(*number, least, most)).collect();
    let told = |number: f64| if number.is_finite() { number.to_string() } else { String::new() };
    [points.last().map(value).unwrap_or_default(), told(least), told(most), drawn]
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of eight")]
fn block(number: f64, least: f64, most: f64) -> char {
    let share = if most > least { (number - least) / (most - least) } else { 0.0 };
    BLOCKS[((share * 8.0) as usize).min(BLOCKS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_drawn_from_its_least_to_its_greatest() {
        let point = |number| MetricPoint { time: None, value: Some(metric_point::Value::Number(number)) };
        let points: Vec<MetricPoint> = [0.0, 1.0, 2.0, f64::NAN, 8.0].into_iter().map(point).collect();
        assert_eq!(course(&points), ["8", "0", "8", "▁▂▃█"].map(ToOwned::to_owned));
        assert_eq!(course(&[]), ["", "", "", ""].map(ToOwned::to_owned));
    }
}
