//! Lines that programs print, captured by whoever started them in this process.
//!
//! [`LineSink::append`] never waits and never fails: a child whose output is not read freezes. Lines that belong together
//! are joined, then read by [`crate::parse`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ninefold::lifecycle::Scope;
use serde_json::Value;
use tokio::sync::Notify;

use crate::intake::Intake;
use crate::model::{Line, Nanos, Origin};
use crate::parse::{self, Joiner, Piece};
use crate::tier::Signal;

/// How long a line waits for another that belongs to it.
const JOINED_WITHIN: Duration = Duration::from_millis(150);
/// Most programs whose lines are joined at a time; those of more are taken as they come.
const JOINED_MAX: usize = 4096;

/// Where a program printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which printed lines come to the monitor another way too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Copies {
    /// None: the program exports no logs.
    Never,
    /// Those of the SDK's logger, which prints what it exports. They are JSON objects with `target`, `level` and
    /// `message` whose `service` and `instance_id` are those of the program, and are left out here. All else that the
    /// program prints, such as the text of a panic, is kept.
    OfSdk,
}

/// A line that a program printed.
#[derive(Clone, Debug)]
pub struct Printed {
    /// Name of the service.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Where it was printed.
    pub stream: Stream,
    /// Whether it may come another way too.
    pub copies: Copies,
    /// The line, without its end.
    pub text: String,
    /// When it was read.
    pub time: SystemTime,
}

/// Takes printed lines. Clones are the same sink.
#[derive(Clone, Debug)]
pub struct LineSink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Waiting>,
    wake: Notify,
    lines_max: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Printed>,
    dropped: u64,
}

impl LineSink {
    /// Makes a sink whose lines a task of the scope takes to the tier. What waits when the scope closes is still taken.
    pub(crate) fn start(lines_max: usize, intake: Arc<Intake>, scope: &Scope) -> Self {
        let inner = Inner { waiting: Mutex::default(), wake: Notify::new(), lines_max: lines_max.max(1) };
        let sink = Self(Arc::new(inner));
        let inner = sink.0.clone();
        scope.run("monitor.capture", |stop| async move {
            let mut joined = Joined::default();
            loop {
                let is_last = tokio::select! {
                    () = stop.asked() => true,
                    () = inner.wake.notified() => false,
                    () = tokio::time::sleep(JOINED_WITHIN), if !joined.0.is_empty() => false,
                };
                let mut whole = inner.take(&mut joined, &intake);
                whole.extend(if is_last { joined.rest() } else { joined.quiet() });
                give(whole, &intake).await;
                if is_last {
                    return;
                }
            }
        });
        sink
    }

    /// Takes a line. Never waits: when too many wait, the oldest is dropped and counted among the refused.
    pub fn append(&self, printed: Printed) {
        {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.lines.len() >= self.0.lines_max {
                waiting.lines.pop_front();
                waiting.dropped += 1;
            }
            waiting.lines.push_back(printed);
        }
        self.0.wake.notify_one();
    }
}

impl Inner {
    /// Takes what waits; gives what is whole.
    fn take(&self, joined: &mut Joined, intake: &Intake) -> Vec<Printed> {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.dropped > 0 {
            intake.count_refused(Signal::Logs, waiting.dropped);
        }
        waiting.lines.into_iter().filter_map(|printed| joined.push(printed)).collect()
    }
}

async fn give(whole: Vec<Printed>, intake: &Intake) {
    let rules = intake.rules();
    let lines: Vec<Line> = whole.into_iter().filter_map(|printed| line(printed, &rules.lines)).collect();
    let taken = lines.len() as u64;
    if taken > 0 && intake.lines(lines).await.is_err() {
        intake.count_refused(Signal::Logs, taken);
    }
}

/// Lines that may go on, by program.
#[derive(Debug, Default)]
struct Joined(HashMap<Key, Joiner>);

/// Service, instance, and which of its lines come another way too.
type Key = (String, String, Copies);

impl Joined {
    fn push(&mut self, printed: Printed) -> Option<Printed> {
        let Printed { service, instance_id, stream, copies, text, time } = printed;
        let key = (service, instance_id, copies);
        if self.0.len() >= JOINED_MAX && !self.0.contains_key(&key) {
            let (service, instance_id, copies) = key;
            return Some(Printed { service, instance_id, stream, copies, text, time });
        }
        let whole = {
            let joiner = self.0.entry(key.clone()).or_default();
            joiner.push(Piece { stream, time, text })
        };
        whole.map(|piece| of_piece(&key, piece))
    }

    /// What nothing followed for a while.
    fn quiet(&mut self) -> Vec<Printed> {
        let since = SystemTime::now().checked_sub(JOINED_WITHIN).unwrap_or(UNIX_EPOCH);
        self.drain(|joiner| joiner.quiet_since(since))
    }

    fn rest(&mut self) -> Vec<Printed> {
        self.drain(Joiner::rest)
    }

