//! The newest value of each series in memory. Pure: the time is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Measurement, Nanos, Sample, SeriesKey, Temporality, Usage, bytes_of};
use crate::tier::{Page, Tally};

/// A series that was silent for so long is not answered any more, and is forgotten with the next append.
const SILENT_MAX: Duration = Duration::from_secs(300);
/// A series that was silent for so long says nothing about what an instance uses.
const USAGE_SILENT_MAX: Duration = Duration::from_secs(60);
/// What the indexes and the allocator take for a series, beside its own bytes; measured by eye, on the safe side.
const INDEX_BYTES: usize = 256;

/// Processor time of an instance in seconds, a total, one series a mode.
const CPU_TIME: &str = "process.cpu.time";
/// Processor use of an instance in cores; counts where there is no [`CPU_TIME`].
const CPU_UTILIZATION: &str = "process.cpu.utilization";
/// Resident memory of an instance in bytes.
const MEMORY_USAGE: &str = "process.memory.usage";

/// Newest samples within a number of series and of bytes; the longest silent is the first to go.
#[derive(Debug)]
pub(crate) struct Store {
    series: BTreeMap<Arc<SeriesKey>, Entry>,
    /// By the order in which they were heard of last.
    heard: BTreeMap<u64, Arc<SeriesKey>>,
    turn: u64,
    bytes: usize,
    bytes_max: usize,
    series_max: usize,
    /// What is kept, for the answer.
    pub(crate) tally: Tally,
}

#[derive(Debug)]
struct Entry {
    sample: Sample,
    turn: u64,
    heard: Duration,
}

impl Store {
    /// Makes an empty store.
    pub(crate) fn new(bytes_max: usize, series_max: usize) -> Self {
        let tally = Tally { bytes_max: bytes_max as u64, ..Tally::default() };
        Self { series: BTreeMap::new(), heard: BTreeMap::new(), turn: 0, bytes: 0, bytes_max, series_max, tally }
    }

    /// Takes measurements in at a time, and forgets the longest silent beyond the limits.
    pub(crate) fn append(&mut self, measurements: Vec<Measurement>, now: Duration) {
        for measurement in measurements {
            self.tally.received += 1;
            self.turn += 1;
            self.put(measurement, now);
            while self.bytes > self.bytes_max || self.series.len() > self.series_max {
                self.forget_longest_silent();
            }
        }
        while self.longest_silent().is_some_and(|heard| now.saturating_sub(heard) > SILENT_MAX) {
            self.forget_longest_silent();
        }
        self.tally.records = self.series.len() as u64;
        self.tally.bytes = self.bytes as u64;
    }

    fn put(&mut self, measurement: Measurement, now: Duration) {
        let turn = self.turn;
        match self.series.get_mut(&measurement.key) {
            Some(entry) => {
                if let Some(key) = self.heard.remove(&entry.turn) {
                    self.heard.insert(turn, key);
                }
                entry.turn = turn;
                entry.heard = now;
                // Senders may repeat themselves, and batches may overtake each other.
                if measurement.time > entry.sample.time {
                    entry.sample = following(&entry.sample, &measurement);
                }
            }
            None => {
                let sample = first(&measurement);
                self.bytes += cost(&measurement.key);
                let key = Arc::new(measurement.key);
                self.heard.insert(turn, key.clone());
                self.series.insert(key, Entry { sample, turn, heard: now });
            }
        }
    }

    fn longest_silent(&self) -> Option<Duration> {
        let (_, key) = self.heard.first_key_value()?;
        self.series.get(key).map(|entry| entry.heard)
    }

    fn forget_longest_silent(&mut self) {
        let Some((_, key)) = self.heard.pop_first() else { return };
        self.series.remove(&key);
        self.bytes -= cost(&key);
        self.tally.forgotten += 1;
    }

