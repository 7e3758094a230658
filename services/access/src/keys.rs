//! API keys of the edge: kept in the store, without their secrets, and told to every edge that follows them.
//!
//! No node keeps them in memory for their own sake: who needs them at every request is the edge, and it follows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ninefold::fault::{self, Violation};
use ninefold::{Caller, page};
use ninefold_proto::ninefold::access::v1 as proto;
use ninefold_store::{self as store, Compare, Entry, Event, Key, Op, Store, Txn};
use proto::key_service_server::KeyService;
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::secret;

/// Where keys lie, by id.
const KEYS: &str = "access/keys/";
/// Most entries of one read, and of one message of a watch.
const PAGE_ENTRIES: usize = 500;
/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 128;
/// Longest subject, and longest text of a claim, in characters.
const TEXT_CHARS_MAX: usize = 256;
/// Most scopes, and the longest of them.
const SCOPES_MAX: (usize, usize) = (64, 128);
/// Most claims, and the longest name of one.
const CLAIMS_MAX: (usize, usize) = (32, 64);
/// Shortest life of a key.
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// Answers for API keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    store: Arc<dyn Store>,
    max: usize,
}

/// A key as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    subject: String,
    scopes: Vec<String>,
    claims: BTreeMap<String, String>,
    #[serde(default)]
    day_max: u64,
    #[serde(default)]
    month_max: u64,
    /// In base64.
    sha256: String,
    created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    author: String,
}

impl Record {
    fn is_valid_at(&self, now: SystemTime) -> bool {
        self.expires_ms.is_none_or(|expires| now < moment(expires))
    }

    fn words(self, id: &str) -> proto::KeyRecord {
        let has_quota = self.day_max > 0 || self.month_max > 0;
        proto::KeyRecord {
            sha256: base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &self.sha256)
                .unwrap_or_default(),
            key: Some(proto::Key {
                id: id.to_owned(),
                name: self.name,
                subject: self.subject,
                scopes: self.scopes,
                claims: self.claims.into_iter().collect::<HashMap<_, _>>(),
                quota: has_quota.then_some(proto::Quota { day_max: self.day_max, month_max: self.month_max }),
                create_time: Some(moment(self.created_ms).into()),
                expire_time: self.expires_ms.map(|millis| moment(millis).into()),
                author: self.author,
            }),
        }
    }
}

fn moment(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn key_of(id: &str) -> Key {
    Key::new(format!("{KEYS}{id}"))
}

fn id_in(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix(KEYS).filter(|id| secret::is_id(id))
}

fn read(entry: &Entry) -> Option<(String, Record)> {
    Some((id_in(&entry.key)?.to_owned(), serde_json::from_slice(&entry.value).ok()?))
}

fn words(entry: &Entry) -> Option<proto::KeyRecord> {
    read(entry).map(|(id, record)| record.words(&id))
}

fn reading(source: store::Error) -> Error {
    Error::Store { doing: "read the keys", source }
}

/// What no key can be.
fn violations(request: &proto::CreateKeyRequest) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut check = |holds: bool, field: &str, description: &str| {
        if !holds {
            found.push(Violation::new(field, description));
        }
    };
    let is_line = |text: &str| !text.chars().any(char::is_control);
    let chars = request.name.chars().count();
    check((1..=NAME_CHARS_MAX).contains(&chars) && is_line(&request.name), "name", "must be 1 to 128 characters");
    let is_text = |text: &str| text.chars().count() <= TEXT_CHARS_MAX && is_line(text);
    check(is_text(&request.subject), "subject", "must be at most 256 characters of one line");
    check(request.scopes.len() <= SCOPES_MAX.0, "scopes", "must name at most 64");
    let is_scope = |scope: &String| {
        (1..=SCOPES_MAX.1).contains(&scope.len())
            && scope.bytes().all(|letter| letter.is_ascii_graphic() && !matches!(letter, b'"' | b',' | b'\\'))
    };
    check(request.scopes.iter().all(is_scope), "scopes", "must be 1 to 128 visible ASCII characters each");
    check(request.claims.len() <= CLAIMS_MAX.0, "claims", "must be at most 32");
    let is_claim =
        |(name, text): (&String, &String)| (1..=CLAIMS_MAX.1).contains(&name.len()) && is_line(name) && is_text(text);
    check(
        request.claims.iter().all(is_claim),
        "claims",
        "must have names of 1 to 64 and texts of at most 256 characters",
    );
    let lifetime = request.lifetime.map(Duration::try_from);
    let is_life = lifetime.is_none_or(|lifetime| lifetime.is_ok_and(|lifetime| lifetime >= LIFETIME_MIN));
    check(is_life, "lifetime", "must be at least 1s");
    found
}

impl Keys {
    pub(crate) fn new(store: Arc<dyn Store>, max: usize) -> Self {
        Self { store, max }
    }

