//! Tokens that say nothing themselves: their issuer is asked what they are worth (RFC 7662), and its word is kept for a while.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri, header};
use ninefold::fetch::Fetcher;
use ninefold::settings::duration;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::caller::{Caller, Proof};
use super::issuers::{self, Refused};
use super::settings::{self, ANY_AUDIENCE};

/// Most answers that are kept.
const ANSWERS_MAX: usize = 10_000;
/// Longest time for which a no is kept.
const NO_MAX: Duration = Duration::from_secs(10);
/// Longest time for which a yes may be kept.
const CACHE_MAX: Duration = Duration::from_secs(300);

/// Who is asked about tokens that are no JWT, or of an issuer that is not named.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// Where it answers.
    pub url: String,
    /// Who the edge is to it.
    pub client_id: String,
    /// How the edge proves it.
    pub client_secret: String,
    /// For whom tokens must be; one of these is enough. `*` for anybody.
    pub audiences: Vec<String>,
    /// How long its yes is kept, at most until the token ends. Longer is quicker, and a revoked token lives longer.
    #[serde(default = "cache", with = "duration")]
    pub cache: Duration,
    /// Who vouches for its server, in PEM. Absent for the system's own list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

const fn cache() -> Duration {
    Duration::from_secs(30)
}

impl Introspection {
    /// All that is wrong.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong: Vec<String> =
            settings::url(&self.url).err().map(|why| format!("introspection.url {why}")).into_iter().collect();
        if self.audiences.is_empty() {
            wrong.push("introspection.audiences is empty: name who you are, or \"*\"".to_owned());
        }
        if self.cache > CACHE_MAX {
            wrong.push(format!("introspection.cache is more than {}", duration::format(CACHE_MAX)));
        }
        wrong
    }
}

/// Asks, and keeps answers. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Introspector {
    settings: Arc<Introspection>,
    answers: Arc<Mutex<HashMap<[u8; 32], Answer>>>,
}

#[derive(Clone, Debug)]
struct Answer {
    caller: Option<Arc<Caller>>,
    until: Instant,
}

impl Introspector {
    /// Knows nothing yet.
    pub(crate) fn new(settings: &Introspection) -> Self {
        Self { settings: Arc::new(settings.clone()), answers: Arc::default() }
    }

    /// Who the bearer of a token is.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<Caller>, Refused> {
        let refused = Refused::Token("the token is worth nothing, or nothing here");
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().unwrap_or_default();
        let now = Instant::now();
        let kept = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(kept) = kept.filter(|kept| kept.until > now) {
            return kept.caller.ok_or(refused);
        }
        let said = self.ask(token).await.map_err(|error| {
            tracing::warn!(error, "an issuer does not say what a token is worth");
            Refused::Away(self.settings.url.clone())
        })?;
        let caller = self.read(said).map(Arc::new);
        let left = caller.as_ref().map_or(NO_MAX, |caller| {
            let left = caller.expires.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
            left.unwrap_or(CACHE_MAX).min(self.settings.cache)
        });
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, answer| answer.until > now);
        }
        if answers.len() < ANSWERS_MAX {
            answers.insert(digest, Answer { caller: caller.clone(), until: now + left });
        }
        caller.ok_or(refused)
    }

    async fn ask(&self, token: &str) -> Result<Map<String, Value>, String> {
        let url: Uri = settings::url(&self.settings.url).map_err(str::to_owned)?;
        let basic =
            STANDARD.encode(format!("{}:{}", encoded(&self.settings.client_id), encoded(&self.settings.client_secret)));
        let head = Request::post(url.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::AUTHORIZATION, format!("Basic {basic}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        let body = Bytes::from(format!("token={}&token_type_hint=access_token", encoded(token)));
        let answer = Fetcher::new(self.settings.ca.clone()).ask(&url, head, body).await?;
        serde_json::from_slice(&answer).map_err(|error| format!("the answer is no JSON object: {error}"))
    }

    /// Reads a yes; `None` for a no, and for a yes to somebody else.
    fn read(&self, said: Map<String, Value>) -> Option<Caller> {
        if said.get("active") != Some(&Value::Bool(true)) {
            return None;
        }
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|audience| self.settings.audiences.iter().any(|wanted| wanted == audience))
        };
        let is_for_us = self.settings.audiences.iter().any(|wanted| wanted == ANY_AUDIENCE)
            || match said.get("aud") {
                Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
                Some(audience) => is_ours(audience),
                None => false,
            };
        if !is_for_us {
            return None;
        }
        let expires = match said.get("exp") {
            None => None,
            Some(end) => {
                let end = UNIX_EPOCH.checked_add(Duration::from_secs(end.as_u64()?))?;
                if end <= SystemTime::now() {
                    return None;
                }
                Some(end)
            }
        };
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let subject = if text("sub").is_empty() { text("client_id") } else { text("sub") };
        let issuer = if text("iss").is_empty() { self.settings.url.clone() } else { text("iss") };
        let scopes = said.get("scope").map(issuers::scopes).unwrap_or_default();
        Some(Caller {
            proof: Proof::Introspection,
            subject,
            issuer,
            scopes,
            claims: Arc::new(said),
            expires,
            ..Caller::default()
        })
    }
}

/// As forms write what may be anything.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
