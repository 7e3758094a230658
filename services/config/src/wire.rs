//! Between the contract's messages, the store's values, and the model. The only place that knows them all.

use bytes::Bytes;
use ninefold::fault::Violation;
use ninefold_proto::ninefold::config::v1 as proto;
use ninefold_store::Key;
use prost::Message as _;

use crate::diff;
use crate::error::Error;
use crate::model::{Acknowledgement, Document, DocumentId, Head, Revision, Write, content_violations, is_instance_id};

/// Longest refusal of an acknowledgement; more is cut off.
const REFUSAL_BYTES_MAX: usize = 1024;
/// Prefix of all heads.
const HEADS: &str = "config/heads/";

/// Reads the name of a document that is to be there.
///
/// # Errors
/// [`Error::DocumentUnknown`]: what cannot be a name names no document.
pub(crate) fn known_id(service: &str, environment: &str) -> Result<DocumentId, Error> {
    DocumentId::parse(service, environment)
        .map_err(|_| Error::DocumentUnknown(format!("{}/{}", cut(service), cut(environment))))
}

/// Reads the name of a document that need not be there.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn id(service: &str, environment: &str) -> Result<DocumentId, Error> {
    DocumentId::parse(service, environment).map_err(Error::Invalid)
}

/// Reads the name of an environment.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn environment(environment: &str) -> Result<String, Error> {
    // Any service's name will do.
    DocumentId::parse("x", environment).map(|id| id.environment().to_owned()).map_err(Error::Invalid)
}

/// Reads a write.
///
/// # Errors
/// [`Error::Invalid`] with all that is wrong.
pub(crate) fn put(request: proto::PutDocumentRequest) -> Result<(DocumentId, String, Write), Error> {
    let id = DocumentId::parse(&request.service, &request.environment);
    let write = Write { expected: request.expected_revision, author: request.author, reason: request.reason };
    let mut violations = write.violations();
    violations.extend(content_violations(&request.content));
    match id {
        Ok(id) if violations.is_empty() => Ok((id, request.content, write)),
        Ok(_) => Err(Error::Invalid(violations)),
        Err(more) => Err(Error::Invalid(more.into_iter().chain(violations).collect())),
    }
}

/// Reads who rolls back and why.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn rollback(request: proto::RollbackDocumentRequest) -> Result<Write, Error> {
    let write = Write { expected: request.expected_revision, author: request.author, reason: request.reason };
    let violations = write.violations();
    if violations.is_empty() { Ok(write) } else { Err(Error::Invalid(violations)) }
}

/// Reads an acknowledgement; its time is the reader's.
///
/// # Errors
/// [`Error::DocumentUnknown`]; [`Error::Invalid`].
pub(crate) fn acknowledgement(
    sent: Option<proto::Acknowledgement>,
    now: std::time::SystemTime,
) -> Result<Acknowledgement, Error> {
    let sent = sent.unwrap_or_default();
    let id = known_id(&sent.service, &sent.environment)?;
    if !is_instance_id(&sent.instance_id) {
        let problem = "must be 1 to 128 letters, digits, and . _ : -";
        return Err(Error::Invalid(vec![Violation::new("acknowledgement.instance_id", problem)]));
    }
    let refusal = cut_to(&sent.refusal, REFUSAL_BYTES_MAX);
    Ok(Acknowledgement { id, instance_id: sent.instance_id, revision: sent.revision, refusal, time: now })
}

/// Writes a document.
pub(crate) fn document(document: &Document) -> proto::Document {
    let revision = &document.revision;
    proto::Document {
        service: document.id.service().to_owned(),
        environment: document.id.environment().to_owned(),
        content: revision.content.clone(),
        revision: revision.number,
        create_time: Some(revision.time.into()),
        author: revision.author.clone(),
        reason: revision.reason.clone(),
        rollback_of: revision.rollback_of,
    }
}

/// Writes an acknowledgement.
pub(crate) fn acknowledged(told: Acknowledgement) -> proto::Acknowledgement {
    proto::Acknowledgement {
        service: told.id.service().to_owned(),
        environment: told.id.environment().to_owned(),
        instance_id: told.instance_id,
        revision: told.revision,
        refusal: told.refusal,
        time: Some(told.time.into()),
    }
}

/// Writes a difference.
pub(crate) fn change(change: diff::Change) -> proto::Change {
    proto::Change { path: change.path, before: change.before, after: change.after }
}

/// Writes where to go on among documents: behind this one.
pub(crate) fn document_token(last: &DocumentId) -> String {
    last.to_string()
}

