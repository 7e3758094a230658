//! Prometheus' rule files, as rules of the document `alerts`. Pure: texts go in, a document or what is wrong comes out.

use std::collections::BTreeMap;

use ninefold::settings::duration;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A file, by its name.
pub(super) struct File<'a> {
    /// Its name, for what is said of it.
    pub(super) name: &'a str,
    /// What is in it.
    pub(super) text: &'a str,
}

/// What was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    /// The document.
    pub(super) document: Value,
    /// How many rules the files have.
    pub(super) rules: usize,
    /// What the files say that the document has no word for; it is left out.
    pub(super) left_out: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    interval: Option<String>,
    limit: Option<u64>,
    query_offset: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: Scalar,
    #[serde(rename = "for")]
    wait: Option<String>,
    keep_firing_for: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// An expression: `1` is one, too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Whole(i64),
    Number(f64),
}

/// Whether a text is a file of rules, rather than a document.
pub(super) fn is_one(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Any {
        #[serde(rename = "groups")]
        _groups: serde_norway::Value,
    }
    let starts_one = text.lines().any(|line| line.trim_end() == "groups:" || line.starts_with("groups: "));
    starts_one || serde_norway::from_str::<Any>(text).is_ok()
}

/// Reads files, and adds their rules to a document. A rule that the document has by the same name is replaced.
///
/// # Errors
/// All that is wrong, each as `file:line: cause`.
pub(super) fn read(files: &[File<'_>], into: Value) -> Result<Read, Vec<String>> {
    let mut document = match into {
        Value::Null => Map::new(),
        Value::Object(document) => document,
        _ => return Err(vec!["the document that is added to is no object of JSON".to_owned()]),
    };
    let (mut rules, mut places, mut wrong) = (Map::new(), BTreeMap::new(), Vec::new());
    let mut read = Read::default();
    for file in files {
        let content: Content = match serde_norway::from_str(file.text) {
            Ok(content) => content,
            Err(error) => {
                let line = error.location().map_or(1, |place| place.line());
                wrong.push(format!("{}:{line}: {error}", file.name));
                continue;
            }
        };
        let mut lines = lines_of(file.text, content.groups.iter().map(|group| group.rules.len()).sum()).into_iter();
        for group in content.groups {
            read.left_out.extend(left_out(file, &group));
            for rule in group.rules {
                let place = match lines.next() {
                    Some(line) => format!("{}:{line}", file.name),
                    None => format!("{}, group {:?}", file.name, group.name),
                };
                read.rules += 1;
                match rule.written(&group.labels) {
                    Ok((name, written)) => {
                        let name = new_name(&rules, &name);
                        places.insert(name.clone(), place);
                        rules.insert(name, written);
                    }
                    Err(why) => wrong.push(format!("{place}: {why}")),
                }
            }
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let known = document.entry("rules").or_insert_with(|| json!({}));
    match known.as_object_mut() {
        Some(known) => known.extend(rules),
        None => return Err(vec!["rules of the document that is added to are no object of JSON".to_owned()]),
    }
    read.document = Value::Object(document);
    match ninefold_alert::check(&read.document.to_string()) {
        Ok(_) => Ok(read),
        Err(wrong) => Err(wrong.into_iter().map(|why| placed(&places, &why)).collect()),
    }
}

impl Rule {
    fn written(self, more: &BTreeMap<String, String>) -> Result<(String, Value), String> {
        let mut labels = more.clone();
        labels.extend(self.labels);
        let expr = match self.expr {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Number(number) => number.to_string(),
        };
        let mut written = Map::from_iter([("expr".to_owned(), json!(expr.trim()))]);
        if !labels.is_empty() {
            written.insert("labels".to_owned(), json!(labels));
        }
        if !self.annotations.is_empty() {
            written.insert("annotations".to_owned(), json!(self.annotations));
        }
        for (field, time) in [("for", &self.wait), ("keep_firing_for", &self.keep_firing_for)] {
            let Some(time) = time else { continue };
            let seconds =
                seconds(time).ok_or_else(|| format!("{field}: {time:?} is no duration such as 5m or 1h30m"))?;
            written.insert(field.to_owned(), json!(duration::format(seconds)));
        }
        match (self.record, self.alert) {
            (Some(name), None) => {
                written.insert("record".to_owned(), json!(name));
                Ok((name, Value::Object(written)))
            }
            (None, Some(name)) => {
                written.insert("alert".to_owned(), json!(name));
                Ok((name, Value::Object(written)))
            }
            _ => Err("a rule has either alert or record".to_owned()),
        }
    }
}

/// What of a group the document has no word for.
fn left_out(file: &File<'_>, group: &Group) -> Vec<String> {
    let place = format!("{}: group {:?}", file.name, group.name);
    let mut told = Vec::new();
    if let Some(interval) = &group.interval {
        told.push(format!("{place}: interval {interval} is left out: every rule is asked at `every` of [alert]"));
    }
    if let Some(offset) = &group.query_offset {
        told.push(format!("{place}: query_offset {offset} is left out: rules are asked about now"));
    }
    if let Some(limit) = group.limit.filter(|limit| *limit > 0) {
        told.push(format!("{place}: limit {limit} is left out: a rule has at most 1000 alerts"));
    }
    told
}

/// A name that no rule has yet.
fn new_name(rules: &Map<String, Value>, name: &str) -> String {
    let more = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(more);
    names.find(|name| !rules.contains_key(name)).unwrap_or_else(|| name.to_owned())
}

/// The lines at which rules begin; none where they cannot be told, as in a file that is written in one line.
fn lines_of(text: &str, rules: usize) -> Vec<usize> {
    let names_one = |line: &str| {
        let line = line.trim_start().trim_start_matches("- ").trim_start();
        line.starts_with("alert:") || line.starts_with("record:")
    };
    let lines: Vec<usize> =
        text.lines().enumerate().filter(|(_, line)| names_one(line)).map(|(at, _)| at + 1).collect();
    if lines.len() == rules { lines } else { Vec::new() }
}

/// What is wrong with a rule of the document, with the place of the rule in its file.
fn placed(places: &BTreeMap<String, String>, why: &str) -> String {
    let of = |name: &String| {
        let rest = why.strip_prefix("rules.")?.strip_prefix(name.as_str())?;
        rest.strip_prefix(['.', ':']).map(|rest| rest.trim_start().to_owned())
    };
    let mut found: Vec<_> = places.iter().filter_map(|(name, place)| Some((name, place, of(name)?))).collect();
    found.sort_by_key(|(name, ..)| name.len());
    match found.pop() {
        Some((name, place, rest)) => format!("{place}: {name}: {rest}"),
        None => why.to_owned(),
    }
}

/// A duration as Prometheus writes it: `1d`, `1h30m`, `500ms`, `0`.
fn seconds(text: &str) -> Option<std::time::Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    if text == "0" {
        return Some(std::time::Duration::ZERO);
    }
    let (mut rest, mut millis, mut from) = (text, 0_u64, 0);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|at| *at > 0)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        // Each unit once, the largest first.
        let at = (from..UNITS.len()).find(|at| UNITS[*at].0 == unit)?;
        millis = number.parse::<u64>().ok()?.checked_mul(UNITS[at].1)?.checked_add(millis)?;
        (rest, from) = (behind, at + 1);
    }
    (!text.is_empty()).then_some(std::time::Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
groups:
- name: shop
  interval: 30s
  labels: {team: shop}
  rules:
  - record: job:requests:rate5m
    expr: sum by (job) (rate(http_server_request_duration_seconds_count[5m]))
  - alert: Slow
    expr: |
      histogram_quantile(0.99, sum by (job, le) (rate(http_server_request_duration_seconds_bucket[5m]))) > 1
    for: 1h30m
    labels: {severity: warning}
    annotations:
      summary: "{{ $labels.job }} takes {{ $value | humanizeDuration }}"
  - alert: Slow
    expr: vector(1)
    keep_firing_for: 1d
    labels: {severity: critical, team: all}
"#;

    fn of(text: &str) -> Result<Read, Vec<String>> {
        read(&[File { name: "shop.yml", text }], Value::Null)
    }

    #[test]
    fn rules_of_prometheus_are_rules_of_the_document() {
        let into = json!({"receivers": {"hook": {"webhook": "http://127.0.0.1:1"}}, "rules": {"Slow": {"expr": "1"}}});
        let told = read(&[File { name: "shop.yml", text: FILE }], into).expect("a file of rules");
        let rules = &told.document["rules"];
        assert_eq!((told.rules, told.left_out.len()), (3, 1), "{:?}", told.left_out);
        assert_eq!(rules["job:requests:rate5m"]["record"], "job:requests:rate5m");
        assert_eq!(rules["job:requests:rate5m"]["labels"], json!({"team": "shop"}));
        assert_eq!((&rules["Slow"]["for"], &rules["Slow"]["alert"]), (&json!("90m"), &json!("Slow")));
        assert_eq!((&rules["Slow_2"]["keep_firing_for"], &rules["Slow_2"]["alert"]), (&json!("24h"), &json!("Slow")));
        assert_eq!(rules["Slow_2"]["labels"], json!({"severity": "critical", "team": "all"}));
        assert_eq!(told.document["receivers"]["hook"]["webhook"], "http://127.0.0.1:1");
        assert!(is_one(FILE) && is_one("{groups: []}") && !is_one(r#"{"rules": {}}"#) && !is_one("off: []"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file_and_line() {
        let spoiled = FILE.replace("vector(1)", "vector(1").replace("humanizeDuration", "shout");
        let wrong = of(&spoiled).expect_err("two mistakes").join("\n");
        assert!(wrong.contains("shop.yml:9: Slow: annotations.summary: \"shout\""), "{wrong}");
        assert!(wrong.contains("shop.yml:16: Slow_2: expr: "), "{wrong}");
        let wrong = of(&FILE.replace("1h30m", "soon")).expect_err("no duration").join("\n");
        assert_eq!(wrong, "shop.yml:9: for: \"soon\" is no duration such as 5m or 1h30m");
        let wrong = of(&FILE.replace("keep_firing_for", "keep_fireing_for")).expect_err("a typo").join("\n");
        assert!(wrong.starts_with("shop.yml:") && wrong.contains("keep_fireing_for"), "{wrong}");
        let both = FILE.replace("  - record: job", "  - alert: Both\n    record: job");
        assert!(of(&both).expect_err("both").join("\n").contains("a rule has either alert or record"));
    }

    #[test]
    fn durations_are_read_as_prometheus_writes_them() {
        let read = |text| seconds(text).map(|time| time.as_millis());
        for (text, millis) in [("0", 0), ("5m", 300_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("1s500ms", 1500)] {
            assert_eq!(read(text), Some(millis), "{text}");
        }
        for text in ["", "5", "m", "1m1h", "1m1m", "1.5h", "-1m", "99999999999999999y"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
