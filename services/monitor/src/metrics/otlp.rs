//! Metrics of OTLP as readings by the names of Prometheus. Pure.
//!
//! `job` is the service, with its namespace before it if it has one, `instance` the instance; what else is known of a sender
//! is told once by `target_info`. Histograms with bounds become the three series that Prometheus knows them by,
//! exponential ones native histograms.

use std::collections::BTreeMap;

use ninefold_promql::{Histogram, Labels, NAME, Point, STALE, show};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, SummaryDataPoint, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::about::{About, Type};
use super::exemplars::{self, Exemplar};
use super::names::{self, Kind};
use super::store::Reading;
use crate::wire::otlp::text;

/// Finest buckets that Prometheus knows.
const SCHEMA_MAX: i32 = 8;
/// Widest buckets that Prometheus knows.
const SCHEMA_MIN: i32 = -4;
/// Most buckets of one side of a histogram. A histogram with more is left out.
const BUCKETS_MAX: usize = 10_000;
/// Most exemplars of one point.
const EXEMPLARS_MAX: usize = 10;

/// What a request says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// What was measured.
    pub(crate) readings: Vec<Reading>,
    /// What it is that was measured.
    pub(crate) about: BTreeMap<String, About>,
    /// Single measurements that say which trace they were made in.
    pub(crate) exemplars: Vec<exemplars::Said>,
    /// How many points were left out, because nobody could make sense of them.
    pub(crate) refused: u64,
}

/// Reads a request. Points without a time are of `now`, in milliseconds since 1970.
pub(crate) fn readings(batches: &[ResourceMetrics], now: i64) -> Said {
    let mut said = Said::default();
    for batch in batches {
        let sender = Sender::of(batch.resource.as_ref());
        let before = said.readings.len();
        for metric in batch.scope_metrics.iter().flat_map(|scoped| &scoped.metrics) {
            Writer { sender: &sender, now, said: &mut said }.metric(metric);
        }
        if let (true, Some(info)) = (said.readings.len() > before, &sender.info) {
            said.readings.push(Reading { labels: info.clone(), at: now, point: 1.0.into(), is_added: false });
            said.about.entry("target_info".to_owned()).or_insert_with(About::target_info);
        }
    }
    said
}

/// Who measured.
struct Sender {
    labels: Vec<(String, String)>,
    info: Option<Labels>,
}

impl Sender {
    fn of(resource: Option<&Resource>) -> Self {
        let mut known: BTreeMap<&str, String> = BTreeMap::new();
        for pair in resource.into_iter().flat_map(|resource| &resource.attributes) {
            known.entry(&pair.key).or_insert_with(|| pair.value.clone().map(text).unwrap_or_default());
        }
        let mut take = |name: &str| known.remove(name).unwrap_or_default();
        let (service, namespace, instance) =
            (take("service.name"), take("service.namespace"), take("service.instance.id"));
        let job = if namespace.is_empty() { service } else { format!("{namespace}/{service}") };
        let labels = vec![("job".to_owned(), job), ("instance".to_owned(), instance)];
        let info = (!known.is_empty()).then(|| {
            let rest = known.into_iter().map(|(name, value)| (names::label(name), value));
            Labels::new(rest.chain([(NAME.to_owned(), "target_info".to_owned())]).chain(labels.iter().cloned()))
        });
        Self { labels, info }
    }
}

struct Writer<'a> {
    sender: &'a Sender,
    now: i64,
    said: &'a mut Said,
}

