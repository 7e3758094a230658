//! The binary: reads the command line, does one thing, ends with a code.

mod args;
mod client;
mod commands;
mod exit;
mod host;
mod node;
mod output;
mod page;
mod settings;
mod traffic;

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::args::{Cli, Command, RouteCommand, XdsCommand};
use crate::client::Platform;
use crate::exit::Failure;

// Telemetry is many small texts on several threads: docs/decisions/0128.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = args::parse();
    // A dead reader of stdout is noticed by the write, not by a signal; Rust ignores SIGPIPE by default.
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::talk(format!("ninefold: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.is_told() {
                output::talk(format!("ninefold: {failure}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { endpoint, namespace, output: format, command } = cli;
    // A node is told of itself by other means than those who ask it.
    let command = match command {
        Command::Up(args) => return commands::up::up(&args, format).await,
        Command::Demo(args) => return commands::up::demo(&args, format).await,
        Command::DemoService { name } => return demo_service(&name).await,
        other => other,
    };
    let platform = Platform::at(&endpoint)?.within(namespace.as_deref().unwrap_or("default"));
    match command {
        Command::Up(_) | Command::Demo(_) | Command::DemoService { .. } => Ok(()),
        Command::Run(args) => commands::run::run(args, &platform).await,
        Command::Ps { service, watch } => commands::ps::ps(&platform, &service, watch, format).await,
        Command::Describe { name } => commands::describe::describe(&platform, &name, format).await,
        Command::Logs(args) => commands::logs::logs(&platform, args, format).await,
        Command::Nodes(args) => commands::nodes::nodes(&platform, args, format).await,
        Command::Trace(args) => commands::trace::trace(&platform, args, format).await,
        Command::Metrics(args) => commands::metrics::metrics(&platform, args, format).await,
        Command::Query(args) => commands::query::query(&platform, args, format).await,
        Command::Top(args) => commands::top::top(&platform, args, format).await,
        Command::Alerts(args) => commands::alerts::alerts(&platform, args, format).await,
        Command::Call(args) => commands::call::call(&platform, args, format).await,
        Command::Config(command) => commands::config::config(&platform, command, format).await,
        Command::Policy(command) => commands::policy::policy(&platform, command, format).await,
        Command::Contract(command) => commands::contract::contract(&platform, command, format).await,
        Command::Scale { service, instances, no_wait } => {
            commands::scale::scale(&platform, &service, instances, no_wait, format).await
        }
        Command::Drain { instance, service, reason } => {
            let of = (instance.as_str(), service.as_deref());
            commands::overrides::drain(&platform, of, true, &reason, format).await
        }
        Command::Undrain { instance, service } => {
            let of = (instance.as_str(), service.as_deref());
            commands::overrides::drain(&platform, of, false, "", format).await
        }
        Command::Override(args) => commands::overrides::set(&platform, args, format).await,
        Command::Why { name, lines } => commands::why::why(&platform, &name, lines, format).await,
        Command::Routes { verb: Some(verb), path: Some(path) } => {
            commands::routes::find(&platform, &verb, &path, format).await
        }
        Command::Route(RouteCommand::Test(args)) => commands::routes::test(&platform, args, format).await,
        Command::Routes { .. } => commands::routes::list(&platform, format).await,
        Command::Xds { command: Some(XdsCommand::Bootstrap(args)) } => commands::xds::bootstrap(&platform, &args),
        Command::Xds { command: None } => commands::xds::list(&platform, format).await,
        Command::Doctor { only_self, quiet } => commands::doctor::doctor(&platform, only_self, quiet, format).await,
        Command::Key(command) => commands::key::key(&platform, command, format).await,
        Command::Token(command) => commands::token::token(&platform, command, namespace.as_deref(), format).await,
        Command::Whoami => commands::token::whoami(&platform, format).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ninefold", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Version => commands::doctor::version(&platform, format).await,
    }
}

/// Runs one service of the shop in this process, as its own binary would.
async fn demo_service(name: &str) -> Result<(), Failure> {
    let outcome = match name {
        "product" => shop_product::run().await,
        "recommendation" => shop_recommendation::run().await,
        "review" => shop_review::run().await,
        "product-composite" => shop_product_composite::run().await,
        other => return Err(Failure::Usage(format!("the shop has no service {other:?}"))),
    };
    outcome.map_err(|error| Failure::Failed(ninefold::fault::chain(&error)))
}
