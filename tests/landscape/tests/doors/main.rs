//! The landscape told in the dialects of others, to their own real programs: gRPC libraries, Envoy, Prometheus, `dig`,
//! `curl`.

mod backend;
mod certificates;
mod client;
mod curl;
mod dns;
mod envoy;
mod floods;
mod grafana;
mod grpc;
mod h2spec;
mod openapi;
mod policies;
mod prometheus;
mod promql;
mod questions;
mod refusals;
mod remote_write;
