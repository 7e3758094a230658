//! Service level objectives: one line becomes alerts on how fast the error budget burns, over several windows, after
//! <https://sre.google/workbook/alerting-on-slos/>. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::document::{Rule, Texts};

/// Burn rates that call somebody: how fast, over which long and short window, how grave.
const BURNS: [(f64, &str, &str, &str); 3] =
    [(14.4, "1h", "5m", "critical"), (6.0, "6h", "30m", "critical"), (1.0, "3d", "6h", "warning")];
/// Codes of gRPC that are the service's fault: unknown, deadline, internal, unavailable, data loss.
const FAILED: &str = "2|4|13|14|15";

/// How good a service wants to be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Objective {
    /// The service.
    pub(crate) service: String,
    /// Share of calls that succeed, in percent, such as 99.9.
    pub(crate) objective: f64,
}

impl Objective {
    /// What is wrong with it.
    pub(crate) fn mistakes(&self) -> Option<String> {
        if self.service.is_empty() || self.service.contains(['"', '\\', '\n']) {
            return Some("service: is no name of a service".to_owned());
        }
        let fits = self.objective > 0.0 && self.objective < 100.0;
        (!fits).then(|| "objective: above 0 and below 100, in percent".to_owned())
    }

    /// The rules that watch it.
    pub(crate) fn rules(&self, name: &str) -> BTreeMap<String, Rule> {
        let budget = 1.0 - self.objective / 100.0;
        let share = |window: &str| {
            let of = format!("rpc_server_calls_total{{job=\"{}\"", self.service);
            format!("(sum(rate({of},rpc_grpc_status_code=~\"{FAILED}\"}}[{window}])) / sum(rate({of}}}[{window}])))")
        };
        let rule = |(at, (factor, long, short, severity)): (usize, (f64, &str, &str, &str))| {
            let limit = factor * budget;
            let expr = format!("{} > {limit} and {} > {limit}", share(long), share(short));
            let told = format!(
                "{} fails {{{{value}}}} of its calls: over {long} its error budget of {}% burns {factor} times too fast",
                self.service, self.objective
            );
            let rule = Rule {
                expr: Some(expr),
                wait: Duration::from_secs(60),
                labels: Texts::from([
                    ("severity".to_owned(), severity.to_owned()),
                    ("job".to_owned(), self.service.clone()),
                    ("objective".to_owned(), name.to_owned()),
                ]),
                annotations: Texts::from([("summary".to_owned(), told)]),
                ..Rule::default()
            };
            (format!("{name}_burn_{}", at + 1), rule)
        };
        BURNS.into_iter().enumerate().map(rule).collect()
    }
}

#[cfg(test)]
mod tests {
    use ninefold_promql::Query;

    use super::*;

    #[test]
    fn one_line_becomes_queries_that_can_be_read() {
        let rules = Objective { service: "review".to_owned(), objective: 99.9 }.rules("reviews");
        assert_eq!(rules.len(), 3);
        for rule in rules.values() {
            let expr = rule.expr.as_deref().unwrap_or_default();
            assert!(Query::parse(expr).is_ok(), "{expr}");
        }
    }
}
