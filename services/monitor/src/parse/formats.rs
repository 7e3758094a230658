//! Formats that loggers are known for, as patterns with named groups: the same language in which people add their own.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::{known, logfmt, put};
use crate::model::{Level, Line, Nanos};

/// Most pairs at the end of a line that are looked for.
const TRAILING_BYTES_MAX: usize = 4096;

/// A format.
struct Format {
    pattern: Regex,
    kind: Kind,
}

/// What is done beside taking the groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// The level is a letter.
    Letter,
    /// The level follows from the status, the body is the line.
    Access,
    /// Fields are at the end of the text, and in the spans before it.
    Tracing,
}

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| {
    const TIME: &str = r"(?<time>\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z| ?[+-]\d\d:?\d\d)?)";
    const CLOCK: &str = r"(?<time>(?:\d{4}[-/]\d\d[-/]\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z| ?[+-]\d\d:?\d\d)?)";
    const LEVEL: &str = r"(?<level>TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL|SEVERE|PANIC)";
    const ANY_LEVEL: &str =
        r"(?<level>(?i:trace|debug|info|notice|warn|warning|error|err|fatal|critical|crit|severe|panic|alert|emerg))";
    const TEXT: &str = r"(?<body>(?s:.*))$";
    let formats: [(Kind, String); 12] = [
        // klog, glog: I1123 12:00:00.123456    1234 server.go:12] ready
        (Kind::Letter, format!(r"^(?<level>[IWEF])(?<time>\d{{4}} \d\d:\d\d:\d\d\.\d{{1,9}})\s+(?<thread.id>\d+)\s+(?<code.file.path>[^:\]]+):(?<code.line.number>\d+)\] {TEXT}")),
        // Apache, nginx: 192.0.2.1 - ann [23/Nov/2026:12:00:00 +0000] "GET /x?y HTTP/1.1" 200 12 "referer" "agent"
        (Kind::Access, r#"^(?<client.address>[^\s"]+) \S+ (?<user.name>\S+) \[(?<time>[^\]]+)\] "(?:(?<http.request.method>[A-Z]+) (?<url.path>[^\s"?]*)(?:\?(?<url.query>[^\s"]*))?(?: HTTP/(?<network.protocol.version>[\d.]+))?|[^"]*)" (?<http.response.status_code>\d{3}) (?<http.response.body.size>\d+|-)(?: "(?<http.request.header.referer>[^"]*)" "(?<user_agent.original>[^"]*)")?.*$"#.to_owned()),
        // Spring Boot: 2026-11-23T12:00:00.123Z  INFO 1 --- [shop] [main] [trace-span] c.e.Shop : ready
        (Kind::Plain, format!(r"^{TIME}\s+{LEVEL}\s+(?<process.pid>\d+) --- (?:\[[^\]]*\] ?)*?\[\s*(?<thread.name>[^\]]*?)\s*\] (?:\[[0-9a-f]{{32}}-[0-9a-f]{{16}}\] )?(?<code.namespace>\S+)\s*: {TEXT}")),
        // Logback: 12:00:00.123 [main] INFO  c.e.Shop - ready
        (Kind::Plain, format!(r"^{CLOCK} \[(?<thread.name>[^\]]+)\] {LEVEL}\s+(?<code.namespace>[\w.$-]+)(?:\s+-|:)?\s+{TEXT}")),
        // env_logger: [2026-11-23T12:00:00Z INFO  shop::db] ready
        (Kind::Plain, format!(r"^\[{TIME} {LEVEL}\s+(?<code.namespace>[\w:.-]+)\] {TEXT}")),
        // Rust's tracing: 2026-11-23T12:00:00.123456Z  INFO request{id=7}: shop::db: ready rows=3
        (Kind::Tracing, format!(r"^{TIME}\s+{LEVEL} (?:(?<spans>[\w.]+(?:\{{[^}}]*\}})?(?::[\w.]+(?:\{{[^}}]*\}})?)*): )?(?<code.namespace>[A-Za-z_]\w*(?:::\w+)*): {TEXT}")),
        // Python: 2026-11-23 12:00:00,123 - shop.db - INFO - ready
        (Kind::Plain, format!(r"^{TIME}\s+-\s+(?<code.namespace>[\w.]+)\s+-\s+{LEVEL}\s+-\s+{TEXT}")),
        // Log4j: 2026-11-23 12:00:00.123 INFO  [main] c.e.Shop:12 - ready; loguru: … | INFO | shop:main:12 - ready
        (Kind::Plain, format!(r"^{CLOCK}\s+(?:\|\s+)?\[?{LEVEL}\]?\s+(?:\|\s+)?(?:\[(?<thread.name>[^\]]+)\]\s+)?(?<code.namespace>[A-Za-z_][\w.$]*)(?::[\w<>]+)?(?::\d+)?\s+(?:-|:|–)\s+{TEXT}")),
        // Python's basicConfig: INFO:shop.db:ready
        (Kind::Plain, format!(r"^{LEVEL}:(?<code.namespace>[\w.]+):{TEXT}")),
        // uvicorn: INFO:     ready
        (Kind::Plain, format!(r"^{LEVEL}:\s+{TEXT}")),
        // Anything that begins with a time and a level: 2026/11/23 12:00:00 [error] 12#0: no room
        (Kind::Plain, format!(r"^\[?{TIME}\]?\s*[|:-]?\s*\[?{ANY_LEVEL}\]?(?:\s*[|:-]\s*|\s+){TEXT}")),
        // Or with a time alone: 2026/11/23 12:00:00 ready
        (Kind::Plain, format!(r"^\[?{TIME}\]?(?:\s*[|:-]\s+|\s+){TEXT}")),
    ];
    formats.into_iter().map(|(kind, text)| Format { pattern: known(&text), kind }).collect()
});

