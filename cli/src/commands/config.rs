//! `ninefold config`: documents, their history, and what instances run with.

use std::path::Path;

use ninefold::tonic::Code;
use ninefold_proto::ninefold::config::v1::{
    DiffRevisionsRequest, Document, GetDocumentRequest, ListAcknowledgementsRequest, ListDocumentsRequest,
    ListRevisionsRequest, PutDocumentRequest, RollbackDocumentRequest, WatchDocumentRequest,
};
use ninefold_proto::ninefold::gateway::v1::CheckSettingsRequest;
use serde_json::{Map, Value};

use crate::args::{ConfigCommand, DocumentArgs};
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

const DOCUMENT: &str = "ninefold.config.v1.Document";
/// Tries of a write that others get in the way of.
pub(super) const TRIES_MAX: u32 = 5;

/// Does what the command says.
pub(crate) async fn config(platform: &Platform, command: ConfigCommand, format: Format) -> Result<(), Failure> {
    match command {
        ConfigCommand::Get { document, .. } if document.service.is_empty() => list(platform, format).await,
        ConfigCommand::Get { document, revision } => get(platform, document, revision, format).await,
        ConfigCommand::Set { service, pairs, environment, file, expect, reason, dry_run } => {
            let name = DocumentArgs { service, environment };
            let write = Write { name, expect, reason, dry_run };
            let document = match file {
                Some(path) => write.put(platform, read(&path)?, expect).await.map_err(|failure| failure.0)?,
                None if pairs.is_empty() => {
                    return Err(Failure::Usage("nothing to set: give KEY=VALUE pairs or --file".to_owned()));
                }
                None => write.patch(platform, &pairs).await?,
            };
            if dry_run && format == Format::Table {
                output::talk(format!("checked, not written: it would be revision {}", document.revision));
                return Ok(());
            }
            written(&document, format)
        }
        ConfigCommand::History { document } => history(platform, named(document)?, format).await,
        ConfigCommand::Diff { document, before, after } => {
            diff(platform, named(document)?, before, after, format).await
        }
        ConfigCommand::Rollback { document, to, reason } => {
            let DocumentArgs { service, environment } = named(document)?;
            let request = RollbackDocumentRequest {
                service,
                environment,
                revision: to,
                expected_revision: None,
                author: author(),
                reason,
            };
            let name = request.service.clone();
            let answer = match platform.ask(platform.config().rollback_document(request)).await {
                Err(Failure::NotFound(why)) if to.is_none() && why.ends_with("has no revision 0") => {
                    return Err(Failure::NotFound(format!("{name} has one revision only, there is none before it")));
                }
                outcome => outcome?,
            };
            written(&answer.document.unwrap_or_default(), format)
        }
        ConfigCommand::Watch { document } => watch(platform, named(document)?, format).await,
        ConfigCommand::Acks { document } => acks(platform, named(document)?, format).await,
    }
}

fn named(document: DocumentArgs) -> Result<DocumentArgs, Failure> {
    if document.service.is_empty() {
        return Err(Failure::Usage("name a service; `ninefold config get` lists the documents".to_owned()));
    }
    Ok(document)
}

/// Who gives commands here.
pub(super) fn author() -> String {
    std::env::var("USER").unwrap_or_else(|_| "cli".to_owned())
}

fn written(document: &Document, format: Format) -> Result<(), Failure> {
    output::print(format, &output::json(DOCUMENT, document), || {
        format!("{} ({}) is at revision {}", document.service, document.environment, document.revision)
    })
}

async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let client = platform.config();
    let documents = platform
        .gather(|page_token| {
            let mut client = client.clone();
            async move {
                let request = ListDocumentsRequest { page_size: 1000, page_token, ..ListDocumentsRequest::default() };
                let answer = client.list_documents(request).await?.into_inner();
                Ok((answer.documents, answer.next_page_token))
            }
        })
        .await?;
    if documents.is_empty() {
        output::talk("no documents yet: try `ninefold config set review page_size=5`");
    }
    output::print(format, &output::json_all(DOCUMENT, &documents), || revisions_table(&documents, true))
}

async fn get(platform: &Platform, name: DocumentArgs, revision: Option<i64>, format: Format) -> Result<(), Failure> {
    let document = fetch(platform, &name, revision).await.map_err(|failure| failure.0)?;
    output::print(format, &output::json(DOCUMENT, &document), || pretty(&document.content))
}

pub(super) fn pretty(content: &str) -> String {
    match serde_json::from_str::<Value>(content) {
        Ok(value) => serde_json::to_string_pretty(&value).expect("a JSON value has a text form"),
        Err(_) => content.to_owned(),
    }
}