/// Reads where to go on among documents.
///
/// # Errors
/// [`Error::PageToken`].
pub(crate) fn after_document(token: &str) -> Result<Option<DocumentId>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.split_once('/').and_then(|(service, environment)| DocumentId::parse(service, environment).ok());
    parsed.map(Some).ok_or_else(|| Error::PageToken(cut(token)))
}

/// Reads where to go on among revisions: at this one.
///
/// # Errors
/// [`Error::PageToken`].
pub(crate) fn from_revision(token: &str) -> Result<Option<i64>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.parse().ok().filter(|revision: &i64| *revision > 0 && revision.to_string() == token);
    parsed.map(Some).ok_or_else(|| Error::PageToken(cut(token)))
}

/// Prefix of the heads of a service's documents, or of all.
pub(crate) fn heads_of(service: Option<&str>) -> Key {
    service.map_or_else(|| Key::new(HEADS), |service| Key::new(format!("{HEADS}{service}/")))
}

/// Where a document's head is kept.
pub(crate) fn head_key(id: &DocumentId) -> Key {
    Key::new(format!("{HEADS}{id}"))
}

/// The document whose head is kept at a key.
pub(crate) fn id_of_head(key: &Key) -> Option<DocumentId> {
    let (service, environment) = key.as_str().strip_prefix(HEADS)?.split_once('/')?;
    DocumentId::parse(service, environment).ok()
}

/// Where a revision is kept. Digits are padded, so that keys sort as numbers do.
pub(crate) fn revision_key(id: &DocumentId, number: i64) -> Key {
    Key::new(format!("config/revisions/{id}/{number:020}"))
}

/// Prefix of the acknowledgements of a document.
pub(crate) fn acknowledgements_of(id: &DocumentId) -> Key {
    Key::new(format!("config/acknowledgements/{id}/"))
}

/// Where an acknowledgement is kept.
pub(crate) fn acknowledgement_key(told: &Acknowledgement) -> Key {
    Key::new(format!("config/acknowledgements/{}/{}", told.id, told.instance_id))
}

/// Writes a head for the store.
pub(crate) fn head_value(head: Head) -> Bytes {
    serde_json::to_vec(&head).expect("two numbers are JSON").into()
}

/// Reads a head from the store.
///
/// # Errors
/// [`Error::Damaged`].
pub(crate) fn head(key: &Key, value: &[u8]) -> Result<Head, Error> {
    serde_json::from_slice(value).map_err(|error| damaged(key, error.to_string()))
}

/// Writes a revision for the store, as the contract's document.
pub(crate) fn revision_value(kept: &Document) -> Bytes {
    document(kept).encode_to_vec().into()
}

/// Reads a revision from the store.
///
/// # Errors
/// [`Error::Damaged`].
pub(crate) fn revision(key: &Key, value: &[u8]) -> Result<Document, Error> {
    let kept = proto::Document::decode(value).map_err(|error| damaged(key, error.to_string()))?;
    let id = DocumentId::parse(&kept.service, &kept.environment)
        .map_err(|_| damaged(key, "its name is malformed".to_owned()))?;
    let revision = Revision {
        number: kept.revision,
        content: kept.content,
        time: time(key, kept.create_time)?,
        author: kept.author,
        reason: kept.reason,
        rollback_of: kept.rollback_of,
    };
    Ok(Document { id, revision })
}

/// Writes an acknowledgement for the store, as the contract has it.
pub(crate) fn acknowledgement_value(told: &Acknowledgement) -> Bytes {
    acknowledged(told.clone()).encode_to_vec().into()
}

/// Reads an acknowledgement from the store.
///
/// # Errors
/// [`Error::Damaged`].
pub(crate) fn kept_acknowledgement(key: &Key, value: &[u8]) -> Result<Acknowledgement, Error> {
    let kept = proto::Acknowledgement::decode(value).map_err(|error| damaged(key, error.to_string()))?;
    let time = time(key, kept.time)?;
    acknowledgement(Some(kept), time).map_err(|error| damaged(key, error.to_string()))
}

fn time(key: &Key, kept: Option<prost_types::Timestamp>) -> Result<std::time::SystemTime, Error> {
    kept.unwrap_or_default().try_into().map_err(|_| damaged(key, "its time is out of range".to_owned()))
}

/// An error that tells of a damaged value.
pub(crate) fn damaged(key: &Key, problem: String) -> Error {
    Error::Damaged { key: key.as_str().to_owned(), problem }
}

/// Cuts a text that a stranger sent to what an error can repeat.
fn cut(text: &str) -> String {
    cut_to(text, 64)
}

fn cut_to(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}
