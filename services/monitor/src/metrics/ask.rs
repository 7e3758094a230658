//! Reads the parameters of Prometheus' HTTP API, after <https://prometheus.io/docs/prometheus/latest/querying/api/>. Pure.

use std::str::FromStr as _;
use std::time::Duration;

use ninefold_promql::{Query, Selection, Span, duration};
use prost_types::Timestamp;

/// Longest step, and largest lookback and time limit.
const DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

/// What is wrong with a parameter: what, where, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Odd(pub(crate) String);

/// Parameters, from the address and from a form.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads parameters as forms write them.
    pub(crate) fn read(query: &str, body: &[u8]) -> Self {
        let all = form_urlencoded::parse(query.as_bytes()).chain(form_urlencoded::parse(body));
        Self(all.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// A parameter that is there and says something.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The query.
    pub(crate) fn query(&self) -> Result<Query, Odd> {
        let text = self.get("query").ok_or_else(|| Odd("the parameter \"query\" is missing".to_owned()))?;
        Query::parse(text).map_err(|wrong| Odd(format!("invalid parameter \"query\": {wrong}")))
    }

    /// A time, in milliseconds since 1970.
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, Odd> {
        self.get(name)
            .map(|text| time(text).ok_or_else(|| odd(name, text, "seconds since 1970 or RFC 3339")))
            .transpose()
    }

    /// A duration: seconds, or as PromQL writes it.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Odd> {
        let read = |text: &str| {
            let read = match text.parse::<f64>() {
                Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
                Err(_) => duration(text).ok(),
            };
            let fits = read.filter(|duration| *duration <= DURATION_MAX && !duration.is_zero());
            fits.ok_or_else(|| odd(name, text, "seconds above zero, or a duration such as 1m30s"))
        };
        self.get(name).map(read).transpose()
    }

    /// A number of things.
    pub(crate) fn limit(&self) -> Result<usize, Odd> {
        match self.get("limit") {
            None | Some("0") => Ok(usize::MAX),
            Some(text) => text.parse().map_err(|_| odd("limit", text, "a whole number")),
        }
    }

    /// The times of a range.
    pub(crate) fn span(&self) -> Result<Span, Odd> {
        let missing = |name: &str| Odd(format!("the parameter {name:?} is missing"));
        let from = self.time("start")?.ok_or_else(|| missing("start"))?;
        let to = self.time("end")?.ok_or_else(|| missing("end"))?;
        if to < from {
            return Err(Odd("invalid parameter \"end\": the range ends before it starts".to_owned()));
        }
        let step = self.duration("step")?.ok_or_else(|| missing("step"))?;
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        Ok(Span { from, to, step })
    }

    /// Selections by `match[]`, from `start` to `end`.
    pub(crate) fn selections(&self) -> Result<Vec<Selection>, Odd> {
        let from = self.time("start")?.unwrap_or(i64::MIN);
        let to = self.time("end")?.unwrap_or(i64::MAX);
        let selection = |text: &str| {
            let read = Query::parse(text).map_err(|wrong| Odd(format!("invalid parameter \"match[]\": {wrong}")))?;
            let mut selection = read.selector().ok_or_else(|| odd("match[]", text, "a series selector"))?;
            (selection.from, selection.to) = (from.saturating_sub(1), to);
            Ok(selection)
        };
        let given = self.0.iter().filter(|(name, _)| name == "match[]");
        given.map(|(_, text)| selection(text)).collect()
    }
}

fn odd(name: &str, given: &str, expected: &str) -> Odd {
    let given: String = given.chars().take(100).collect();
    Odd(format!("invalid parameter {name:?}: {given:?} is not {expected}"))
}

/// Seconds since 1970, or RFC 3339, as milliseconds.
pub(crate) fn time(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "what is beyond all time is the end of it")]
        return seconds.is_finite().then(|| (seconds * 1000.0).round() as i64);
    }
    let time = Timestamp::from_str(text).ok()?;
    time.seconds.checked_mul(1000)?.checked_add(i64::from(time.nanos / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates_and_steps_seconds_or_durations() {
        let given = Parameters::read("start=1.5&end=1970-01-01T00:01:00Z", b"step=1m&match%5B%5D=up%7Ba%3D%22b%22%7D");
        assert_eq!(given.span(), Ok(Span { from: 1500, to: 60_000, step: 60_000 }));
        assert_eq!(given.selections().map(|all| all.len()), Ok(1));
        let given = Parameters::read("start=x&step=-1&match[]=1%2B1&limit=x&query=1%2B", b"");
        for (odd, part) in [
            (given.time("start").err(), "\"start\": \"x\""),
            (given.duration("step").err(), "\"step\": \"-1\""),
            (given.selections().err(), "\"start\""),
            (given.limit().err(), "\"limit\""),
            (given.query().err(), "\"query\""),
        ] {
            assert!(odd.as_ref().is_some_and(|odd| odd.0.contains(part)), "{odd:?} lacks {part}");
        }
    }
}
