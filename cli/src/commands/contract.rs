//! `ninefold contract`: what services are held to.

mod against;
mod check;
mod fork;
mod hold;
mod sarif;
mod show;
mod sources;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::Format;

/// What `contract` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ContractCommand {
    /// List packages: who owns them, how they are held, how far they have come.
    #[command(visible_alias = "list")]
    Ls {
        /// Only packages that this service owns.
        #[arg(long, default_value = "")]
        owner: String,
    },
    /// Document a package: services, methods, messages, examples, and what may go.
    #[command(
        after_help = "Examples:\n  ninefold contract show shop.review.v1\n  ninefold contract show shop.review.v1 --revision 2 -o json"
    )]
    Show {
        /// Full name of the package.
        package: String,
        /// Which revision [default: the latest].
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Tell what was accepted, refused and changed, newest last.
    Log {
        /// A package, or a service [default: all].
        #[arg(default_value = "")]
        name: String,
        /// How many of the newest entries.
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: usize,
    },
    /// Tell what differs between two revisions of a package [default: the latest and the one before].
    Diff {
        /// Full name of the package.
        package: String,
        /// The earlier.
        #[arg(default_value_t = 0)]
        before: i64,
        /// The later.
        #[arg(default_value_t = 0)]
        after: i64,
    },
    /// Tell who was built with a package, who calls which of its methods, since when and how often.
    #[command(
        after_help = "Examples:\n  ninefold contract callers shop.review.v1\n  ninefold contract callers shop.review.v1 --method ReviewService.GetReviews"
    )]
    Callers {
        /// Full name of the package.
        package: String,
        /// Only this method.
        #[arg(long, default_value = "")]
        method: String,
    },
    /// Check contracts against what was promised, as the gate does when a service joins. Ends with code 7 on a break.
    #[command(
        after_help = "PATH is a folder of .proto files or a descriptor set (.binpb). Files of an edition are compiled by buf:\n  buf build -o now.binpb && ninefold contract check now.binpb\n\nExamples:\n  ninefold contract check proto\n  ninefold contract check proto --against main\n  ninefold contract check proto --against baseline.binpb -o sarif"
    )]
    Check(CheckArgs),
    /// Check contracts against buf's STANDARD rules of style. Ends with code 7 on a finding.
    Lint(LintArgs),
    /// Begin a new version of a package beside the old one: copies its files, and renames package, paths and HTTP routes.
    #[command(
        after_help = "Examples:\n  ninefold contract fork shop.review.v1 shop.review.v2\n  ninefold contract fork catalog.v1 catalog.v2 --in proto"
    )]
    Fork {
        /// The package.
        from: String,
        /// The new one.
        to: String,
        /// Folder that the sources lie in.
        #[arg(long = "in", default_value = "proto", value_name = "FOLDER")]
        folder: PathBuf,
        /// Say what would be written, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Save a package as a file: descriptors, sources, or a module that buf generates from.
    #[command(
        after_help = "Examples:\n  ninefold contract export shop.review.v1 --form buf --file review.tar && buf generate review.tar\n  ninefold contract export shop.review.v1 --form set --file review.binpb"
    )]
    Export {
        /// Full name of the package.
        package: String,
        /// Which revision [default: the latest].
        #[arg(long, default_value_t = 0)]
        revision: i64,
        /// What to save.
        #[arg(long, value_enum, default_value_t = Form::Set)]
        form: Form,
        /// Where to; `-` for standard output [default: as the platform names it].
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Tell that a package is to be left.
    Deprecate {
        #[command(flatten)]
        held: HeldArgs,
        /// Day on which it is to be gone, such as 2027-01-31.
        #[arg(long, value_name = "DATE")]
        sunset: Option<String>,
    },
    /// Tell that a package is not to be offered any more. Refused while it is called.
    Retire {
        #[command(flatten)]
        held: HeldArgs,
        /// Although it is called.
        #[arg(long)]
        force: bool,
    },
    /// Take deprecation and retirement back.
    Restore {
        #[command(flatten)]
        held: HeldArgs,
    },
    /// Hold a package more or less strictly.
    Level {
        /// Full name of the package.
        package: String,
        /// How strictly.
        #[arg(value_enum)]
        level: Strictness,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Give a package to another service.
    Own {
        /// Full name of the package.
        package: String,
        /// Its new owner.
        service: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Accept a contract that was refused.
    #[command(
        after_help = "Examples:\n  ninefold contract accept review --reason 'no caller uses the field'\n  ninefold contract accept sha256:2c26... --reason 'agreed with all callers'"
    )]
    Accept {
        /// Digest of the contract, or the service whose latest one was refused.
        contract: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
}

/// Names a package, and says why it is changed.
#[derive(Clone, Debug, Args)]
pub(crate) struct HeldArgs {
    /// Full name of the package.
    pub(crate) package: String,
    /// Why.
    #[arg(long)]
    pub(crate) reason: String,
}

/// What `contract check` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// Folders of .proto files, or descriptor sets.
    #[arg(default_value = "proto")]
    pub(crate) paths: Vec<PathBuf>,
    /// What was promised: a descriptor set, a folder, a git ref, the URL of a platform (http://HOST:PORT) or of a
    /// descriptor set (with a path) [default: the running platform].
    #[arg(long)]
    pub(crate) against: Option<String>,
    /// Folder with files that are imported. May be repeated.
    #[arg(short = 'I', long = "include", value_name = "FOLDER")]
    pub(crate) includes: Vec<PathBuf>,
    /// Service that would keep the contract [default: the owner of its packages].
    #[arg(long, default_value = "")]
    pub(crate) service: String,
    /// How strictly, where no platform says so [default: runtime; warn for alpha, beta and test versions].
    #[arg(long, value_enum)]
    pub(crate) level: Option<Strictness>,
    /// Only these packages. May be repeated.
    #[arg(long = "package", value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
}

