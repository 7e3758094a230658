//! Rules that every landscape has before anybody writes one. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::document::{Rule, Texts};

/// Name, query, seconds until it fires, how grave, what is said.
const RULES: [(&str, &str, u64, &str, &str); 7] = [
    (
        "edge_errors",
        "sum by (http_route) (rate(http_server_request_duration_seconds_count{http_response_status_code=~\"5..\"}[5m])) \
         / sum by (http_route) (rate(http_server_request_duration_seconds_count[5m])) > 0.05",
        60,
        "critical",
        "the edge answers {{value}} of the requests to {{http_route}} with an error of the server",
    ),
    (
        "edge_slow",
        "histogram_quantile(0.99, sum by (http_route, le) (rate(http_server_request_duration_seconds_bucket[5m]))) > 2",
        300,
        "warning",
        "one request in a hundred to {{http_route}} takes {{value}} s and more",
    ),
    (
        "service_errors",
        "sum by (job) (rate(rpc_server_calls_total{rpc_grpc_status_code=~\"2|4|13|14|15\"}[5m])) \
         / sum by (job) (rate(rpc_server_calls_total[5m])) > 0.05",
        60,
        "critical",
        "{{job}} fails {{value}} of its calls",
    ),
    (
        "service_slow",
        "histogram_quantile(0.99, sum by (job, le) (rate(rpc_server_duration_milliseconds_bucket[5m]))) > 2000",
        300,
        "warning",
        "one call in a hundred to {{job}} takes {{value}} ms and more",
    ),
    (
        "breaker_opens",
        "sum by (job, service) (increase(ninefold_call_breaker_transitions_total{phase=\"open\"}[5m])) > 0",
        0,
        "warning",
        "{{job}} does not call some instances of {{service}}: they fail or are slow",
    ),
    (
        "service_sheds",
        "sum by (job) (rate(ninefold_serve_refused_total[5m])) > 0.1",
        60,
        "warning",
        "{{job}} refuses {{value}} calls a second for want of room: it needs more instances",
    ),
    (
        "instance_silent",
        "time() - timestamp(process_memory_usage_bytes) > 120",
        60,
        "warning",
        "{{instance}} of {{job}} has not told of itself for {{value}} s",
    ),
];

/// All of them, by name.
pub(crate) fn rules() -> BTreeMap<String, Rule> {
    let rule = |(name, expr, wait, severity, summary): (&str, &str, u64, &str, &str)| {
        let rule = Rule {
            expr: Some(expr.to_owned()),
            wait: Duration::from_secs(wait),
            labels: Texts::from([("severity".to_owned(), severity.to_owned())]),
            annotations: Texts::from([("summary".to_owned(), summary.to_owned())]),
            ..Rule::default()
        };
        (name.to_owned(), rule)
    };
    RULES.into_iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use ninefold_promql::Query;

    use super::*;

    #[test]
    fn every_query_can_be_read() {
        for (name, rule) in rules() {
            let read = Query::parse(rule.expr.as_deref().unwrap_or_default());
            assert!(read.is_ok(), "{name}: {read:?}");
        }
    }
}
