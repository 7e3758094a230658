//! What can go wrong in the registry.

use std::time::Duration;

use ninefold::caller::Denied;
use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;
use ninefold_store as store;

use crate::model::{InstanceKey, ServiceKey};

/// What can go wrong in the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An instance is malformed, or a state was set that cannot be set.
    #[error("the instance is malformed: {}", list(.0))]
    InstanceInvalid(Vec<Violation>),
    /// A live session holds the id.
    #[error("a live session holds {0}")]
    InstanceTaken(InstanceKey),
    /// Several nodes wrote the instance at the same time, again and again.
    #[error("the registration of {0} is contended")]
    InstanceContended(InstanceKey),
    /// There is no such instance.
    #[error("no instance {id} of {service} is registered")]
    InstanceUnknown {
        /// The service asked for.
        service: String,
        /// The id asked for.
        id: String,
    },
    /// A service has as many instances as it may have.
    #[error("{service} has {max} instances, as many as it may have")]
    ServiceFull {
        /// Which.
        service: ServiceKey,
        /// The limit.
        max: usize,
    },
    /// The first message of a session was no registration, or none came in time.
    #[error("the session was not opened: its first message must be a registration")]
    SessionUnopened,
    /// A session registered twice.
    #[error("the session is open already: an instance registers once")]
    SessionReopened,
    /// An instance missed its beats.
    #[error("nothing was heard for {}", ninefold::settings::duration::format(*.0))]
    SessionSilent(Duration),
    /// An instance does not read what it is answered.
    #[error("the instance does not read its answers")]
    SessionUnread,
    /// The node holds as many sessions as it may hold.
    #[error("this node holds {max} sessions, as many as it may hold")]
    SessionsFull {
        /// The limit.
        max: usize,
    },
    /// A watch asks for too much, or for what cannot be.
    #[error("the watch is malformed: {}", list(.0))]
    WatchInvalid(Vec<Violation>),
    /// A watch did not begin with what it follows, or not in time.
    #[error("the watch was not opened: its first message must say what to follow")]
    WatchUnopened,
    /// A policy cannot be used.
    #[error("the policy cannot be used: {}", list(.0))]
    PolicyInvalid(Vec<Violation>),
    /// A service has no policy.
    #[error("{0} has no policy of its own")]
    PolicyUnknown(String),
    /// The node serves as many watches as it may serve.
    #[error("this node serves {max} watches, as many as it may serve")]
    WatchersFull {
        /// The limit.
        max: usize,
    },
    /// An instance would serve with a contract that was not accepted for its service.
    #[error("the contract {digest} is not accepted for {service}")]
    ContractUnaccepted {
        /// Its service.
        service: String,
        /// Digest of the contract.
        digest: String,
    },
    /// Nobody can tell whether a contract was accepted.
    #[error("the contract store does not answer: {0}")]
    ContractsAway(String),
    /// A namespace cannot be called so.
    #[error("the namespace is malformed: {}", list(.0))]
    NamespaceInvalid(Vec<Violation>),
    /// What an operator decided makes no sense.
    #[error("the override is malformed: {}", list(.0))]
    OverrideInvalid(Vec<Violation>),
    /// Operators have decided something of as many instances as they may.
    #[error("something is decided of {max} instances, as many as may be; clear an override that is no longer needed")]
    OverridesFull {
        /// The limit.
        max: usize,
    },
    /// Several operators decide at the same time, again and again.
    #[error("the override of {0} is contended")]
    OverrideContended(InstanceKey),
    /// A page token was not made by this list.
    #[error("the page token is not one of this list")]
    PageTokenInvalid,
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// An instance of a service that is not the caller's.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The node is going down; another one, or the same after its restart, takes over.
    #[error("this node is stopping")]
    Stopping,
    /// A setting has a value that cannot work.
    #[error("the registry's settings cannot work: {}", list(.0))]
    Misconfigured(Vec<Violation>),
    /// The store failed.
    #[error("could not {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        source: store::Error,
    },
}

