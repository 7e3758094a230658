//! Metrics by the names of Prometheus: taken in, kept with their samples, asked by PromQL.
//!
//! What a query means is known in `ninefold_promql`; here are the series. Queries run on threads of their own, so many at a
//! time, and each gives up at its deadline.

mod about;
mod ask;
mod beside;
mod block;
mod chunk;
mod code;
mod commit;
mod disk;
mod entry;
mod exemplars;
mod exposition;
mod http;
mod json;
mod names;
mod otlp;
mod record;
mod scrape;
mod service;
mod store;
mod thin;
mod upkeep;
mod written;
mod written2;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use ninefold::fault::Violation;
use ninefold_promql::{Answer, Data, Error as Wrong, Labels, Limits, Query, Sample, Selection, Series, Span, is_stale};
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use tokio::sync::Semaphore;

use about::Catalogue;
use beside::Beside;
use commit::Kept;
use exemplars::{Exemplars, Said};
use record::Recorded;
use store::{Bounds, Store};

pub(crate) use about::{About, Type};
pub(crate) use code::{packed, unpacked};
pub(crate) use disk::overlay;
pub(crate) use exemplars::Exemplar;
pub(crate) use http::router;
pub(crate) use scrape::router as scrape_router;
pub(crate) use service::{Service, encoded};
pub(crate) use store::Reading;
pub(crate) use written::Written;
pub(crate) use written2::{Content, Written as Written2};