impl Writer<'_> {
    fn metric(&mut self, metric: &Metric) {
        match &metric.data {
            None => self.said.refused += 1,
            Some(metric::Data::Gauge(gauge)) => {
                let name = self.named(metric, Kind::Gauge, Type::Gauge);
                gauge.data_points.iter().for_each(|point| self.number(&name, point, false));
            }
            Some(metric::Data::Sum(sum)) => {
                let (kind, of) = match sum.is_monotonic {
                    true => (Kind::Counter, Type::Counter),
                    false => (Kind::Gauge, Type::Gauge),
                };
                let name = self.named(metric, kind, of);
                let is_added = is_delta(sum.aggregation_temporality);
                sum.data_points.iter().for_each(|point| self.number(&name, point, is_added));
            }
            Some(metric::Data::Histogram(histogram)) => {
                let name = self.named(metric, Kind::Other, Type::Histogram);
                let is_added = is_delta(histogram.aggregation_temporality);
                histogram.data_points.iter().for_each(|point| self.histogram(&name, point, is_added));
            }
            Some(metric::Data::ExponentialHistogram(histogram)) => {
                let name = self.named(metric, Kind::Other, Type::Histogram);
                let is_added = is_delta(histogram.aggregation_temporality);
                histogram.data_points.iter().for_each(|point| self.exponential(&name, point, is_added));
            }
            Some(metric::Data::Summary(summary)) => {
                let name = self.named(metric, Kind::Other, Type::Summary);
                summary.data_points.iter().for_each(|point| self.summary(&name, point));
            }
        }
    }

    fn named(&mut self, metric: &Metric, kind: Kind, of: Type) -> String {
        let name = names::metric(&metric.name, &metric.unit, kind);
        let about = About { of, unit: metric.unit.clone(), help: metric.description.clone() };
        self.said.about.insert(name.clone(), about);
        name
    }

    fn number(&mut self, name: &str, point: &NumberDataPoint, is_added: bool) {
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None if is_absent(point.flags) => 0.0,
            None => {
                self.said.refused += 1;
                return;
            }
        };
        let labels = self.labels(name, &point.attributes, None);
        self.point_out(&point.exemplars, |_| labels.clone());
        self.put(labels, point.time_unix_nano, point.flags, value.into(), is_added);
    }

    /// Notes exemplars that say their trace.
    fn point_out(&mut self, exemplars: &[otlp::Exemplar], of: impl Fn(f64) -> Labels) {
        for exemplar in exemplars.iter().filter(|one| !one.trace_id.is_empty()).take(EXEMPLARS_MAX) {
            let value = measured(exemplar);
            let own = exemplar.filtered_attributes.iter();
            let own = own.map(|pair| (names::label(&pair.key), pair.value.clone().map(text).unwrap_or_default()));
            let ids = [("trace_id", &exemplar.trace_id), ("span_id", &exemplar.span_id)];
            let ids = ids.map(|(name, id)| (name.to_owned(), hex(id)));
            let at = i64::try_from(exemplar.time_unix_nano / 1_000_000).unwrap_or(i64::MAX);
            let at = if at == 0 { self.now } else { at };
            self.said.exemplars.push((of(value), Exemplar { at, value, labels: Labels::new(own.chain(ids)) }));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
    fn histogram(&mut self, name: &str, point: &HistogramDataPoint, is_added: bool) {
        let fits = point.bucket_counts.is_empty() || point.bucket_counts.len() == point.explicit_bounds.len() + 1;
        if !fits || point.bucket_counts.len() > BUCKETS_MAX {
            self.said.refused += 1;
            return;
        }
        let (time, flags) = (point.time_unix_nano, point.flags);
        let bucket = |value: f64| {
            let bound = point.explicit_bounds.iter().find(|bound| value <= **bound);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| show(*bound));
            self.labels(&format!("{name}_bucket"), &point.attributes, Some(("le", &bound)))
        };
        let buckets: Vec<Labels> = point.exemplars.iter().map(|one| bucket(measured(one))).collect();
        for (exemplar, labels) in point.exemplars.iter().zip(buckets) {
            self.point_out(std::slice::from_ref(exemplar), |_| labels.clone());
        }
        let mut below = 0_u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            below = below.saturating_add(*count);
            let labels = self.labels(&format!("{name}_bucket"), &point.attributes, Some(("le", &show(*bound))));
            self.put(labels, time, flags, (below as f64).into(), is_added);
        }
        let labels = self.labels(&format!("{name}_bucket"), &point.attributes, Some(("le", "+Inf")));
        self.put(labels, time, flags, (point.count as f64).into(), is_added);
        self.ends(name, &point.attributes, (time, flags), (point.count, point.sum), is_added);
    }

    fn exponential(&mut self, name: &str, point: &ExponentialHistogramDataPoint, is_added: bool) {
        let Some(histogram) = native(point) else {
            self.said.refused += 1;
            return;
        };
        let labels = self.labels(name, &point.attributes, None);
        self.point_out(&point.exemplars, |_| labels.clone());
        self.put(labels, point.time_unix_nano, point.flags, histogram.into(), is_added);
    }

    fn summary(&mut self, name: &str, point: &SummaryDataPoint) {
        let (time, flags) = (point.time_unix_nano, point.flags);
        for one in &point.quantile_values {
            let labels = self.labels(name, &point.attributes, Some(("quantile", &show(one.quantile))));
            self.put(labels, time, flags, one.value.into(), false);
        }
        self.ends(name, &point.attributes, (time, flags), (point.count, Some(point.sum)), false);
    }

    /// The number of measurements and their sum.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
    fn ends(
        &mut self,
        name: &str,
        attributes: &[KeyValue],
        (time, flags): (u64, u32),
        (count, sum): (u64, Option<f64>),
        is_added: bool,
    ) {
        let labels = self.labels(&format!("{name}_count"), attributes, None);
        self.put(labels, time, flags, (count as f64).into(), is_added);
        if let Some(sum) = sum {
            let labels = self.labels(&format!("{name}_sum"), attributes, None);
            self.put(labels, time, flags, sum.into(), is_added);
        }
    }

    fn labels(&self, name: &str, attributes: &[KeyValue], one_more: Option<(&str, &str)>) -> Labels {
        let of_point =
            attributes.iter().map(|pair| (names::label(&pair.key), pair.value.clone().map(text).unwrap_or_default()));
        let more = one_more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let named = [(NAME.to_owned(), name.to_owned())];
        Labels::new(of_point.chain(self.sender.labels.iter().cloned()).chain(more).chain(named))
    }

    fn put(&mut self, labels: Labels, time: u64, flags: u32, point: Point, is_added: bool) {
        let at = if time == 0 { self.now } else { i64::try_from(time / 1_000_000).unwrap_or(i64::MAX) };
        let (point, is_added) = match is_absent(flags) {
            true => (f64::from_bits(STALE).into(), false),
            false => (point, is_added),
        };
        self.said.readings.push(Reading { labels, at, point, is_added });
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn measured(exemplar: &otlp::Exemplar) -> f64 {
    match exemplar.value {
        Some(exemplar::Value::AsDouble(value)) => value,
        Some(exemplar::Value::AsInt(value)) => value as f64,
        None => f64::NAN,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_delta(temporality: i32) -> bool {
    temporality == AggregationTemporality::Delta as i32
}

fn is_absent(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 != 0
}

/// An exponential histogram as a native one. `None` if its buckets are wider than any that Prometheus knows, or too many.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn native(point: &ExponentialHistogramDataPoint) -> Option<Histogram> {
    let schema = point.scale.min(SCHEMA_MAX);
    if schema < SCHEMA_MIN {
        return None;
    }
    let shift = u32::try_from(point.scale - schema).ok()?.min(31);
    let side = |buckets: Option<&Buckets>| {
        let mut side: BTreeMap<i32, f64> = BTreeMap::new();
        let counts = buckets.map_or(&[][..], |buckets| &buckets.bucket_counts);
        if counts.len() > BUCKETS_MAX {
            return None;
        }
        let offset = buckets.map_or(0, |buckets| buckets.offset);
        for (at, count) in (0_i32..).zip(counts).filter(|(_, count)| **count > 0) {
            // OpenTelemetry numbers a bucket by its lower end, Prometheus by its upper.
            let index = (offset.saturating_add(at) >> shift).saturating_add(1);
            *side.entry(index).or_default() += *count as f64;
        }
        Some(side)
    };
    Some(Histogram {
        schema,
        zero_threshold: point.zero_threshold,
        zero_count: point.zero_count as f64,
        count: point.count as f64,
        sum: point.sum.unwrap_or_default(),
        positive: side(point.positive.as_ref())?,
        negative: side(point.negative.as_ref())?,
        ..Histogram::default()
    })
}
