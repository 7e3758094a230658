//! Rules that every landscape has before anybody writes one. Pure.
//!
//! A counter that is born at one has not grown, as far as `increase` knows; so rules about rare events ask for counters that
//! were not there five minutes ago, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ninefold::settings::duration;

use crate::document::{Instances, Rule, Texts};

/// Name, query, seconds until it fires, how grave, what is said.
type Shipped = (&'static str, &'static str, u64, &'static str, &'static str);

/// How far back rules look, and how long they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// How far back.
    pub(crate) window: Duration,
    /// The longest wait.
    pub(crate) wait_max: Duration,
}

impl Pace {
    /// What suits most.
    pub(crate) const USUAL: Self = Self { window: Duration::from_secs(300), wait_max: Duration::from_secs(300) };
}

/// The rule that asks the registry: in place of a query its name, how long it waits, how grave it is, and what it says.
const SILENT: (&str, u64, &str, &str) = (
    "instance_silent",
    15,
    "critical",
    "{{instance}} of {{job}} has not been heard of for {{value | humanizeDuration}} and nobody came in its place: {{reason}}",
);

const RULES: [Shipped; 13] = [
    (
        "edge_errors",
        "sum by (http_route) (rate(http_server_request_duration_seconds_count{http_response_status_code=~\"5..\"}[5m])) \
         / sum by (http_route) (rate(http_server_request_duration_seconds_count[5m])) > 0.05",
        60,
        "critical",
        "the edge answers {{value | percent}} of the requests to {{http_route}} with an error of the server",
    ),
    (
        "edge_slow",
        "histogram_quantile(0.99, sum by (http_route, le) (rate(http_server_request_duration_seconds_bucket[5m]))) > 2",
        300,
        "warning",
        "one request in a hundred to {{http_route}} takes {{value | humanizeDuration}} and more",
    ),
    (
        "service_errors",
        "sum by (job) (rate(rpc_server_calls_total{rpc_grpc_status_code=~\"2|4|13|14|15\"}[5m])) \
         / sum by (job) (rate(rpc_server_calls_total[5m])) > 0.05",
        60,
        "critical",
        "{{job}} fails {{value | percent}} of its calls",
    ),
    (
        "service_slow",
        "histogram_quantile(0.99, sum by (job, le) (rate(rpc_server_duration_milliseconds_bucket[5m]))) > 2000",
        300,
        "warning",
        "one call in a hundred to {{job}} takes {{value | round}} ms and more",
    ),
    (
        "breaker_opens",
        "sum by (job, service) (increase(ninefold_call_breaker_transitions_total{phase=\"open\"}[5m]) > 0 \
         or (ninefold_call_breaker_transitions_total{phase=\"open\"} \
         unless ninefold_call_breaker_transitions_total{phase=\"open\"} offset 5m))",
        0,
        "warning",
        "{{job}} does not call some instances of {{service}}: they fail or are slow",
    ),
    (
        "service_sheds",
        "sum by (job) (rate(ninefold_serve_refused_total[5m])) > 0.1",
        60,
        "warning",
        "{{job}} refuses {{value | humanize}} calls a second for want of room: it needs more instances",
    ),
    (
        "telemetry_silent",
        "time() - timestamp(process_memory_usage_bytes) > 120",
        60,
        "warning",
        "{{instance}} of {{job}} has not told of itself for {{value | humanizeDuration}}",
    ),
    (
        "crash_loop",
        "sum by (service) (increase(ninefold_control_restarts_total{looping=\"true\"}[5m]) > 0 \
         or (ninefold_control_restarts_total{looping=\"true\"} \
         unless ninefold_control_restarts_total{looping=\"true\"} offset 5m))",
        0,
        "critical",
        "a program of {{service}} ends again and again: see ninefold why {{service}}",
    ),
    (
        "resource_near_limit",
        "label_replace(process_unix_file_descriptor_count / process_unix_file_descriptor_limit > 0.9, \
         \"resource\", \"open files\", \"\", \"\") \
         or label_replace(process_memory_usage_bytes / process_memory_limit_bytes > 0.9, \"resource\", \"memory\", \"\", \"\") \
         or label_replace(ninefold_serve_in_flight / ninefold_serve_in_flight_limit > 0.9, \
         \"resource\", \"calls in work\", \"\", \"\")",
        300,
        "warning",
        "{{instance}} of {{job}} uses {{value | percent}} of its {{resource}}",
    ),
    (
        "store_near_full",
        "system_filesystem_usage_bytes / system_filesystem_limit_bytes > 0.9",
        300,
        "critical",
        "the disk of {{instance}} is {{value | percent}} full",
    ),
    (
        "memory_near_full",
        "sum by (instance) (system_memory_usage_bytes{state=\"used\"}) / sum by (instance) (system_memory_limit_bytes) > 0.95",
        300,
        "warning",
        "the machine of {{instance}} uses {{value | percent}} of its memory",
    ),
    (
        "telemetry_refused",
        "sum by (instance, signal) (rate(ninefold_monitor_refused_total[5m])) > 0",
        60,
        "warning",
        "{{instance}} refuses {{value | humanize}} records of {{signal}} a second: see ninefold doctor",
    ),
    (
        "bucket_away",
        "rate(ninefold_monitor_bucket_failures_total[5m]) > 0 and ninefold_monitor_bucket_waiting_bytes > 0",
        300,
        "warning",
        "{{instance}} cannot bring files of telemetry to its bucket: see ninefold doctor",
    ),
];

