//! Calls to other services: who is there, whom to ask, and what to do when the answer does not come.
//!
//! [`Discovery`] follows the registry; a [`Channel`] made from it is a tower service that generated clients take
//! unchanged. The channel picks between instances, keeps their connections alive, carries the caller's deadline and
//! trace on, keeps away from instances that fail, and repeats calls where that is harmless. [`platform`] reaches the
//! platform itself, which no registry can announce.
//!
//! Every failure leaves as an answer with a gRPC status, so a generated client sees a proper [`tonic::Status`] with a
//! `google.rpc.ErrorInfo`: `NO_INSTANCE`, `INSTANCE_UNREACHABLE`, `CONNECTION_LOST`, `STREAM_RESET`, `BREAKER_OPEN`,
//! `CALL_DEADLINE`, `PLATFORM_UNREACHABLE`. A breaker that opens is an event of the registry.

mod answer;
mod attempt;
mod balance;
pub mod breaker;
mod budget;
mod call;
mod calls;
mod channel;
mod connection;
pub mod deadline;
mod declared;
mod dialer;
mod digest;
mod discovery;
mod endpoint;
mod error;
mod fallback;
mod landscape;
mod method;
mod observer;
pub(crate) mod orca;
mod plain;
mod platform;
pub mod policy;
mod pool;
pub mod priority;
mod quantile;
mod replay;
mod restraint;
pub(crate) mod ring;
mod shelf;
mod subset;
mod throttle;
mod told;
mod trace;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use calls::report_calls;
pub use channel::Channel;
pub(crate) use connection::{CONNECTION_WINDOW, STREAM_WINDOW};
pub use dialer::{Dialer, Io};
pub use digest::digest;
pub use discovery::{Discovery, Follow, Interest};
pub use endpoint::FAILED_AT;
pub use error::{Cause, Error};
pub use fallback::FellBack;
pub use landscape::{Address, HTTP_LABEL, Instance, LandscapeView, Protocol, State};
pub use platform::{platform, platform_as};
pub use policy::{Idempotency, Policy};
pub use priority::Priority;
pub(crate) use shelf::file_of;
pub use subset::{Selector, Subset};

/// A server's word on when to repeat a call, in milliseconds, or not to.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A request extension: only instances whose contract digest is in the set may answer.
///
/// The gateway uses it while a service's instances keep different contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Among(pub Arc<BTreeSet<String>>);

/// A request extension: this call may be repeated, whatever its method's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent;

/// A response extension: who answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnsweredBy {
    /// Name of the service.
    pub service: Arc<str>,
    /// Id of the instance.
    pub instance_id: Arc<str>,
    /// Its address, as `host:port`.
    pub address: Arc<str>,
}

/// Whether a call failed because nobody could answer it in time: no instance, an open breaker, a lost connection, or a
/// deadline. What the callee itself refused is not meant.
pub fn is_unavailable(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded)
}
