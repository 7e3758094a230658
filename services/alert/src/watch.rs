//! Asks every rule's question every so often, and keeps what became of the answers.
//!
//! A node asks itself: its own metrics and logs. What is pending or firing is in the store under the node's name, so that
//! neither waiting nor firing begins anew with a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ninefold::Link;
use ninefold::lifecycle::Stop;
use ninefold::tonic::metadata::MetadataValue;
use ninefold::tonic::{Request, Status};
use ninefold_proto::ninefold::monitor::v1::metric_service_client::MetricServiceClient;
use ninefold_proto::ninefold::monitor::v1::monitor_service_client::MonitorServiceClient;
use ninefold_proto::ninefold::monitor::v1::{
    LogFilter, QueryMetricsRequest, RecordMetricsRequest, SearchLogsRequest, metric_point,
};
use ninefold_store::{Key, Op, Store, Txn};
use prost_types::Timestamp;
use tokio::sync::watch;

use crate::document::{Document, LEVELS, Logs, Rule, Texts};
use crate::shipped::{self, Pace};
use crate::silent;
use crate::state::{ALERTS_MAX, Alert, Alerts, Grace, Said, step};

/// How long the alerts of a rule that is not there any more are remembered, in seconds.
const REMEMBERED_SECONDS: i64 = 600;
/// Longest that one question may take.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(20);

/// What became of a question.
enum Outcome {
    /// It was answered by series.
    Said(Said),
    /// Its answer was kept.
    Kept,
}

/// What is known of a rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) rule: Rule,
    pub(crate) is_shipped: bool,
    pub(crate) alerts: Alerts,
    /// When it was asked last, in seconds since 1970.
    pub(crate) evaluated: Option<i64>,
    /// Why that failed.
    pub(crate) problem: String,
}

/// What is known of all rules, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Board(RwLock<BTreeMap<String, Known>>);

impl Board {
    /// What is known now.
    pub(crate) fn read(&self) -> BTreeMap<String, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, known: BTreeMap<String, Known>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }
}

/// Who asks.
pub(crate) struct Watcher {
    pub(crate) platform: Link,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: Key,
    pub(crate) board: Arc<Board>,
    /// What fires, once that is known.
    pub(crate) firing: watch::Sender<Option<Arc<Vec<Alert>>>>,
    pub(crate) every: Duration,
    /// How long after a start what was known before is believed.
    pub(crate) grace: Duration,
    /// The pace of the shipped rules.
    pub(crate) pace: Pace,
}

/// All rules of a document, those that are shipped included.
pub(crate) fn rules(document: &Document, pace: Pace) -> BTreeMap<String, (Rule, bool)> {
    let shipped = shipped::rules(pace).into_iter().filter(|(name, _)| !document.off.contains(name));
    let shipped = shipped.map(|(name, rule)| (name, (rule, true)));
    let objectives = document.objectives.iter().flat_map(|(name, objective)| objective.rules(name));
    let written = objectives.chain(document.rules.clone()).map(|(name, rule)| (name, (rule, false)));
    shipped.chain(written).collect()
}

/// Asks for what came to this node: what came to others, they watch themselves, and would call people twice.
fn alone<T>(request: &mut Request<T>) {
    request.metadata_mut().insert("ninefold-alone", MetadataValue::from_static("true"));
}

