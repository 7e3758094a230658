//! `ninefold doctor` and `ninefold version`: whether all is well, and what is running.

use std::time::Duration;

use http_body_util::BodyExt as _;
use ninefold::tonic::body::Body;
use ninefold_proto::ninefold::control::v1::SlotState;
use ninefold_proto::ninefold::monitor::v1::{Bucket, GetRetentionRequest};
use serde_json::{Value, json};
use tower::ServiceExt as _;

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
        Ok(Said::Denied(why)) if only_self => good(format!("the platform answers at {} ({why})", platform.endpoint())),
        Ok(Said::Denied(why)) => bad(
            format!("the platform at {} does not let us in: {why}", platform.endpoint()),
            "name a token with NINEFOLD_TOKEN_FILE, or ask an administrator for one",
        ),
        Ok(Said::Facts(facts)) => good(format!(
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
    if let (Ok(Said::Facts(facts)), false) = (&facts, only_self) {
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
    access(facts, findings);
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
            let loud: Vec<&str> =
                kept.senders.iter().filter(|sender| sender.refused > 0).map(|sender| sender.service.as_str()).collect();
            findings.push(if refused == 0 {
                good("no telemetry was refused".to_owned())
            } else if !loud.is_empty() {
                odd(
                    format!("{refused} telemetry records were refused; more than their share send {}", loud.join(", ")),
                    "let them say less, or raise [monitor.limits]",
                )
            } else {
                odd(
                    format!("{refused} telemetry records were refused for lack of room"),
                    "raise the limits in the section [monitor]",
                )
            });
            findings.extend(kept.bucket.as_ref().map(bucket));
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

/// Whether the bucket takes files of telemetry, and has those that it took.
fn bucket(told: &Bucket) -> Finding {
    let Bucket { url, waiting_files, waiting_bytes, spoiled_files, problem, .. } = told;
    if *spoiled_files > 0 {
        bad(
            format!(
                "{spoiled_files} files of telemetry are gone from {url}, or spoiled there; questions that need them fail"
            ),
            "bring the objects back that the node's log names",
        )
    } else if !problem.is_empty() {
        bad(
            format!("{url} takes no files of telemetry; {waiting_files} wait ({waiting_bytes} bytes): {problem}"),
            "look after [monitor.bucket]: url, endpoint, credentials; what waits is sent once the bucket answers",
        )
    } else {
        good(format!("{url} has {} files of telemetry; {waiting_files} are on their way", told.kept_files))
    }
}

/// Whether whoever reaches the platform is asked who they are.
fn access(facts: &Value, findings: &mut Vec<Finding>) {
    let is_secure = facts["tls"] == true;
    findings.push(match facts["authentication"].as_str() {
        _ if facts["insecure"] == true => bad(
            "the platform listens beyond its machine and asks nobody who they are (--insecure)".to_owned(),
            "start it with --auth token or --auth mtls",
        ),
        Some("off") | None => {
            good("the platform listens to its own machine only, and asks nobody who they are".to_owned())
        }
        Some(how) if is_secure => good(format!("callers say who they are (authentication {how}), over TLS")),
        Some(how) => odd(
            format!("callers say who they are (authentication {how}), in clear text"),
            "give the platform a certificate (--tls-cert, --tls-key), unless TLS ends in front of it",
        ),
    });
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

/// Largest page that is read.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a node says when it is asked for its page.
enum Said {
    /// What it tells of itself.
    Facts(Value),
    /// That it does not know who asks, or may not tell them: it answers, and that is all there is to know.
    Denied(String),
}

/// What the node tells of itself, from its page.
async fn facts(platform: &Platform) -> Result<Said, String> {
    let request = http::Request::get("http://platform/landscape.json").body(Body::empty());
    let request = request.map_err(|error| error.to_string())?;
    let asked = async {
        let answer = platform.link().oneshot(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let told = answer.headers().get("grpc-message").and_then(|text| text.to_str().ok()).map(ToOwned::to_owned);
        let read = http_body_util::Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
        Ok::<_, String>((status, told, read.map_err(|error| error.to_string())?.to_bytes()))
    };
    let (status, told, body) = match tokio::time::timeout(CHECK_DEADLINE, asked).await {
        Ok(outcome) => outcome?,
        Err(_) => return Err("no answer in 3 s".to_owned()),
    };
    if let Some(told) = told {
        // The way there tells in gRPC what is wrong with it.
        return Err(told);
    }
    let page: Value = serde_json::from_slice(&body).unwrap_or_default();
    match status {
        http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN => {
            Ok(Said::Denied(page["message"].as_str().unwrap_or("the platform does not let us in").to_owned()))
        }
        status if status.is_success() && page["node"].is_object() => Ok(Said::Facts(page["node"].clone())),
        status => Err(format!("answered {status}")),
    }
}

/// Prints the versions of this program and of the platform, if one answers.
pub(crate) async fn version(platform: &Platform, format: Format) -> Result<(), Failure> {
    let running = match facts(platform).await {
        Ok(Said::Facts(facts)) => facts["version"].as_str().map(ToOwned::to_owned),
        Ok(Said::Denied(_)) | Err(_) => None,
    };
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
