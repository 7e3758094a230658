//! `ninefold up` and `ninefold demo`: a node, and a node with the sample landscape.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Args;
use ninefold_proto::ninefold::control::v1::{PutWorkloadRequest, Workload};

use crate::args::NodeArgs;
use crate::commands::ps::View;
use crate::exit::Failure;
use crate::node::{self, Node, Talk, reachable};
use crate::output::{self, Format};
use crate::settings;
use crate::traffic;

/// Services of the sample landscape and how many instances of each.
const SHOP: [(&str, u32); 4] = [("product", 1), ("recommendation", 2), ("review", 2), ("product-composite", 1)];
/// How long the sample landscape may take to come up before the demo says so and goes on.
const SHOP_WAIT: Duration = Duration::from_secs(30);

/// What `up` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Take the place of the node that uses the data folder, without a connection refused; start as usual if there is none.
    #[arg(long)]
    pub(crate) take_over: bool,
}

/// What `demo` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Send no traffic.
    #[arg(long, env = "NINEFOLD_NO_TRAFFIC", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_traffic: bool,
}

/// How a node ends.
enum End {
    /// It was told to stop, or failed.
    Stopped(Option<String>),
    /// Another takes its place.
    Inherited(Talk),
}

/// Runs a node until it is told to stop, or another takes its place.
pub(crate) async fn up(args: &UpArgs, format: Format) -> Result<(), Failure> {
    let begin = Instant::now();
    let settings = settings::load(&args.node, &home()?)?;
    let mut node = if args.take_over { Node::take_over(settings).await? } else { Node::start(settings).await? };
    node.expect_heirs();
    announce(&node, begin, format);
    if format == Format::Table {
        output::talk(
            "  next            ninefold demo shows a landscape; ninefold run --name NAME -- COMMAND adds yours\n",
        );
    }
    let end = {
        let mut stopped = pin!(node::until_stopped(node.scope()));
        loop {
            tokio::select! {
                failure = &mut stopped => break End::Stopped(failure),
                talk = node.heir() => {
                    if let Some(talk) = node.give(talk).await {
                        break End::Inherited(talk);
                    }
                }
            }
        }
    };
    match end {
        End::Stopped(failure) => finish(node, failure).await,
        End::Inherited(talk) => {
            told_late(&node.hand_over(talk).await?);
            output::talk("another process has taken over");
            Ok(())
        }
    }
}

/// Runs a node with the sample landscape until it is told to stop.
pub(crate) async fn demo(args: &DemoArgs, format: Format) -> Result<(), Failure> {
    let begin = Instant::now();
    // Lives until the end of this function, and takes the folder with it.
    let temporary = tempfile::Builder::new()
        .prefix("ninefold-demo-")
        .tempdir()
        .map_err(|error| Failure::Data { path: "the system's temporary folder".to_owned(), why: error.to_string() })?;
    let mut settings = settings::load(&args.node, temporary.path())?;
    // So that a newcomer's grpcurl needs no files.
    settings.gateway.reflection = true;
    let data = settings.data.clone();
    let node = Node::start(settings).await?;
    announce(&node, begin, format);
    let outcome = tokio::select! {
        outcome = show(&node, &data, args.no_traffic, format) => outcome.map(|never| match never {}),
        failure = node::until_stopped(node.scope()) => Ok(failure),
    };
    match outcome {
        Ok(failure) => finish(node, failure).await,
        Err(failure) => {
            node.close().await;
            Err(failure)
        }
    }
}

