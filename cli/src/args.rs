//! The command line, as clap reads it.

pub(crate) mod bootstrap;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::commands::alerts::AlertsArgs;
use crate::commands::contract::ContractCommand;
use crate::commands::key::KeyCommand;
use crate::commands::metrics::MetricsArgs;
use crate::commands::nodes::NodesArgs;
use crate::commands::overrides::OverrideArgs;
use crate::commands::query::QueryArgs;
use crate::commands::run::RunArgs;
use crate::commands::token::TokenCommand;
use crate::commands::top::TopArgs;
use crate::commands::trace::TraceArgs;
use crate::commands::up::{DemoArgs, UpArgs};
use crate::exit;
use crate::output::Format;

/// The nine patterns of a microservice landscape in one binary.
#[derive(Debug, Parser)]
#[command(name = "ninefold", version, after_help = exit::CODES, disable_help_subcommand = false)]
#[command(infer_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Where the platform is: one or more URLs, separated by commas.
    #[arg(long, global = true, env = "NINEFOLD_ENDPOINT", default_value = "http://127.0.0.1:9900", value_name = "URL")]
    pub(crate) endpoint: String,
    /// Namespace of services and instances; - for all, where a list is asked for [default: `default`].
    #[arg(long, global = true, env = "NINEFOLD_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Form of what is printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the platform.
    #[command(
        after_help = "Examples:\n  ninefold up\n  ninefold up --store etcd --etcd http://127.0.0.1:2379 --data /var/lib/ninefold\n  ninefold up --data /var/lib/ninefold --take-over"
    )]
    Up(UpArgs),
    /// Start the platform with the sample landscape and a gentle stream of traffic.
    #[command(
        after_help = "Examples:\n  ninefold demo\n  ninefold demo --no-traffic --edge-listen 127.0.0.1:0 -o json"
    )]
    Demo(DemoArgs),
    /// Run a program of any language as an instance of a service.
    #[command(
        after_help = "Examples:\n  ninefold run --name greeter -- python greeter.py\n  ninefold run --name web --protocol http -- node server.js"
    )]
    Run(RunArgs),
    /// List services and their instances.
    #[command(visible_alias = "get", after_help = "Examples:\n  ninefold ps\n  ninefold ps review -o json")]
    Ps {
        /// Only this service.
        #[arg(default_value = "")]
        service: String,
        /// Print again every second.
        #[arg(short, long)]
        watch: bool,
    },
    /// Tell all that is known of a service or an instance.
    #[command(after_help = "Examples:\n  ninefold describe review\n  ninefold describe review-0-k3x9 -o yaml")]
    Describe {
        /// Name of the service, or id of the instance.
        name: String,
    },
    /// Search or follow the central logs.
    #[command(
        after_help = "Examples:\n  ninefold logs review -n 20\n  ninefold logs -f --level warn\n  ninefold logs --trace 4bf92f3577b34da6a3ce929d0e0e4736"
    )]
    Logs(LogsArgs),
    /// Show a trace across all services, with all its log lines. Without an id: the newest traces.
    #[command(
        visible_alias = "traces",
        after_help = "Examples:\n  ninefold trace 4bf92f3577b34da6a3ce929d0e0e4736\n  ninefold trace --service review --failed"
    )]
    Trace(TraceArgs),
    /// Show which nodes keep telemetry: each is asked what any is asked.
    #[command(after_help = "Examples:\n  ninefold nodes\n  ninefold nodes forget node-abcdef")]
    Nodes(NodesArgs),
    /// Ask metrics by PromQL. Without a query: which metrics there are.
    #[command(
        after_help = "Examples:\n  ninefold metrics\n  ninefold metrics 'sum by (job) (rate(process_cpu_time_seconds_total[1m]))'\n  ninefold metrics 'rpc_server_calls_total' --since 1h --step 1m -o json"
    )]
    Metrics(MetricsArgs),
    /// Ask logs, spans and samples in SQL. Without a statement: which columns they have.
    #[command(
        after_help = "Examples:\n  ninefold query\n  ninefold query \"select service, count(*) from logs where level = 'error' group by service\" --since 15m\n  ninefold query \"select attributes ->> 'http.route', avg(duration_ms) from spans group by 1\" -o csv"
    )]
    Query(QueryArgs),
    /// Watch services and instances: calls, failures, times, and what they use.
    #[command(
        after_help = "Examples:\n  ninefold top\n  ninefold top review --sort latency\n  ninefold top --once -o json"
    )]
    Top(TopArgs),
    /// Show what is wrong: alerts that fire or are about to. What is watched and who is called is the document `alerts`.
    #[command(
        after_help = "Examples:\n  ninefold alerts\n  ninefold alerts rules\n  ninefold alerts check alerts.json && ninefold config set alerts --file alerts.json"
    )]
    Alerts(AlertsArgs),
    /// Call a method, or list and describe what can be called.
    #[command(
        after_help = "Examples:\n  ninefold call list\n  ninefold call describe shop.product.v1.ProductService\n  ninefold call shop.product.v1.ProductService/GetProduct -d '{\"product_id\": 1}'"
    )]
    Call(CallArgs),
    /// Read and write the central configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Read and write how services are called: balancing, breakers, retries, timeouts, limits.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Hold services to their contracts: check changes, see packages and who calls them, generate from them.
    #[command(subcommand)]
    Contract(ContractCommand),
    /// Change how many instances of a service run.
    #[command(after_help = "Examples:\n  ninefold scale review 3\n  ninefold scale review 1")]
    Scale {
        /// Name of the service.
        service: String,
        /// How many instances are to run.
        instances: u32,
        /// Do not wait until they do.
        #[arg(long)]
        no_wait: bool,
    },
    /// Take an instance out of rotation; its calls in flight end. Holds until `undrain`, even if it restarts under its id.
    #[command(after_help = "Examples:\n  ninefold drain review-0-k3x9 --reason 'disk is failing'")]
    Drain {
        /// Id of the instance.
        instance: String,
        /// Its service, where several have an instance of that id, or it is away.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Put a drained instance back into rotation.
    #[command(after_help = "Examples:\n  ninefold undrain review-0-k3x9")]
    Undrain {
        /// Id of the instance.
        instance: String,
        /// Its service, where several have an instance of that id, or it is away.
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Decide something of an instance: its weight, its breakers. Holds until it is taken back.
    #[command(
        after_help = "Examples:\n  ninefold override review-0-k3x9 --weight 10\n  ninefold override review-0-k3x9 --breaker open --reason 'bad build'\n  ninefold override review-0-k3x9 --clear"
    )]
    Override(OverrideArgs),
    /// Tell the story of a service or an instance: what was seen, what was done, and why.
    #[command(after_help = "Examples:\n  ninefold why review\n  ninefold why review-0-k3x9 -o json")]
    Why {
        /// Name of the service, or id of the instance.
        name: String,
        /// How many of the newest entries to show.
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: usize,
    },
    /// Tell what would become of a request at the edge, without sending it.
    #[command(
        subcommand,
        after_help = "Examples:\n  ninefold route test GET /v1/products/1\n  ninefold route test POST /v1/products -d '{\"name\":\"x\"}' -H 'x-beta: yes' --identity-claim groups=staff"
    )]
    Route(RouteCommand),
    /// List the routes of the edge, or tell which one a request would take.
    #[command(after_help = "Examples:\n  ninefold routes\n  ninefold routes GET /v1/products/1")]
    Routes {
        /// HTTP method.
        #[arg(requires = "path")]
        verb: Option<String>,
        /// Path and query.
        path: Option<String>,
    },
    /// List who follows the landscape by xDS (gRPC libraries, Envoy) and what they refused, or print a bootstrap for one.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  ninefold xds\n  ninefold xds bootstrap --node shop-1 > xds.json\n  ninefold xds bootstrap --envoy --listen 127.0.0.1:10000 > envoy.json"
    )]
    Xds {
        #[command(subcommand)]
        command: Option<XdsCommand>,
    },
    /// Check the platform and its landscape, and say how to mend what is wrong.
    #[command(after_help = "Examples:\n  ninefold doctor\n  ninefold doctor --self -q")]
    Doctor {
        /// Check only that the platform answers.
        #[arg(long = "self")]
        only_self: bool,
        /// Say nothing; the exit code tells.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make, list and revoke API keys of the edge.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make, list and revoke tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Tell who you are to the platform, and what you may do.
    #[command(
        name = "whoami",
        after_help = "Examples:\n  ninefold whoami\n  NINEFOLD_TOKEN_FILE=token ninefold whoami -o json"
    )]
    Whoami,
    /// Print shell completions.
    #[command(
        after_help = "Examples:\n  ninefold completions bash > ~/.local/share/bash-completion/completions/ninefold\n  ninefold completions zsh"
    )]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the version of the binary and of the platform.
    #[command(after_help = "Examples:\n  ninefold version\n  ninefold version -o json")]
    Version,
    /// Run one service of the sample landscape.
    #[command(hide = true)]
    DemoService {
        /// Which.
        name: String,
    },
}

