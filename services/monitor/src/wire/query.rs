//! Questions of the contract to the model. All that is wrong with one is told at once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ninefold::fault::Violation;
use ninefold_proto::ninefold::monitor::v1::{
    CountLogsRequest, DeleteTracesRequest, GetServiceGraphRequest, LogFilter, SearchTracesRequest,
};
use prost_types::{Duration, Timestamp};

use crate::context;
use crate::error::Error;
use crate::grammar::{Expression, Wrong};
use crate::model::{Attributes, Level, LineFilter, Nanos, Needle, SeriesKey, TraceFilter, TraceId};
use crate::tallies::{FIELDS_MAX, Tallies};
use crate::tier::{LineCursor, TraceCursor};

/// Most records of a page, whatever the question says.
const PAGE_MAX: usize = 1000;
/// Longest page token that is looked at; samples' tokens hold a key.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Reads how many lines to begin a tail with.
pub(crate) fn backlog(asked: i32) -> usize {
    usize::try_from(asked).unwrap_or(0).min(PAGE_MAX)
}

/// Reads how many lines around each are asked for.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn context(asked: i32) -> Result<usize, Error> {
    let why = format!("must be 0 to {}", context::LINES_MAX);
    let lines = usize::try_from(asked).ok().filter(|lines| *lines <= context::LINES_MAX);
    lines.ok_or_else(|| Error::QueryInvalid(vec![Violation::new("context_lines", why)]))
}

/// Reads a filter of lines.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn line_filter(filter: Option<LogFilter>) -> Result<LineFilter, Error> {
    let filter = filter.unwrap_or_default();
    let mut problems = Problems::default();
    let level = match filter.level {
        0 => Level::Unknown,
        1 => Level::Trace,
        2 => Level::Debug,
        3 => Level::Info,
        4 => Level::Warn,
        5 => Level::Error,
        6 => Level::Fatal,
        number => {
            problems.tell("filter.level", &format!("{number} is no level"));
            Level::Unknown
        }
    };
    let trace_id = given(filter.trace_id).and_then(|text| problems.trace_id("filter.trace_id", &text));
    let start = problems.time("filter.start_time", filter.start_time);
    let end = problems.time("filter.end_time", filter.end_time);
    problems.order("filter.end_time", start, end);
    let query = given(filter.query).and_then(|text| {
        let read = Expression::parse(&text);
        let tell = |wrong: &Wrong| problems.tell("filter.query", &format!("at byte {}: {}", wrong.at, wrong.problem));
        read.inspect_err(tell).ok()
    });
    problems.none()?;
    Ok(LineFilter {
        service: given(filter.service),
        instance_id: given(filter.instance_id),
        level,
        text: given(filter.text).map(|text| Needle::new(&text)),
        trace_id,
        start,
        end,
        query,
    })
}

/// Reads what to count.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn tallies(request: &CountLogsRequest) -> Result<(Tallies, usize), Error> {
    let mut problems = Problems::default();
    let step = problems.duration("step", request.step);
    if request.fields.len() > FIELDS_MAX {
        problems.tell("fields", &format!("there are more than {FIELDS_MAX}"));
    }
    problems.none()?;
    let values_max = match request.values_max {
        0 => 10,
        asked => usize::try_from(asked).unwrap_or(1).min(PAGE_MAX),
    };
    Ok((Tallies::new(step, &request.fields), values_max))
}

/// Reads the time of a graph; without a beginning it is the last hour.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn graph_times(
    request: &GetServiceGraphRequest,
    now: Nanos,
) -> Result<(Option<Nanos>, Option<Nanos>), Error> {
    const HOUR: u64 = 3_600_000_000_000;
    let mut problems = Problems::default();
    let start = problems.time("start_time", request.start_time);
    let end = problems.time("end_time", request.end_time);
    problems.order("end_time", start, end);
    problems.none()?;
    Ok((start.or_else(|| Some(Nanos(end.unwrap_or(now).0.saturating_sub(HOUR)))), end))
}