impl Error {
    /// [`Error::InstanceUnknown`] for a key.
    pub(crate) fn unknown(key: &InstanceKey) -> Self {
        Self::InstanceUnknown { service: key.service.to_string(), id: key.id.to_string() }
    }
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|one| format!("{} {}", one.field, one.description)).collect::<Vec<_>>().join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::PageSize(wrong) => wrong.kind(),
            Self::InstanceInvalid(_)
            | Self::WatchInvalid(_)
            | Self::PolicyInvalid(_)
            | Self::NamespaceInvalid(_)
            | Self::OverrideInvalid(_)
            | Self::PageTokenInvalid
            | Self::Misconfigured(_) => Kind::InvalidInput,
            Self::InstanceTaken(_) => Kind::AlreadyExists,
            Self::InstanceContended(_) | Self::OverrideContended(_) => Kind::Conflict,
            Self::InstanceUnknown { .. } | Self::PolicyUnknown(_) => Kind::NotFound,
            Self::ServiceFull { .. }
            | Self::SessionsFull { .. }
            | Self::WatchersFull { .. }
            | Self::OverridesFull { .. }
            | Self::SessionUnread => Kind::Exhausted,
            Self::SessionUnopened | Self::SessionReopened | Self::WatchUnopened | Self::ContractUnaccepted { .. } => {
                Kind::Precondition
            }
            Self::ContractsAway(_) => Kind::Unavailable,
            Self::SessionSilent(_) => Kind::Deadline,
            Self::Denied(denied) => denied.kind(),
            Self::Stopping => Kind::Unavailable,
            Self::Store { source, .. } => source.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::InstanceInvalid(_) => "INSTANCE_INVALID",
            Self::InstanceTaken(_) => "INSTANCE_TAKEN",
            Self::InstanceContended(_) => "INSTANCE_CONTENDED",
            Self::InstanceUnknown { .. } => "INSTANCE_UNKNOWN",
            Self::ServiceFull { .. } => "SERVICE_FULL",
            Self::SessionUnopened => "SESSION_UNOPENED",
            Self::SessionReopened => "SESSION_REOPENED",
            Self::SessionSilent(_) => "SESSION_SILENT",
            Self::SessionUnread => "SESSION_UNREAD",
            Self::SessionsFull { .. } => "SESSIONS_FULL",
            Self::WatchInvalid(_) => "WATCH_INVALID",
            Self::WatchUnopened => "WATCH_UNOPENED",
            Self::PolicyInvalid(_) => "POLICY_INVALID",
            Self::PolicyUnknown(_) => "POLICY_UNKNOWN",
            Self::WatchersFull { .. } => "WATCHERS_FULL",
            Self::NamespaceInvalid(_) => "NAMESPACE_INVALID",
            Self::OverrideInvalid(_) => "OVERRIDE_INVALID",
            Self::OverridesFull { .. } => "OVERRIDES_FULL",
            Self::OverrideContended(_) => "OVERRIDE_CONTENDED",
            Self::PageTokenInvalid => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::Denied(denied) => denied.reason(),
            Self::ContractUnaccepted { .. } => "CONTRACT_UNACCEPTED",
            Self::ContractsAway(_) => "CONTRACTS_AWAY",
            Self::Stopping => "NODE_STOPPING",
            Self::Misconfigured(_) => "REGISTRY_MISCONFIGURED",
            Self::Store { source, .. } => source.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::InstanceInvalid(found)
            | Self::WatchInvalid(found)
            | Self::PolicyInvalid(found)
            | Self::NamespaceInvalid(found)
            | Self::OverrideInvalid(found)
            | Self::Misconfigured(found) => found.clone(),
            Self::PageTokenInvalid => vec![Violation::new("page_token", "must come from the answer before, unchanged")],
            Self::PageSize(wrong) => wrong.violations(),
            Self::InstanceTaken(_)
            | Self::InstanceContended(_)
            | Self::InstanceUnknown { .. }
            | Self::ServiceFull { .. }
            | Self::SessionUnopened
            | Self::SessionReopened
            | Self::SessionSilent(_)
            | Self::SessionUnread
            | Self::SessionsFull { .. }
            | Self::WatchUnopened
            | Self::PolicyUnknown(_)
            | Self::WatchersFull { .. }
            | Self::Denied(_)
            | Self::ContractUnaccepted { .. }
            | Self::ContractsAway(_)
            | Self::OverridesFull { .. }
            | Self::OverrideContended(_)
            | Self::Stopping
            | Self::Store { .. } => Vec::new(),
        }
    }
}