use crate::config::Config;
use crate::error::Error;
use crate::model::AHEAD_MAX;
use crate::neighbours::question::Question;
use crate::neighbours::series::Others;
use crate::wire::otlp::TOO_NEW;

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
    /// What answers of other nodes are made of is not what it should be.
    #[error(transparent)]
    Own(#[from] Error),
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
    exemplars: RwLock<Exemplars>,
    queries: Arc<Semaphore>,
    forgot: RwLock<Instant>,
    /// Whether what stands beside samples is not written yet.
    is_unsaid: AtomicBool,
    recorded: Recorded,
    kept: Option<Kept>,
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
    /// Makes a store in memory alone.
    pub(crate) fn new(config: &Config) -> Self {
        Self::with(config, None)
    }

    fn with(config: &Config, kept: Option<Kept>) -> Self {
        let bounds = Bounds {
            bytes_max: config.samples_bytes_max,
            series_max: config.series_max,
            millis_max: millis(config.samples_age_max),
            is_filed: kept.is_some(),
        };
        Self {
            store: RwLock::new(Store::new(bounds)),
            catalogue: RwLock::default(),
            exemplars: RwLock::default(),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            forgot: RwLock::new(Instant::now()),
            is_unsaid: AtomicBool::new(false),
            recorded: Recorded::default(),
            kept,
        }
    }

    /// Takes in what came by OTLP. It is on the disk, where there is one, when this returns.
    ///
    /// # Errors
    /// [`Error::Overloaded`], [`Error::Unwritable`]. Then none of it is kept.
    pub(crate) async fn take_otlp(self: &Arc<Self>, batches: &[ResourceMetrics]) -> Result<Unkept, Error> {
        let said = otlp::readings(batches, now());
        let unkept = self.take(said.readings, said.about).await?;
        self.point_out(said.exemplars);
        Ok(unkept)
    }

    /// Takes in what came by remote write. It is on the disk, where there is one, when this returns.
    ///
    /// # Errors
    /// As [`Self::take_otlp`].
    pub(crate) async fn take_written(self: &Arc<Self>, written: Written) -> Result<Unkept, Error> {
        let exemplars = written.exemplars();
        let (readings, about) = written.readings();
        let unkept = self.take(readings, about).await?;
        self.point_out(exemplars);
        Ok(unkept)
    }

    /// Takes in what came by remote write 2.0. It is on the disk, where there is one, when this returns.
    ///
    /// # Errors
    /// As [`Self::take_otlp`].
    pub(crate) async fn take_content(self: &Arc<Self>, content: Content) -> Result<Unkept, Error> {
        let Content { mut readings, about, exemplars, begins, .. } = content;
        // A counter was zero when it began. That is told with every sample, and kept once: before the first of them.
        let zeros: Vec<Reading> = {
            let store = self.read();
            begins.into_iter().filter(|begin| store.last_at(&begin.labels).is_none_or(|last| last < begin.at)).collect()
        };
        readings.splice(0..0, zeros);
        let unkept = self.take(readings, about).await?;
        self.point_out(exemplars);
        Ok(unkept)
    }

    fn point_out(&self, said: Vec<Said>) {
        if !said.is_empty() {
            self.exemplars.write().unwrap_or_else(PoisonError::into_inner).put(said);
            self.is_unsaid.store(true, Ordering::Relaxed);
        }
    }

    fn learn(&self, about: BTreeMap<String, About>) {
        if self.catalogue.write().unwrap_or_else(PoisonError::into_inner).learn(about) {
            self.is_unsaid.store(true, Ordering::Relaxed);
        }
    }

    /// What is known beside samples.
    fn beside(&self) -> Beside {
        let exemplars = self.exemplars.read().unwrap_or_else(PoisonError::into_inner).all();
        Beside::new(self.about(None), exemplars)
    }

    /// Learns what was known before a restart.
    fn remember(&self, beside: Beside) {
        let (about, exemplars) = beside.into_parts();
        self.learn(about.into_iter().collect());
        self.point_out(exemplars);
        self.is_unsaid.store(false, Ordering::Relaxed);
    }

    /// Exemplars of series that match one of the selections, of this node alone.
    fn exemplars_of(&self, selections: &[Selection], from: i64, to: i64) -> Vec<(Labels, Vec<Exemplar>)> {
        self.exemplars.read().unwrap_or_else(PoisonError::into_inner).of(selections, from, to)
    }

    /// Exemplars of series that match.
    pub(crate) fn selected_exemplars(&self, selections: &[Selection]) -> Vec<Said> {
        let exemplars = self.exemplars.read().unwrap_or_else(PoisonError::into_inner);
        let found = exemplars.of(selections, i64::MIN, i64::MAX);
        found.into_iter().flat_map(|(labels, all)| all.into_iter().map(move |one| (labels.clone(), one))).collect()
    }

    /// Exemplars of the series that a query needs, of all nodes.
    ///
    /// # Errors
    /// As [`Question::series`].
    async fn exemplars(
        &self,
        query: &Query,
        (from, to): (i64, i64),
        question: &Question,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, Error> {
        let needs = query.needs(Span::instant(to), &Limits::default());
        let mut all = Exemplars::default();
        all.put(self.selected_exemplars(&needs));
        all.put(question.exemplars(&needs).await?);
        Ok(all.of(&needs, from, to))
    }

    /// Takes in what the monitor found out itself.
    ///
    /// # Errors
    /// As [`Self::take_otlp`].
    pub(crate) async fn take_own(self: &Arc<Self>, readings: Vec<Reading>) -> Result<Unkept, Error> {
        self.take(readings, BTreeMap::new()).await
    }

    /// Bytes in memory and on the disk.
    #[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers")]
    pub(crate) fn bytes_kept(&self) -> f64 {
        let sizes = self.sizes();
        sizes.bytes as f64 + sizes.bytes_on_disk as f64
    }

    async fn take(
        self: &Arc<Self>,
        mut readings: Vec<Reading>,
        about: BTreeMap<String, About>,
    ) -> Result<Unkept, Error> {
        self.learn(about);
        let (before, latest) = (readings.len(), now().saturating_add(millis(AHEAD_MAX)));
        readings.retain(|reading| reading.at <= latest);
        let too_new = (before - readings.len()) as u64;
        let unkept = if self.kept.is_some() { self.commit(readings).await? } else { self.apply(readings) };
        let why = if too_new > 0 { TOO_NEW } else { unkept.why };
        Ok(Unkept { readings: unkept.readings + too_new, why })
    }

    /// Puts readings into memory.
    fn apply(&self, readings: Vec<Reading>) -> Unkept {
        let now = now();
        let left = {
            let mut store = self.write();
            let left = store.append(readings, now, &|labels| self.before(labels, now));
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

    /// Evaluates a query over the series of all nodes, within a time.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn answer(
        self: &Arc<Self>,
        query: Query,
        span: Span,
        asked: Asked,
        question: &Question,
    ) -> Result<Answered, Unanswered> {
        let end = Instant::now() + asked.time_max.unwrap_or(QUERY_TIME_MAX).min(QUERY_TIME_MAX);
        let needs = needs(&query, span, asked.lookback)?;
        // Asked before there is a permit: two nodes that wait for each other would wait for ever.
        let (others, passed) = question.series(&needs, QUERY_SAMPLES_MAX).await?;
        let waiting = tokio::time::timeout_at(end.into(), self.queries.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| Wrong::Deadline)?;
        let this = self.clone();
        let work = move || {
            let _held = permit;
            this.evaluate(&query, (span, asked.lookback), end, needs, others)
        };
        let (answer, mut remarks) = match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome?,
            Err(broken) => return Err(Unanswered::Broken(broken.to_string())),
        };
        if passed > 0 {
            remarks.push(format!("{passed} files of samples of other nodes could not be read"));
        }
        remarks.extend(question.warnings());
        Ok((answer, remarks))
    }

    fn evaluate(
        &self,
        query: &Query,
        (span, lookback): (Span, Option<i64>),
        end: Instant,
        needs: Vec<Selection>,
        others: Others,
    ) -> Result<Answered, Wrong> {
        let is_over = || Instant::now() >= end;
        let limits = Limits { is_over: &is_over, ..limits(lookback) };
        let mut data = Data::new();
        let mut left = QUERY_SAMPLES_MAX;
        let mut unread = 0;
        let mut others = others.into_iter();
        for selection in needs {
            if is_over() {
                return Err(Wrong::Deadline);
            }
            let (series, passed) = self.select(&selection, left).ok_or(Wrong::TooManySamples(QUERY_SAMPLES_MAX))?;
            let series = joined(series, others.next().unwrap_or_default());
            unread = unread.max(passed);
            let samples = series.iter().map(|one| one.samples.len()).sum::<usize>();
            left = left.checked_sub(samples).ok_or(Wrong::TooManySamples(QUERY_SAMPLES_MAX))?;
            data.push((selection, series));
        }
        let (answer, mut remarks) = query.answer(span, &limits, &data)?;
        if unread > 0 {
            remarks.push(format!("{unread} files of samples could not be read; the answer is without them"));
        }
        Ok((answer, remarks))
    }

    /// Series that match, from memory and from files, and how many files could not be read. `None` if there are more than
    /// `samples_max` samples.
    pub(crate) fn select(&self, selection: &Selection, samples_max: usize) -> Option<(Vec<Series>, usize)> {
        let (recent, whole_after) = {
            let store = self.read();
            (store.select(selection, samples_max)?, store.whole_after())
        };
        let Some(kept) = self.kept.as_ref().filter(|_| selection.from < whole_after) else { return Some((recent, 0)) };
        // Files after memory: what memory forgot meanwhile is in them.
        let found = kept.disk.select(selection, samples_max)?;
        let mut series = found.series;
        for one in recent {
            overlay(series.entry(one.labels).or_default(), one.samples);
        }
        let series = series.into_iter().map(|(labels, samples)| Series { labels, samples });
        Some((series.collect(), found.unread))
    }

    /// Series that match, for each selection its own, and how many files could not be read; of this node alone.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn series(
        self: &Arc<Self>,
        selections: Vec<Selection>,
        samples_max: usize,
    ) -> Result<(Others, usize), Unanswered> {
        let samples_max = samples_max.min(QUERY_SAMPLES_MAX);
        let waiting = tokio::time::timeout(QUERY_TIME_MAX, self.queries.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| Wrong::Deadline)?;
        let this = self.clone();
        let work = move || {
            let _held = permit;
            let (mut all, mut left, mut unread) = (Vec::with_capacity(selections.len()), samples_max, 0);
            for selection in &selections {
                let (series, passed) = this.select(selection, left).ok_or(Wrong::TooManySamples(samples_max))?;
                left = left.saturating_sub(series.iter().map(|one| one.samples.len()).sum::<usize>());
                unread = unread.max(passed);
                all.push(series);
            }
            Ok::<_, Wrong>((all, unread))
        };
        let found = tokio::task::spawn_blocking(work).await.map_err(|broken| Unanswered::Broken(broken.to_string()))?;
        Ok(found?)
    }

    /// Labels of series that match one of the selections, of all nodes; of all, if there are none. Sorted.
    ///
    /// # Errors
    /// [`Unanswered`].
    async fn labels_of_all(
        self: &Arc<Self>,
        selections: Vec<Selection>,
        question: &Question,
    ) -> Result<Vec<Labels>, Unanswered> {
        let mut found = question.labels(&selections).await?;
        found.extend(self.labels(selections).await?);
        Ok(found.into_iter().collect())
    }

    /// Labels of series that match one of the selections; of all, if there are none. Sorted. Of this node alone.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn labels(self: &Arc<Self>, selections: Vec<Selection>) -> Result<Vec<Labels>, Unanswered> {
        let waiting = tokio::time::timeout(QUERY_TIME_MAX, self.queries.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| Wrong::Deadline)?;
        let this = self.clone();
        let work = move || {
            let _held = permit;
            let (mut found, whole_after) = {
                let store = this.read();
                (store.labels(&selections).cloned().collect::<BTreeSet<_>>(), store.whole_after())
            };
            let is_older = selections.is_empty() || selections.iter().any(|one| one.from < whole_after);
            if let Some(kept) = this.kept.as_ref().filter(|_| is_older) {
                found.extend(kept.disk.labels(&selections));
            }
            found.into_iter().collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(|broken| Unanswered::Broken(broken.to_string()))
    }

    /// The newest sample of each series that one of the selections matches, unless the series ended. By labels.
    ///
    /// # Errors
    /// [`Unanswered`].
    async fn newest(self: &Arc<Self>, selections: Vec<Selection>) -> Result<BTreeMap<Labels, Sample>, Unanswered> {
        let waiting = tokio::time::timeout(QUERY_TIME_MAX, self.queries.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| Wrong::Deadline)?;
        let this = self.clone();
        let work = move || {
            let _held = permit;
            let mut newest = BTreeMap::new();
            for selection in &selections {
                let found = this.select(selection, QUERY_SAMPLES_MAX);
                let (series, _) = found.ok_or(Wrong::TooManySamples(QUERY_SAMPLES_MAX))?;
                for mut one in series {
                    let last = one.samples.pop().filter(|last| !last.point.float().is_some_and(is_stale));
                    newest.extend(last.map(|last| (one.labels, last)));
                }
            }
            Ok(newest)
        };
        tokio::task::spawn_blocking(work).await.map_err(|broken| Unanswered::Broken(broken.to_string()))?
    }

    /// Labels of series in memory.
    pub(crate) fn recent_labels(&self) -> Vec<Labels> {
        self.read().labels(&[]).cloned().collect()
    }

    /// What is known of metrics.
    pub(crate) fn about(&self, metric: Option<&str>) -> Vec<(String, About)> {
        let catalogue = self.catalogue.read().unwrap_or_else(PoisonError::into_inner);
        catalogue.of(metric).map(|(name, about)| (name.clone(), about.clone())).collect()
    }

    /// Series, samples and bytes in memory, and samples and bytes on the disk.
    fn sizes(&self) -> Sizes {
        let (bytes_on_disk, samples_on_disk) = self.kept.as_ref().map(|kept| kept.disk.sizes()).unwrap_or_default();
        let store = self.read();
        Sizes { series: store.series(), samples: store.samples(), bytes: store.bytes(), samples_on_disk, bytes_on_disk }
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limits(lookback: Option<i64>) -> Limits<'static> {
    let usual = Limits::default();
    Limits { lookback: lookback.unwrap_or(usual.lookback), samples_max: QUERY_SAMPLES_MAX, ..usual }
}

/// The series that a query needs.
fn needs(query: &Query, span: Span, lookback: Option<i64>) -> Result<Vec<Selection>, Wrong> {
    let limits = limits(lookback);
    let steps = span.steps();
    if steps > limits.steps_max {
        return Err(Wrong::TooManySteps { steps, max: limits.steps_max });
    }
    Ok(query.needs(span, &limits))
}

/// Series of two nodes as one: what an instance sent to the one and to the other is one series.
pub(crate) fn joined(own: Vec<Series>, others: Vec<Series>) -> Vec<Series> {
    if others.is_empty() {
        return own;
    }
    let mut all: BTreeMap<Labels, Vec<Sample>> = others.into_iter().map(|one| (one.labels, one.samples)).collect();
    for one in own {
        overlay(all.entry(one.labels).or_default(), one.samples);
    }
    all.into_iter().map(|(labels, samples)| Series { labels, samples }).collect()
}

/// How much there is.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    series: usize,
    samples: u64,
    bytes: usize,
    samples_on_disk: u64,
    bytes_on_disk: u64,
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

#[cfg(test)]
mod tests;
