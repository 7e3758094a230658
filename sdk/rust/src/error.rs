//! What can go wrong with a service before it serves, in words for the person at the terminal.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::fault::{self, Fault, Kind};
use crate::link::BoxError;

/// What most functions of a service's `main` return.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why a service could not start, or had to stop.
///
/// `Debug` prints what `Display` prints, followed by the causes: `fn main() -> ninefold::Result` shows an error through
/// `Debug`, and a person at a terminal is not to read a dump of structs.
#[derive(thiserror::Error)]
pub enum Error {
    /// Variables of the environment, or what the program said, cannot be used. All of them.
    #[error("{}", mistakes(.0))]
    Settings(Vec<Mistake>),
    /// The address cannot be listened on.
    #[error("could not listen on {address}{}", listen_hint(.source))]
    Listen {
        /// The address, as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A service is offered, but no contract that was handed in describes it.
    #[error("no contract describes {service}: hand in its descriptors with .contract(DESCRIPTOR_SET)")]
    ContractMissing {
        /// Full name of the Protobuf service.
        service: String,
    },
    /// The descriptors that were handed in are damaged.
    #[error("the contract is no descriptor set")]
    Descriptors {
        /// What is wrong with the bytes.
        source: BoxError,
    },
    /// Telemetry could not be set up.
    #[error("could not set up telemetry: {what}")]
    Telemetry {
        /// Which part.
        what: &'static str,
        /// Why.
        source: BoxError,
    },
    /// A certificate, a key or a list of authorities cannot be used.
    #[error("{}: {problem}", path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A step that the service itself takes before it serves has failed.
    #[error("could not {step}")]
    Start {
        /// The step, such as "open the database".
        step: String,
        /// Why.
        source: BoxError,
    },
    /// A background task failed in a way that the service cannot live with.
    #[error("a background task failed: {0}")]
    Task(String),
}

impl Error {
    /// Says which step before serving failed: `open(..).map_err(|error| Error::start("open the database", error))?`.
    pub fn start(step: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self::Start { step: step.into(), source: source.into() }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&fault::chain(self))
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Settings(_) | Self::ContractMissing { .. } | Self::Descriptors { .. } | Self::Tls { .. } => {
                Kind::InvalidInput
            }
            Self::Listen { .. } | Self::Telemetry { .. } | Self::Start { .. } => Kind::Precondition,
            Self::Task(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Settings(_) => "SETTINGS_INVALID",
            Self::Listen { .. } => "LISTEN_FAILED",
            Self::ContractMissing { .. } => "CONTRACT_MISSING",
            Self::Descriptors { .. } => "DESCRIPTORS_MALFORMED",
            Self::Telemetry { .. } => "TELEMETRY_FAILED",
            Self::Tls { .. } => "TLS_UNUSABLE",
            Self::Start { .. } => "START_FAILED",
            Self::Task(_) => "TASK_FAILED",
        }
    }
}

/// One setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Which setting, such as `NINEFOLD_LISTEN`.
    pub setting: String,
    /// Its value.
    pub value: String,
    /// What is wrong with it, and what is expected.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={:?}: {}", self.setting, self.value, self.problem)
    }
}

fn mistakes(all: &[Mistake]) -> String {
    match all {
        [one] => one.to_string(),
        _ => all.iter().fold(format!("{} settings cannot be used:", all.len()), |text, one| format!("{text}\n  {one}")),
    }
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there; port 0 picks a free one)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges)",
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_main_prints_is_a_sentence_with_its_causes() {
        let error = Error::start("open the database", io::Error::other("disk is gone"));
        assert_eq!(format!("{error:?}"), "could not open the database: disk is gone");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistake = |setting: &str| Mistake { setting: setting.into(), value: "x".into(), problem: "bad".into() };
        let text = Error::Settings(vec![mistake("A"), mistake("B")]).to_string();
        assert_eq!(text, "2 settings cannot be used:\n  A=\"x\": bad\n  B=\"x\": bad");
    }
}
