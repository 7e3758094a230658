//! `ninefold doctor` and `ninefold version`: whether all is well, and what is running.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use ninefold_proto::ninefold::control::v1::SlotState;
use ninefold_proto::ninefold::monitor::v1::GetRetentionRequest;
use serde_json::{Value, json};

use crate::client::Platform;
use crate::commands::ps::{self, View};
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::traffic;

/// Longest wait for one check.
const CHECK_DEADLINE: Duration = Duration::from_secs(3);

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Odd,
    Bad,
}

struct Finding {
    verdict: Verdict,
    check: String,
    fix: String,
}

/// Checks the platform, and with it the landscape unless only the platform is asked for.
pub(crate) async fn doctor(platform: &Platform, only_self: bool, quiet: bool, format: Format) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let facts = facts(platform).await;
    findings.push(match &facts {
        Ok(facts) => good(format!(
            "the platform answers at {} (node {}, version {})",
            platform.endpoint(),
            facts["node"].as_str().unwrap_or("?"),
            facts["version"].as_str().unwrap_or("?")
        )),
        Err(why) => bad(
            format!("no platform answers at {} ({why})", platform.endpoint()),
            "start one with `ninefold up`, or name another with --endpoint",
        ),
    });
    if let (Ok(facts), false) = (&facts, only_self) {
        landscape(platform, facts, &mut findings).await;
    }
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    if !quiet && (facts.is_ok() || format != Format::Table) {
        let value: Value = findings.iter().map(finding_json).collect();
        output::print(format, &value, || findings.iter().map(text).collect())?;
    }
    match facts {
        // What else is wrong has been said, or was not to be said.
        Ok(_) if is_bad => Err(Failure::Quiet(5)),
        Ok(_) => Ok(()),
        Err(_) if quiet => Err(Failure::Quiet(3)),
        Err(why) => Err(Failure::Unreachable { endpoint: platform.endpoint().to_owned(), why }),
    }
}

async fn landscape(platform: &Platform, facts: &Value, findings: &mut Vec<Finding>) {
    let version = facts["version"].as_str().unwrap_or_default();
    if version != env!("CARGO_PKG_VERSION") {
        findings.push(odd(
            format!("this program is version {}, the platform is {version}", env!("CARGO_PKG_VERSION")),
            "use the same version for both",
        ));
    }
    match View::of(platform, "").await {
        Err(failure) => {
            findings.push(bad(format!("the registry does not answer: {failure}"), "look at the node's own log"));
        }
        Ok(view) => {
            findings.push(good(match view.instances.len() {
                1 => "1 instance is registered".to_owned(),
                count => format!("{count} instances are registered"),
            }));
            for instance in view.instances.iter().filter(|instance| ps::state(instance) == "suspect") {
                findings.push(odd(
                    format!("{} is suspect: {}", instance.instance_id, instance.state_reason),
                    &format!("ninefold why {}", instance.instance_id),
                ));
            }
            for status in &view.workloads {
                let service = status.workload.as_ref().map_or("?", |workload| workload.service.as_str());
                for slot in status.slots.iter().filter(|slot| slot.state() == SlotState::CrashLoop) {
                    findings.push(bad(
                        format!("{service} slot {} dies again and again: {}", slot.slot, slot.reason),
                        &format!("ninefold why {service}; ninefold logs {service}"),
                    ));
                }
            }
        }
    }
    match platform.ask(platform.monitor().get_retention(GetRetentionRequest {})).await {
        Err(failure) => {
            findings.push(bad(format!("the monitor does not answer: {failure}"), "look at the node's own log"));
        }
        Ok(kept) => {
            let refused =
                [kept.logs, kept.spans, kept.series].into_iter().flatten().map(|kept| kept.refused).sum::<u64>();
            findings.push(if refused == 0 {
                good("no telemetry was refused".to_owned())
            } else {
                odd(
                    format!("{refused} telemetry records were refused for lack of room"),
                    "raise the limits in the section [monitor]",
                )
            });
        }
    }
    match edge_answers(facts).await {
        Ok(address) => findings.push(good(format!("the edge answers at {address}"))),
        Err(why) => findings.push(bad(format!("the edge does not answer: {why}"), "look at the node's own log")),
    }
    for refusal in platform.refusals().await.unwrap_or_default() {
        findings.push(odd(
            format!("the edge refuses a part of {}: {}", refusal.service, refusal.reason),
            "change the contract, or leave it: the rest of the service is not touched",
        ));
    }
}

/// Any answer will do: the edge has no page of its own.
async fn edge_answers(facts: &Value) -> Result<String, String> {
    let address = facts["edge"].as_str().unwrap_or_default();
    let parsed = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    match tokio::time::timeout(CHECK_DEADLINE, traffic::get(crate::node::reachable(parsed), "/")).await {
        Ok(Ok(_)) => Ok(address.to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in 3 s".to_owned()),
    }
}

/// What the node tells of itself, from its page.
async fn facts(platform: &Platform) -> Result<Value, String> {
    let mut last = "no endpoint".to_owned();
    for endpoint in platform.endpoint().split(',') {
        let authority = endpoint.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
        let addresses = authority.to_socket_addrs().map_err(|error| error.to_string())?;
        for address in addresses {
            match tokio::time::timeout(CHECK_DEADLINE, traffic::get(address, "/landscape.json")).await {
                Ok(Ok((status, body))) if status.is_success() => {
                    let page: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                    return Ok(page["node"].clone());
                }
                Ok(Ok((status, _))) => last = format!("answered {status}"),
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer in 3 s".to_owned(),
            }
        }
    }
    Err(last)
}

/// Prints the versions of this program and of the platform, if one answers.
pub(crate) async fn version(platform: &Platform, format: Format) -> Result<(), Failure> {
    let running = facts(platform).await.ok().and_then(|facts| facts["version"].as_str().map(ToOwned::to_owned));
    let value = json!({"version": env!("CARGO_PKG_VERSION"), "platform": running});
    output::print(format, &value, || match &running {
        Some(running) => {
            format!("ninefold {}\nplatform {running} at {}", env!("CARGO_PKG_VERSION"), platform.endpoint())
        }
        None => format!("ninefold {}", env!("CARGO_PKG_VERSION")),
    })
}

fn good(check: String) -> Finding {
    Finding { verdict: Verdict::Good, check, fix: String::new() }
}

fn odd(check: String, fix: &str) -> Finding {
    Finding { verdict: Verdict::Odd, check, fix: fix.to_owned() }
}

fn bad(check: String, fix: &str) -> Finding {
    Finding { verdict: Verdict::Bad, check, fix: fix.to_owned() }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Odd => "warn",
        Verdict::Bad => "bad",
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({"verdict": word(finding.verdict), "check": finding.check, "fix": finding.fix})
}

fn text(finding: &Finding) -> String {
    let fix = if finding.fix.is_empty() { String::new() } else { format!("        fix: {}\n", finding.fix) };
    format!("{:<5}  {}\n{fix}", word(finding.verdict), finding.check)
}
