//! The part of LogQL that is answered: selectors, line filters, `json` and `logfmt`, label filters, counts and rates over
//! time, and their sums by labels. Pure.

use std::collections::BTreeMap;

use crate::pattern::Pattern;

/// Longest query, in bytes.
const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Most matchers and stages of a query.
const STAGES_MAX: usize = 64;
const NANOS: f64 = 1e9;

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Query {
    /// Lines.
    Lines(Pipeline),
    /// Numbers.
    Numbers(Numbers),
    /// `vector(1)` and sums of such, by which Grafana tries whether anybody is there.
    Constant(f64),
}

/// Numbers made of lines.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers {
    /// What is counted.
    pub(crate) count: Count,
    /// Of which lines.
    pub(crate) pipeline: Pipeline,
    /// Over how long, in nanoseconds.
    pub(crate) range: u64,
    /// How series become one: `None` leaves them as they are.
    pub(crate) gathered: Option<Gathered>,
}

/// What is counted over a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Lines.
    Lines,
    /// Lines a second.
    Rate,
    /// Bytes of lines.
    Bytes,
    /// Bytes a second.
    BytesRate,
}

/// How series become one: their sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gathered {
    /// Labels that stay.
    pub(crate) labels: Vec<String>,
    /// Whether those go, and all others stay.
    pub(crate) without: bool,
}

/// Which lines, and what is read of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pipeline {
    /// What labels must be.
    pub(crate) selector: Vec<Matcher>,
    /// What is done then, in order.
    pub(crate) stages: Vec<Stage>,
}

/// A step of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    /// Only lines in which this is, or is not.
    Line {
        /// Whether it must be.
        is_wanted: bool,
        /// The text as it is written, if it is one.
        text: Option<String>,
        /// What is looked for.
        pattern: Pattern,
    },
    /// Fields of JSON become labels.
    Json,
    /// Pairs become labels.
    Logfmt,
    /// Only lines with such a label.
    Label(Matcher),
    /// Some labels go.
    Drop(Vec<String>),
    /// Only some labels stay.
    Keep(Vec<String>),
}

/// What a label must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Matcher {
    /// The label.
    pub(crate) name: String,
    /// What of it.
    pub(crate) wanted: Wanted,
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// This.
    Is(String),
    /// Not this.
    IsNot(String),
    /// A match, as a whole.
    Matches(Pattern),
    /// No match.
    MatchesNot(Pattern),
    /// A number that stands so to another: whether less, equal, more are meant.
    Number([bool; 3], f64),
}

impl Matcher {
    /// Whether labels are so; a label that is not there is empty.
    pub(crate) fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        match &self.wanted {
            Wanted::Is(wanted) => value == wanted,
            Wanted::IsNot(unwanted) => value != unwanted,
            Wanted::Matches(pattern) => pattern.is_in(value),
            Wanted::MatchesNot(pattern) => !pattern.is_in(value),
            Wanted::Number([less, equal, more], number) => match value.parse::<f64>() {
                Ok(value) => (*less && value < *number) || (*equal && value == *number) || (*more && value > *number),
                Err(_) => false,
            },
        }
    }
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong, or what is not answered here, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(format!("the query is longer than {QUERY_BYTES_MAX} bytes"));
        }
        let mut parser = Parser { rest: text.trim(), stages: 0 };
        let query = parser.query()?;
        if parser.rest.trim().is_empty() { Ok(query) } else { Err(parser.odd("an end")) }
    }
}

struct Parser<'a> {
    rest: &'a str,
    stages: usize,
}

impl<'a> Parser<'a> {
    fn query(&mut self) -> Result<Query, String> {
        self.space();
        if self.rest.starts_with('{') {
            return Ok(Query::Lines(self.pipeline()?));
        }
        if self.rest.starts_with("vector") {
            return self.constant();
        }
        self.numbers().map(Query::Numbers)
    }

    fn constant(&mut self) -> Result<Query, String> {
        let mut sum = 0.0;
        loop {
            self.expect("vector")?;
            self.expect("(")?;
            let number = self.take(|letter| letter.is_ascii_digit() || letter == '.');
            sum += number.parse::<f64>().map_err(|_| self.odd("a number"))?;
            self.expect(")")?;
            if !self.sign("+") {
                return Ok(Query::Constant(sum));
            }
        }
    }

    fn numbers(&mut self) -> Result<Numbers, String> {
        let name = self.name();
        if name != "sum" {
            return self.counted(name);
        }
        let before = self.grouping()?;
        self.expect("(")?;
        let mut inner = self.numbers()?;
        if inner.gathered.is_some() {
            return Err("sums of sums are not answered here".to_owned());
        }
        self.expect(")")?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        let (labels, without) = grouping.unwrap_or_default();
        inner.gathered = Some(Gathered { labels, without });
        Ok(inner)
    }

