//! `--delete` of `ninefold logs` and `ninefold trace`: what a search means is deleted, once a person has said so.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

use ninefold_proto::ninefold::monitor::v1::{
    CountLogsRequest, DeleteLogsRequest, DeleteTracesRequest, LogFilter, MissingNode,
};
use serde_json::json;

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format};

/// How long a deletion may take: files are written anew.
const WAIT: Duration = Duration::from_secs(120);

/// Deletes the lines that a filter means.
pub(crate) async fn lines(
    platform: &Platform,
    filter: LogFilter,
    is_sure: bool,
    format: Format,
) -> Result<(), Failure> {
    if filter == LogFilter::default() {
        return Err(Failure::Usage("--delete needs to know which lines: all are not deleted at once".to_owned()));
    }
    if !is_sure {
        let asked = CountLogsRequest { filter: Some(filter.clone()), ..CountLogsRequest::default() };
        let counted = platform.search(platform.monitor().count_logs(asked)).await?;
        output::missing(&counted.missing_nodes);
        sure(&format!("{} lines are deleted for good", counted.lines))?;
    }
    let request = DeleteLogsRequest { filter: Some(filter) };
    let gone = platform.search_within(WAIT, platform.monitor().delete_logs(request)).await?;
    told("lines", gone.lines, &gone.missing_nodes, format)
}

/// Deletes the traces that are meant.
pub(crate) async fn traces(
    platform: &Platform,
    request: DeleteTracesRequest,
    is_sure: bool,
    format: Format,
) -> Result<(), Failure> {
    if request == DeleteTracesRequest::default() {
        return Err(Failure::Usage("--delete needs to know which traces: all are not deleted at once".to_owned()));
    }
    if !is_sure {
        sure("the traces that this means are deleted for good, with all their spans")?;
    }
    let gone = platform.search_within(WAIT, platform.monitor().delete_traces(request)).await?;
    told("spans", gone.spans, &gone.missing_nodes, format)
}

/// Asks whoever sits at the terminal.
fn sure(what: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{what}: say --yes")));
    }
    output::talk(format!("{what}. Type yes:"));
    let mut said = String::new();
    let read = std::io::stdin().lock().read_line(&mut said);
    match read {
        Ok(_) if said.trim() == "yes" => Ok(()),
        Ok(_) | Err(_) => Err(Failure::Failed("nothing was deleted".to_owned())),
    }
}

/// Tells how many are gone; a node that did not answer is a failure, because there they are not.
fn told(what: &str, count: u64, missing: &[MissingNode], format: Format) -> Result<(), Failure> {
    output::print(format, &json!({ what: count }), || format!("{count} {what} deleted\n"))?;
    output::missing(missing);
    match missing.len() {
        0 => Ok(()),
        nodes => Err(Failure::Unhealthy(format!("{nodes} nodes did not delete: do it again when they are back"))),
    }
}