/// Names of all of them.
pub(crate) fn names() -> BTreeSet<String> {
    RULES.iter().map(|(name, ..)| *name).chain([SILENT.0]).map(str::to_owned).collect()
}

/// All of them, by name, at a pace.
pub(crate) fn rules(pace: Pace) -> BTreeMap<String, Rule> {
    let window = duration::format(pace.window);
    let told = |wait: u64, severity: &str, summary: &str| Rule {
        wait: Duration::from_secs(wait).min(pace.wait_max),
        labels: Texts::from([("severity".to_owned(), severity.to_owned())]),
        annotations: Texts::from([("summary".to_owned(), summary.to_owned())]),
        ..Rule::default()
    };
    let rule = |(name, expr, wait, severity, summary): Shipped| {
        let expr = expr.replace("[5m]", &format!("[{window}]")).replace("offset 5m", &format!("offset {window}"));
        (name.to_owned(), Rule { expr: Some(expr), ..told(wait, severity, summary) })
    };
    let (name, wait, severity, summary) = SILENT;
    let silent = Instances { service: String::new(), within: 2 * pace.window };
    let silent = Rule { instances: Some(silent), ..told(wait, severity, summary) };
    RULES.into_iter().map(rule).chain([(name.to_owned(), silent)]).collect()
}

#[cfg(test)]
mod tests {
    use ninefold_promql::{Answer, Labels, Limits, NAME, Query, Sample, Series, Span};

    use super::*;
    use crate::template::mistakes;

    const NOW: i64 = 10_000_000;

    /// Samples each 15 s for ten minutes.
    fn series(name: &str, labels: &[(&str, &str)], value: impl Fn(f64) -> f64) -> Series {
        let all = [(NAME, name), ("job", "cart"), ("instance", "cart-1")].into_iter().chain(labels.iter().copied());
        let samples = (0..40_i32)
            .map(|turn| Sample { at: NOW - i64::from(39 - turn) * 15_000 - 1, point: value(f64::from(turn)).into() });
        Series { labels: Labels::new(all), samples: samples.collect() }
    }

    fn late(name: &str, labels: &[(&str, &str)], turns: usize) -> Series {
        let mut one = series(name, labels, |_| 1.0);
        one.samples.drain(..40 - turns);
        one
    }

