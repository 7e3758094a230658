//! `ninefold nodes`: which nodes keep telemetry, and which of them will not come back.

use clap::{Args, Subcommand};
use ninefold_proto::ninefold::monitor::v1::{ForgetNodeRequest, ListNodesRequest};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// What `nodes` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodesArgs {
    #[command(subcommand)]
    what: Option<What>,
}

/// What is done with nodes.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Ask a node no more: it will not come back, and what it kept is not missed any longer.
    Forget {
        /// Name of the node.
        node: String,
    },
}

/// Prints the nodes, or forgets one.
pub(crate) async fn nodes(platform: &Platform, args: NodesArgs, format: Format) -> Result<(), Failure> {
    if let Some(What::Forget { node }) = args.what {
        let request = ForgetNodeRequest { node: node.clone() };
        platform.ask(platform.monitor().forget_node(request)).await?;
        output::talk(format!("{} is asked no more", output::cell(&node)));
        return Ok(());
    }
    let nodes = platform.ask(platform.monitor().list_nodes(ListNodesRequest {})).await?.nodes;
    if nodes.is_empty() {
        output::talk("the node has a store of its own, and no others");
    }
    output::print(format, &output::json_all("ninefold.monitor.v1.TelemetryNode", &nodes), || {
        let mut table = Table::new(&["NODE", "ENDPOINT", "SEEN", "ANSWERING"]);
        for node in &nodes {
            table.row([
                output::cell(&node.node),
                output::cell(&node.endpoint),
                output::ago(node.seen_time.as_ref()),
                if node.answering { "yes".to_owned() } else { "-".to_owned() },
            ]);
        }
        table.render()
    })
}