impl Watcher {
    /// Asks until it is to stop.
    pub(crate) async fn run(self, mut document: watch::Receiver<Arc<Document>>, stop: Stop) {
        let mut kept = self.load().await;
        let mut saved = kept.clone();
        let since = now();
        let grace = i64::try_from(self.grace.as_secs()).unwrap_or(i64::MAX);
        let grace = Grace { since, until: since.saturating_add(grace) };
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = document.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = stop.asked() => return,
            }
            let now = now();
            let asked = document.borrow_and_update().clone();
            let mut known = BTreeMap::new();
            // What is kept first: others may ask for it.
            let (kept_first, others): (Vec<_>, Vec<_>) =
                rules(&asked, self.pace).into_iter().partition(|(_, (rule, _))| rule.record.is_some());
            for (name, (rule, is_shipped)) in kept_first.into_iter().chain(others) {
                if stop.is_asked() {
                    return;
                }
                let before = kept.remove(&name).unwrap_or_default();
                let (alerts, problem) = match self.ask(&rule).await {
                    Ok(Outcome::Kept) => (Alerts::new(), String::new()),
                    Ok(Outcome::Said(said)) => {
                        let problem = (said.len() > ALERTS_MAX)
                            .then(|| format!("of {} alerts only {ALERTS_MAX} are kept", said.len()));
                        (step(&name, &rule, &before, said, now, grace), problem.unwrap_or_default())
                    }
                    // What cannot be asked is not over.
                    Err(status) => (before, format!("{:?}: {}", status.code(), status.message())),
                };
                known.insert(name, Known { rule, is_shipped, alerts, evaluated: Some(now), problem });
            }
            // What fired before a start is believed even where its rule is not known yet: nobody is told that it is over.
            let unknown = kept.values().filter(|_| now < grace.until).flat_map(BTreeMap::values);
            let believed = unknown.filter(|alert| alert.held <= grace.since);
            let all = known.values().flat_map(|known| known.alerts.values()).chain(believed);
            let firing = all.filter(|alert| alert.firing.is_some()).cloned().collect();
            // A rule that is not there may come back: at the start, the document is not known yet.
            kept.retain(|_, alerts| alerts.values().any(|alert| now.saturating_sub(alert.held) < REMEMBERED_SECONDS));
            kept.extend(known.iter().map(|(name, known)| (name.clone(), known.alerts.clone())));
            kept.retain(|_, alerts| !alerts.is_empty());
            self.board.write(known);
            if times(&kept) != times(&saved) && self.save(&kept).await {
                saved.clone_from(&kept);
            }
            self.firing.send_replace(Some(Arc::new(firing)));
        }
    }

    async fn ask(&self, rule: &Rule) -> Result<Outcome, Status> {
        match (&rule.record, &rule.expr) {
            (Some(metric), Some(expr)) => self.keep(metric, expr, &rule.labels).await.map(|()| Outcome::Kept),
            _ => self.question(rule).await.map(Outcome::Said),
        }
    }

    async fn keep(&self, metric: &str, expr: &str, labels: &Texts) -> Result<(), Status> {
        let labels = labels.clone().into_iter().collect();
        let asked = RecordMetricsRequest { query: expr.to_owned(), metric: metric.to_owned(), labels };
        let mut request = Request::new(asked);
        request.set_timeout(QUESTION_TIME_MAX);
        alone(&mut request);
        MetricServiceClient::new(self.platform.clone()).record_metrics(request).await.map(|_| ())
    }

    async fn question(&self, rule: &Rule) -> Result<Said, Status> {
        if let Some(instances) = &rule.instances {
            return silent::ask(self.platform.clone(), instances, now(), QUESTION_TIME_MAX).await;
        }
        match (&rule.expr, &rule.logs) {
            (Some(expr), _) => self.ask_metrics(expr).await,
            (None, Some(logs)) => self.ask_logs(logs).await,
            (None, None) => Ok(Said::new()),
        }
    }

    async fn ask_metrics(&self, expr: &str) -> Result<Said, Status> {
        let mut request =
            Request::new(QueryMetricsRequest { query: expr.to_owned(), ..QueryMetricsRequest::default() });
        request.set_timeout(QUESTION_TIME_MAX);
        alone(&mut request);
        let answer = MetricServiceClient::new(self.platform.clone()).query_metrics(request).await?.into_inner();
        let said = answer.series.into_iter().filter_map(|series| match series.points.first()?.value.as_ref()? {
            metric_point::Value::Number(value) => Some((series.labels.into_iter().collect(), *value)),
            metric_point::Value::Histogram(histogram) => Some((series.labels.into_iter().collect(), histogram.count)),
        });
        Ok(said.collect())
    }

    async fn ask_logs(&self, logs: &Logs) -> Result<Said, Status> {
        let start = SystemTime::now().checked_sub(logs.within).map(Timestamp::from);
        let level = LEVELS.iter().position(|level| *level == logs.level).map_or(0, |at| at + 1);
        let filter = LogFilter {
            service: logs.service.clone(),
            level: i32::try_from(level).unwrap_or_default(),
            text: logs.text.clone(),
            query: logs.query.clone(),
            start_time: start,
            ..LogFilter::default()
        };
        let page_size = i32::try_from(logs.above.saturating_add(1)).unwrap_or(i32::MAX);
        let asked = SearchLogsRequest { filter: Some(filter), page_size, ..SearchLogsRequest::default() };
        let mut request = Request::new(asked);
        request.set_timeout(QUESTION_TIME_MAX);
        alone(&mut request);
        let answer = MonitorServiceClient::new(self.platform.clone()).search_logs(request).await?.into_inner();
        let found = u32::try_from(answer.records.len()).unwrap_or(u32::MAX);
        let service = Some(&logs.service).filter(|service| !service.is_empty());
        let labels: Texts = service.map(|service| ("job".to_owned(), service.clone())).into_iter().collect();
        Ok(if found > logs.above { vec![(labels, f64::from(found))] } else { Said::new() })
    }

    async fn load(&self) -> BTreeMap<String, Alerts> {
        let read = match self.store.get(&self.key).await {
            Ok(None) => return BTreeMap::new(),
            Ok(Some(entry)) => {
                serde_json::from_slice::<Vec<(String, Vec<Alert>)>>(&entry.value).map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(all) => all
                .into_iter()
                .map(|(name, alerts)| (name, alerts.into_iter().map(|alert| (alert.labels.clone(), alert)).collect()))
                .collect(),
            Err(error) => {
                tracing::warn!(error, "what fired before is not known; alerts begin anew");
                BTreeMap::new()
            }
        }
    }

    async fn save(&self, kept: &BTreeMap<String, Alerts>) -> bool {
        let all: Vec<(&String, Vec<&Alert>)> =
            kept.iter().map(|(name, alerts)| (name, alerts.values().collect())).collect();
        let Ok(value) = serde_json::to_vec(&all) else { return false };
        let op = Op::Put { key: self.key.clone(), value: Bytes::from(value), lease: None };
        match self.store.txn(Txn { compares: Vec::new(), ops: vec![op] }).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "what fires is not written down; it is tried again");
                false
            }
        }
    }
}

/// What has to survive: since when what is pending or firing, and when it held last, to the minute.
fn times(kept: &BTreeMap<String, Alerts>) -> Vec<(&String, &Texts, [Option<i64>; 3])> {
    let times = |alert: &Alert| [Some(alert.active), alert.firing, Some(alert.held / 60)];
    let of = move |(name, alerts)| -> Vec<_> {
        let alerts: &Alerts = alerts;
        alerts.iter().map(|(labels, alert)| (name, labels, times(alert))).collect()
    };
    kept.iter().flat_map(of).collect()
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
