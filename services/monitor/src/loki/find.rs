//! Looks for lines as a pipeline says: what files can tell is asked of them, the rest is looked at line by line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::logql::{Matcher, Pipeline, Stage, Wanted};
use crate::error::Error;
use crate::grammar::Expression;
use crate::model::{Kept, Line, LineFilter, Nanos, Needle};
use crate::parse::{self, ORIGINAL};
use crate::tier::{Limit, LineCursor, Tier};

/// Lines that are read at a time.
const STEP_RECORDS: usize = 2000;
/// Most lines that one question looks at after the tier has chosen.
const LOOKED_AT_MAX: u64 = 1_000_000;
const STEP_BYTES: usize = 16 * 1024 * 1024;

/// Labels of a line.
pub(crate) type Labels = BTreeMap<String, String>;

/// A line, and what its labels are after the pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The line.
    pub(crate) kept: Arc<Kept>,
    /// Its labels.
    pub(crate) labels: Labels,
}

/// Which lines, from when to when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The pipeline.
    pub(crate) pipeline: &'a Pipeline,
    /// From this time on.
    pub(crate) start: Nanos,
    /// Before this time.
    pub(crate) end: Nanos,
    /// Longest time.
    pub(crate) wait: Duration,
}

/// The text of a line as it was sent.
pub(crate) fn raw(line: &Line) -> &str {
    line.attributes.iter().find(|(name, _)| name == ORIGINAL).map_or(line.body.as_str(), |(_, text)| text.as_str())
}

/// A name as Loki's labels have it.
pub(crate) fn label_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

/// The labels of who sent a line, and its level.
pub(crate) fn stream_labels(line: &Line) -> Labels {
    let mut labels: Labels =
        line.origin.attributes.iter().map(|(name, value)| (label_name(name), value.clone())).collect();
    labels.insert("service_name".to_owned(), line.origin.service.clone());
    if !line.origin.instance_id.is_empty() {
        labels.insert("instance".to_owned(), line.origin.instance_id.clone());
    }
    labels.insert("level".to_owned(), line.level.word().to_owned());
    labels
}

/// All labels of a line: those of who sent it, its attributes, and its trace.
fn labels(line: &Line) -> Labels {
    let own = line.attributes.iter().filter(|(name, _)| name != ORIGINAL);
    let mut labels: Labels = own.map(|(name, value)| (label_name(name), value.clone())).collect();
    labels.extend(stream_labels(line));
    labels.extend(line.trace_id.map(|id| ("trace_id".to_owned(), id.to_string())));
    labels.extend(line.span_id.map(|id| ("span_id".to_owned(), id.to_string())));
    labels
}

/// What a matcher calls otherwise than a label is called here.
fn meant(matcher: &Matcher) -> Matcher {
    let name = match matcher.name.as_str() {
        "service" | "app" | "job" => "service_name",
        "detected_level" | "severity" => "level",
        "service_instance_id" | "pod" => "instance",
        name => name,
    };
    Matcher { name: name.to_owned(), wanted: matcher.wanted.clone() }
}

/// What of a pipeline the tier can be asked: never more than the pipeline admits.
fn filter(asked: Asked<'_>) -> LineFilter {
    let mut filter = LineFilter { start: Some(asked.start), end: Some(asked.end), ..LineFilter::default() };
    for matcher in asked.pipeline.selector.iter().map(meant) {
        match (matcher.name.as_str(), matcher.wanted) {
            ("service_name", Wanted::Is(service)) => filter.service = Some(service),
            ("instance", Wanted::Is(instance)) => filter.instance_id = Some(instance),
            _ => {}
        }
    }
    let texts = asked.pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Line { is_wanted: true, text: Some(text), .. } if !text.is_empty() => {
            Some(Expression::Text(Needle::new(text)))
        }
        Stage::Line { .. } | Stage::Json | Stage::Logfmt | Stage::Label(_) | Stage::Drop(_) | Stage::Keep(_) => None,
    });
    let texts: Vec<_> = texts.collect();
    filter.query = Some(Expression::All(texts));
    filter
}

/// The labels of a line if a pipeline admits it.
fn admitted(pipeline: &Pipeline, line: &Line) -> Option<Labels> {
    let mut labels = labels(line);
    let is_selected = |matcher: &Matcher| matcher.admits(&labels) || meant(matcher).admits(&labels);
    if !pipeline.selector.iter().all(is_selected) {
        return None;
    }
    for stage in &pipeline.stages {
        match stage {
            Stage::Line { is_wanted, pattern, .. } => {
                if pattern.is_in(raw(line)) != *is_wanted {
                    return None;
                }
            }
            Stage::Json | Stage::Logfmt => {
                let read = parse::read(raw(line).to_owned(), line.time, &parse::Config::default());
                let read = read.attributes.into_iter().filter(|(name, _)| name != ORIGINAL);
                for (name, value) in read {
                    labels.entry(label_name(&name)).or_insert(value);
                }
            }
            Stage::Drop(names) => names.iter().for_each(|name| drop(labels.remove(name))),
            Stage::Keep(names) => labels.retain(|name, _| names.contains(name)),
            Stage::Label(matcher) => {
                if !matcher.admits(&labels) && !meant(matcher).admits(&labels) {
                    return None;
                }
            }
        }
    }
    Some(labels)
}

/// Looks for lines, the newest first, or the oldest first, and hands each to `take` until it has enough.
///
/// # Errors
/// Those of [`Tier::search_lines`]; [`Error::QueryTooCostly`], [`Error::QueryTooSlow`].
pub(crate) async fn find(
    tier: &dyn Tier,
    asked: Asked<'_>,
    is_forward: bool,
    mut take: impl FnMut(Found) -> bool + Send,
) -> Result<(), Error> {
    let (filter, begun) = (filter(asked), Instant::now());
    let limit = Limit { records_max: STEP_RECORDS, bytes_max: STEP_BYTES };
    let mut place =
        is_forward.then_some(LineCursor { time: Nanos(asked.start.0.saturating_sub(1)), sequence: u64::MAX });
    let mut looked_at = 0;
    loop {
        let (lines, next) = match place {
            Some(after) if is_forward => {
                let lines = tier.lines_after(&filter, after, limit).await?;
                let next = (lines.len() >= STEP_RECORDS).then(|| lines.last()).flatten();
                let next = next.map(|kept| LineCursor { time: kept.line.time, sequence: kept.sequence });
                (lines, next)
            }
            before => {
                let page = tier.search_lines(&filter, before, limit).await?;
                (page.records, page.next)
            }
        };
        looked_at += lines.len() as u64;
        if looked_at > LOOKED_AT_MAX {
            return Err(Error::QueryTooCostly(LOOKED_AT_MAX));
        }
        if begun.elapsed() > asked.wait {
            return Err(Error::QueryTooSlow(asked.wait));
        }
        for kept in lines {
            let Some(labels) = admitted(asked.pipeline, &kept.line) else { continue };
            if !take(Found { kept, labels }) {
                return Ok(());
            }
        }
        if next.is_none() {
            return Ok(());
        }
        place = next;
    }
}