    /// Newest samples by key, behind `after`, of one metric and one service if they are given.
    pub(crate) fn samples(
        &self,
        metric: Option<&str>,
        service: Option<&str>,
        after: Option<&SeriesKey>,
        records_max: usize,
        now: Duration,
    ) -> Page<(SeriesKey, Sample), SeriesKey> {
        let mut records: Vec<(SeriesKey, Sample)> = Vec::new();
        let first = first_of(metric.unwrap_or_default());
        let from = after.filter(|after| **after > first).unwrap_or(&first);
        for (key, entry) in self.series.range::<SeriesKey, _>(from..) {
            if metric.is_some_and(|metric| metric != key.metric) {
                break;
            }
            let is_meant = after.is_none_or(|after| **key > *after)
                && service.is_none_or(|service| service == key.service)
                && now.saturating_sub(entry.heard) <= SILENT_MAX;
            if !is_meant {
                continue;
            }
            if records.len() >= records_max {
                let next = records.last().map(|(key, _)| key.clone());
                return Page { records, next };
            }
            records.push(((**key).clone(), entry.sample));
        }
        Page { records, next: None }
    }

    /// What instances use, by service and instance.
    pub(crate) fn usage(&self, service: Option<&str>, now: Duration) -> Vec<Usage> {
        let mut instances: BTreeMap<(String, String), Used> = BTreeMap::new();
        for metric in [CPU_TIME, CPU_UTILIZATION, MEMORY_USAGE] {
            let of_metric = self.series.range::<SeriesKey, _>(first_of(metric)..);
            for (key, entry) in of_metric.take_while(|(key, _)| key.metric == metric) {
                let is_meant = service.is_none_or(|service| service == key.service)
                    && now.saturating_sub(entry.heard) <= USAGE_SILENT_MAX;
                if is_meant {
                    let used = instances.entry((key.service.clone(), key.instance_id.clone())).or_default();
                    used.add(metric, &entry.sample);
                }
            }
        }
        let usage_of = |((service, instance_id), used): ((String, String), Used)| Usage {
            service,
            instance_id,
            cpu_cores: used.cpu_rate.or(used.cpu_utilization).unwrap_or_default(),
            memory_bytes: used.memory_bytes,
            time: used.time,
        };
        instances.into_iter().map(usage_of).collect()
    }
}

#[derive(Default)]
struct Used {
    cpu_rate: Option<f64>,
    cpu_utilization: Option<f64>,
    memory_bytes: u64,
    time: Nanos,
}

