//! Between messages, records and what we think in.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ninefold::Caller;
use ninefold::caller::Role;
use ninefold::fault::Violation;
use ninefold_proto::ninefold::access::v1 as proto;
use ninefold_store::{Entry, Key};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::{NewToken, Token, role_name, role_of};
use crate::secret;

/// Where tokens lie, by id.
pub(crate) const TOKENS: &str = "access/tokens/";
/// Where it lies when they were last used, by id. Apart, so that a use is no change of a token.
pub(crate) const USES: &str = "access/uses/";

/// A token as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    roles: Vec<String>,
    services: Vec<String>,
    namespaces: Vec<String>,
    sha256: String,
    created_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    author: String,
}

pub(crate) fn token_key(id: &str) -> Key {
    Key::new(format!("{TOKENS}{id}"))
}

pub(crate) fn use_key(id: &str) -> Key {
    Key::new(format!("{USES}{id}"))
}

/// The id in a key below one of the two prefixes.
pub(crate) fn id_in<'a>(key: &'a Key, prefix: &str) -> Option<&'a str> {
    key.as_str().strip_prefix(prefix).filter(|id| secret::is_id(id))
}

pub(crate) fn write_record(token: &Token) -> Vec<u8> {
    let record = Record {
        name: token.name.clone(),
        roles: token.roles.iter().map(|role| role_name(*role).to_owned()).collect(),
        services: token.services.clone(),
        namespaces: token.namespaces.clone(),
        sha256: token.hash.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }),
        created_ms: millis(token.created),
        expires_ms: token.expires.map(millis),
        author: token.author.clone(),
    };
    serde_json::to_vec(&record).expect("a record of texts and numbers is JSON")
}

/// Reads a record; `None` for what is none. A role that this version does not know grants nothing.
pub(crate) fn read_record(entry: &Entry) -> Option<Token> {
    let id = id_in(&entry.key, TOKENS)?.to_owned();
    let record: Record = serde_json::from_slice(&entry.value).ok()?;
    let mut hash = [0; 32];
    if record.sha256.len() != hash.len() * 2 {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(record.sha256.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(Token {
        id,
        name: record.name,
        roles: record.roles.iter().filter_map(|name| role_of(name)).collect(),
        services: record.services,
        namespaces: record.namespaces,
        hash,
        created: moment(record.created_ms),
        expires: record.expires_ms.map(moment),
        author: record.author,
    })
}

pub(crate) fn write_use(seconds: u64) -> Vec<u8> {
    seconds.to_string().into_bytes()
}

pub(crate) fn read_use(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn moment(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

/// Reads a request for a token.
pub(crate) fn new_token(request: proto::CreateTokenRequest) -> Result<NewToken, Error> {
    let mut violations = Vec::new();
    let roles: Vec<Role> = request.roles().filter_map(from_role).collect();
    if roles.len() != request.roles.len() {
        violations.push(Violation::new("roles", "holds what is no role"));
    }
    let lifetime = match request.lifetime.map(Duration::try_from).transpose() {
        Ok(lifetime) => lifetime,
        Err(_) => {
            violations.push(Violation::new("lifetime", "must be positive"));
            None
        }
    };
    let new =
        NewToken { name: request.name, roles, services: request.services, namespaces: request.namespaces, lifetime };
    violations.extend(new.violations());
    if violations.is_empty() { Ok(new) } else { Err(Error::TokenInvalid(violations)) }
}

/// Writes a token, and when it was last used, in seconds.
pub(crate) fn to_token(token: &Token, used: Option<u64>) -> proto::Token {
    proto::Token {
        id: token.id.clone(),
        name: token.name.clone(),
        roles: token.roles.iter().map(|role| to_role(*role).into()).collect(),
        services: token.services.clone(),
        namespaces: token.namespaces.clone(),
        create_time: Some(token.created.into()),
        expire_time: token.expires.map(Into::into),
        last_use_time: used.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)).map(Into::into),
        author: token.author.clone(),
    }
}

pub(crate) fn to_who(caller: &Caller, is_asked: bool) -> proto::WhoAmIResponse {
    proto::WhoAmIResponse {
        identity: caller.identity.to_string(),
        roles: caller.roles.iter().map(|role| to_role(*role).into()).collect(),
        services: caller.services.to_vec(),
        namespaces: caller.namespaces.to_vec(),
        is_asked,
    }
}

const fn to_role(role: Role) -> proto::Role {
    match role {
        Role::Read => proto::Role::Read,
        Role::Instance => proto::Role::Instance,
        Role::Operator => proto::Role::Operator,
        Role::Admin => proto::Role::Admin,
    }
}

const fn from_role(role: proto::Role) -> Option<Role> {
    match role {
        proto::Role::Unspecified => None,
        proto::Role::Read => Some(Role::Read),
        proto::Role::Instance => Some(Role::Instance),
        proto::Role::Operator => Some(Role::Operator),
        proto::Role::Admin => Some(Role::Admin),
    }
}