/// Where a node listens, and where its data is.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NodeArgs {
    /// Address of the edge: REST, gRPC and gRPC-Web for the outside [default: 127.0.0.1:8080].
    #[arg(long, env = "NINEFOLD_EDGE_LISTEN", value_name = "ADDRESS")]
    pub(crate) edge_listen: Option<SocketAddr>,
    /// Address of the platform: its gRPC API and its page [default: 127.0.0.1:9900].
    #[arg(long, env = "NINEFOLD_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address of OTLP over gRPC [default: 127.0.0.1:4317].
    #[arg(long, env = "NINEFOLD_OTLP_GRPC_LISTEN", value_name = "ADDRESS")]
    pub(crate) otlp_grpc_listen: Option<SocketAddr>,
    /// Address of OTLP over HTTP [default: 127.0.0.1:4318].
    #[arg(long, env = "NINEFOLD_OTLP_HTTP_LISTEN", value_name = "ADDRESS")]
    pub(crate) otlp_http_listen: Option<SocketAddr>,
    /// Address of DNS, over UDP and TCP [default: DNS is not answered].
    #[arg(long, env = "NINEFOLD_DNS_LISTEN", value_name = "ADDRESS")]
    pub(crate) dns_listen: Option<SocketAddr>,
    /// Folder for the node's data [default: ninefold in the user's data folder; for demo a temporary one].
    #[arg(long, env = "NINEFOLD_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the registry, contracts, configuration and workloads are kept [default: embedded, or etcd with --etcd].
    #[arg(long, env = "NINEFOLD_STORE", value_enum)]
    pub(crate) store: Option<StoreKind>,
    /// Endpoints of etcd, separated by commas [default: http://127.0.0.1:2379].
    #[arg(long, env = "NINEFOLD_ETCD", value_name = "URL,…", value_delimiter = ',')]
    pub(crate) etcd: Vec<String>,
    /// How callers have to say who they are: not at all, by bearer tokens, or by certificates alone [default: off].
    #[arg(long, env = "NINEFOLD_AUTH", value_enum, value_name = "HOW")]
    pub(crate) auth: Option<AuthKind>,
    /// Listen beyond this machine although nobody is asked who they are. Whoever reaches the node can do everything.
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Certificate of the platform's doors, in PEM; with it they speak TLS.
    #[arg(long, env = "NINEFOLD_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, env = "NINEFOLD_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Authorities that vouch for callers' certificates, in PEM.
    #[arg(long, env = "NINEFOLD_CLIENT_CA", value_name = "FILE")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Settings in TOML. Flags and variables win over them.
    #[arg(long, env = "NINEFOLD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// How callers say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthKind {
    /// Not at all.
    Off,
    /// By a bearer token, or a certificate if --client-ca is given.
    Token,
    /// By a certificate alone.
    Mtls,
}

/// Kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// In the data folder; one node.
    Embedded,
    /// In etcd; any number of nodes.
    Etcd,
}

/// What `logs` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// Only this service.
    #[arg(default_value = "")]
    pub(crate) service: String,
    /// Follow.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many lines.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) lines: u16,
    /// Only this instance.
    #[arg(long, default_value = "")]
    pub(crate) instance: String,
    /// Only lines at least as grave: trace, debug, info, warn, error or fatal.
    #[arg(long, default_value = "")]
    pub(crate) level: String,
    /// Only lines that contain this.
    #[arg(long, visible_alias = "search", default_value = "")]
    pub(crate) text: String,
    /// Only lines that this says, such as 'refused level>=warn -service:edge http.status>=500 (a OR b)'.
    #[arg(short, long, default_value = "")]
    pub(crate) query: String,
    /// Count lines by the values of these fields instead of printing them, such as service,level.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', conflicts_with = "follow")]
    pub(crate) by: Vec<String>,
    /// With so many lines of the same instance before and after each.
    #[arg(short = 'C', long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100), conflicts_with_all = ["follow", "by"])]
    pub(crate) context: u8,
    /// With what was around each line: its trace, and what its instance was configured with, used and measured.
    #[arg(long, conflicts_with_all = ["follow", "by", "context"])]
    pub(crate) origin: bool,
    /// Only lines of this trace.
    #[arg(long, default_value = "")]
    pub(crate) trace: String,
    /// Only lines of the last while, such as 5m.
    #[arg(long, value_parser = ninefold::settings::duration::parse)]
    pub(crate) since: Option<std::time::Duration>,
    /// Delete all lines that this means, of all nodes, for good.
    #[arg(long, conflicts_with_all = ["follow", "by", "context", "origin"])]
    pub(crate) delete: bool,
    /// Delete without asking.
    #[arg(long, requires = "delete")]
    pub(crate) yes: bool,
}

