//! What services are told of a caller: a short-lived token in a header, signed by this edge.
//!
//! The key is made at the start of the edge and never leaves it; its public half is published, for services to verify with.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use ninefold::Link;
use ninefold::edge::ISSUER;
use ninefold::lifecycle::Stop;
use ninefold_proto::ninefold::access::v1::signer_service_client::SignerServiceClient;
use ninefold_proto::ninefold::access::v1::{Jwk, PutSignerRequest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use tokio::time::Instant;

use super::caller::Caller;
use crate::error::Error;

/// How long what is said is worth something.
const LIFE: Duration = Duration::from_secs(60);
/// How long it is said again before it is signed anew.
const SAID_AGAIN: Duration = Duration::from_secs(20);
/// Services for which a caller's is remembered.
const SERVICES_MAX: usize = 8;
/// How often the key is published, and how soon again where that failed.
const PUBLISH: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(2));
/// Most bytes of claims that are handed on. Larger ones are left out whole.
const CLAIMS_BYTES_MAX: usize = 4096;

/// What was signed of a caller lately, by service.
#[derive(Debug, Default)]
pub(crate) struct Signed(Mutex<VecDeque<(Arc<str>, Instant, HeaderValue)>>);

/// Signs. Clones are the same.
#[derive(Clone)]
pub(crate) struct Passports(Arc<Inner>);

struct Inner {
    pair: Ed25519KeyPair,
    key_id: String,
}

impl std::fmt::Debug for Passports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Passports").field("key_id", &self.0.key_id).finish_non_exhaustive()
    }
}

impl Passports {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] if the system gives no randomness.
    pub(crate) fn new() -> Result<Self, Error> {
        let refused = |_| Error::SettingsInvalid(vec!["the system gives no randomness for a key".to_owned()]);
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(refused)?;
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key that was just made is one");
        let digest = ring::digest::digest(&ring::digest::SHA256, pair.public_key().as_ref());
        let key_id = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12]);
        Ok(Self(Arc::new(Inner { pair, key_id })))
    }

    /// Says of a caller who it is, to one service.
    pub(crate) fn say(&self, caller: &Caller, service: &Arc<str>) -> HeaderValue {
        let now = Instant::now();
        let mut signed = caller.signed.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, said)) = signed.iter().find(|(known, until, _)| known == service && *until > now) {
            return said.clone();
        }
        signed.retain(|(known, until, _)| known != service && *until > now);
        signed.truncate(SERVICES_MAX - 1);
        let said = self.sign(caller, service);
        signed.push_front((service.clone(), now + SAID_AGAIN, said.clone()));
        said
    }

    fn sign(&self, caller: &Caller, service: &str) -> HeaderValue {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let scope = caller.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let mut said = json!({
            "iss": ISSUER, "aud": service, "iat": now, "exp": now + LIFE.as_secs(),
            "sub": caller.subject, "proof": caller.proof.name(), "scope": scope,
        });
        if !caller.issuer.is_empty() {
            said["issuer"] = caller.issuer.as_str().into();
        }
        if serde_json::to_vec(&*caller.claims).is_ok_and(|claims| claims.len() <= CLAIMS_BYTES_MAX) {
            said["claims"] = (*caller.claims).clone().into();
        }
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.0.key_id});
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(said.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.0.pair.sign(signed.as_bytes()));
        let mut value =
            HeaderValue::try_from(format!("{signed}.{signature}")).expect("base64 and dots are a header value");
        value.set_sensitive(true);
        value
    }

    /// Publishes the key until it is asked to stop.
    pub(crate) async fn publish(self, access: Link, stop: Stop) {
        let mut client = SignerServiceClient::new(access);
        let key = Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(self.0.pair.public_key()),
            kid: self.0.key_id.clone(),
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
        };
        loop {
            let put = tokio::select! {
                put = client.put_signer(PutSignerRequest { key: Some(key.clone()) }) => put,
                () = stop.asked() => return,
            };
            let pause = match put {
                Ok(_) => PUBLISH.0,
                Err(status) => {
                    tracing::debug!(error = status.message(), "the edge's key cannot be published");
                    PUBLISH.1
                }
            };
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
