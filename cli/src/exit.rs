//! How a command ends: a message for people and an exit code for programs.

use std::fmt;

use ninefold::fault;
use ninefold::tonic::{Code, Status};

/// Why a command failed. Each variant has an exit code of its own; `ninefold help` lists them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Anything that has no code of its own.
    #[error("{0}")]
    Failed(String),
    /// The arguments do not fit together, as far as clap cannot see it.
    #[error("{0}")]
    Usage(String),
    /// No platform answers at the endpoint.
    #[error(
        "no platform answers at {endpoint} ({why})\n  start one with `ninefold up`, or name another with --endpoint or NINEFOLD_ENDPOINT"
    )]
    Unreachable {
        /// The endpoint that was tried.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The platform does not know who asks, or they may not.
    #[error("{0}")]
    Denied(String),
    /// Something is not well, or did not become well in time.
    #[error("{0}")]
    Unhealthy(String),
    /// A contract breaks what was promised, or what the linter asks for.
    #[error("{0}")]
    Breaks(String),
    /// Addresses to listen on cannot be had.
    #[error(
        "cannot listen{}\n  is another ninefold running? stop it, or choose other addresses (port 0 picks a free port)",
        listed(.0)
    )]
    Addresses(Vec<String>),
    /// The data folder cannot be used.
    #[error("cannot use the data folder {path}: {why}\n  choose another with --data")]
    Data {
        /// The folder.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The store cannot be opened or reached.
    #[error("cannot open the store: {0}")]
    Store(String),
    /// The config file is wrong.
    #[error("{path} has {} mistake{}:{}", .mistakes.len(), if .mistakes.len() == 1 { "" } else { "s" }, listed(.mistakes))]
    Settings {
        /// The file.
        path: String,
        /// All mistakes, each with its place and value.
        mistakes: Vec<String>,
    },
    /// The node would listen beyond this machine, and ask nobody who they are.
    #[error(
        "refusing to listen beyond this machine without authentication:{}\n  whoever reaches these addresses could do \
         everything. Say one of\n    --auth token     callers bring a bearer token; the first lies in the data folder\n    \
         --auth mtls      callers show a certificate (with --tls-cert, --tls-key, --client-ca)\n    --insecure       \
         nobody is asked; only where the network around the node is shut",
        listed(.0)
    )]
    Open(Vec<String>),
    /// A call made by `ninefold call` was answered with an error.
    #[error("{}: {}", code_name(.0.code()), told(.0))]
    Call(Box<Status>),
    /// Whoever read the output went away. Nothing is wrong, and there is nobody to tell.
    #[error("nobody reads the output")]
    ReaderGone,
    /// The answer is in the exit code alone, as was asked for.
    #[error("code {0}")]
    Quiet(u8),
    /// A child process ended with this code.
    #[error("the program ended with code {0}")]
    Child(u8),
}

fn listed(mistakes: &[String]) -> String {
    mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect()
}

impl Failure {
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::NotFound(_) => 4,
            Self::Unhealthy(_) => 5,
            Self::Denied(_) => 6,
            Self::Breaks(_) => 7,
            Self::Addresses(_) => 10,
            Self::Data { .. } => 11,
            Self::Store(_) => 12,
            Self::Settings { .. } => 13,
            Self::Open(_) => 14,
            Self::Call(status) => 64 + u8::try_from(i32::from(status.code())).unwrap_or(0),
            Self::ReaderGone => 0,
            Self::Child(code) | Self::Quiet(code) => *code,
        }
    }

    /// What a failed call to the platform means for the command.
    pub(crate) fn of_status(endpoint: &str, status: &Status) -> Self {
        match status.code() {
            Code::NotFound => Self::NotFound(status.message().to_owned()),
            Code::Unavailable if fault::reason(status).is_some_and(|reason| reason.starts_with("STORE_")) => {
                Self::Unhealthy(format!("the platform answers, its store does not: {}", told(status)))
            }
            Code::Unavailable | Code::DeadlineExceeded if is_unanswered(status) => {
                Self::Unreachable { endpoint: endpoint.to_owned(), why: status.message().to_owned() }
            }
            Code::Unavailable | Code::DeadlineExceeded => Self::Unhealthy(told(status)),
            Code::InvalidArgument => Self::Usage(told(status)),
            Code::Unauthenticated => Self::Denied(told(status)),
            _ if fault::reason(status).as_deref() == Some("METHOD_NOT_EXPOSED") => Self::Failed(format!(
                "{endpoint} is the edge, not the platform: name the platform with --endpoint or NINEFOLD_ENDPOINT"
            )),
            Code::PermissionDenied => Self::Denied(told(status)),
            _ if fault::reason(status).is_some() => Self::Failed(told(status)),
            code => Self::Failed(format!("{}: {}", code_name(code), told(status))),
        }
    }

    /// Whether there is something to say, and somebody to say it to.
    pub(crate) fn is_told(&self) -> bool {
        !matches!(self, Self::Child(_) | Self::ReaderGone | Self::Quiet(_))
    }
}

/// Whether nobody answered: the status is of the way there, not of a platform that answers but lacks something itself.
fn is_unanswered(status: &Status) -> bool {
    fault::reason(status).is_none_or(|reason| {
        ["PLATFORM_UNREACHABLE", "CALL_DEADLINE", "CONNECTION_LOST", "STREAM_RESET"].contains(&reason.as_ref())
    })
}

/// A status's message, its reason, and what is wrong with which field.
fn told(status: &Status) -> String {
    let reason = fault::reason(status).map(|reason| format!(" ({reason})")).unwrap_or_default();
    let violations = fault::violations(status);
    // Some messages tell the first already.
    let rest = violations.iter().filter(|wrong| !status.message().contains(&wrong.description));
    let listed: String = rest.map(|wrong| format!("\n  {}: {}", wrong.field, wrong.description)).collect();
    let states: String = fault::preconditions(status)
        .into_iter()
        .map(|one| format!("\n  {} {}\n    {}", one.kind, one.subject, one.description))
        .collect();
    format!("{}{reason}{listed}{states}", status.message())
}

/// The exit codes, for the help.
pub(crate) const CODES: &str = "Exit codes:
  0   done
  1   failed
  2   wrong usage
  3   no platform answers
  4   not found
  5   not healthy, or not in time
  6   the platform does not know who asks, or they may not
  7   a contract breaks what was promised, or what lint asks for
  10  an address to listen on cannot be had
  11  the data folder cannot be used
  12  the store cannot be opened or reached
  13  the config file has mistakes
  14  refused to listen beyond this machine without authentication
  64+ `call` was answered with this gRPC code (64 + code)";

/// A gRPC code as it is written in its specification.
pub(crate) fn code_name(code: Code) -> impl fmt::Display {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
