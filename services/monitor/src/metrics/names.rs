//! Names of OpenTelemetry as names of Prometheus, after
//! <https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/>: what is no letter, digit, colon or
//! underscore becomes an underscore, the unit is spelled out at the end, and totals end in `_total`. Pure.

/// What a metric is, as far as its name tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A total that only grows.
    Counter,
    /// A state.
    Gauge,
    /// Anything else: its parts have endings of their own.
    Other,
}

/// Units, and their words.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];
/// Units behind a stroke, and their words.
const PER: &[(&str, &str)] =
    &[("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// The name of a metric.
pub(crate) fn metric(name: &str, unit: &str, kind: Kind) -> String {
    let mut words: Vec<String> = words(name).collect();
    let (whole, per) = unit.split_once('/').unwrap_or((unit, ""));
    let (whole, per) = (whole.trim(), per.trim());
    for word in spelled(whole, UNITS) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if let Some(word) = spelled(per, PER).next().filter(|word| !words.contains(word)) {
        words.extend(["per".to_owned(), word]);
    }
    if kind == Kind::Gauge && unit == "1" {
        words.retain(|word| word != "ratio");
        words.push("ratio".to_owned());
    }
    if kind == Kind::Counter {
        words.retain(|word| word != "total");
        words.push("total".to_owned());
    }
    let name = words.join("_");
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// The name of a label.
pub(crate) fn label(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let is_odd =
        plain.starts_with(|first: char| first.is_ascii_digit()) || (plain.starts_with('_') && !plain.starts_with("__"));
    if is_odd { format!("key_{}", plain.trim_start_matches('_')) } else { plain }
}

fn words(name: &str) -> impl Iterator<Item = String> {
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|word| !word.is_empty()).map(ToOwned::to_owned)
}

/// The words of a unit; what is in braces is a remark.
fn spelled(unit: &str, known: &[(&str, &str)]) -> std::vec::IntoIter<String> {
    if unit.is_empty() || unit == "1" || unit.contains('{') || unit.contains('}') {
        return Vec::new().into_iter();
    }
    match known.iter().find(|(short, _)| *short == unit) {
        Some((_, word)) => vec![(*word).to_owned()],
        None => words(unit).collect::<Vec<_>>(),
    }
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_prometheus_gives_to_otlp() {
        for (name, unit, kind, expected) in [
            ("http.server.request.duration", "s", Kind::Other, "http_server_request_duration_seconds"),
            ("process.cpu.time", "s", Kind::Counter, "process_cpu_time_seconds_total"),
            ("process.memory.usage", "By", Kind::Gauge, "process_memory_usage_bytes"),
            ("system.cpu.utilization", "1", Kind::Gauge, "system_cpu_utilization_ratio"),
            ("requests_total", "", Kind::Counter, "requests_total"),
            ("total.requests", "{request}", Kind::Counter, "requests_total"),
            ("disk.io", "By/s", Kind::Gauge, "disk_io_bytes_per_second"),
            ("memory.bytes", "By", Kind::Gauge, "memory_bytes"),
            ("2xx", "", Kind::Counter, "_2xx_total"),
            ("a..b--c", "", Kind::Other, "a_b_c"),
            ("job:rate:sum", "", Kind::Gauge, "job:rate:sum"),
        ] {
            assert_eq!(metric(name, unit, kind), expected, "{name} in {unit}");
        }
    }

    #[test]
    fn labels_are_plain() {
        for (name, expected) in
            [("http.method", "http_method"), ("2xx", "key_2xx"), ("_hidden", "key_hidden"), ("__meta", "__meta")]
        {
            assert_eq!(label(name), expected);
        }
    }
}