/// What `call` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct CallArgs {
    /// `list`, `describe`, or a method such as shop.product.v1.ProductService/GetProduct.
    pub(crate) what: String,
    /// What to describe: a service, a method or a message.
    pub(crate) symbol: Option<String>,
    /// The request as JSON, several for a client stream; `@FILE` reads a file, `@-` standard input.
    #[arg(short, long, default_value = "{}")]
    pub(crate) data: String,
    /// Metadata, as `name: value`. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// Only instances of this service, where several answer the method.
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Longest time to wait for the answer [default: 10s; none for a stream of answers].
    #[arg(long, value_parser = ninefold::settings::duration::parse)]
    pub(crate) deadline: Option<std::time::Duration>,
}

/// What `config` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print a document. Without a service: list all.
    Get {
        #[command(flatten)]
        document: DocumentArgs,
        /// Which revision [default: the newest].
        #[arg(long)]
        revision: Option<i64>,
    },
    /// Write a document: single keys (`page_size=20`, `limits.burst=5`, `old=` to remove), or a whole file.
    #[command(
        after_help = "Examples:\n  ninefold config set review page_size=5 --reason 'too many at once'\n  ninefold config set review --file review.json"
    )]
    Set {
        /// Name of the service.
        service: String,
        /// Keys and values. A value is JSON, or else text.
        pairs: Vec<String>,
        /// Environment.
        #[arg(short, long, default_value = "default")]
        environment: String,
        /// The whole document, as JSON, YAML or TOML by its ending; `-` reads JSON from standard input.
        #[arg(long, conflicts_with = "pairs")]
        file: Option<PathBuf>,
        /// Write only if this is the newest revision; 0 if there must be none.
        #[arg(long)]
        expect: Option<i64>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
        /// Check, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List the revisions of a document.
    History {
        #[command(flatten)]
        document: DocumentArgs,
    },
    /// Tell what differs between two revisions [default: the newest and the one before].
    Diff {
        #[command(flatten)]
        document: DocumentArgs,
        /// The earlier.
        before: Option<i64>,
        /// The later.
        after: Option<i64>,
    },
    /// Bring an earlier revision back.
    Rollback {
        #[command(flatten)]
        document: DocumentArgs,
        /// Which [default: the one before the newest].
        #[arg(long)]
        to: Option<i64>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Follow a document.
    Watch {
        #[command(flatten)]
        document: DocumentArgs,
    },
    /// List what the instances of a service run with.
    Acks {
        #[command(flatten)]
        document: DocumentArgs,
    },
}

/// What `policy` does.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Print the policy of a service. Without a service: list all.
    Get {
        /// Name of the service.
        #[arg(default_value = "")]
        service: String,
        /// With the defaults where the policy says nothing.
        #[arg(long)]
        effective: bool,
    },
    /// Change single keys; they are checked before anything is written.
    #[command(
        after_help = "Examples:\n  ninefold policy set review breaker.failure_percent=30 retry.attempts_max=2\n  ninefold policy set review timeouts.call=800ms --reason 'the page is slow'"
    )]
    Set {
        /// Name of the service.
        service: String,
        /// Keys and values, such as `breaker.window=5s`.
        #[arg(required = true)]
        pairs: Vec<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
        /// Check, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take single keys back, or the whole policy.
    Unset {
        /// Name of the service.
        service: String,
        /// Keys, such as `breaker.window` or `retry` [default: all].
        keys: Vec<String>,
        /// Why.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Tell what is wrong with a policy in a file: JSON, YAML or TOML by its ending; `-` reads JSON from standard input.
    Check {
        /// The file.
        file: PathBuf,
        /// Name of the service.
        #[arg(long, default_value = "any")]
        service: String,
    },
}

/// What `xds` does.
#[derive(Debug, Subcommand)]
pub(crate) enum XdsCommand {
    /// Print what a gRPC library (GRPC_XDS_BOOTSTRAP) or an Envoy (-c) needs to follow this platform.
    Bootstrap(bootstrap::BootstrapArgs),
}

/// Names a document.
#[derive(Clone, Debug, Args)]
pub(crate) struct DocumentArgs {
    /// Name of the service.
    #[arg(default_value = "")]
    pub(crate) service: String,
    /// Environment.
    #[arg(short, long, default_value = "default")]
    pub(crate) environment: String,
}

/// Reads the command line. Ends the process where it is wrong, or asks for help.
pub(crate) fn parse() -> Cli {
    let command = without_empty_variables(Cli::command());
    let matches = command.clone().try_get_matches().unwrap_or_else(|error| {
        let _ = error.print();
        if let Some(name) = variable_at_fault(&command, &error) {
            crate::output::talk(format!("The value is that of the variable {name}."));
        }
        std::process::exit(error.exit_code());
    });
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// A variable that is set to nothing is not set: compose files and scripts write those.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The variable that gave the value that was refused, if it was none on the command line.
fn variable_at_fault(command: &clap::Command, error: &clap::Error) -> Option<String> {
    let (Some(ContextValue::String(arg)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return None;
    };
    let flag = arg.split_whitespace().next()?;
    if std::env::args().any(|given| given == flag || given.starts_with(&format!("{flag}="))) {
        return None;
    }
    let all = std::iter::once(command).chain(command.get_subcommands()).flat_map(clap::Command::get_arguments);
    let names = all.filter(|arg| arg.get_long() == flag.strip_prefix("--")).filter_map(clap::Arg::get_env);
    names
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| std::env::var(name).is_ok_and(|given| given.contains(value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_options_of_a_command_have_the_same_name() {
        Cli::command().debug_assert();
    }
}

/// What is asked of routes.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Tell which route matches, why others do not, what would be sent, what is declared for it, and who would answer.
    Test(RouteTestArgs),
}

/// A request that is not sent.
#[derive(Debug, Args)]
pub(crate) struct RouteTestArgs {
    /// HTTP method.
    pub(crate) verb: String,
    /// Path and query.
    pub(crate) path: String,
    /// A header, as `name: value`; again for more.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The body.
    #[arg(short = 'd', long)]
    pub(crate) data: Option<String>,
    /// A claim of the caller's identity, as `name=value`; again for more.
    #[arg(long = "identity-claim", value_name = "CLAIM")]
    pub(crate) claims: Vec<String>,
}
