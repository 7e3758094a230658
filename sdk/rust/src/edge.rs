//! Who called at the edge: what the edge says of a caller to the services behind it, and how a service knows that it is true.
//!
//! The edge puts a token into the header [`HEADER`] of each call of a caller that it knows, and drops that header from
//! whatever comes from outside. The token is signed with a key of the edge (EdDSA), is for one service, and is worth
//! something for a minute. The keys are published by the platform as a JWK Set, at `/v1/identity/keys`, so any JWT library
//! can do what is done here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use ninefold_proto::ninefold::access::v1::ListSignersRequest;
use ninefold_proto::ninefold::access::v1::signer_service_client::SignerServiceClient;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::fault::{self, Fault, Kind};
use crate::link::Link;

/// The header.
pub const HEADER: &str = "x-ninefold-identity";
/// Who says it, in the token's `iss`.
pub const ISSUER: &str = "ninefold-edge";

/// By how much clocks may differ.
const LEEWAY: Duration = Duration::from_secs(30);
/// Keys are asked for no more often than this, whoever makes keys up.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Longest time for keys to come.
const KEYS_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest token.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// A caller that the edge knows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Caller {
    /// On whose behalf it calls; the `sub` of its token, or of its key.
    #[serde(rename = "sub")]
    pub subject: String,
    /// How it proved who it is: `jwt`, `key`, `cert` or `oauth`.
    pub proof: String,
    /// Who vouched for it. Empty for keys and certificates.
    pub issuer: String,
    /// What it may do, with spaces between.
    pub scope: String,
    /// All that was said of it. Empty where that is more than 4 KiB.
    pub claims: Map<String, Value>,
}

impl Caller {
    /// Whether it has a scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scope.split(' ').any(|one| one == scope)
    }
}

/// Why nobody is believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The header is not what the edge writes.
    #[error("the edge did not say who calls: {0}")]
    Untrue(&'static str),
    /// The keys of edges cannot be had.
    #[error("the keys of edges cannot be had: {0}")]
    KeysAway(String),
}

impl Fault for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Untrue(_) => Kind::Unauthenticated,
            Self::KeysAway(_) => Kind::Unavailable,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Untrue(_) => "EDGE_IDENTITY_UNTRUE",
            Self::KeysAway(_) => "EDGE_KEYS_AWAY",
        }
    }
}

/// Knows whether an edge said it. Clones are the same.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    platform: Link,
    service: String,
    keys: ArcSwap<HashMap<String, Vec<u8>>>,
    /// When keys were asked for; held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").field("service", &self.0.service).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Verifies what is said to `service`, with keys that are asked of the platform when they are needed.
    pub fn new(platform: Link, service: &str) -> Self {
        let inner =
            Inner { platform, service: service.to_owned(), keys: ArcSwap::default(), asked: Default::default() };
        Self(Arc::new(inner))
    }

    /// Who called at the edge. `None` if no header says: then it was nobody that the edge knows, or a call from inside.
    ///
    /// # Errors
    /// [`Refused`] for a header that no edge wrote for this service a minute ago at the most, and where nobody can say.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>, Refused> {
        let mut said = headers.get_all(HEADER).into_iter();
        let Some(first) = said.next() else { return Ok(None) };
        if said.next().is_some() {
            return Err(Refused::Untrue("it is said twice"));
        }
        let token = first.to_str().map_err(|_| Refused::Untrue("it is malformed"))?;
        self.verify(token).await.map(Some)
    }

    async fn verify(&self, token: &str) -> Result<Caller, Refused> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            kid: String,
        }
        #[derive(Deserialize)]
        struct Said {
            iss: String,
            aud: String,
            exp: u64,
            #[serde(flatten)]
            caller: Caller,
        }
        let malformed = || Refused::Untrue("it is malformed");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed());
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, said) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| malformed())?;
        if header.alg != "EdDSA" {
            return Err(Refused::Untrue("it is signed otherwise"));
        }
        let key = self.key(&header.kid).await?;
        let holds = UnparsedPublicKey::new(&ED25519, key).verify(signed.as_bytes(), &decode(signature)?);
        holds.map_err(|_| Refused::Untrue("its signature does not hold"))?;
        let said: Said = serde_json::from_slice(&decode(said)?).map_err(|_| malformed())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if said.iss != ISSUER || said.aud != self.0.service {
            return Err(Refused::Untrue("it is for somebody else"));
        }
        if now > Duration::from_secs(said.exp) + LEEWAY {
            return Err(Refused::Untrue("it has expired"));
        }
        Ok(said.caller)
    }

    /// A key of an edge; asks for new ones if it is not known.
    async fn key(&self, id: &str) -> Result<Vec<u8>, Refused> {
        let known = || self.0.keys.load().get(id).cloned();
        if let Some(key) = known() {
            return Ok(key);
        }
        let mut asked = self.0.asked.lock().await;
        if let Some(key) = known() {
            return Ok(key);
        }
        if asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return Err(Refused::Untrue("its key is not known"));
        }
        let mut client = SignerServiceClient::new(self.0.platform.clone());
        let answer = tokio::time::timeout(KEYS_TIMEOUT, client.list_signers(ListSignersRequest {})).await;
        let answer = answer.map_err(|_| Refused::KeysAway("no answer in time".to_owned()))?;
        let answer = answer.map_err(|status| {
            Refused::KeysAway(fault::reason(&status).unwrap_or_else(|| status.message().to_owned()))
        })?;
        *asked = Some(Instant::now());
        let keys = answer.into_inner().keys.into_iter();
        let keys = keys.filter_map(|key| Some((key.kid, URL_SAFE_NO_PAD.decode(key.x).ok()?))).collect();
        self.0.keys.store(Arc::new(keys));
        known().ok_or(Refused::Untrue("its key is not known"))
    }
}