    async fn create(
        &self,
        request: proto::CreateKeyRequest,
        author: String,
    ) -> Result<proto::CreateKeyResponse, Error> {
        let wrong = violations(&request);
        if !wrong.is_empty() {
            return Err(Error::KeyInvalid(wrong));
        }
        let now = SystemTime::now();
        let (living, expired) = self.count(now).await?;
        if living >= self.max {
            return Err(Error::KeysFull { max: self.max });
        }
        let (id, text) = secret::make_key().map_err(Error::Random)?;
        let lifetime = request.lifetime.and_then(|lifetime| Duration::try_from(lifetime).ok());
        let quota = request.quota.unwrap_or_default();
        let record = Record {
            subject: if request.subject.is_empty() { id.clone() } else { request.subject },
            name: request.name,
            scopes: request.scopes,
            claims: request.claims.into_iter().collect(),
            day_max: quota.day_max,
            month_max: quota.month_max,
            sha256: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret::hash(&text)),
            created_ms: millis(now),
            expires_ms: lifetime.and_then(|lifetime| now.checked_add(lifetime)).map(millis),
            author,
        };
        let value = serde_json::to_vec(&record).expect("a record of texts and numbers is JSON");
        let mut ops = vec![Op::Put { key: key_of(&id), value: value.into(), lease: None }];
        // What has expired is forgotten on the way, or it would add up.
        ops.extend(expired.into_iter().map(Op::Delete));
        let txn = Txn { compares: vec![Compare::Absent(key_of(&id))], ops };
        self.store.txn(txn).await.map_err(|source| Error::Store { doing: "write the key", source })?;
        tracing::info!(key = id, name = record.name, author = record.author, "made a key");
        Ok(proto::CreateKeyResponse { key: record.words(&id).key, secret: text })
    }

    /// How many keys are worth something, and the first of those that are not.
    async fn count(&self, now: SystemTime) -> Result<(usize, Vec<Key>), Error> {
        let (mut living, mut expired) = (0, Vec::new());
        let mut after: Option<Key> = None;
        loop {
            let page = self.store.range(&Key::new(KEYS), after.as_ref(), PAGE_ENTRIES).await.map_err(reading)?;
            for entry in &page.entries {
                match read(entry) {
                    Some((_, record)) if record.is_valid_at(now) => living += 1,
                    // The store takes so many operations at once.
                    Some(_) if expired.len() < 50 => expired.push(entry.key.clone()),
                    Some(_) | None => {}
                }
            }
            after = page.entries.last().map(|last| last.key.clone());
            if !page.more || after.is_none() {
                return Ok((living, expired));
            }
        }
    }

    async fn list(&self, request: &proto::ListKeysRequest) -> Result<proto::ListKeysResponse, Error> {
        let size = page::size(request.page_size)?;
        let after = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
        if after.is_some_and(|after| !secret::is_id(after)) {
            return Err(Error::PageTokenInvalid);
        }
        let after = after.map(key_of);
        let page = self.store.range(&Key::new(KEYS), after.as_ref(), size).await.map_err(reading)?;
        let keys: Vec<proto::Key> = page.entries.iter().filter_map(words).filter_map(|record| record.key).collect();
        let last = page.entries.last().filter(|_| page.more).and_then(|last| id_in(&last.key));
        Ok(proto::ListKeysResponse { next_page_token: last.unwrap_or_default().to_owned(), keys })
    }

    async fn revoke(&self, id: &str, author: &str) -> Result<proto::RevokeKeyResponse, Error> {
        let unknown = || Error::KeyUnknown(id.chars().take(64).collect());
        if !secret::is_id(id) {
            return Err(unknown());
        }
        let found = self.store.get(&key_of(id)).await.map_err(reading)?;
        let record = found.as_ref().and_then(words).ok_or_else(unknown)?;
        let txn = Txn { compares: vec![Compare::Present(key_of(id))], ops: vec![Op::Delete(key_of(id))] };
        self.store.txn(txn).await.map_err(|source| Error::Store { doing: "revoke the key", source })?;
        tracing::info!(key = id, author, "revoked a key");
        Ok(proto::RevokeKeyResponse { key: record.key })
    }

    /// All keys, then every change.
    async fn watch(&self) -> Result<BoxStream<'static, Result<proto::WatchKeysResponse, Status>>, Error> {
        let (mut told, mut after, mut revision) = (Vec::new(), None, None);
        loop {
            let page = self.store.range(&Key::new(KEYS), after.as_ref(), PAGE_ENTRIES).await.map_err(reading)?;
            // Later pages may be newer than the first; what the watch then tells again changes nothing.
            revision.get_or_insert(page.revision);
            let keys = page.entries.iter().filter_map(words).collect();
            told.push(proto::WatchKeysResponse { keys, complete: !page.more, ..Default::default() });
            after = page.entries.last().map(|last| last.key.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
        let revision = revision.unwrap_or_default();
        let changes = self.store.watch(&Key::new(KEYS), revision).await.map_err(reading)?;
        let changes = changes.map_err(|source| fault::status(&reading(source))).map_ok(|batch| {
            let mut change = proto::WatchKeysResponse { complete: true, ..Default::default() };
            for event in &batch.events {
                match event {
                    Event::Put(entry) => change.keys.extend(words(entry)),
                    Event::Delete { key, .. } => change.revoked.extend(id_in(key).map(str::to_owned)),
                }
            }
            change
        });
        Ok(stream::iter(told.into_iter().map(Ok)).chain(changes).boxed())
    }
}

fn encode<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| fault::status(&error))
}

#[tonic::async_trait]
impl KeyService for Keys {
    type WatchKeysStream = BoxStream<'static, Result<proto::WatchKeysResponse, Status>>;

    async fn create_key(
        &self,
        request: Request<proto::CreateKeyRequest>,
    ) -> Result<Response<proto::CreateKeyResponse>, Status> {
        let author = Caller::of(request.extensions()).identity.to_string();
        encode(self.create(request.into_inner(), author).await)
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        encode(self.list(request.get_ref()).await)
    }

    async fn revoke_key(
        &self,
        request: Request<proto::RevokeKeyRequest>,
    ) -> Result<Response<proto::RevokeKeyResponse>, Status> {
        let author = Caller::of(request.extensions()).identity;
        encode(self.revoke(&request.get_ref().id, &author).await)
    }

    async fn watch_keys(&self, _: Request<proto::WatchKeysRequest>) -> Result<Response<Self::WatchKeysStream>, Status> {
        encode(self.watch().await)
    }
}