    fn drain(&mut self, take: impl Fn(&mut Joiner) -> Vec<Piece>) -> Vec<Printed> {
        let mut whole = Vec::new();
        for (key, joiner) in &mut self.0 {
            whole.extend(take(joiner).into_iter().map(|piece| of_piece(key, piece)));
        }
        self.0.retain(|_, joiner| !joiner.is_empty());
        whole
    }
}

fn of_piece((service, instance_id, copies): &Key, piece: Piece) -> Printed {
    let (service, instance_id) = (service.clone(), instance_id.clone());
    Printed { service, instance_id, stream: piece.stream, copies: *copies, text: piece.text, time: piece.time }
}

/// Reads a printed line; `None` for an empty one and for a copy.
fn line(printed: Printed, config: &parse::Config) -> Option<Line> {
    let Printed { service, instance_id, stream, copies, text, time } = printed;
    if text.trim().is_empty() {
        return None;
    }
    let origin = Origin { service, instance_id, attributes: Vec::new() };
    if copies == Copies::OfSdk && is_of_sdk(&text, &origin) {
        return None;
    }
    let mut line = parse::read(text, nanos(time), config);
    if line.body.trim().is_empty() && line.attributes.is_empty() {
        return None;
    }
    let stream = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let name = "log.iostream";
    if let Err(place) = line.attributes.binary_search_by(|(known, _)| known.as_str().cmp(name)) {
        line.attributes.insert(place, (name.to_owned(), stream.to_owned()));
    }
    line.origin = Arc::new(origin);
    Some(line)
}

fn is_of_sdk(text: &str, origin: &Origin) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return false };
    let is = |name: &str, value: &str| fields.get(name).and_then(Value::as_str) == Some(value);
    is("service", &origin.service)
        && is("instance_id", &origin.instance_id)
        && ["target", "level", "message"].iter().all(|name| fields.contains_key(*name))
}

/// A time of this machine's clock.
pub(crate) fn nanos(time: SystemTime) -> Nanos {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).map_or(Nanos::MAX, Nanos::said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Level;

    fn printed(text: &str, copies: Copies) -> Printed {
        Printed {
            service: "pump".to_owned(),
            instance_id: "p-1".to_owned(),
            stream: Stream::Stderr,
            copies,
            text: text.to_owned(),
            time: UNIX_EPOCH + std::time::Duration::from_secs(9),
        }
    }

    fn read(printed: Printed) -> Option<Line> {
        line(printed, &parse::Config::default())
    }

    #[test]
    fn the_level_of_a_text_is_guessed_from_its_beginning() {
        for (text, level) in [
            ("[info] ready", Level::Info),
            ("INFO:root:ready", Level::Info),
            ("2026-11-23 12:00:00,123 - app - ERROR - no room", Level::Error),
            ("warning: unused", Level::Warn),
            ("\x1b[2m12:00:00\x1b[0m \x1b[33m WARN\x1b[0m odd", Level::Warn),
            ("thread 'main' panicked at src/main.rs:1:1:", Level::Error),
            ("Traceback (most recent call last):", Level::Error),
            ("listening for any error to come", Level::Unknown),
            ("log in at /", Level::Unknown),
            ("ready", Level::Unknown),
        ] {
            assert_eq!(read(printed(text, Copies::Never)).unwrap().level, level, "{text}");
        }
    }

    #[test]
    fn a_json_object_is_read_by_the_names_that_loggers_use() {
        let text = r#"{"timestamp":"2026-11-23T12:00:00.5Z","level":"WARN","fields":{"message":"odd","n":3},
            "target":"pump","span":{"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7"}}"#;
        let line = read(printed(text, Copies::OfSdk)).unwrap();
        assert_eq!((line.level, line.body.as_str()), (Level::Warn, "odd"));
        assert_eq!(line.time, Nanos(1_795_435_200_500_000_000));
        assert_eq!(line.trace_id.unwrap().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let names: Vec<_> = line.attributes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["log.iostream", "log.record.original", "n", "target"]);
    }

    #[test]
    fn what_the_sdk_exports_is_not_kept_twice() {
        let text = r#"{"level":"info","message":"hi","target":"a","service":"pump","instance_id":"p-1"}"#;
        assert_eq!(read(printed(text, Copies::OfSdk)), None);
        assert!(read(printed(text, Copies::Never)).is_some());
        assert!(read(printed(&text.replace("p-1", "p-2"), Copies::OfSdk)).is_some());
        assert!(read(printed("thread 'main' panicked at x", Copies::OfSdk)).is_some());
        assert_eq!(read(printed(" \t", Copies::Never)), None);
    }

    #[test]
    fn a_line_without_a_time_has_that_of_its_reading() {
        assert_eq!(read(printed("ready", Copies::Never)).unwrap().time, Nanos(9_000_000_000));
        assert_eq!(read(printed("\x1b[31m", Copies::Never)), None);
    }
}
