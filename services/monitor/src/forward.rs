//! Hands what comes in on to a backend of the user's choice, by OTLP over gRPC.
//!
//! What waits is bounded in bytes: when too much waits the oldest goes, counted. A backend that is away is tried again and
//! again; what it refuses for good is dropped, counted. Nobody who sends waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ninefold::fault::{Kind, Violation};
use ninefold::lifecycle::{Scope, Stop};
use ninefold::tonic::Status;
use ninefold::tonic::transport::{Channel, Endpoint};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use serde::Deserialize;
use tokio::sync::Notify;

/// Waits after a first and after many failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Longest time to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long what waits may still go when the node ends.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// Where what comes in is handed on to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of OTLP over gRPC, such as `http://collector:4317`. Empty for none.
    pub endpoint: String,
    /// Most bytes that wait; beyond them the oldest go.
    pub waiting_bytes_max: usize,
    /// Longest time for one request.
    #[serde(with = "ninefold::settings::duration")]
    pub wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: String::new(), waiting_bytes_max: 64 * 1024 * 1024, wait: Duration::from_secs(10) }
    }
}

impl Config {
    /// What cannot work, although it can be read.
    pub fn mistakes(&self) -> Option<Violation> {
        let is_usable = self.endpoint.starts_with("http://") && Endpoint::from_shared(self.endpoint.clone()).is_ok();
        (!self.endpoint.is_empty() && !is_usable)
            .then(|| Violation::new("forward.endpoint", "must be a URL such as http://collector:4317"))
    }
}

/// A request that is handed on.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Log lines.
    Logs(ExportLogsServiceRequest),
    /// Spans.
    Spans(ExportTraceServiceRequest),
    /// Measurements.
    Metrics(ExportMetricsServiceRequest),
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Logs(request) => request.encoded_len(),
            Self::Spans(request) => request.encoded_len(),
            Self::Metrics(request) => request.encoded_len(),
        }
    }

    fn records(&self) -> u64 {
        let records: usize = match self {
            Self::Logs(request) => {
                let scopes = request.resource_logs.iter().flat_map(|batch| &batch.scope_logs);
                scopes.map(|scope| scope.log_records.len()).sum()
            }
            Self::Spans(request) => {
                let scopes = request.resource_spans.iter().flat_map(|batch| &batch.scope_spans);
                scopes.map(|scope| scope.spans.len()).sum()
            }
            Self::Metrics(request) => {
                let scopes = request.resource_metrics.iter().flat_map(|batch| &batch.scope_metrics);
                scopes.map(|scope| scope.metrics.len()).sum()
            }
        };
        records as u64
    }
}

/// How it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Where to.
    pub(crate) endpoint: String,
    /// Records that were taken there.
    pub(crate) sent: u64,
    /// Records that were dropped.
    pub(crate) dropped: u64,
    /// Bytes that wait.
    pub(crate) waiting_bytes: u64,
    /// Why the last attempt failed; empty where it did not.
    pub(crate) problem: String,
}

/// The way on. Clones are the same way.
#[derive(Clone, Debug)]
pub(crate) struct Forward(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    bytes: usize,
    told: Told,
}

impl Forward {
    /// Begins; `None` where no backend is named, or it cannot be one.
    pub(crate) fn start(config: Config, scope: &Scope) -> Option<Self> {
        if config.endpoint.is_empty() {
            return None;
        }
        let endpoint = Endpoint::from_shared(config.endpoint.clone()).ok()?.connect_timeout(CONNECT_WITHIN);
        let told = Told { endpoint: config.endpoint.clone(), ..Told::default() };
        let state = Mutex::new(State { told, ..State::default() });
        let forward = Self(Arc::new(Inner { config, state, wake: Notify::new() }));
        let task = forward.clone();
        scope.run("monitor.forward", |stop| async move {
            let channel = endpoint.connect_lazy();
            task.run(&channel, &stop).await;
            // What waits may still go, if it goes at once.
            let _ = tokio::time::timeout(LAST_WITHIN, task.rest(&channel)).await;
        });
        Some(forward)
    }

    /// Takes a request. Never waits.
    pub(crate) fn give(&self, request: Request) {
        {
            let mut state = self.state();
            state.bytes += request.bytes();
            state.waiting.push_back(request);
            while state.bytes > self.0.config.waiting_bytes_max
                && let Some(oldest) = state.waiting.pop_front()
            {
                state.bytes -= oldest.bytes();
                state.told.dropped += oldest.records();
            }
        }
        self.0.wake.notify_one();
    }

    /// How it goes.
    pub(crate) fn told(&self) -> Told {
        let state = self.state();
        Told { waiting_bytes: state.bytes as u64, ..state.told.clone() }
    }

    async fn run(&self, channel: &Channel, stop: &Stop) {
        let mut retry = RETRY.0;
        while !stop.is_asked() {
            let Some(request) = self.take() else {
                tokio::select! {
                    () = self.0.wake.notified() => continue,
                    () = stop.asked() => return,
                }
            };
            let outcome = tokio::select! {
                outcome = self.send(channel, request.clone()) => outcome,
                () = stop.asked() => {
                    self.put_back(request);
                    return;
                }
            };
            if self.settle(request, outcome) {
                retry = RETRY.0;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(retry) => {}
                () = stop.asked() => return,
            }
            retry = (retry * 2).min(RETRY.1);
        }
    }

    async fn rest(&self, channel: &Channel) {
        while let Some(request) = self.take() {
            let outcome = self.send(channel, request.clone()).await;
            if !self.settle(request, outcome) {
                return;
            }
        }
    }

    async fn send(&self, channel: &Channel, request: Request) -> Result<(), Status> {
        let sent = async {
            match request {
                Request::Logs(request) => LogsServiceClient::new(channel.clone()).export(request).await.map(drop),
                Request::Spans(request) => TraceServiceClient::new(channel.clone()).export(request).await.map(drop),
                Request::Metrics(request) => MetricsServiceClient::new(channel.clone()).export(request).await.map(drop),
            }
        };
        let late = |_| Err(Status::deadline_exceeded("the backend did not answer in time"));
        tokio::time::timeout(self.0.config.wait, sent).await.unwrap_or_else(late)
    }

    /// Counts an outcome; tells whether to go on with the next at once.
    fn settle(&self, request: Request, outcome: Result<(), Status>) -> bool {
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                state.told.sent += request.records();
                state.told.problem.clear();
                true
            }
            Err(status) => {
                state.told.problem = format!("{:?}: {}", status.code(), status.message());
                if Kind::of(status.code()).is_passing() {
                    drop(state);
                    self.put_back(request);
                    return false;
                }
                state.told.dropped += request.records();
                true
            }
        }
    }

    fn take(&self) -> Option<Request> {
        let mut state = self.state();
        let request = state.waiting.pop_front()?;
        state.bytes -= request.bytes();
        Some(request)
    }

    fn put_back(&self, request: Request) {
        let mut state = self.state();
        state.bytes += request.bytes();
        state.waiting.push_front(request);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it guards is whole between statements.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