/// Starts the shop, says what to try, and sends traffic until it is dropped.
async fn show(node: &Node, data: &Path, no_traffic: bool, format: Format) -> Result<std::convert::Infallible, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::Failed(format!("cannot find this program: {error}")))?;
    let platform = node.platform();
    for (service, instances) in SHOP {
        let folder = data.join("shop").join(service);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::Data { path: folder.display().to_string(), why: error.to_string() })?;
        let command = [&program.display().to_string(), "demo-service", service].map(ToString::to_string).to_vec();
        let environment = [("NINEFOLD_DATA".to_owned(), folder.display().to_string())].into();
        let workload = Workload {
            service: service.to_owned(),
            instances,
            command,
            environment,
            joins: true,
            ..Workload::default()
        };
        let request = PutWorkloadRequest { workload: Some(workload), expected_revision: None };
        platform.ask(platform.control().put_workload(request)).await?;
    }
    if tokio::time::timeout(SHOP_WAIT, until_serving(node)).await.is_err() {
        output::talk("the sample landscape is slow to come up; `ninefold why product-composite` tells why");
    }
    if format == Format::Table {
        hints(node);
    } else {
        output::line(serde_json::json!({"ready": true}));
    }
    if !no_traffic {
        traffic::send(reachable(node.facts().edge)).await;
    }
    std::future::pending().await
}

/// Waits until every wanted instance serves and the edge routes to the composite.
async fn until_serving(node: &Node) {
    let wanted: u32 = SHOP.iter().map(|(_, instances)| instances).sum();
    loop {
        let view = View::of(node.platform(), "").await;
        let serving = view.map_or(0, |view| {
            view.instances.iter().filter(|instance| crate::commands::ps::state(instance) == "serving").count()
        });
        let routes = node.platform().routes("product-composite").await.unwrap_or_default();
        if u32::try_from(serving).is_ok_and(|serving| serving >= wanted) && !routes.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn announce(node: &Node, begin: Instant, format: Format) {
    let facts = node.facts();
    if format != Format::Table {
        output::line(facts.json());
        return;
    }
    output::talk(format!(
        "\nninefold {} is ready after {}\n
  landscape page  {}/
  edge            http://{}
  platform        {}
  OTLP            {} (gRPC), {} (HTTP)
  data            {} ({} store)\n",
        env!("CARGO_PKG_VERSION"),
        node::since(begin),
        facts.endpoint(),
        reachable(facts.edge),
        facts.platform,
        facts.otlp_grpc,
        facts.otlp_http,
        facts.data,
        facts.store,
    ));
    if let Some(token) = &facts.admin_token {
        output::talk(format!("  first token     {token} (NINEFOLD_TOKEN_FILE={token} ninefold token create …)\n"));
    }
}

fn hints(node: &Node) {
    let edge = reachable(node.facts().edge);
    let platform = reachable(node.facts().platform);
    let endpoint = if platform.port() == 9900 { String::new() } else { format!(" --endpoint http://{platform}") };
    // As it was called, so that the lines work where they are read.
    let program = std::env::args().next().unwrap_or_else(|| "ninefold".to_owned());
    output::talk(format!(
        "The shop is open: product-composite, product, recommendation ×2, review ×2.

  curl -i http://{edge}/v1/products/1
  curl -N -H 'accept: text/event-stream' http://{edge}/v1/products/1/reviews:watch
  grpcurl -plaintext -d '{{\"product_id\": 1}}' {edge} shop.composite.v1.CompositeService/GetProduct

  {program} ps{endpoint}
  {program} trace{endpoint}
  {program} config set review delay=2s{endpoint}

Ctrl-C stops everything.\n",
    ));
}

async fn finish(node: Node, failure: Option<String>) -> Result<(), Failure> {
    told_late(&node.close().await);
    match failure {
        None => Ok(()),
        Some(failure) => Err(Failure::Failed(failure)),
    }
}

fn told_late(late: &[String]) {
    if !late.is_empty() {
        output::talk(format!("did not end in time and was dropped: {}", late.join(", ")));
    }
}

/// `ninefold` in the user's data folder.
fn home() -> Result<PathBuf, Failure> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_DATA_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/share")))
        .map(|folder| folder.join("ninefold"))
        .ok_or_else(|| Failure::Usage("neither XDG_DATA_HOME nor HOME is set: name a folder with --data".to_owned()))
}
