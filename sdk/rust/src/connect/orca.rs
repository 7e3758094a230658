//! How busy an instance says it is: the words of `xds.data.orca.v3`, as far as they are used.

use http::HeaderMap;
use prost::Message;
use tonic::metadata::MetadataMap;

/// The trailer that carries a report.
pub(crate) const TRAILER: &str = "endpoint-load-metrics-bin";

/// An `xds.data.orca.v3.OrcaLoadReport`; fields that are not here are not said.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct LoadReport {
    /// Share of the processors in use.
    #[prost(double, tag = "1")]
    pub(crate) cpu_utilization: f64,
    /// Calls a second.
    #[prost(double, tag = "6")]
    pub(crate) rps_fractional: f64,
    /// Failed calls a second.
    #[prost(double, tag = "7")]
    pub(crate) eps: f64,
    /// Share of what the instance can do that it does.
    #[prost(double, tag = "9")]
    pub(crate) application_utilization: f64,
}

/// Reads the report that trailers carry. `None` where they carry none, or a damaged one.
pub(crate) fn report(trailers: &HeaderMap) -> Option<LoadReport> {
    let value = trailers.get(TRAILER)?.clone();
    let one = MetadataMap::from_headers(HeaderMap::from_iter([(http::HeaderName::from_static(TRAILER), value)]));
    LoadReport::decode(one.get_bin(TRAILER)?.to_bytes().ok()?).ok()
}