/// A failure, and the code it came with, for those who go on after some.
pub(super) struct Coded(pub(super) Failure, pub(super) Option<Code>);

pub(super) async fn fetch(platform: &Platform, name: &DocumentArgs, revision: Option<i64>) -> Result<Document, Coded> {
    let request = GetDocumentRequest { service: name.service.clone(), environment: name.environment.clone(), revision };
    match platform.config().get_document(crate::client::within(request)).await {
        Ok(answer) => Ok(answer.into_inner().document.unwrap_or_default()),
        Err(status) => Err(Coded(Failure::of_status(platform.endpoint(), &status), Some(status.code()))),
    }
}

pub(super) struct Write {
    pub(super) name: DocumentArgs,
    pub(super) expect: Option<i64>,
    pub(super) reason: String,
    pub(super) dry_run: bool,
}

/// Whether a document holds the settings of the edge.
fn is_of_the_edge(name: &DocumentArgs) -> bool {
    name.service == "edge" && name.environment == "default"
}

impl Write {
    pub(super) async fn put(
        &self,
        platform: &Platform,
        content: String,
        expected: Option<i64>,
    ) -> Result<Document, Coded> {
        if is_of_the_edge(&self.name) {
            // Nothing is written that the edge would refuse.
            let request = CheckSettingsRequest { content: content.clone() };
            platform.ask(platform.gateway().check_settings(request)).await.map_err(|failure| Coded(failure, None))?;
        }
        let request = PutDocumentRequest {
            service: self.name.service.clone(),
            environment: self.name.environment.clone(),
            content,
            expected_revision: expected,
            author: author(),
            reason: self.reason.clone(),
            validate_only: self.dry_run,
        };
        match platform.config().put_document(crate::client::within(request)).await {
            Ok(answer) => Ok(answer.into_inner().document.unwrap_or_default()),
            Err(status) => Err(Coded(Failure::of_status(platform.endpoint(), &status), Some(status.code()))),
        }
    }

    /// Changes single keys of the newest revision. Reads again when somebody else wrote in between.
    async fn patch(&self, platform: &Platform, pairs: &[String]) -> Result<Document, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            let newest = match fetch(platform, &self.name, None).await {
                Ok(document) => document,
                Err(Coded(_, Some(Code::NotFound))) => Document::default(),
                Err(Coded(failure, _)) => return Err(failure),
            };
            let mut content = match serde_json::from_str(&newest.content) {
                Ok(Value::Object(map)) => map,
                _ => Map::new(),
            };
            for pair in pairs {
                set(&mut content, pair)?;
            }
            let expected = self.expect.or(Some(newest.revision));
            match self.put(platform, Value::Object(content).to_string(), expected).await {
                Err(Coded(_, Some(Code::Aborted))) if self.expect.is_none() && tries < TRIES_MAX => {}
                outcome => return outcome.map_err(|failure| failure.0),
            }
        }
    }
}

/// Sets `a.b.c=value` in a document; an empty value removes.
pub(super) fn set(content: &mut Map<String, Value>, pair: &str) -> Result<(), Failure> {
    let wrong = || Failure::Usage(format!("{pair:?} is not KEY=VALUE"));
    let (path, text) = pair.split_once('=').ok_or_else(wrong)?;
    let mut steps: Vec<&str> = path.split('.').collect();
    let last = steps.pop().filter(|last| !last.is_empty()).ok_or_else(wrong)?;
    let mut place = content;
    for step in steps {
        let inner = place.entry(step).or_insert_with(|| Value::Object(Map::new()));
        place =
            inner.as_object_mut().ok_or_else(|| Failure::Usage(format!("{step:?} in {path:?} is not an object")))?;
    }
    if text.is_empty() {
        place.remove(last);
    } else {
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        place.insert(last.to_owned(), value);
    }
    Ok(())
}

/// A file's content as JSON text.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |why: String| Failure::Failed(format!("cannot read {}: {why}", path.display()));
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).map_err(|error| wrong(error.to_string()))?
    } else {
        std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?
    };
    let value: Value = match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => serde_norway::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        Some("toml") => toml::from_str(&text).map(of_toml).map_err(|error| wrong(error.to_string()))?,
        _ => serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?,
    };
    Ok(value.to_string())
}

/// TOML as JSON, where a moment is a text.
fn of_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(moment) => moment.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(of_toml).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(key, value)| (key, of_toml(value))).collect(),
    }
}

