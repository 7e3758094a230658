//! PromQL: what a query of Prometheus asks of series, and what they answer.
//!
//! Pure: no clock, no disk, no waiting. A [`Query`] tells which series it needs ([`Query::needs`]); whoever keeps them hands
//! them in, and [`Query::answer`] evaluates. The meaning is that of Prometheus 3: ranges are open to the left, lookback too,
//! counters are extrapolated to the edges of their range, never below zero, native histograms interpolate exponentially.
//!
//! What it never does: look for series by itself, or guess: what it does not know it refuses by name.

mod aggregate;
mod binary;
mod buckets;
mod calls;
mod edges;
mod error;
mod eval;
mod histogram;
mod info;
mod labels;
mod math;
mod model;
mod scope;
mod syntax;
mod time;
mod window;

pub use error::Error;
pub use eval::Query;
pub use histogram::{Bucket, CUSTOM, Histogram};
pub use labels::{Labels, NAME};
pub use model::{Answer, Limits, Point, STALE, Sample, Series, Span, is_stale, show};
pub use scope::{Data, Selection};
pub use syntax::duration;