/// Reads a line by the first format that it fits.
pub(super) fn read(text: &str, printed: Nanos) -> Option<Line> {
    let first = text.bytes().next()?;
    // Every format begins with a digit, a capital, a bracket, or the address of a client.
    let may_fit = first.is_ascii_alphanumeric() || first == b'[' || first == b':';
    if !may_fit {
        return None;
    }
    FORMATS.iter().find_map(|format| {
        let found = format.pattern.captures(text)?;
        let mut line = taken(&format.pattern, &found, format.kind, printed);
        match format.kind {
            Kind::Plain | Kind::Letter if line.level == Level::Unknown => line.level = super::guess(&line.body),
            Kind::Plain | Kind::Letter => {}
            Kind::Access => {
                text.clone_into(&mut line.body);
                let is_failure = found.name("http.response.status_code").is_some_and(|code| code.as_str() >= "500");
                line.level = if is_failure { Level::Error } else { Level::Info };
            }
            Kind::Tracing => fields(&mut line),
        }
        Some(line)
    })
}

/// Reads a line by a pattern of one's own. Without a group for it the body is the whole line.
pub(super) fn by_pattern(pattern: &Regex, text: &str, printed: Nanos) -> Option<Line> {
    let found = pattern.captures(text)?;
    let mut line = taken(pattern, &found, Kind::Plain, printed);
    if found.name("body").is_none() {
        text.clone_into(&mut line.body);
    }
    if line.level == Level::Unknown && found.name("level").is_none() {
        line.level = super::guess(text);
    }
    Some(line)
}

fn taken(pattern: &Regex, found: &Captures<'_>, kind: Kind, printed: Nanos) -> Line {
    let mut line = Line::default();
    for name in pattern.capture_names().flatten() {
        let Some(value) = found.name(name).map(|value| value.as_str()).filter(|value| !value.is_empty()) else {
            continue;
        };
        match (kind, name, value) {
            (Kind::Letter, "level", letter) => {
                line.level = match letter {
                    "I" => Level::Info,
                    "W" => Level::Warn,
                    "E" => Level::Error,
                    _ => Level::Fatal,
                };
            }
            // What an access log does not know is a dash.
            (Kind::Access, _, "-") => {}
            _ => put(&mut line, name, value.to_owned(), printed),
        }
    }
    line
}

/// Lifts out the fields of Rust's tracing: those at the end of the text, and those of the spans around it.
fn fields(line: &mut Line) {
    let mut lifted: Vec<(String, String)> = Vec::new();
    if line.body.len() <= TRAILING_BYTES_MAX {
        let (text, pairs) = logfmt::trailing(&line.body);
        lifted.extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let text = text.to_owned();
        line.body = text;
    }
    let spans = line.attributes.iter().find(|(name, _)| name == "spans").map(|(_, spans)| spans.clone());
    for part in spans.iter().flat_map(|spans| spans.split('{').skip(1)) {
        let inner = part.split('}').next().unwrap_or_default();
        let pairs = logfmt::pairs(inner).unwrap_or_default();
        lifted.extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    for (name, value) in lifted {
        match super::known_name(&name) {
            Some(known @ ("trace_id" | "span_id")) => put(line, known, value, Nanos(0)),
            Some(_) | None => line.attributes.push((name, value)),
        }
    }
}