async fn history(platform: &Platform, name: DocumentArgs, format: Format) -> Result<(), Failure> {
    let client = platform.config();
    let documents = platform
        .gather(|page_token| {
            let (mut client, DocumentArgs { service, environment }) = (client.clone(), name.clone());
            async move {
                let request = ListRevisionsRequest { service, environment, page_size: 1000, page_token };
                let answer = client.list_revisions(request).await?.into_inner();
                Ok((answer.documents, answer.next_page_token))
            }
        })
        .await?;
    output::print(format, &output::json_all(DOCUMENT, &documents), || revisions_table(&documents, false))
}

fn revisions_table(documents: &[Document], with_names: bool) -> String {
    let mut table = if with_names {
        Table::new(&["SERVICE", "ENVIRONMENT", "REVISION", "AGE", "AUTHOR", "REASON"])
    } else {
        Table::new(&["REVISION", "AGE", "AUTHOR", "REASON"])
    };
    for document in documents {
        let rollback = document.rollback_of.map(|revision| format!("rollback to {revision} ")).unwrap_or_default();
        let mut cells = vec![
            document.revision.to_string(),
            output::ago(document.create_time.as_ref()),
            document.author.clone(),
            format!("{rollback}{}", document.reason),
        ];
        if with_names {
            cells.splice(0..0, [document.service.clone(), document.environment.clone()]);
        }
        table.row(cells);
    }
    table.render()
}

async fn diff(
    platform: &Platform,
    name: DocumentArgs,
    before: Option<i64>,
    after: Option<i64>,
    format: Format,
) -> Result<(), Failure> {
    let request = DiffRevisionsRequest { service: name.service, environment: name.environment, before, after };
    let answer = platform.ask(platform.config().diff_revisions(request)).await?;
    output::print(format, &output::json("ninefold.config.v1.DiffRevisionsResponse", &answer), || {
        let mut text = format!("revision {} -> {}\n", answer.before, answer.after);
        for change in &answer.changes {
            if let Some(before) = &change.before {
                text.push_str(&format!("- {} {before}\n", change.path));
            }
            if let Some(after) = &change.after {
                text.push_str(&format!("+ {} {after}\n", change.path));
            }
        }
        text
    })
}

async fn watch(platform: &Platform, name: DocumentArgs, format: Format) -> Result<(), Failure> {
    let request = WatchDocumentRequest { service: name.service, environment: name.environment, known_revision: 0 };
    let mut client = platform.config();
    let mut stream = platform.ask(client.watch_document(request)).await?;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = &mut interrupt => return Ok(()),
        };
        let Some(message) = message.map_err(|status| Failure::of_status(platform.endpoint(), &status))? else {
            return Ok(());
        };
        let Some(document) = message.document else { continue };
        output::next(format, &output::json(DOCUMENT, &document), || {
            output::tame(&format!("revision {}\n{}", document.revision, pretty(&document.content)))
        })?;
    }
}

async fn acks(platform: &Platform, name: DocumentArgs, format: Format) -> Result<(), Failure> {
    let request = ListAcknowledgementsRequest { service: name.service, environment: name.environment };
    let acks = platform.ask(platform.config().list_acknowledgements(request)).await?.acknowledgements;
    output::print(format, &output::json_all("ninefold.config.v1.Acknowledgement", &acks), || {
        let mut table = Table::new(&["INSTANCE", "REVISION", "AGE", "REFUSAL"]);
        for ack in &acks {
            table.row([
                ack.instance_id.clone(),
                ack.revision.to_string(),
                output::ago(ack.time.as_ref()),
                ack.refusal.clone(),
            ]);
        }
        table.render()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_may_be_yaml_or_toml() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            serde_json::from_str::<Value>(&super::read(&path).unwrap()).unwrap()
        };
        let wanted = serde_json::json!({"page_size": 7, "limits": {"since": "2020-01-01T00:00:00Z"}});
        assert_eq!(read("a.toml", "page_size = 7\n[limits]\nsince = 2020-01-01T00:00:00Z\n"), wanted);
        assert_eq!(read("a.yaml", "page_size: 7\nlimits:\n  since: '2020-01-01T00:00:00Z'\n"), wanted);
    }

    #[test]
    fn pairs_reach_into_a_document() {
        let mut content = Map::new();
        for pair in ["a=1", "b.c=text", "b.d=[1,2]", "e=x", "e="] {
            set(&mut content, pair).unwrap();
        }
        assert_eq!(Value::Object(content), serde_json::json!({"a": 1, "b": {"c": "text", "d": [1, 2]}}));
        assert!(set(&mut Map::new(), "no value").is_err());
    }
}
