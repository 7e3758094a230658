//! What can go wrong in telling the landscape.

use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;

/// What can go wrong in telling the landscape.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node serves as many xDS streams as it may serve.
    #[error("this node serves {max} xDS streams, as many as it may serve")]
    XdsFull {
        /// The limit.
        max: usize,
    },
    /// An xDS client asks for too much, or for what cannot be.
    #[error("the xDS request is malformed: {0}")]
    XdsInvalid(String),
    /// A page token was not made by this list.
    #[error("the page token is not one of this list")]
    PageTokenInvalid,
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// The node is going down; another one, or the same after its restart, takes over.
    #[error("this node is stopping")]
    Stopping,
    /// A setting has a value that cannot work.
    #[error("the settings of the dialects cannot work: {}", list(.0))]
    Misconfigured(Vec<Violation>),
    /// DNS cannot be answered where it should be.
    #[error("could not listen for DNS on {address}")]
    DnsUnbindable {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|one| format!("{} {}", one.field, one.description)).collect::<Vec<_>>().join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::XdsFull { .. } => Kind::Exhausted,
            Self::XdsInvalid(_) | Self::PageTokenInvalid | Self::Misconfigured(_) => Kind::InvalidInput,
            Self::PageSize(wrong) => wrong.kind(),
            Self::Stopping | Self::DnsUnbindable { .. } => Kind::Unavailable,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::XdsFull { .. } => "XDS_STREAMS_FULL",
            Self::XdsInvalid(_) => "XDS_REQUEST_INVALID",
            Self::PageTokenInvalid => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::Stopping => "NODE_STOPPING",
            Self::Misconfigured(_) => "DIALECT_MISCONFIGURED",
            Self::DnsUnbindable { .. } => "DNS_UNBINDABLE",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::PageTokenInvalid => vec![Violation::new("page_token", "must come from the answer before, unchanged")],
            Self::PageSize(wrong) => wrong.violations(),
            Self::Misconfigured(found) => found.clone(),
            Self::XdsFull { .. } | Self::XdsInvalid(_) | Self::Stopping | Self::DnsUnbindable { .. } => Vec::new(),
        }
    }
}