/// Reads a filter of traces.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn trace_filter(request: SearchTracesRequest) -> Result<TraceFilter, Error> {
    let mut problems = Problems::default();
    let start = problems.time("start_time", request.start_time);
    let end = problems.time("end_time", request.end_time);
    problems.order("end_time", start, end);
    let nanos_min = problems.duration("min_duration", request.min_duration);
    let nanos_max = request.max_duration.map(|longest| problems.duration("max_duration", Some(longest)));
    let mut attributes = Attributes::new();
    for pair in request.attributes {
        match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => attributes.push((name.to_owned(), value.to_owned())),
            Some(_) | None => problems.tell("attributes", "must each be a name and a value, such as http.route=/v1"),
        }
    }
    problems.none()?;
    Ok(TraceFilter {
        service: given(request.service),
        nanos_min,
        nanos_max,
        failed_only: request.failed_only,
        start,
        end,
        operation: given(request.operation),
        attributes,
    })
}

/// Reads which lines are to be deleted; something must be said.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn doomed_lines(filter: Option<LogFilter>) -> Result<LineFilter, Error> {
    let filter = line_filter(filter)?;
    something(&filter)?;
    Ok(filter)
}

/// Refuses a filter that means every line.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn something(filter: &LineFilter) -> Result<(), Error> {
    let mut problems = Problems::default();
    let says_nothing = filter.query.as_ref().is_none_or(|query| *query == Expression::All(Vec::new()));
    if says_nothing && *filter == (LineFilter { query: filter.query.clone(), ..LineFilter::default() }) {
        problems.tell("filter", "must say which lines: all are not deleted at once");
    }
    problems.none()
}

/// Reads which traces are to be deleted; something must be said.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn doomed_traces(request: DeleteTracesRequest) -> Result<(Option<TraceId>, TraceFilter), Error> {
    let DeleteTracesRequest { service, operation, attributes, trace_id } = request;
    let mut problems = Problems::default();
    let id = given(trace_id).and_then(|text| problems.trace_id("trace_id", &text));
    let says_nothing = id.is_none() && service.is_empty() && operation.is_empty() && attributes.is_empty();
    let of = SearchTracesRequest { service, operation, attributes, ..SearchTracesRequest::default() };
    if says_nothing && problems.0.is_empty() {
        problems.tell("service", "must be given, or what else says which traces: all are not deleted at once");
    }
    problems.none()?;
    Ok((id, trace_filter(of)?))
}

/// Reads a trace id.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) fn trace_id(text: &str) -> Result<TraceId, Error> {
    let mut problems = Problems::default();
    let id = problems.trace_id("trace_id", text);
    problems.none()?;
    id.ok_or_else(|| Error::TraceUnknown(text.to_owned()))
}

#[derive(Default)]
struct Problems(Vec<Violation>);

impl Problems {
    fn tell(&mut self, field: &str, problem: &str) {
        self.0.push(Violation::new(field, problem));
    }

    fn none(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::QueryInvalid(self.0)) }
    }

    fn trace_id(&mut self, field: &str, text: &str) -> Option<TraceId> {
        let id = TraceId::parse(text);
        if id.is_none() {
            self.tell(field, "must be 32 hex digits that are not all zero");
        }
        id
    }

    fn time(&mut self, field: &str, time: Option<Timestamp>) -> Option<Nanos> {
        let time = time?;
        let nanos = nanos(time.seconds, time.nanos);
        if nanos.is_none() {
            self.tell(field, "must be a time from 1970 to 2554");
        }
        nanos.map(Nanos)
    }

    fn duration(&mut self, field: &str, duration: Option<Duration>) -> u64 {
        let Some(duration) = duration else { return 0 };
        let nanos = nanos(duration.seconds, duration.nanos);
        if nanos.is_none() {
            self.tell(field, "must not be negative, and at most 584 years");
        }
        nanos.unwrap_or_default()
    }

    fn order(&mut self, field: &str, start: Option<Nanos>, end: Option<Nanos>) {
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            self.tell(field, "must not be before the start time");
        }
    }
}

/// Reads a time.
pub(crate) fn moment(time: &Timestamp) -> Option<Nanos> {
    nanos(time.seconds, time.nanos).map(Nanos::said)
}

/// Reads how long something is, in nanoseconds.
pub(crate) fn length(duration: &Duration) -> Option<u64> {
    nanos(duration.seconds, duration.nanos)
}

