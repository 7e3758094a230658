//! What can go wrong in access.

use std::path::PathBuf;

use ninefold::fault::{Fault, Kind, Violation};
use ninefold::page::SizeInvalid;
use ninefold_store as store;

/// What can go wrong in access.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request says not who sends it.
    #[error(
        "this platform asks who you are: send a token (NINEFOLD_TOKEN_FILE, or the header authorization) or show a certificate"
    )]
    CredentialsMissing,
    /// A token is unknown, revoked or expired. Which of them is nobody's business who does not bear it.
    #[error("the token is not valid, or not any more")]
    TokenRefused,
    /// A certificate is genuine, and stands for nobody here.
    #[error("the certificate stands for nobody here: {0}")]
    IdentityUnknown(String),
    /// The caller may not call the method.
    #[error("{identity} may not call {what}: that is for {audience}")]
    RoleDenied {
        /// Who asks.
        identity: String,
        /// What for.
        what: String,
        /// Who may.
        audience: &'static str,
    },
    /// The caller may not see all namespaces, and the method does not keep them apart.
    #[error("{identity} may not call {what}: it tells of all namespaces")]
    NamespaceDenied {
        /// Who asks.
        identity: String,
        /// What for.
        what: String,
    },
    /// A browser came by a name that is not the platform's.
    #[error("{0:?} is no name of this platform: add it to access.allowed_hosts if it is")]
    HostRefused(String),
    /// A page from elsewhere asks.
    #[error("a page of {0:?} may not ask this platform: add it to access.allowed_origins if it may")]
    OriginRefused(String),
    /// A token that is asked for cannot be.
    #[error("no token can be so: {}", list(.0))]
    TokenInvalid(Vec<Violation>),
    /// There is no such token.
    #[error("there is no token {0}")]
    TokenUnknown(String),
    /// There are as many tokens as there may be.
    #[error("there are {max} tokens, as many as there may be: revoke one")]
    TokensFull {
        /// The limit.
        max: usize,
    },
    /// An API key that is asked for cannot be.
    #[error("no key can be so: {}", list(.0))]
    KeyInvalid(Vec<Violation>),
    /// There is no such API key.
    #[error("there is no key {0}")]
    KeyUnknown(String),
    /// There are as many API keys as there may be.
    #[error("there are {max} keys, as many as there may be: revoke one")]
    KeysFull {
        /// The limit.
        max: usize,
    },
    /// A public key that an edge publishes is none.
    #[error("no key of an edge can be so: {0}")]
    SignerInvalid(&'static str),
    /// A page token was not made by this list.
    #[error("the page token is not one of this list")]
    PageTokenInvalid,
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// A setting has a value that cannot work.
    #[error("the settings of access cannot work: {}", list(.0))]
    Misconfigured(Vec<Violation>),
    /// A token cannot be written to its file.
    #[error("cannot write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[source] std::io::Error),
    /// The store failed.
    #[error("could not {doing}")]
    Store {
        /// What was being done.
        doing: &'static str,
        /// What the store said.
        source: store::Error,
    },
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|one| format!("{} {}", one.field, one.description)).collect::<Vec<_>>().join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::CredentialsMissing | Self::TokenRefused => Kind::Unauthenticated,
            Self::IdentityUnknown(_)
            | Self::RoleDenied { .. }
            | Self::NamespaceDenied { .. }
            | Self::HostRefused(_)
            | Self::OriginRefused(_) => Kind::Denied,
            Self::TokenInvalid(_)
            | Self::KeyInvalid(_)
            | Self::SignerInvalid(_)
            | Self::PageTokenInvalid
            | Self::Misconfigured(_) => Kind::InvalidInput,
            Self::PageSize(wrong) => wrong.kind(),
            Self::TokenUnknown(_) | Self::KeyUnknown(_) => Kind::NotFound,
            Self::TokensFull { .. } | Self::KeysFull { .. } => Kind::Exhausted,
            Self::File { .. } => Kind::Precondition,
            Self::Random(_) => Kind::Internal,
            Self::Store { source, .. } => source.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::CredentialsMissing => "CREDENTIALS_MISSING",
            Self::TokenRefused => "TOKEN_REFUSED",
            Self::IdentityUnknown(_) => "IDENTITY_UNKNOWN",
            Self::RoleDenied { .. } => "ROLE_DENIED",
            Self::NamespaceDenied { .. } => "NAMESPACE_DENIED",
            Self::HostRefused(_) => "HOST_REFUSED",
            Self::OriginRefused(_) => "ORIGIN_REFUSED",
            Self::TokenInvalid(_) => "TOKEN_INVALID",
            Self::TokenUnknown(_) => "TOKEN_UNKNOWN",
            Self::TokensFull { .. } => "TOKENS_FULL",
            Self::KeyInvalid(_) => "KEY_INVALID",
            Self::KeyUnknown(_) => "KEY_UNKNOWN",
            Self::KeysFull { .. } => "KEYS_FULL",
            Self::SignerInvalid(_) => "SIGNER_INVALID",
            Self::PageTokenInvalid => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::Misconfigured(_) => "ACCESS_MISCONFIGURED",
            Self::File { .. } => "TOKEN_FILE_UNWRITABLE",
            Self::Random(_) => "RANDOM_UNAVAILABLE",
            Self::Store { source, .. } => source.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::TokenInvalid(found) | Self::KeyInvalid(found) | Self::Misconfigured(found) => found.clone(),
            Self::PageTokenInvalid => vec![Violation::new("page_token", "must come from the answer before, unchanged")],
            Self::PageSize(wrong) => wrong.violations(),
            Self::CredentialsMissing
            | Self::TokenRefused
            | Self::IdentityUnknown(_)
            | Self::RoleDenied { .. }
            | Self::NamespaceDenied { .. }
            | Self::HostRefused(_)
            | Self::OriginRefused(_)
            | Self::TokenUnknown(_)
            | Self::TokensFull { .. }
            | Self::KeyUnknown(_)
            | Self::KeysFull { .. }
            | Self::SignerInvalid(_)
            | Self::File { .. }
            | Self::Random(_)
            | Self::Store { .. } => Vec::new(),
        }
    }
}
