//! What metrics say of services and instances: calls, failures, times, and what they use.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use ninefold_proto::ninefold::monitor::v1::{QueryMetricsRequest, metric_point};

use crate::client::Platform;
use crate::exit::Failure;

/// How a service, or an instance, is called. What nobody measures is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Calls {
    /// Calls a second.
    pub(super) rate: Option<f64>,
    /// Failed calls a second.
    pub(super) failing: Option<f64>,
    /// What half of them stay below.
    pub(super) p50_seconds: Option<f64>,
    /// What 95 of 100 stay below.
    pub(super) p95_seconds: Option<f64>,
}

/// What an instance uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Uses {
    /// Processor time; 1.0 is one core.
    pub(super) cpu_cores: Option<f64>,
    /// Resident memory.
    pub(super) memory_bytes: Option<f64>,
    /// Open files and sockets.
    pub(super) open_files: Option<f64>,
    /// Threads.
    pub(super) threads: Option<f64>,
    /// Calls in work.
    pub(super) in_flight: Option<f64>,
}

impl Uses {
    /// What both use together.
    pub(super) fn and(self, other: Self) -> Self {
        let sum = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        };
        Self {
            cpu_cores: sum(self.cpu_cores, other.cpu_cores),
            memory_bytes: sum(self.memory_bytes, other.memory_bytes),
            open_files: sum(self.open_files, other.open_files),
            threads: sum(self.threads, other.threads),
            in_flight: sum(self.in_flight, other.in_flight),
        }
    }
}

/// Values by service and instance.
type Values = HashMap<(String, String), f64>;

/// All that is asked, in this order.
const QUESTIONS: [&str; 13] = [
    "sum by (job, instance) (rate(rpc_server_calls_total[1m])) \
     or sum by (job, instance) (rate(http_server_request_duration_seconds_count[1m]))",
    "sum by (job, instance) (rate(rpc_server_calls_total{rpc_grpc_status_code=~\"2|4|13|14|15\"}[1m])) \
     or sum by (job, instance) (rate(http_server_request_duration_seconds_count{http_response_status_code=~\"5..\"}[1m]))",
    "histogram_quantile(0.5, sum by (job, instance, le) (rate(rpc_server_duration_milliseconds_bucket[1m]))) / 1000 \
     or histogram_quantile(0.5, sum by (job, instance, le) (rate(http_server_request_duration_seconds_bucket[1m])))",
    "histogram_quantile(0.95, sum by (job, instance, le) (rate(rpc_server_duration_milliseconds_bucket[1m]))) / 1000 \
     or histogram_quantile(0.95, sum by (job, instance, le) (rate(http_server_request_duration_seconds_bucket[1m])))",
    // Of whole services; of those that tell no such metrics by their spans.
    "sum by (job) (rate(rpc_server_calls_total[1m])) or sum by (job) (rate(http_server_request_duration_seconds_count[1m])) \
     or sum by (job) (rate(span_calls_total[1m]))",
    "sum by (job) (rate(rpc_server_calls_total{rpc_grpc_status_code=~\"2|4|13|14|15\"}[1m])) \
     or sum by (job) (rate(http_server_request_duration_seconds_count{http_response_status_code=~\"5..\"}[1m])) \
     or sum by (job) (rate(span_calls_total{status=\"error\"}[1m]))",
    "histogram_quantile(0.5, sum by (job, le) (rate(rpc_server_duration_milliseconds_bucket[1m]))) / 1000 \
     or histogram_quantile(0.5, sum by (job, le) (rate(http_server_request_duration_seconds_bucket[1m]))) \
     or histogram_quantile(0.5, sum by (job, le) (rate(span_duration_seconds_bucket[1m])))",
    "histogram_quantile(0.95, sum by (job, le) (rate(rpc_server_duration_milliseconds_bucket[1m]))) / 1000 \
     or histogram_quantile(0.95, sum by (job, le) (rate(http_server_request_duration_seconds_bucket[1m]))) \
     or histogram_quantile(0.95, sum by (job, le) (rate(span_duration_seconds_bucket[1m])))",
    "sum by (job, instance) (rate(process_cpu_time_seconds_total[1m]))",
    "sum by (job, instance) (process_memory_usage_bytes)",
    "sum by (job, instance) (process_unix_file_descriptor_count)",
    "sum by (job, instance) (process_thread_count)",
    "sum by (job, instance) (ninefold_serve_in_flight)",
];

/// What metrics say.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts(Vec<Values>);

impl Facts {
    /// Asks for all of it.
    pub(super) async fn of(platform: &Platform) -> Result<Self, Failure> {
        Ok(Self(try_join_all(QUESTIONS.iter().map(|question| values(platform, question))).await?))
    }

    fn at(&self, question: usize, service: &str, instance: &str) -> Option<f64> {
        let key = (service.to_owned(), instance.to_owned());
        self.0.get(question)?.get(&key).copied().filter(|value| value.is_finite())
    }

    fn calls(&self, first: usize, service: &str, instance: &str) -> Calls {
        let at = |question: usize| self.at(first + question, service, instance);
        let rate = at(0);
        // Where nothing failed, no series says so.
        let failing = at(1).or(rate.map(|_| 0.0));
        Calls { rate, failing, p50_seconds: at(2), p95_seconds: at(3) }
    }

    /// How an instance is called.
    pub(super) fn calls_of(&self, service: &str, instance: &str) -> Calls {
        self.calls(0, service, instance)
    }

    /// How a service is called.
    pub(super) fn calls_of_service(&self, service: &str) -> Calls {
        self.calls(4, service, "")
    }

    /// What an instance uses.
    pub(super) fn uses_of(&self, service: &str, instance: &str) -> Uses {
        let at = |question: usize| self.at(question, service, instance);
        Uses { cpu_cores: at(8), memory_bytes: at(9), open_files: at(10), threads: at(11), in_flight: at(12) }
    }
}

async fn values(platform: &Platform, question: &str) -> Result<Values, Failure> {
    let request = QueryMetricsRequest { query: question.to_owned(), ..QueryMetricsRequest::default() };
    let answer = platform.search(platform.metrics().query_metrics(request)).await?;
    let value = |series: ninefold_proto::ninefold::monitor::v1::MetricSeries| {
        let label = |name: &str| series.labels.get(name).cloned().unwrap_or_default();
        match series.points.last()?.value.as_ref()? {
            metric_point::Value::Number(number) => Some(((label("job"), label("instance")), *number)),
            metric_point::Value::Histogram(_) => None,
        }
    };
    Ok(answer.series.into_iter().filter_map(value).collect())
}
