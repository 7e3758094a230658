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
    /// Something is not well, or did not become well in time.
    #[error("{0}")]
    Unhealthy(String),
    /// An address to listen on cannot be had.
    #[error(
        "cannot listen on {address} for {what}: {why}\n  free the port, or choose another with {flag} (port 0 picks one)"
    )]
    Address {
        /// The address.
        address: String,
        /// What listens there.
        what: &'static str,
        /// What the system said.
        why: String,
        /// The flag that changes it.
        flag: &'static str,
    },
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
    /// A call made by `ninefold call` was answered with an error.
    #[error("{}: {}", code_name(.0.code()), .0.message())]
    Call(Box<Status>),
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
            Self::Address { .. } => 10,
            Self::Data { .. } => 11,
            Self::Store(_) => 12,
            Self::Settings { .. } => 13,
            Self::Call(status) => 64 + u8::try_from(i32::from(status.code())).unwrap_or(0),
            Self::Child(code) => *code,
        }
    }

    /// What a failed call to the platform means for the command.
    pub(crate) fn of_status(endpoint: &str, status: &Status) -> Self {
        match status.code() {
            Code::NotFound => Self::NotFound(status.message().to_owned()),
            Code::Unavailable | Code::DeadlineExceeded => {
                Self::Unreachable { endpoint: endpoint.to_owned(), why: status.message().to_owned() }
            }
            _ => Self::Failed(match fault::reason(status) {
                Some(reason) => format!("{} ({reason})", described(status)),
                None => format!("{}: {}", code_name(status.code()), described(status)),
            }),
        }
    }
}

/// A status's message with its field violations.
fn described(status: &Status) -> String {
    let violations = fault::violations(status);
    let listed: String = violations.iter().map(|wrong| format!("\n  {}: {}", wrong.field, wrong.description)).collect();
    format!("{}{listed}", status.message())
}

/// The exit codes, for the help.
pub(crate) const CODES: &str = "Exit codes:
  0   done
  1   failed
  2   wrong usage
  3   no platform answers
  4   not found
  5   not healthy, or not in time
  10  an address to listen on cannot be had
  11  the data folder cannot be used
  12  the store cannot be opened or reached
  13  the config file has mistakes
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