    fn counted(&mut self, name: &str) -> Result<Numbers, String> {
        let count = match name {
            "count_over_time" => Count::Lines,
            "rate" => Count::Rate,
            "bytes_over_time" => Count::Bytes,
            "bytes_rate" => Count::BytesRate,
            other => {
                return Err(format!(
                    "{other:?} is not answered here; there are count_over_time, rate, bytes_over_time, bytes_rate, and sum of them"
                ));
            }
        };
        self.expect("(")?;
        let mut pipeline = self.pipeline()?;
        self.expect("[")?;
        let range = self.take(|letter| letter != ']');
        let range = duration(range).ok_or_else(|| format!("{range:?} is no time"))?;
        self.expect("]")?;
        // A range may stand before the stages.
        self.stages_into(&mut pipeline)?;
        self.expect(")")?;
        Ok(Numbers { count, pipeline, range, gathered: None })
    }

    fn grouping(&mut self) -> Result<Option<(Vec<String>, bool)>, String> {
        self.space();
        let without = self.rest.starts_with("without");
        if !without && !self.rest.starts_with("by") {
            return Ok(None);
        }
        self.name();
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.sign(")") {
            let name = self.name();
            if name.is_empty() {
                return Err(self.odd("the name of a label"));
            }
            labels.push(name.to_owned());
            self.sign(",");
        }
        Ok(Some((labels, without)))
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let mut pipeline = Pipeline::default();
        self.expect("{")?;
        while !self.sign("}") {
            pipeline.selector.push(self.matcher()?);
            if !self.sign(",") {
                self.expect("}")?;
                break;
            }
        }
        self.stages_into(&mut pipeline)?;
        Ok(pipeline)
    }

    fn stages_into(&mut self, pipeline: &mut Pipeline) -> Result<(), String> {
        loop {
            self.stages += 1;
            if self.stages > STAGES_MAX {
                return Err(format!("more than {STAGES_MAX} stages"));
            }
            self.space();
            let signs = [("|=", true, false), ("!=", false, false), ("|~", true, true), ("!~", false, true)];
            if let Some((sign, is_wanted, is_pattern)) =
                signs.into_iter().find(|(sign, ..)| self.rest.starts_with(sign))
            {
                self.expect(sign)?;
                let text = self.quoted()?;
                let pattern = if is_pattern { Pattern::read(&text)? } else { Pattern::of_text(&text)? };
                let text = Some(text).filter(|_| !is_pattern);
                pipeline.stages.push(Stage::Line { is_wanted, text, pattern });
            } else if self.sign("|") {
                let stage = self.stage()?;
                pipeline.stages.push(stage);
            } else {
                return Ok(());
            }
        }
    }

    fn stage(&mut self) -> Result<Stage, String> {
        self.space();
        let after = self.rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
        let name = &self.rest[..self.rest.len() - after.len()];
        let is_alone = !after.trim_start().starts_with(['=', '!', '<', '>']);
        match name {
            "json" if is_alone || after.trim_start().starts_with("!") => {
                self.name();
                Ok(Stage::Json)
            }
            "logfmt" if is_alone || after.trim_start().starts_with("!") => {
                self.name();
                Ok(Stage::Logfmt)
            }
            "drop" | "keep" if is_alone => {
                let is_drop = self.name() == "drop";
                let names = self.names()?;
                Ok(if is_drop { Stage::Drop(names) } else { Stage::Keep(names) })
            }
            "" => Err(self.odd("a stage")),
            name if is_alone => {
                Err(format!("the stage {name:?} is not answered here; there are json, logfmt, drop, keep and filters"))
            }
            _ => Ok(Stage::Label(self.matcher()?)),
        }
    }

