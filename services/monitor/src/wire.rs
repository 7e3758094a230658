//! Between the words of OTLP and of the monitor's contract, and the model. The only place that knows both.

pub(crate) mod answer;
pub(crate) mod json;
pub(crate) mod neighbour;
pub(crate) mod onward;
pub(crate) mod otlp;
pub(crate) mod query;