/// What `contract lint` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct LintArgs {
    /// Folders of .proto files, or descriptor sets.
    #[arg(default_value = "proto")]
    pub(crate) paths: Vec<PathBuf>,
    /// Folder with files that are imported. May be repeated.
    #[arg(short = 'I', long = "include", value_name = "FOLDER")]
    pub(crate) includes: Vec<PathBuf>,
}

/// How strictly a package is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strictness {
    /// As the platform's settings and the name say.
    Default,
    /// What breaks callers or stored messages at run time is refused.
    Runtime,
    /// What breaks the building of callers is refused as well.
    Strict,
    /// All is told, nothing refused.
    Warn,
    /// Nothing is looked at.
    Off,
}

/// Forms of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A descriptor set with all imports.
    Set,
    /// A tar of its .proto files.
    Proto,
    /// A tar that is a buf module: its .proto files and all that they import.
    Buf,
}

/// Does it.
pub(crate) async fn contract(platform: &Platform, command: ContractCommand, format: Format) -> Result<(), Failure> {
    match command {
        ContractCommand::Ls { owner } => show::list(platform, owner, format).await,
        ContractCommand::Show { package, revision } => show::show(platform, package, revision, format).await,
        ContractCommand::Log { name, lines } => show::log(platform, &name, lines, format).await,
        ContractCommand::Diff { package, before, after } => show::diff(platform, package, before, after, format).await,
        ContractCommand::Callers { package, method } => show::callers(platform, package, method, format).await,
        ContractCommand::Check(args) => check::check(platform, args, format).await,
        ContractCommand::Lint(args) => check::lint(&args, format),
        ContractCommand::Fork { from, to, folder, dry_run } => fork::fork(&from, &to, &folder, dry_run, format),
        ContractCommand::Export { package, revision, form, file } => {
            show::export(platform, package, revision, form, file.as_deref()).await
        }
        ContractCommand::Deprecate { held, sunset } => hold::deprecate(platform, held, sunset, format).await,
        ContractCommand::Retire { held, force } => hold::retire(platform, held, force, format).await,
        ContractCommand::Restore { held } => hold::restore(platform, held, format).await,
        ContractCommand::Level { package, level, reason } => {
            hold::level(platform, HeldArgs { package, reason }, level, format).await
        }
        ContractCommand::Own { package, service, reason } => {
            hold::own(platform, HeldArgs { package, reason }, service, format).await
        }
        ContractCommand::Accept { contract, reason } => hold::accept(platform, &contract, reason, format).await,
    }
}
