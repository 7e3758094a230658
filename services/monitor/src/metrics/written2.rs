//! What Prometheus' remote write 2.0 says, after <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>. Pure.
//!
//! Texts come once, in a table, and are named by their place in it.

use std::collections::BTreeMap;

use ninefold_promql::{Labels, NAME};
use prost::Message;

use super::about::{About, Type};
use super::exemplars::{Exemplar, Said};
use super::store::Reading;
use super::written::{Native, Sample};

/// A request: `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Written {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Native>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Pointed>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

/// `Exemplar`.
#[derive(Clone, PartialEq, Message)]
struct Pointed {
    #[prost(uint32, repeated, tag = "1")]
    labels: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    at: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    of: i32,
    #[prost(uint32, tag = "3")]
    help: u32,
    #[prost(uint32, tag = "4")]
    unit: u32,
}

/// What a request says.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) readings: Vec<Reading>,
    pub(crate) about: BTreeMap<String, About>,
    pub(crate) exemplars: Vec<Said>,
    /// How many of the readings are samples, and how many histograms.
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    /// When counters began, and with which series. Zero is what they were then.
    pub(crate) begins: Vec<Reading>,
}

/// Counters, as `Metadata` numbers types.
const COUNTER: i32 = 1;

impl Written {
    /// Reads it.
    ///
    /// # Errors
    /// What cannot be: places outside of the table, labels without a value or out of order, a series without a name.
    pub(crate) fn content(self) -> Result<Content, String> {
        if self.symbols.first().is_some_and(|first| !first.is_empty()) {
            return Err("the first text of the table must be empty".to_owned());
        }
        let mut content = Content::default();
        for series in self.series {
            let labels = labels(&self.symbols, &series.labels)?;
            let name = labels.get(NAME).to_owned();
            if name.is_empty() {
                return Err(format!("a series has no name: {labels}"));
            }
            let is_counter = series.metadata.as_ref().is_some_and(|metadata| metadata.of == COUNTER);
            for sample in &series.samples {
                let reading =
                    Reading { labels: labels.clone(), at: sample.at, point: sample.value.into(), is_added: false };
                if is_counter && sample.begin > 0 && sample.begin < sample.at {
                    content.begins.push(Reading { at: sample.begin, point: 0.0.into(), ..reading.clone() });
                }
                content.readings.push(reading);
                content.samples += 1;
            }
            for histogram in &series.histograms {
                let point = histogram.native().into();
                content.readings.push(Reading { labels: labels.clone(), at: histogram.at, point, is_added: false });
                content.histograms += 1;
            }
            for one in &series.exemplars {
                let own = self::labels(&self.symbols, &one.labels)?;
                content.exemplars.push((labels.clone(), Exemplar { at: one.at, value: one.value, labels: own }));
            }
            if let Some(metadata) = series.metadata.filter(|metadata| metadata.of != 0 || metadata.help != 0) {
                let (help, unit) = (text(&self.symbols, metadata.help)?, text(&self.symbols, metadata.unit)?);
                let about = About { of: kind(metadata.of), unit: unit.to_owned(), help: help.to_owned() };
                content.about.insert(family(&name, about.of).to_owned(), about);
            }
        }
        Ok(content)
    }
}

const fn kind(of: i32) -> Type {
    match of {
        1 => Type::Counter,
        2 => Type::Gauge,
        3 | 4 => Type::Histogram,
        5 => Type::Summary,
        6 => Type::Info,
        _ => Type::Unknown,
    }
}

/// The name by which a metric is known: that of a histogram without what its parts end in.
fn family(name: &str, of: Type) -> &str {
    let parts: &[&str] = match of {
        Type::Histogram => &["_bucket", "_count", "_sum"],
        Type::Summary => &["_count", "_sum"],
        Type::Counter | Type::Gauge | Type::Info | Type::Unknown => &[],
    };
    parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

fn text(symbols: &[String], at: u32) -> Result<&str, String> {
    let found = usize::try_from(at).ok().and_then(|at| symbols.get(at)).map(String::as_str);
    // A table may be empty where nobody names anything.
    found.or((at == 0).then_some("")).ok_or_else(|| format!("the table of texts has no place {at}"))
}

fn labels(symbols: &[String], places: &[u32]) -> Result<Labels, String> {
    if !places.len().is_multiple_of(2) {
        return Err("a label has no value".to_owned());
    }
    let pairs = places.chunks_exact(2).map(|pair| Ok((text(symbols, pair[0])?, text(symbols, pair[1])?)));
    let pairs: Vec<(&str, &str)> = pairs.collect::<Result<_, String>>()?;
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name.is_empty()) {
        return Err(format!("a label has no name: {name:?}"));
    }
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("the label {:?} is there twice", twice[0]));
    }
    Ok(Labels::new(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(labels: &[u32], metadata: Option<Metadata>) -> Written {
        let symbols = ["", NAME, "hits_total", "job", "cart", "how often"].map(str::to_owned).to_vec();
        let samples = vec![Sample { value: 4.0, at: 2000, begin: 500 }];
        let exemplars = vec![Pointed { labels: vec![3, 4], value: 1.0, at: 1500 }];
        let series = TimeSeries { labels: labels.to_vec(), samples, exemplars, metadata, histograms: Vec::new() };
        Written { symbols, series: vec![series] }
    }

    #[test]
    fn texts_are_found_by_their_places() {
        let content = written(&[1, 2, 3, 4], Some(Metadata { of: COUNTER, help: 5, unit: 0 })).content().expect("read");
        let labels = Labels::new([(NAME, "hits_total"), ("job", "cart")]);
        assert_eq!((content.samples, content.histograms, content.readings.len()), (1, 0, 1));
        assert_eq!(content.readings[0].labels, labels);
        assert_eq!((content.begins[0].at, content.begins[0].point.float()), (500, Some(0.0)));
        assert_eq!(content.exemplars[0].0, labels);
        assert_eq!(content.about["hits_total"].help, "how often");
        let plain = written(&[1, 2], None).content().expect("read");
        assert!(plain.begins.is_empty(), "only of counters it is known what they were when they began");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (places, why) in [
            (&[1, 2, 3][..], "no value"),
            (&[1, 9], "no place 9"),
            (&[3, 4], "no name"),
            (&[1, 2, 3, 4, 3, 2], "twice"),
        ] {
            let error = written(places, None).content().expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
        let mut odd = written(&[1, 2], None);
        odd.symbols[0] = "x".to_owned();
        assert!(odd.content().is_err());
    }
}
