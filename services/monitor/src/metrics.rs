//! Metrics by the names of Prometheus: taken in, kept with their samples, asked by PromQL.
//!
//! What a query means is known in `ninefold_promql`; here are the series. Queries run on threads of their own, so many at a
//! time, and each gives up at its deadline.

mod about;
mod ask;
mod chunk;
mod http;
mod json;
mod names;
mod otlp;
mod service;
mod store;
mod written;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use ninefold::fault::Violation;
use ninefold_promql::{Answer, Data, Error as Wrong, Labels, Limits, Query, Selection, Span};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use tokio::sync::Semaphore;

use about::{About, Catalogue};
use store::{Bounds, Reading, Store};

pub(crate) use http::router;
pub(crate) use service::Service;
pub(crate) use written::Written;

use crate::config::Config;

/// Most queries that are evaluated at a time; more wait.
const QUERIES_MAX: usize = 4;
/// Longest that a query may take, waiting included.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);
/// Most samples that a query may touch.
const QUERY_SAMPLES_MAX: usize = 20_000_000;
/// How often what is too old is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The question.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// A part of the question beside the query.
    #[error("the query is malformed")]
    Odd(Violation),
    /// The evaluation broke off.
    #[error("the query ended in a fault of its own: {0}")]
    Broken(String),
}

/// An answer, and remarks on what is probably not what was meant.
pub(crate) type Answered = (Answer, Vec<String>);

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    store: RwLock<Store>,
    catalogue: RwLock<Catalogue>,
    queries: Arc<Semaphore>,
    forgot: RwLock<Instant>,
}

/// What of a request was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unkept {
    /// How many readings.
    pub(crate) readings: u64,
    /// Why, if there are any.
    pub(crate) why: &'static str,
}

impl Metrics {
    /// Makes a store without series.
    pub(crate) fn new(config: &Config) -> Self {
        let bounds = Bounds {
            bytes_max: config.samples_bytes_max,
            series_max: config.series_max,
            millis_max: millis(config.samples_age_max),
        };
        Self {
            store: RwLock::new(Store::new(bounds)),
            catalogue: RwLock::default(),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            forgot: RwLock::new(Instant::now()),
        }
    }

    /// Takes in what came by OTLP.
    pub(crate) fn take_otlp(&self, batches: &[ResourceMetrics]) -> Unkept {
        let now = now();
        let said = otlp::readings(batches, now);
        self.take(said.readings, said.about, now)
    }

    /// Takes in what came by remote write.
    pub(crate) fn take_written(&self, written: Written) -> Unkept {
        let (readings, about) = written.readings();
        self.take(readings, about, now())
    }

    fn take(&self, readings: Vec<Reading>, about: BTreeMap<String, About>, now: i64) -> Unkept {
        self.catalogue.write().unwrap_or_else(PoisonError::into_inner).learn(about);
        let left = {
            let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
            let left = store.append(readings, now);
            if self.is_time_to_forget() {
                store.forget_old(now);
            }
            left
        };
        let why = match (left.series_full, left.too_old) {
            (1.., _) => "there are as many series as series_max of [monitor] says",
            (_, 1..) => "samples are older than samples_age_max of [monitor] says",
            _ => "",
        };
        Unkept { readings: left.series_full + left.too_old, why }
    }

    fn is_time_to_forget(&self) -> bool {
        let mut forgot = self.forgot.write().unwrap_or_else(PoisonError::into_inner);
        let is_time = forgot.elapsed() >= FORGET_EVERY;
        if is_time {
            *forgot = Instant::now();
        }
        is_time
    }

    /// Evaluates a query, within a time.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn answer(
        self: &Arc<Self>,
        query: Query,
        span: Span,
        asked: Asked,
    ) -> Result<Answered, Unanswered> {
        let end = Instant::now() + asked.time_max.unwrap_or(QUERY_TIME_MAX).min(QUERY_TIME_MAX);
        let waiting = tokio::time::timeout_at(end.into(), self.queries.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| Wrong::Deadline)?;
        let this = self.clone();
        let work = move || {
            let _held = permit;
            this.evaluate(&query, span, asked.lookback, end)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => Ok(outcome?),
            Err(broken) => Err(Unanswered::Broken(broken.to_string())),
        }
    }

    fn evaluate(&self, query: &Query, span: Span, lookback: Option<i64>, end: Instant) -> Result<Answered, Wrong> {
        let is_over = || Instant::now() >= end;
        let usual = Limits::default();
        let limits = Limits {
            lookback: lookback.unwrap_or(usual.lookback),
            samples_max: QUERY_SAMPLES_MAX,
            is_over: &is_over,
            ..usual
        };
        let steps = span.steps();
        if steps > limits.steps_max {
            return Err(Wrong::TooManySteps { steps, max: limits.steps_max });
        }
        let mut data = Data::new();
        let mut left = QUERY_SAMPLES_MAX;
        for selection in query.needs(span, &limits) {
            if is_over() {
                return Err(Wrong::Deadline);
            }
            let series = self.read().select(&selection, left).ok_or(Wrong::TooManySamples(QUERY_SAMPLES_MAX))?;
            left -= series.iter().map(|one| one.samples.len()).sum::<usize>();
            data.push((selection, series));
        }
        query.answer(span, &limits, &data)
    }

    /// Labels of series that match one of the selections; of all, if there are none.
    fn labels(&self, selections: &[Selection]) -> Vec<Labels> {
        self.read().labels(selections).cloned().collect()
    }

    /// What is known of metrics.
    fn about(&self, metric: Option<&str>) -> Vec<(String, About)> {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        catalogue.of(metric).map(|(name, about)| (name.clone(), about.clone())).collect()
    }

    /// Series, samples and bytes.
    fn sizes(&self) -> (usize, u64, usize) {
        let store = self.read();
        (store.series(), store.samples(), store.bytes())
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What may be said of an evaluation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Longest time.
    pub(crate) time_max: Option<Duration>,
    /// How long a sample speaks for its series, in milliseconds.
    pub(crate) lookback: Option<i64>,
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
