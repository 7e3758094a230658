//! What is known of metrics beside their samples: their type, unit and description. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most metrics that something is known of. The first come stay.
const METRICS_MAX: usize = 20_000;
/// Longest description and unit, in bytes. More is cut off.
const HELP_BYTES_MAX: usize = 1024;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Type {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Info,
    Unknown,
}

impl Type {
    /// Its name. Empty if nobody said what it is.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::Unknown => "",
        }
    }
}

impl Type {
    /// Reads what [`Type::word`] says.
    pub(crate) fn of_word(word: &str) -> Self {
        let known = [Self::Counter, Self::Gauge, Self::Histogram, Self::Summary, Self::Info];
        known.into_iter().find(|of| of.word() == word).unwrap_or(Self::Unknown)
    }
}

/// What is known of a metric.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct About {
    #[serde(rename = "type")]
    pub(crate) of: Type,
    pub(crate) unit: String,
    pub(crate) help: String,
}

impl About {
    /// What `target_info` is.
    pub(crate) fn target_info() -> Self {
        Self { of: Type::Info, unit: String::new(), help: "What is known of who measures".to_owned() }
    }
}

/// What is known of all.
#[derive(Debug, Default)]
pub(crate) struct Catalogue(BTreeMap<String, About>);

impl Catalogue {
    /// Learns. What is known already is replaced.
    /// Answers whether anything is new.
    pub(crate) fn learn(&mut self, more: BTreeMap<String, About>) -> bool {
        let mut is_new = false;
        for (name, mut about) in more {
            if self.0.len() < METRICS_MAX || self.0.contains_key(&name) {
                cut(&mut about.help);
                cut(&mut about.unit);
                is_new |= self.0.get(&name) != Some(&about);
                self.0.insert(name, about);
            }
        }
        is_new
    }

    /// All, or one.
    pub(crate) fn of<'a>(&'a self, metric: Option<&'a str>) -> impl Iterator<Item = (&'a String, &'a About)> {
        self.0.iter().filter(move |(name, _)| metric.is_none_or(|metric| metric == *name))
    }
}

fn cut(text: &mut String) {
    if text.len() > HELP_BYTES_MAX {
        let end = (0..=HELP_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
    }
}
