//! Lines of many loggers, and what they mean.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::captured::Stream;

/// 2026-11-23T12:00:01Z, a second after what the lines tell.
const PRINTED: Nanos = Nanos(1_795_435_201_000_000_000);

fn line(text: &str) -> Line {
    read(text.to_owned(), PRINTED, &Config::default())
}

fn of<'a>(line: &'a Line, name: &str) -> &'a str {
    line.attributes.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
}

#[test]
fn formats_of_loggers_are_read() {
    for (text, level, body, name, value) in [
        (r#"{"time":"2026-11-23T12:00:00Z","level":"warn","msg":"odd","n":3}"#, Level::Warn, "odd", "n", "3"),
        (r#"{"level":40,"time":1795435200000,"msg":"odd","req":{"id":7}}"#, Level::Warn, "odd", "req.id", "7"),
        (
            r#"{"log":"2026-11-23 12:00:00 ERROR no\n","stream":"stderr","time":"2026-11-23T12:00:00Z"}"#,
            Level::Error,
            "no",
            "",
            "",
        ),
        (r#"time=2026-11-23T12:00:00Z level=info msg="hello there" path=/x"#, Level::Info, "hello there", "path", "/x"),
        ("I1123 12:00:00.123456       1 server.go:42] ready", Level::Info, "ready", "code.line.number", "42"),
        ("E1123 12:00:00.123456   12345 a/b.cc:7] no", Level::Error, "no", "thread.id", "12345"),
        ("2026-11-23 12:00:00,123 - shop.db - ERROR - no room", Level::Error, "no room", "code.namespace", "shop.db"),
        ("WARNING:shop.db:odd", Level::Warn, "odd", "code.namespace", "shop.db"),
        ("INFO:     Started server process [1]", Level::Info, "Started server process [1]", "", ""),
        (
            "2026-11-23 12:00:00.123 | INFO     | shop.main:run:12 - up",
            Level::Info,
            "up",
            "code.namespace",
            "shop.main",
        ),
        (
            "2026-11-23T12:00:00.123Z  WARN 1 --- [shop] [   main] c.e.Shop       : slow",
            Level::Warn,
            "slow",
            "thread.name",
            "main",
        ),
        ("12:00:00.123 [main] INFO  c.e.Shop - ready", Level::Info, "ready", "thread.name", "main"),
        ("2026-11-23 12:00:00.123 ERROR [http-1] c.e.Shop:12 - no", Level::Error, "no", "thread.name", "http-1"),
        ("[2026-11-23T12:00:00Z INFO  shop::db] ready", Level::Info, "ready", "code.namespace", "shop::db"),
        (
            "2026-11-23T12:00:00.123456Z  INFO request{id=7 path=/x}: shop::db: served rows=3 took=\"5 ms\"",
            Level::Info,
            "served",
            "took",
            "5 ms",
        ),
        ("2026-11-23T12:00:00.123456Z  INFO request{id=7}: shop::db: served rows=3", Level::Info, "served", "id", "7"),
        (
            "\x1b[2m2026-11-23T12:00:00.123Z\x1b[0m \x1b[33m WARN\x1b[0m shop: odd",
            Level::Warn,
            "odd",
            "code.namespace",
            "shop",
        ),
        ("2026/11/23 12:00:00 [error] 12#0: *1 no live upstreams", Level::Error, "12#0: *1 no live upstreams", "", ""),
        ("2026/11/23 12:00:00 listening on :80", Level::Unknown, "listening on :80", "", ""),
    ] {
        let line = line(text);
        assert_eq!((line.level, line.body.as_str()), (level, body), "{text}\n{line:?}");
        assert_eq!(of(&line, name), value, "{text}\n{line:?}");
        let apart = PRINTED.0.abs_diff(line.time.0);
        let has_time = text.contains("12:00:00") || text.contains("1795435200");
        assert_eq!(apart > 0, has_time && apart <= 1_000_000_000, "{text}: {apart}");
        assert_eq!(of(&line, ORIGINAL), without_colours(text.to_owned()), "the line as it was printed");
    }
}

#[test]
fn access_logs_are_read() {
    let common = line(r#"192.0.2.1 - ann [23/Nov/2026:13:00:00 +0100] "GET /x?y=1 HTTP/1.1" 503 12"#);
    assert_eq!((common.level, common.time), (Level::Error, Nanos(PRINTED.0 - 1_000_000_000)));
    for (name, value) in [
        ("client.address", "192.0.2.1"),
        ("user.name", "ann"),
        ("http.request.method", "GET"),
        ("url.path", "/x"),
        ("url.query", "y=1"),
        ("http.response.status_code", "503"),
        ("network.protocol.version", "1.1"),
        (ORIGINAL, ""),
    ] {
        assert_eq!(of(&common, name), value, "{name}");
    }
    let combined = line(r#"::1 - - [23/Nov/2026:12:00:00 +0000] "GET / HTTP/2.0" 200 - "-" "curl/8.0" 0.003"#);
    assert_eq!((combined.level, of(&combined, "user_agent.original")), (Level::Info, "curl/8.0"));
    assert_eq!((of(&combined, "user.name"), of(&combined, "http.response.body.size")), ("", ""));
}

#[test]
fn the_trace_is_found_wherever_it_stands() {
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for text in [
        format!("2026-11-23T12:00:00.1Z  INFO 1 --- [shop] [main] [{trace}-{span}] c.e.Shop : ready"),
        format!(r#"{{"msg":"x","trace_id":"{trace}","span_id":"{span}"}}"#),
        format!("level=info msg=x traceId={trace} spanId={span}"),
        format!("INFO:shop:served trace_id={trace} span_id={span}"),
        format!("called with traceparent 00-{trace}-{span}-01"),
    ] {
        let line = line(&text);
        assert_eq!(line.trace_id.map(|id| id.to_string()).as_deref(), Some(trace), "{text}");
        assert_eq!(line.span_id.map(|id| id.to_string()).as_deref(), Some(span), "{text}");
    }
    assert_eq!(line("no trace here").trace_id, None);
}

#[test]
fn a_format_of_ones_own_comes_first() {
    let config: Config =
        serde_json::from_str(r#"{"formats":{"old":"^(?<time>\\d+)~(?<level>\\w+)~(?<order.id>\\d+)~(?<body>.*)$"}}"#)
            .unwrap();
    assert!(config.mistakes().is_empty());
    let line = read("1795435200~warn~77~no stock".to_owned(), PRINTED, &config);
    assert_eq!((line.level, line.body.as_str(), of(&line, "order.id")), (Level::Warn, "no stock", "77"));
    assert_eq!(line.time, Nanos(1_795_435_200_000_000_000));
    let nameless: Config = serde_json::from_str(r#"{"formats":{"a":"x"}}"#).unwrap();
    assert_eq!(nameless.mistakes().len(), 1);
}

fn joined(lines: &str) -> Vec<String> {
    let mut joiner = Joiner::default();
    let piece = |(at, text): (usize, &str)| {
        let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(at).unwrap());
        Piece { stream: Stream::Stderr, time, text: text.to_owned() }
    };
    let mut whole: Vec<_> = lines.lines().enumerate().map(piece).filter_map(|piece| joiner.push(piece)).collect();
    whole.extend(joiner.rest());
    whole.into_iter().map(|piece| piece.text).collect()
}

#[test]
fn stack_traces_are_one_line() {
    let python = "ERROR:shop:no\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nKeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 3\nValueError: y";
    let java = "2026-11-23 12:00:00.123 ERROR [main] c.e.Shop - no\njava.lang.IllegalStateException: closed\n\tat c.e.Shop.f(Shop.java:1)\nCaused by: java.io.IOException: x\n\tat c.e.Db.g(Db.java:2)\n\t... 3 more";
    let rust = "thread 'main' panicked at src/main.rs:1:1:\nno room\nstack backtrace:\n   0: std::panicking\n             at /rustc/x\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";
    let go = "panic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()\n\t/x/main.go:5 +0x1d\nexit status 2";
    let node = "TypeError: x is not a function\n    at f (/a.js:1:1)\n    at g (/a.js:2:1)";
    for trace in [python, java, rust, go, node] {
        let whole = joined(&format!("INFO:shop:before\n{trace}\nINFO:shop:after"));
        assert_eq!(whole, ["INFO:shop:before", trace, "INFO:shop:after"]);
        let line = line(trace);
        assert!(line.level >= Level::Error || trace == node, "{trace}: {:?}", line.level);
    }
}

#[test]
fn lines_that_stand_alone_stay_alone() {
    let access = r#"192.0.2.1 - - [23/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 503 1"#;
    assert_eq!(joined(&format!("{access}\nTraceback (most recent call last):\nKeyError: 1")).len(), 2);
    let lines = "one\ntwo\n{\"a\":1}\n{\"b\":2}\nerror: x\nthree";
    assert_eq!(joined(lines), lines.lines().collect::<Vec<_>>());
}

#[test]
fn what_is_joined_has_bounds() {
    let endless = format!("Traceback (most recent call last):\n{}", "  x\n".repeat(5000));
    let pieces = joined(&endless);
    assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.lines().count() <= 1000));
    let mut joiner = Joiner::default();
    let piece = |seconds, text: &str| Piece {
        stream: Stream::Stdout,
        time: UNIX_EPOCH + Duration::from_secs(seconds),
        text: text.to_owned(),
    };
    assert_eq!(joiner.push(piece(0, "a")), None);
    assert_eq!(joiner.push(piece(10, "  b")).map(|whole| whole.text).as_deref(), Some("a"), "too long apart");
    assert!(joiner.quiet_since(SystemTime::UNIX_EPOCH).is_empty());
    assert_eq!(joiner.quiet_since(UNIX_EPOCH + Duration::from_secs(10)).len(), 1);
    assert!(joiner.is_empty());
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_printed_breaks_it(text in ".{0,120}") {
        let line = line(&text);
        proptest::prop_assert!(!line.body.is_empty() || text.is_empty() || line.body != text);
    }
}