    /// Names of labels with commas between them.
    fn names(&mut self) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        loop {
            self.space();
            let name = self.name().to_owned();
            if name.is_empty() {
                return Err(self.odd("the name of a label"));
            }
            names.push(name);
            if !self.sign(",") {
                return Ok(names);
            }
        }
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let name = self.name().to_owned();
        if name.is_empty() {
            return Err(self.odd("the name of a label"));
        }
        self.space();
        let signs = ["=~", "!~", "!=", "==", ">=", "<=", "=", ">", "<"];
        let sign =
            signs.into_iter().find(|sign| self.rest.starts_with(sign)).ok_or_else(|| self.odd("a comparison"))?;
        self.expect(sign)?;
        self.space();
        let is_text = self.rest.starts_with(['"', '`']);
        let wanted = match (sign, is_text) {
            ("=", true) => Wanted::Is(self.quoted()?),
            ("!=", true) => Wanted::IsNot(self.quoted()?),
            ("=~", true) => Wanted::Matches(Pattern::whole(&self.quoted()?)?),
            ("!~", true) => Wanted::MatchesNot(Pattern::whole(&self.quoted()?)?),
            (sign, false) => {
                let text = self.take(|letter| letter.is_ascii_alphanumeric() || ".-+µ".contains(letter));
                let seconds = || duration(text).map(|nanos| nanos as f64 / NANOS);
                let number =
                    text.parse::<f64>().ok().or_else(seconds).ok_or_else(|| format!("{text:?} is no number"))?;
                let meant = match sign {
                    ">" => [false, false, true],
                    ">=" => [false, true, true],
                    "<" => [true, false, false],
                    "<=" => [true, true, false],
                    "!=" => [true, false, true],
                    _ => [false, true, false],
                };
                Wanted::Number(meant, number)
            }
            _ => return Err(self.odd("a number")),
        };
        Ok(Matcher { name, wanted })
    }

    fn quoted(&mut self) -> Result<String, String> {
        self.space();
        if let Some(raw) = self.rest.strip_prefix('`') {
            let end = raw.find('`').ok_or("a ` without its end")?;
            self.rest = &raw[end + 1..];
            return Ok(raw[..end].to_owned());
        }
        let inner = self.rest.strip_prefix('"').ok_or_else(|| self.odd("a text in quotes"))?;
        let (mut text, mut letters) = (String::new(), inner.char_indices());
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &inner[at + 1..];
                    return Ok(text);
                }
                '\\' => match letters.next().map(|(_, letter)| letter) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(other) => text.push(other),
                    None => break,
                },
                letter => text.push(letter),
            }
        }
        Err("a \" without its end".to_owned())
    }

    fn name(&mut self) -> &'a str {
        self.take(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':')
    }

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        self.space();
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.space();
        let after = self.rest.strip_prefix(sign);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) { Ok(()) } else { Err(self.odd(sign)) }
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn odd(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(20).collect();
        if found.is_empty() {
            format!("parse error: the query ends where {expected} is expected")
        } else {
            format!("parse error: {found:?} stands where {expected} is expected")
        }
    }
}

/// A time as Loki writes it, in nanoseconds: `5m`, `1h30m`, `100ms`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at least zero, and saturates")]
pub(crate) fn duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 8] = [
        ("ms", 1e6),
        ("us", 1e3),
        ("ns", 1.0),
        ("s", NANOS),
        ("m", 60.0 * NANOS),
        ("h", 3600.0 * NANOS),
        ("d", 86_400.0 * NANOS),
        ("w", 604_800.0 * NANOS),
    ];
    let (mut rest, mut sum) = (text.trim(), 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let (unit, after) = UNITS.iter().find_map(|(word, nanos)| Some((nanos, rest[end..].strip_prefix(word)?)))?;
        sum += number * unit;
        rest = after;
    }
    Some(sum as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_that_clients_write_are_read() {
        for text in [
            r#"{service_name="shop"}"#,
            r#"{service_name=~"shop|pay", level!="debug",} |= "no room" != `x` |~ "a.*b" !~ "c""#,
            r#"{app="shop"} | json | status >= 500 | method="GET""#,
            r#"{app="shop"} | logfmt | took > 1.5s"#,
            r#"sum by (level) (count_over_time({app="shop"} |= "x" [5m]))"#,
            r#"sum(rate({app="shop"}[1m])) by (service_name, level)"#,
            r#"rate({app="shop"} | json | status="500" [1m])"#,
            r#"sum without (instance) (bytes_rate({app="shop"}[1h30m]))"#,
            "vector(1)+vector(1)",
        ] {
            Query::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        }
        for text in [
            "",
            "{",
            r#"{a="b""#,
            r#"{a="b"} | line_format "x""#,
            "quantile_over_time(0.5, {a=\"b\"}[1m])",
            "{a=\"b\"} x",
            "rate({a=\"b\"})",
        ] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn labels_are_matched_as_loki_does() {
        let labels = BTreeMap::from([("status".to_owned(), "503".to_owned())]);
        for (text, is_meant) in [
            (r#"status="503""#, true),
            (r#"status!="503""#, false),
            (r#"status=~"5..""#, true),
            (r#"status=~"5""#, false),
            (r#"other="""#, true),
            ("status>=500", true),
            ("status<500", false),
            ("other>1", false),
        ] {
            let Query::Lines(pipeline) = Query::parse(&format!(r#"{{}} | {text}"#)).unwrap() else { panic!("lines") };
            let [Stage::Label(matcher)] = &pipeline.stages[..] else { panic!("a filter") };
            assert_eq!(matcher.admits(&labels), is_meant, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_typed_breaks_it(text in ".{0,80}") {
            let _ = Query::parse(&text);
            let _ = Query::parse(&format!("{{a=\"b\"}} {text}"));
        }
    }
}
