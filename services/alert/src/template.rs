//! Texts with values filled in: `{{job}} is at {{value | percent}}`. Pure; what it knows is bounded, so no text runs for long.
//!
//! Between the braces stands a name, then words after strokes that change how it is written. `$labels.job`, `.Labels.job` and
//! `$value`, as Prometheus writes them, mean the same as `job` and `value`; so do its words in front, as in
//! `{{humanize $value}}`.

use std::fmt::Write as _;

/// Longest text that is filled in, in bytes. More is cut off.
const FILLED_BYTES_MAX: usize = 64 * 1024;

/// How a value is written.
const WORDS: [&str; 11] = [
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "percent",
    "round",
    "upper",
    "lower",
    "json",
    "default",
];

/// What a name stands for.
pub(crate) enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(f64),
}

/// One pair of braces.
struct Asked<'a> {
    name: &'a str,
    words: Vec<(&'a str, &'a str)>,
}

/// Fills a text in. A name that stands for nothing is left out.
pub(crate) fn filled<'a>(text: &str, of: &dyn Fn(&str) -> Option<Value<'a>>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((inner, behind)) = behind.split_once("}}") else { break };
        filled.push_str(before);
        let asked = read(inner);
        filled.push_str(&written(&asked, of(asked.name).as_ref()));
        rest = behind;
        if filled.len() > FILLED_BYTES_MAX {
            break;
        }
    }
    filled.push_str(rest);
    if filled.len() > FILLED_BYTES_MAX {
        let end = (0..=FILLED_BYTES_MAX).rev().find(|at| filled.is_char_boundary(*at)).unwrap_or_default();
        filled.truncate(end);
    }
    filled
}

/// What is wrong with a text.
pub(crate) fn mistakes(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once("{{") {
        let Some((inner, behind)) = behind.split_once("}}") else {
            wrong.push("braces are opened and not closed".to_owned());
            break;
        };
        let asked = read(inner);
        if asked.name.is_empty() || asked.name.contains(char::is_whitespace) {
            wrong.push(format!("{{{{{inner}}}}} names nothing, or more than one thing"));
        }
        let unknown = asked.words.iter().filter(|(word, _)| !WORDS.contains(word));
        wrong.extend(
            unknown.map(|(word, _)| format!("{word:?} is no way to write a value; there are {}", WORDS.join(", "))),
        );
        rest = behind;
    }
    wrong
}

fn read(inner: &str) -> Asked<'_> {
    let mut parts = inner.split('|').map(str::trim);
    let first = parts.next().unwrap_or_default();
    let mut words: Vec<(&str, &str)> = Vec::new();
    // Prometheus writes the word in front of what it is about.
    let name = match first.split_once(char::is_whitespace) {
        Some((word, name)) if WORDS.contains(&word) => {
            words.push((word, ""));
            name.trim()
        }
        _ => first,
    };
    words.extend(parts.map(|part| part.split_once(char::is_whitespace).unwrap_or((part, ""))));
    let name = ["$labels.", ".Labels.", "labels."].iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name);
    let name = if name == ".Value" { "value" } else { name.strip_prefix('$').unwrap_or(name) };
    Asked { name, words }
}

fn written(asked: &Asked<'_>, value: Option<&Value<'_>>) -> String {
    let (mut text, number) = match value {
        Some(Value::Number(number)) => (shown(*number), Some(*number)),
        Some(Value::Text(text)) => ((*text).to_owned(), text.parse().ok()),
        None => (String::new(), None),
    };
    for (word, argument) in &asked.words {
        text = match (*word, number) {
            ("humanize", Some(number)) => scaled(number, 1000.0, &["", "k", "M", "G", "T", "P"]),
            ("humanize1024", Some(number)) => scaled(number, 1024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"]),
            ("humanizeDuration", Some(number)) => duration(number),
            ("humanizePercentage" | "percent", Some(number)) => format!("{}%", shown(number * 100.0)),
            ("humanizeTimestamp", Some(number)) => timestamp(number),
            ("round", Some(number)) => format!("{:.*}", argument.parse().unwrap_or(0).min(9), number),
            ("upper", _) => text.to_uppercase(),
            ("lower", _) => text.to_lowercase(),
            ("json", _) => serde_json::Value::from(text).to_string(),
            ("default", _) if text.is_empty() => argument.trim_matches('"').to_owned(),
            _ => text,
        };
    }
    text
}

/// Four digits behind the point are enough for people.
pub(crate) fn shown(value: f64) -> String {
    let text = format!("{value:.4}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A number with a sign for its size.
fn scaled(value: f64, by: f64, signs: &[&str]) -> String {
    let mut rest = value;
    let mut at = 0;
    while rest.abs() >= by && at + 1 < signs.len() {
        rest /= by;
        at += 1;
    }
    if value.is_finite() && value != 0.0 && value.abs() < 1.0 && (by - 1000.0).abs() < f64::EPSILON {
        return [("m", 1e3), ("u", 1e6), ("n", 1e9)]
            .iter()
            .find(|(_, factor)| (value * factor).abs() >= 1.0)
            .map_or_else(|| shown(value), |(sign, factor)| format!("{}{sign}", shown(value * factor)));
    }
    format!("{}{}", shown(rest), signs[at])
}

/// Seconds as `1h 2m 3s`.
fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return shown(seconds);
    }
    if seconds.abs() < 1.0 {
        return scaled(seconds, 1000.0, &[""]) + "s";
    }
    let mut text = if seconds < 0.0 { "-".to_owned() } else { String::new() };
    let mut rest = seconds.abs().round();
    let mut is_begun = false;
    for (sign, size) in [("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)] {
        let many = (rest / size).floor();
        rest -= many * size;
        if many > 0.0 || is_begun || sign == "s" {
            let space = if is_begun { " " } else { "" };
            let _ = write!(text, "{space}{many}{sign}");
            is_begun = true;
        }
    }
    text
}

fn timestamp(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "what is beyond all time is the end of it")]
    let seconds = seconds as i64;
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<Value<'static>> {
        match name {
            "job" => Some(Value::Text("cart")),
            "value" => Some(Value::Number(0.1234)),
            "bytes" => Some(Value::Number(3_221_225_472.0)),
            "long" => Some(Value::Number(93_784.0)),
            _ => None,
        }
    }

    #[test]
    fn values_are_written_for_people() {
        for (text, expected) in [
            ("{{job}} is at {{value}}", "cart is at 0.1234"),
            ("{{ $labels.job }} {{ $value | percent }} {{ humanizePercentage $value }}", "cart 12.34% 12.34%"),
            ("{{bytes | humanize1024}} {{bytes | humanize}} {{value | humanize}}", "3Gi 3.2212G 123.4m"),
            ("{{long | humanizeDuration}}", "1d 2h 3m 4s"),
            ("{{long | humanizeTimestamp}}", "1970-01-02T02:03:04Z"),
            ("{{value | round 2}} {{job | upper | json}}", "0.12 \"CART\""),
            ("{{nothing}}{{nothing | default \"nobody\"}}", "nobody"),
            ("{{job", "{{job"),
        ] {
            assert_eq!(filled(text, &of), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_told_before_it_is_needed() {
        assert!(mistakes("{{job | humanize}} {{ humanize $value }}").is_empty());
        let wrong = mistakes("{{job | shout}} {{a b}} {{open").join("\n");
        for part in ["\"shout\"", "{{a b}}", "not closed"] {
            assert!(wrong.contains(part), "{part} is not in {wrong}");
        }
    }
}
