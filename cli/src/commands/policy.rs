//! `ninefold policy`: how services are called. Nothing is written that the registry would refuse.

use std::path::Path;

use ninefold::tonic::Code;
use ninefold_proto::ninefold::config::v1::{Document, ListDocumentsRequest};
use ninefold_proto::ninefold::registry::v1::{CheckPolicyRequest, GetPolicyRequest, Policy};
use serde_json::{Map, Value};

use super::config::{self, Coded, Write};
use crate::args::{DocumentArgs, PolicyCommand};
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

const DOCUMENT: &str = "ninefold.config.v1.Document";
const POLICY: &str = "ninefold.registry.v1.Policy";
/// Environment of the documents that are policies.
const ENVIRONMENT: &str = "policy";

/// Does what the command says.
pub(crate) async fn policy(platform: &Platform, command: PolicyCommand, format: Format) -> Result<(), Failure> {
    match command {
        PolicyCommand::Get { service, .. } if service.is_empty() => list(platform, format).await,
        PolicyCommand::Get { service, effective } => get(platform, service, effective, format).await,
        PolicyCommand::Set { service, pairs, reason, dry_run } => {
            let change =
                |content: &mut Map<String, Value>| pairs.iter().try_for_each(|pair| config::set(content, &snake(pair)));
            write(platform, service, reason, dry_run, change, format).await
        }
        PolicyCommand::Unset { service, keys, reason } => {
            let change = |content: &mut Map<String, Value>| {
                if keys.is_empty() {
                    content.clear();
                }
                keys.iter().try_for_each(|key| config::set(content, &format!("{}=", snake(key))))?;
                content.retain(|_, part| part.as_object().is_none_or(|part| !part.is_empty()));
                Ok(())
            };
            write(platform, service, reason, false, change, format).await
        }
        PolicyCommand::Check { file, service } => check(platform, &file, service, format).await,
    }
}

/// A key as the contract writes it, so that one key is not there in both ways.
fn snake(pair: &str) -> String {
    let (path, value) = pair.split_once('=').map_or((pair, None), |(path, value)| (path, Some(value)));
    let mut snake = String::new();
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    value.map_or(snake.clone(), |value| format!("{snake}={value}"))
}

async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let client = platform.config();
    let mut documents: Vec<Document> = platform
        .gather(|page_token| {
            let mut client = client.clone();
            async move {
                let request = ListDocumentsRequest { page_size: 1000, page_token, ..ListDocumentsRequest::default() };
                let answer = client.list_documents(request).await?.into_inner();
                Ok((answer.documents, answer.next_page_token))
            }
        })
        .await?;
    documents.retain(|document| document.environment == ENVIRONMENT);
    if documents.is_empty() {
        output::talk(
            "no policies yet: services are called by the defaults; see `ninefold policy get SERVICE --effective`",
        );
    }
    output::print(format, &output::json_all(DOCUMENT, &documents), || {
        let mut table = Table::new(&["SERVICE", "REVISION", "AGE", "AUTHOR", "POLICY"]);
        for document in &documents {
            let age = output::ago(document.create_time.as_ref());
            let revision = document.revision.to_string();
            table.row([document.service.clone(), revision, age, document.author.clone(), document.content.clone()]);
        }
        table.render()
    })
}

async fn get(platform: &Platform, service: String, is_effective: bool, format: Format) -> Result<(), Failure> {
    let request = GetPolicyRequest { service: service.clone() };
    let (policy, effective) = match platform.registry().get_policy(crate::client::within(request)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            if answer.refused_revision > 0 {
                let (revision, refusal) = (answer.refused_revision, &answer.refusal);
                output::talk(format!("revision {revision} of the document cannot be used: {refusal}"));
            }
            (answer.policy, answer.effective)
        }
        // The defaults are those of an empty policy.
        Err(status) if status.code() == Code::NotFound && is_effective => {
            let request = CheckPolicyRequest { service, content: "{}".to_owned() };
            let answer = platform.ask(platform.registry().check_policy(request)).await?;
            (answer.policy, answer.effective)
        }
        Err(status) => return Err(Failure::of_status(platform.endpoint(), &status)),
    };
    show(&if is_effective { effective } else { policy }.unwrap_or_default(), format)
}

fn show(policy: &Policy, format: Format) -> Result<(), Failure> {
    let value = output::json(POLICY, policy);
    output::print(format, &value, || config::pretty(&value.to_string()))
}

/// Changes the newest document of a policy. Reads again when somebody else wrote in between.
async fn write(
    platform: &Platform,
    service: String,
    reason: String,
    dry_run: bool,
    change: impl Fn(&mut Map<String, Value>) -> Result<(), Failure>,
    format: Format,
) -> Result<(), Failure> {
    let name = DocumentArgs { service: service.clone(), environment: ENVIRONMENT.to_owned() };
    let write = Write { name, expect: None, reason, dry_run };
    for tries in 1.. {
        let newest = match config::fetch(platform, &write.name, None).await {
            Ok(document) => document,
            Err(Coded(_, Some(Code::NotFound))) => Document::default(),
            Err(Coded(failure, _)) => return Err(failure),
        };
        let mut content = match serde_json::from_str(&newest.content) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        change(&mut content)?;
        let content = Value::Object(content).to_string();
        let request = CheckPolicyRequest { service: service.clone(), content: content.clone() };
        platform.ask(platform.registry().check_policy(request)).await?;
        match write.put(platform, content, Some(newest.revision)).await {
            Err(Coded(_, Some(Code::Aborted))) if tries < config::TRIES_MAX => {}
            Err(Coded(failure, _)) => return Err(failure),
            Ok(document) if dry_run && format == Format::Table => {
                output::talk(format!("checked, not written: it would be revision {}", document.revision));
                return Ok(());
            }
            Ok(document) => {
                return output::print(format, &output::json(DOCUMENT, &document), || {
                    format!("the policy of {} is at revision {}", document.service, document.revision)
                });
            }
        }
    }
    unreachable!("the last try returns")
}

async fn check(platform: &Platform, file: &Path, service: String, format: Format) -> Result<(), Failure> {
    let request = CheckPolicyRequest { service, content: config::read(file)? };
    let answer = platform.ask(platform.registry().check_policy(request)).await?;
    output::talk("the policy can be used");
    show(&answer.policy.unwrap_or_default(), format)
}

#[cfg(test)]
mod tests {
    use super::snake;

    #[test]
    fn a_key_is_written_in_one_way() {
        assert_eq!(snake("breaker.failurePercent=30"), "breaker.failure_percent=30");
        assert_eq!(snake("balancing.method=RING_HASH"), "balancing.method=RING_HASH");
        assert_eq!(snake("retry.waitMin"), "retry.wait_min");
    }
}
