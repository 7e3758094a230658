//! Measures states and totals of a role whenever measurements leave.

use opentelemetry::KeyValue;

/// What a measured number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// A total that only grows. Its name ends in `_total`.
    Total,
    /// A state.
    State,
}

/// A number with its labels. Their values must come from closed sets.
pub type Measured = (Vec<(&'static str, String)>, f64);

/// Begins to measure. `look` is called whenever measurements leave, on a thread of the exporter: it must neither block for
/// long nor wait. Call it after telemetry was started; it goes on for as long as the process.
pub fn measure(
    name: &'static str,
    about: &'static str,
    measure: Measure,
    look: impl Fn() -> Vec<Measured> + Send + Sync + 'static,
) {
    let meter = opentelemetry::global::meter("ninefold");
    let told = move |observe: &dyn Fn(f64, &[KeyValue])| {
        for (labels, value) in look() {
            let labels: Vec<_> = labels.into_iter().map(|(name, value)| KeyValue::new(name, value)).collect();
            observe(value, &labels);
        }
    };
    match measure {
        Measure::Total => drop(
            meter
                .f64_observable_counter(name)
                .with_description(about)
                .with_callback(move |meter| told(&|value, labels| meter.observe(value, labels)))
                .build(),
        ),
        Measure::State => drop(
            meter
                .f64_observable_gauge(name)
                .with_description(about)
                .with_callback(move |meter| told(&|value, labels| meter.observe(value, labels)))
                .build(),
        ),
    }
}
