//! `ninefold alerts`: what is wrong, what is watched, and whether a document can be used.

mod rule_files;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ninefold_proto::ninefold::alert::v1::{
    Alert, AlertState, CheckAlertsRequest, ListAlertsRequest, ListRulesRequest, Rule,
};

use serde_json::Value;

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// What `alerts` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct AlertsArgs {
    #[command(subcommand)]
    what: Option<What>,
}

/// What is asked of alerts.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// What is watched, what is shipped included.
    Rules,
    /// Whether a document, or files of Prometheus' rules, can be used. Changes nothing.
    Check {
        /// The document, in JSON; or files of rules, in YAML.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Prints Prometheus' rules as a document. Changes nothing.
    Import {
        /// Files of rules, in YAML.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The document that they are added to, in JSON.
        #[arg(long)]
        into: Option<PathBuf>,
    },
}

/// Prints alerts, rules, or what is wrong with a document.
pub(crate) async fn alerts(platform: &Platform, args: AlertsArgs, format: Format) -> Result<(), Failure> {
    match args.what {
        None => list(platform, format).await,
        Some(What::Rules) => rules(platform, format).await,
        Some(What::Check { files }) => {
            let document = match files.as_slice() {
                [file] if !rule_files::is_one(&text_of(file).await?) => text_of(file).await?,
                files => imported(files, None).await?.to_string(),
            };
            let answer = platform.ask(platform.alerts().check_alerts(CheckAlertsRequest { document })).await?;
            output::print(format, &output::json("ninefold.alert.v1.CheckAlertsResponse", &answer), || {
                format!("it can be used: {} rules\n", answer.rules)
            })
        }
        Some(What::Import { files, into }) => {
            let document = imported(&files, into.as_deref()).await?;
            let text = serde_json::to_string_pretty(&document).map_err(|error| Failure::Failed(error.to_string()))?;
            output::print(format, &document, || text + "\n")
        }
    }
}

async fn text_of(file: &Path) -> Result<String, Failure> {
    let read = tokio::fs::read_to_string(file).await;
    read.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

/// Files of rules as a document; says what is left out.
async fn imported(files: &[PathBuf], into: Option<&Path>) -> Result<Value, Failure> {
    let into = match into {
        Some(file) => serde_json::from_str(&text_of(file).await?)
            .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?,
        None => Value::Null,
    };
    let mut texts = Vec::new();
    for file in files {
        texts.push((file.display().to_string(), text_of(file).await?));
    }
    let files: Vec<_> = texts.iter().map(|(name, text)| rule_files::File { name, text }).collect();
    let read = rule_files::read(&files, into).map_err(|wrong| Failure::Usage(wrong.join("\n")))?;
    read.left_out.iter().for_each(output::talk);
    output::talk(format!("{} rules of {} files", read.rules, files.len()));
    Ok(read.document)
}

async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let alerts = platform.ask(platform.alerts().list_alerts(ListAlertsRequest {})).await?.alerts;
    if alerts.is_empty() {
        output::talk("no alerts");
    }
    output::print(format, &output::json_all("ninefold.alert.v1.Alert", &alerts), || {
        let mut table = Table::new(&["STATE", "RULE", "SINCE", "VALUE", "ABOUT", "SUMMARY"]);
        for alert in &alerts {
            table.row([
                state(alert),
                alert.rule.clone(),
                output::ago(alert.firing_since.as_ref().or(alert.active_since.as_ref())),
                alert.value.to_string(),
                output::cell(&about(alert)),
                output::cell(alert.annotations.get("summary").map_or("", String::as_str)),
            ]);
        }
        table.render()
    })
}

fn state(alert: &Alert) -> String {
    let word = output::word(alert.state().as_str_name(), "ALERT_STATE_");
    match alert.state() {
        AlertState::Firing if !alert.silenced_by.is_empty() => format!("{word}, silenced by {}", alert.silenced_by),
        AlertState::Firing if !alert.inhibited_by.is_empty() => format!("{word}, inhibited by {}", alert.inhibited_by),
        _ => word,
    }
}

fn about(alert: &Alert) -> String {
    let mut labels: Vec<String> = alert
        .labels
        .iter()
        .filter(|(name, _)| !["alertname", "severity"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.sort();
    labels.join(" ")
}

/// What a rule asks, and what the answer is kept as.
fn asked(rule: &Rule) -> String {
    let asked = [&rule.expr, &rule.logs, &rule.instances].map(String::as_str).concat();
    output::cell(&if rule.record.is_empty() { asked } else { format!("{} = {asked}", rule.record) })
}

async fn rules(platform: &Platform, format: Format) -> Result<(), Failure> {
    let rules = platform.ask(platform.alerts().list_rules(ListRulesRequest {})).await?.rules;
    output::print(format, &output::json_all("ninefold.alert.v1.Rule", &rules), || {
        let mut table = Table::new(&["RULE", "FROM", "ALERTS", "ASKED", "PROBLEM", "WHAT IS ASKED"]);
        for rule in &rules {
            table.row([
                rule.name.clone(),
                if rule.shipped { "shipped" } else { "document" }.to_owned(),
                rule.alerts.to_string(),
                output::ago(rule.evaluated.as_ref()),
                output::cell(&rule.problem),
                asked(rule),
            ]);
        }
        table.render()
    })
}
