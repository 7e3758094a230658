//! Counts what happens in a role.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;

/// A metric that only grows. Clones count together.
#[derive(Clone, Debug)]
pub struct Count(Counter<u64>);

impl Count {
    /// Begins to count. `name` is `ninefold_<role>_<thing>_total`. Make it after telemetry was started.
    pub fn new(name: &'static str, about: &'static str) -> Self {
        Self(opentelemetry::global::meter("ninefold").u64_counter(name).with_description(about).build())
    }

    /// Counts one. Values of labels must come from closed sets.
    pub fn add(&self, labels: &[(&'static str, &str)]) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| KeyValue::new(*name, (*value).to_owned())).collect();
        self.0.add(1, &labels);
    }
}