impl Used {
    fn add(&mut self, metric: &str, sample: &Sample) {
        self.time = self.time.max(sample.time);
        match metric {
            CPU_TIME => {
                if let Some(rate) = sample.rate {
                    *self.cpu_rate.get_or_insert_default() += rate;
                }
            }
            CPU_UTILIZATION => *self.cpu_utilization.get_or_insert_default() += sample.value,
            _ => self.memory_bytes = self.memory_bytes.saturating_add(whole(sample.value)),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates, which is meant")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn first_of(metric: &str) -> SeriesKey {
    SeriesKey { metric: metric.to_owned(), service: String::new(), instance_id: String::new(), labels: Vec::new() }
}

fn first(measurement: &Measurement) -> Sample {
    let rate = match measurement.temporality {
        Temporality::Delta => rate(measurement.value, measurement.start, measurement.time),
        Temporality::Gauge | Temporality::Cumulative => None,
    };
    Sample { value: measurement.value, count: measurement.count, time: measurement.time, rate }
}

fn following(before: &Sample, measurement: &Measurement) -> Sample {
    let time = measurement.time;
    match measurement.temporality {
        Temporality::Gauge => first(measurement),
        Temporality::Cumulative => {
            let grown = measurement.value - before.value;
            // A total that shrinks began anew with its process.
            let rate = if grown >= 0.0 { rate(grown, before.time, time) } else { None };
            Sample { value: measurement.value, count: measurement.count, time, rate }
        }
        Temporality::Delta => Sample {
            value: before.value + measurement.value,
            count: before.count.saturating_add(measurement.count),
            time,
            rate: rate(measurement.value, before.time, time),
        },
    }
}

fn rate(grown: f64, from: Nanos, to: Nanos) -> Option<f64> {
    let elapsed = Duration::from_nanos(to.0.checked_sub(from.0).filter(|nanos| *nanos > 0 && from.0 > 0)?);
    Some(grown / elapsed.as_secs_f64())
}

fn cost(key: &SeriesKey) -> usize {
    let names = key.metric.len() + key.service.len() + key.instance_id.len();
    size_of::<SeriesKey>() + size_of::<Entry>() + INDEX_BYTES + names + bytes_of(&key.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn measured(metric: &str, labels: &str, temporality: Temporality, value: f64, second: u64) -> Measurement {
        Measurement {
            key: SeriesKey {
                metric: metric.to_owned(),
                service: "pump".to_owned(),
                instance_id: "p-1".to_owned(),
                labels: vec![("mode".to_owned(), labels.to_owned())],
            },
            temporality,
            value,
            count: 0,
            start: Nanos(1),
            time: Nanos(second * SECOND),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn processor_use_is_how_fast_processor_time_grows_over_all_modes() {
        let mut store = Store::new(1 << 20, 100);
        let total = Temporality::Cumulative;
        for (second, user, system) in [(100, 10.0, 5.0), (110, 14.0, 6.0)] {
            let memory = measured(MEMORY_USAGE, "", Temporality::Gauge, 4096.0, second);
            let user = measured(CPU_TIME, "user", total, user, second);
            store.append(vec![user, measured(CPU_TIME, "system", total, system, second), memory], at(second));
        }
        let usage = store.usage(Some("pump"), at(120));
        assert_eq!((usage[0].cpu_cores, usage[0].memory_bytes), (0.5, 4096));
        assert!(store.usage(Some("valve"), at(120)).is_empty());
        assert!(store.usage(None, at(171)).is_empty(), "an instance unheard of for a minute is not told of");
        store.append(vec![measured(CPU_TIME, "user", total, 0.5, 120)], at(120));
        assert_eq!(store.usage(None, at(120))[0].cpu_cores, 0.1, "a process that began anew adds nothing");
    }

    #[test]
    fn utilization_counts_where_there_is_no_processor_time() {
        let mut store = Store::new(1 << 20, 100);
        store.append(vec![measured(CPU_UTILIZATION, "", Temporality::Gauge, 1.5, 1)], at(1));
        assert_eq!(store.usage(None, at(1))[0].cpu_cores, 1.5);
    }

    #[test]
    fn additions_are_summed_and_late_or_repeated_ones_are_not() {
        let mut store = Store::new(1 << 20, 100);
        for second in [10, 20, 20, 15] {
            store.append(vec![measured("calls", "", Temporality::Delta, 3.0, second)], at(second));
        }
        let page = store.samples(Some("calls"), None, None, 10, at(20));
        assert_eq!(page.records[0].1.value, 6.0);
    }

    #[test]
    fn samples_come_page_by_page_in_the_order_of_keys() {
        let mut store = Store::new(1 << 20, 100);
        for label in ["c", "a", "b"] {
            store.append(vec![measured("m", label, Temporality::Gauge, 1.0, 1)], at(1));
        }
        store.append(vec![measured("n", "z", Temporality::Gauge, 1.0, 1)], at(1));
        let page = store.samples(Some("m"), Some("pump"), None, 2, at(1));
        assert_eq!(page.records.iter().map(|(key, _)| key.labels[0].1.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let page = store.samples(Some("m"), Some("pump"), page.next.as_ref(), 2, at(1));
        assert_eq!((page.records[0].0.labels[0].1.as_str(), page.records.len(), page.next), ("c", 1, None));
    }

    #[test]
    fn the_longest_silent_series_goes_first() {
        let mut store = Store::new(1 << 20, 2);
        for label in ["a", "b", "a", "c"] {
            store.append(vec![measured("m", label, Temporality::Gauge, 1.0, 1)], at(1));
        }
        let page = store.samples(None, None, None, 10, at(1));
        assert_eq!(page.records.iter().map(|(key, _)| key.labels[0].1.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        store.append(Vec::new(), at(400));
        assert_eq!((store.series.len(), store.heard.len(), store.bytes, store.tally.forgotten), (0, 0, 0, 3));
    }
}
