//! Answers that are kept: what a query says now becomes samples of a metric.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ninefold::fault::{Fault, Kind, Violation};
use ninefold_promql::{Answer, Error as Wrong, Labels, NAME, Point, Query, STALE, Span};

use super::store::Reading;
use super::{Asked, Metrics, Unanswered};
use crate::error::Error;
use crate::neighbours::question::Question;

/// Most questions whose series are remembered. Series of others only end when nobody heard of them for five minutes.
const QUESTIONS_MAX: usize = 1000;
/// Most series of one answer.
const SERIES_MAX: usize = 10_000;

/// Why nothing was kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrecorded {
    /// There is no answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// It could not be kept.
    #[error(transparent)]
    Unkept(#[from] Error),
}

impl Fault for Unrecorded {
    fn kind(&self) -> Kind {
        match self {
            Self::Unanswered(why) => why.kind(),
            Self::Unkept(why) => why.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unanswered(why) => why.reason(),
            Self::Unkept(why) => why.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Unanswered(why) => why.violations(),
            Self::Unkept(why) => why.violations(),
        }
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Unanswered(why) => why.retry_after(),
            Self::Unkept(why) => why.retry_after(),
        }
    }
}

/// What is asked, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recording {
    pub(crate) query: String,
    pub(crate) metric: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The series that questions named when they were asked last.
#[derive(Debug, Default)]
pub(crate) struct Recorded(Mutex<HashMap<Recording, BTreeSet<Labels>>>);

impl Recorded {
    fn all(&self) -> MutexGuard<'_, HashMap<Recording, BTreeSet<Labels>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series that a question named when it was asked last, and does not name now.
    fn ended(&self, of: &Recording, now: &BTreeSet<Labels>) -> Vec<Labels> {
        self.all().get(of).into_iter().flat_map(|before| before.difference(now)).cloned().collect()
    }

    /// Remembers the series of a question, once they are kept.
    fn remember(&self, of: Recording, now: BTreeSet<Labels>) {
        let mut all = self.all();
        if all.len() < QUESTIONS_MAX || all.contains_key(&of) {
            all.insert(of, now);
        }
    }
}

/// Whether a text may be the name of a metric, or of a label where colons may not be.
fn is_name(text: &str, colons: bool) -> bool {
    let fits = |sign: char| sign.is_ascii_alphanumeric() || sign == '_' || colons && sign == ':';
    !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(fits)
}

impl Recording {
    fn mistake(&self) -> Option<Violation> {
        if !is_name(&self.metric, true) {
            return Some(Violation::new("metric", "is no name of a metric: letters, digits, underscores and colons"));
        }
        let odd = self.labels.keys().find(|name| !is_name(name, false) || *name == NAME)?;
        Some(Violation::new("labels", format!("{odd:?} is no name of a label that may be given")))
    }

    /// The labels of a series of the answer.
    fn named(&self, of: &Labels) -> Labels {
        let own = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Labels::new(of.iter().chain(own).chain([(NAME, self.metric.as_str())]))
    }
}

impl Metrics {
    /// Evaluates a query at a time, and keeps the answer. How many series it has.
    ///
    /// # Errors
    /// [`Unrecorded`]. Then none of it is kept.
    pub(crate) async fn record(
        self: &Arc<Self>,
        recording: Recording,
        at: i64,
        question: &Question,
    ) -> Result<usize, Unrecorded> {
        if let Some(mistake) = recording.mistake() {
            return Err(Unanswered::Odd(mistake).into());
        }
        let query = Query::parse(&recording.query).map_err(Unanswered::from)?;
        let (answer, _) = self.answer(query, Span::instant(at), Asked::default(), question).await?;
        let said: Vec<(Labels, Point)> = match answer {
            Answer::Series(series) => {
                let last = |mut one: ninefold_promql::Series| Some((one.labels, one.samples.pop()?.point));
                series.into_iter().filter_map(last).collect()
            }
            Answer::Scalar(values) => values.into_iter().map(|(_, value)| (Labels::default(), value.into())).collect(),
            Answer::Text(_) | Answer::Raw(_) => {
                let wanted = "an instant vector or a scalar";
                let wrong = Wrong::Type { place: recording.metric, wanted, given: "a range or a text" };
                return Err(Unanswered::from(wrong).into());
            }
        };
        if said.len() > SERIES_MAX {
            let why = format!("the answer has {} series, more than {SERIES_MAX}", said.len());
            return Err(Unanswered::Odd(Violation::new("query", why)).into());
        }
        let mut named = BTreeSet::new();
        let mut readings = Vec::with_capacity(said.len());
        for (labels, point) in said {
            let labels = recording.named(&labels);
            if !named.insert(labels.clone()) {
                return Err(Unanswered::from(Wrong::Duplicate(labels)).into());
            }
            readings.push(Reading { labels, at, point, is_added: false });
        }
        let series = readings.len();
        let ended = self.recorded.ended(&recording, &named).into_iter();
        let gone = |labels| Reading { labels, at, point: f64::from_bits(STALE).into(), is_added: false };
        readings.extend(ended.map(gone));
        self.take_own(readings).await?;
        // Not before: what could not be kept ends when it can be.
        self.recorded.remember(recording, named);
        Ok(series)
    }
}