fn nanos(seconds: i64, nanos: i32) -> Option<u64> {
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// What is wrong with a field.
pub(crate) fn wrong(field: &'static str, why: &str) -> Error {
    Error::QueryInvalid(vec![Violation::new(field, why)])
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Writes where to go on among lines.
pub(crate) fn line_token(cursor: LineCursor) -> String {
    format!("{:016x}{:016x}", cursor.time.0, cursor.sequence)
}

/// Reads where to go on among lines; an empty token is the beginning.
///
/// # Errors
/// [`Error::PageTokenInvalid`].
pub(crate) fn line_cursor(token: &str) -> Result<Option<LineCursor>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = (token.len() == 32).then(|| Some((hex(token.get(..16)?)?, hex(token.get(16..)?)?))).flatten();
    let (time, sequence) = parts.ok_or_else(|| malformed(token))?;
    Ok(Some(LineCursor { time: Nanos(time), sequence }))
}

/// Writes where to go on among traces.
pub(crate) fn trace_token(cursor: TraceCursor) -> String {
    format!("{:016x}{}", cursor.start.0, cursor.trace_id)
}

/// Reads where to go on among traces; an empty token is the beginning.
///
/// # Errors
/// [`Error::PageTokenInvalid`].
pub(crate) fn trace_cursor(token: &str) -> Result<Option<TraceCursor>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = || Some((hex(token.get(..16)?)?, TraceId::parse(token.get(16..)?)?));
    let (start, trace_id) = parts().ok_or_else(|| malformed(token))?;
    Ok(Some(TraceCursor { start: Nanos(start), trace_id }))
}

/// Writes where to go on among samples.
pub(crate) fn series_token(key: &SeriesKey) -> String {
    let parts = (&key.metric, &key.service, &key.instance_id, &key.labels);
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&parts).expect("texts and pairs of texts are JSON"))
}

/// Reads where to go on among samples; an empty token is the beginning.
///
/// # Errors
/// [`Error::PageTokenInvalid`].
pub(crate) fn series_key(token: &str) -> Result<Option<SeriesKey>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let decoded = Some(token)
        .filter(|token| token.len() <= TOKEN_BYTES_MAX)
        .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
        .and_then(|bytes| serde_json::from_slice::<(String, String, String, Attributes)>(&bytes).ok());
    let (metric, service, instance_id, labels) = decoded.ok_or_else(|| malformed(token))?;
    Ok(Some(SeriesKey { metric, service, instance_id, labels }))
}

fn hex(text: &str) -> Option<u64> {
    let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn malformed(token: &str) -> Error {
    Error::PageTokenInvalid(crate::model::cut(token.to_owned(), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_were_written_and_nothing_else_is() {
        let line = LineCursor { time: Nanos(u64::MAX), sequence: 7 };
        assert_eq!(line_cursor(&line_token(line)).unwrap(), Some(line));
        let trace = TraceCursor { start: Nanos(3), trace_id: TraceId([9; 16]) };
        assert_eq!(trace_cursor(&trace_token(trace)).unwrap(), Some(trace));
        let labels = vec![("ä".to_owned(), "\"\n".to_owned())];
        let key = SeriesKey { metric: "m".to_owned(), service: "s".to_owned(), instance_id: String::new(), labels };
        assert_eq!(series_key(&series_token(&key)).unwrap(), Some(key));
        for token in ["x", "ßßßßßßßßßßßßßßßß", "+000000000000001+000000000000001", "00", &"0".repeat(48)]
        {
            assert!(line_cursor(token).is_err(), "{token}");
            assert!(trace_cursor(token).is_err(), "{token}");
            assert!(series_key(token).is_err(), "{token}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_question_is_told_at_once() {
        let filter = LogFilter {
            level: 9,
            trace_id: "short".to_owned(),
            start_time: Some(Timestamp { seconds: -1, nanos: 0 }),
            end_time: Some(Timestamp { seconds: 1, nanos: -4 }),
            ..LogFilter::default()
        };
        let Err(Error::QueryInvalid(problems)) = line_filter(Some(filter)) else { panic!("it is malformed") };
        assert_eq!(problems.len(), 4);
    }
}