    /// A landscape in which everything is wrong, or nothing.
    fn landscape(is_wrong: bool) -> Vec<Series> {
        let (bad, good) = if is_wrong { (10.0, 10.0) } else { (0.0, 10.0) };
        let used = if is_wrong { 95.0 } else { 50.0 };
        let slow = if is_wrong { "+Inf" } else { "0.1" };
        let mut all = vec![
            series(
                "http_server_request_duration_seconds_count",
                &[("http_route", "/"), ("http_response_status_code", "500")],
                |t| t * bad,
            ),
            series(
                "http_server_request_duration_seconds_count",
                &[("http_route", "/"), ("http_response_status_code", "200")],
                |t| t * good,
            ),
            series("rpc_server_calls_total", &[("rpc_grpc_status_code", "13")], |t| t * bad),
            series("rpc_server_calls_total", &[("rpc_grpc_status_code", "0")], |t| t * good),
            series("ninefold_serve_refused_total", &[], |t| t * bad),
            series("process_unix_file_descriptor_count", &[], |_| used),
            series("process_unix_file_descriptor_limit", &[], |_| 100.0),
            series("process_memory_usage_bytes", &[], |_| used),
            series("process_memory_limit_bytes", &[], |_| 100.0),
            series("ninefold_serve_in_flight", &[], |_| used),
            series("ninefold_serve_in_flight_limit", &[], |_| 100.0),
            series("system_filesystem_usage_bytes", &[("of", "data")], |_| used),
            series("system_filesystem_limit_bytes", &[("of", "data")], |_| 100.0),
            series("system_memory_usage_bytes", &[("state", "used")], |_| used + 1.0),
            series("system_memory_limit_bytes", &[], |_| 100.0),
            series("ninefold_monitor_refused_total", &[("signal", "logs")], |t| t * bad),
            series("ninefold_monitor_bucket_failures_total", &[], |t| t * bad),
            series("ninefold_monitor_bucket_waiting_bytes", &[], |_| bad),
        ];
        for (le, share) in [("0.1", if slow == "0.1" { 1.0 } else { 0.0 }), ("3000", 1.0), ("+Inf", 1.0)] {
            for name in ["http_server_request_duration_seconds_bucket", "rpc_server_duration_milliseconds_bucket"] {
                all.push(series(name, &[("http_route", "/"), ("le", le)], |t| t * good * share));
            }
        }
        if is_wrong {
            // Born a minute ago, at one, and silent since: no `increase` would ever tell.
            all.push(late("ninefold_call_breaker_transitions_total", &[("service", "pay"), ("phase", "open")], 4));
            all.push(late("ninefold_control_restarts_total", &[("service", "pay"), ("looping", "true")], 4));
            let mut silent = series("process_memory_usage_bytes", &[("instance", "cart-2")], |_| 1.0);
            silent.samples.truncate(30);
            all.push(silent);
        }
        all
    }

    fn said(rule: &Rule, all: &[Series]) -> usize {
        let limits = Limits::default();
        let span = Span::instant(NOW);
        let query = Query::parse(rule.expr.as_deref().unwrap_or_default()).expect("a query");
        let data = query.needs(span, &limits).into_iter().map(|selection| {
            let found = all.iter().filter(|series| selection.matches(&series.labels)).cloned();
            let within = found.map(|mut series| {
                series.samples.retain(|sample| selection.from < sample.at && sample.at <= selection.to);
                series
            });
            let found = within.filter(|series| !series.samples.is_empty()).collect();
            (selection, found)
        });
        match query.answer(span, &limits, &data.collect()) {
            Ok((Answer::Series(series), _)) => series.len(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_rule_fires_where_all_is_wrong_and_none_where_nothing_is() {
        for (name, rule) in rules(Pace::USUAL) {
            assert!(rule.annotations.values().all(|text| mistakes(text).is_empty()), "{name}");
            if rule.instances.is_some() {
                continue;
            }
            assert!(said(&rule, &landscape(true)) > 0, "{name} does not fire");
            assert_eq!(said(&rule, &landscape(false)), 0, "{name} fires");
        }
    }

    #[test]
    fn a_pace_changes_every_window_and_every_wait() {
        let quick = Pace { window: Duration::from_secs(20), wait_max: Duration::from_secs(2) };
        let all = rules(quick);
        assert_eq!(all.keys().cloned().collect::<BTreeSet<_>>(), names());
        for (name, rule) in all {
            let expr = rule.expr.unwrap_or_default();
            assert!(!expr.contains("5m") && rule.wait <= quick.wait_max, "{name}: {expr}");
            Query::parse(if expr.is_empty() { "1" } else { &expr }).expect("a query");
        }
    }
}
