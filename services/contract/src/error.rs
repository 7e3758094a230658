//! What can go wrong in the contract store.

use ninefold::fault::{Fault, Kind, Precondition, Violation};
use ninefold::page::SizeInvalid;
use ninefold_proto::ninefold::contract::v1 as proto;
use ninefold_store as store;

use crate::intake::Flaw;
use crate::model::Digest;

/// What can go wrong in the contract store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor set is over the limit.
    #[error("the descriptor set has {size} bytes, at most {max}")]
    TooLarge {
        /// How much it is.
        size: usize,
        /// How much it may be.
        max: usize,
    },
    /// Bytes are not a well-formed, fully resolved descriptor set.
    #[error("the descriptor set is malformed: {0}")]
    Malformed(Flaw),
    /// A text is no digest.
    #[error("{0:?} is not a digest: it is sha256: and 64 lowercase hex digits")]
    DigestInvalid(String),
    /// A text is no name of a service.
    #[error("{0:?} is not the name of a service: it is 1 to 63 lowercase letters, digits and hyphens")]
    ServiceNameInvalid(String),
    /// No such contract is kept.
    #[error("no contract {0} is kept")]
    Unknown(Digest),
    /// As many contracts are kept as may be.
    #[error("{max} contracts are kept, as many as may be")]
    Full {
        /// The limit.
        max: usize,
    },
    /// A contract breaks what was promised.
    #[error("the contract of {service} breaks what was promised: {}", summary(.findings))]
    Breaks {
        /// Who handed it in.
        service: String,
        /// What it breaks.
        findings: Vec<proto::Finding>,
    },
    /// Others changed the same packages at the same time, again and again.
    #[error("the packages of {0} are being changed by others")]
    Contended(String),
    /// Nobody knows which contracts run.
    #[error("the registry does not tell which contracts run: {0}")]
    RegistryAway(String),
    /// There is no such package.
    #[error("no package {0} is known")]
    PackageUnknown(String),
    /// There is no such revision.
    #[error("{package} has no revision {revision}")]
    RevisionUnknown {
        /// The package.
        package: String,
        /// The number asked for.
        revision: i64,
    },
    /// A change has no author or no reason.
    #[error("the change has no {0}")]
    ReasonMissing(&'static str),
    /// A change says nothing.
    #[error("no change to the package is named")]
    ChangeInvalid,
    /// A package is to be retired that was called of late.
    #[error("{package} was called of late: {callers}")]
    InUse {
        /// The package.
        package: String,
        /// By whom, and when.
        callers: String,
    },
    /// A report is too long.
    #[error("the report has {count} entries, at most {max}")]
    ReportInvalid {
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Sources cannot be made of a package.
    #[error("no sources can be made of {package}: {why}")]
    Unprintable {
        /// The package.
        package: String,
        /// Why.
        why: String,
    },
    /// What is kept of a contract is not what was handed in.
    #[error("the contract {0} is damaged in the store")]
    Damaged(Digest),
    /// A page token was not made by this list.
    #[error("the page token is not one of this list")]
    PageTokenInvalid,
    /// A page of a negative size is asked for.
    #[error(transparent)]
    PageSize(#[from] SizeInvalid),
    /// A setting has a value that cannot work.
    #[error("the settings of contracts cannot work: {}", list(.0))]
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

/// The first finding, and how many there are.
fn summary(findings: &[proto::Finding]) -> String {
    let Some(first) = findings.first() else { return "nothing is named".to_owned() };
    let more = match findings.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{} {}: {}{more}", first.rule, first.element, first.message)
}

/// A finding as one text: where it is, what was promised and what is there, and how to mend it.
fn told(finding: &proto::Finding) -> String {
    let mut text = finding.file.clone();
    if finding.line > 0 {
        text.push_str(&format!(":{}", finding.line));
    }
    if !text.is_empty() {
        text.push_str(": ");
    }
    text.push_str(&finding.message);
    if !finding.old.is_empty() || !finding.new.is_empty() {
        text.push_str(&format!("; was {:?}, is {:?}", finding.old, finding.new));
    }
    if !finding.against.is_empty() {
        text.push_str(&format!(" (against {})", finding.against));
    }
    if !finding.fix.is_empty() {
        text.push_str(&format!("; {}", finding.fix));
    }
    text
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|one| format!("{} {}", one.field, one.description)).collect::<Vec<_>>().join("; ")
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::PageSize(wrong) => wrong.kind(),
            Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::DigestInvalid(_)
            | Self::ServiceNameInvalid(_)
            | Self::PageTokenInvalid
            | Self::Misconfigured(_) => Kind::InvalidInput,
            Self::ReasonMissing(_) | Self::ChangeInvalid | Self::ReportInvalid { .. } => Kind::InvalidInput,
            Self::Unknown(_) | Self::PackageUnknown(_) | Self::RevisionUnknown { .. } => Kind::NotFound,
            Self::Full { .. } | Self::Breaks { .. } | Self::InUse { .. } | Self::Unprintable { .. } => {
                Kind::Precondition
            }
            Self::Contended(_) => Kind::Conflict,
            Self::RegistryAway(_) => Kind::Unavailable,
            Self::Damaged(_) => Kind::DataLoss,
            Self::Store { source, .. } => source.kind(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "CONTRACT_TOO_LARGE",
            Self::Malformed(_) => "CONTRACT_MALFORMED",
            Self::DigestInvalid(_) => "DIGEST_INVALID",
            Self::ServiceNameInvalid(_) => "SERVICE_NAME_INVALID",
            Self::Unknown(_) => "CONTRACT_UNKNOWN",
            Self::Full { .. } => "CONTRACTS_FULL",
            Self::Breaks { .. } => "CONTRACT_BREAKS",
            Self::Contended(_) => "CONTRACT_CONTENDED",
            Self::RegistryAway(_) => "REGISTRY_AWAY",
            Self::PackageUnknown(_) => "PACKAGE_UNKNOWN",
            Self::RevisionUnknown { .. } => "REVISION_UNKNOWN",
            Self::ReasonMissing(_) => "REASON_MISSING",
            Self::ChangeInvalid => "PACKAGE_CHANGE_INVALID",
            Self::InUse { .. } => "PACKAGE_IN_USE",
            Self::ReportInvalid { .. } => "REPORT_INVALID",
            Self::Unprintable { .. } => "EXPORT_UNPRINTABLE",
            Self::Damaged(_) => "CONTRACT_DAMAGED",
            Self::PageTokenInvalid => "PAGE_TOKEN_INVALID",
            Self::PageSize(wrong) => wrong.reason(),
            Self::Misconfigured(_) => "CONTRACT_MISCONFIGURED",
            Self::Store { source, .. } => source.reason(),
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::TooLarge { max, .. } => {
                vec![Violation::new("descriptor_set", format!("must have at most {max} bytes"))]
            }
            Self::Malformed(flaw) => vec![Violation::new("descriptor_set", flaw.to_string())],
            Self::DigestInvalid(_) => {
                vec![Violation::new("digest", "must be sha256: and 64 lowercase hex digits")]
            }
            Self::ServiceNameInvalid(_) => {
                vec![Violation::new("service", "must be 1 to 63 lowercase letters, digits and hyphens")]
            }
            Self::PageTokenInvalid => vec![Violation::new("page_token", "must come from the answer before, unchanged")],
            Self::PageSize(wrong) => wrong.violations(),
            Self::Misconfigured(found) => found.clone(),
            Self::ReasonMissing(what) => vec![Violation::new(*what, "is missing: who decides, and why, is kept")],
            Self::ChangeInvalid => vec![Violation::new("change", "names nothing")],
            Self::ReportInvalid { max, .. } => vec![Violation::new("counts", format!("has more than {max} entries"))],
            Self::Unknown(_)
            | Self::Full { .. }
            | Self::Breaks { .. }
            | Self::Contended(_)
            | Self::RegistryAway(_)
            | Self::PackageUnknown(_)
            | Self::RevisionUnknown { .. }
            | Self::InUse { .. }
            | Self::Unprintable { .. }
            | Self::Damaged(_)
            | Self::Store { .. } => Vec::new(),
        }
    }

    fn preconditions(&self) -> Vec<Precondition> {
        let Self::Breaks { findings, .. } = self else { return Vec::new() };
        let one = |finding: &proto::Finding| Precondition {
            kind: finding.rule.clone(),
            subject: finding.element.clone(),
            description: told(finding),
        };
        findings.iter().map(one).collect()
    }
}
