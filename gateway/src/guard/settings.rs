//! Whom the edge believes, and what it asks of callers.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ninefold::settings::duration;
use serde::{Deserialize, Serialize};

use super::external::External;
use super::introspect::Introspection;
use super::jws::Algorithm;

/// Most issuers.
const ISSUERS_MAX: usize = 32;
/// Longest time by which clocks may differ. More, and an end is no end.
const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Keys are asked for no more often than this.
const REFRESH_MIN: Duration = Duration::from_secs(10);
/// Any audience.
pub(super) const ANY_AUDIENCE: &str = "*";

/// Who callers are, and who may call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether every caller must be known, where neither settings nor a contract say what a method asks.
    pub required: bool,
    /// Whether what a caller showed to be known travels on to services. They are told who calls either way.
    pub forward: bool,
    /// By how much clocks may differ. At most five minutes.
    #[serde(with = "duration")]
    pub leeway: Duration,
    /// Who vouches for callers by signed tokens (JWT). None to leave the header `authorization` to services.
    pub issuers: Vec<Issuer>,
    /// Who is asked what other tokens are worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introspection: Option<Introspection>,
    /// Whether API keys of the platform are taken.
    pub keys: bool,
    /// Whether who showed a certificate, and nothing else, is who that says. Who vouches for it is `tls.client_ca`.
    pub certificates: bool,
    /// Who is asked whether a request may pass, once the rest is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            required: false,
            forward: false,
            leeway: Duration::from_secs(60),
            issuers: Vec::new(),
            introspection: None,
            keys: true,
            certificates: true,
            external: None,
        }
    }
}

/// Somebody who vouches for callers by signed tokens. Where no keys are named, they are found by OpenID Connect discovery:
/// at the issuer's own URL, below `/.well-known/openid-configuration`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What tokens must say of their issuer, letter by letter.
    pub issuer: String,
    /// For whom tokens must be; one of these is enough. `*` for anybody.
    pub audiences: Vec<String>,
    /// What tokens may be signed with.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are (a JWK Set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// A file with its keys. Read again like a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// Its keys themselves, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// How often keys are asked for. An unknown key is asked for at once, at most every ten seconds.
    #[serde(default = "refresh", with = "duration")]
    pub refresh: Duration,
    /// Who vouches for the server of its keys, in PEM. Absent for the system's own list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The claim that holds scopes: a list, or words with spaces between.
    #[serde(default = "scope_claim")]
    pub scope_claim: String,
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA]
}

const fn refresh() -> Duration {
    Duration::from_secs(600)
}

fn scope_claim() -> String {
    "scope".to_owned()
}

impl Issuer {
    /// An issuer with these keys.
    pub fn with_keys(issuer: impl Into<String>, audience: impl Into<String>, jwks: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audiences: vec![audience.into()],
            algorithms: algorithms(),
            jwks_url: None,
            jwks_file: None,
            jwks: Some(jwks.into()),
            refresh: refresh(),
            ca: None,
            scope_claim: scope_claim(),
        }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.issuer.is_empty() {
            wrong.push("issuer is empty".to_owned());
        }
        if self.audiences.is_empty() {
            wrong.push("audiences is empty: name who you are to this issuer, or \"*\"".to_owned());
        }
        if self.algorithms.is_empty() {
            wrong.push("algorithms is empty".to_owned());
        }
        if self.refresh < REFRESH_MIN {
            wrong.push(format!("refresh is less than {}", duration::format(REFRESH_MIN)));
        }
        match (&self.jwks_url, &self.jwks_file, &self.jwks) {
            (None, None, None) => wrong.extend(url(&self.issuer).err().map(|why| format!("issuer {why}"))),
            (Some(text), None, None) => wrong.extend(url(text).err().map(|why| format!("jwks_url {why}"))),
            (None, Some(_), None) => {}
            (None, None, Some(keys)) => {
                wrong.extend(super::jws::Keys::read(keys.as_bytes()).err().map(|why| format!("jwks {why}")));
            }
            _ => wrong.push("more than one of jwks_url, jwks_file, jwks".to_owned()),
        }
        wrong
    }
}

/// Reads the URL of something that is believed: behind TLS, or on this machine.
pub(super) fn url(text: &str) -> Result<Uri, &'static str> {
    let url: Uri = text.parse().map_err(|_| "is no URL")?;
    let host = url.host().filter(|host| !host.is_empty()).ok_or("names no host")?;
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme_str() {
        Some("https") => Ok(url),
        Some("http") if is_here => Ok(url),
        Some("http") => Err("is http:// beyond this machine: whoever stands between could answer"),
        _ => Err("is no https:// URL"),
    }
}

impl Auth {
    /// All that is wrong, each with its place.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.leeway > LEEWAY_MAX {
            wrong.push(format!("leeway is more than {}", duration::format(LEEWAY_MAX)));
        }
        if self.issuers.len() > ISSUERS_MAX {
            wrong.push(format!("issuers are {}, more than {ISSUERS_MAX}", self.issuers.len()));
        }
        for (number, issuer) in self.issuers.iter().enumerate() {
            wrong.extend(issuer.mistakes().into_iter().map(|wrong| format!("issuers[{number}].{wrong}")));
            if self.issuers[..number].iter().any(|before| before.issuer == issuer.issuer) {
                wrong.push(format!("issuers[{number}].issuer is there already"));
            }
        }
        wrong.extend(self.introspection.iter().flat_map(Introspection::mistakes));
        wrong.extend(self.external.iter().flat_map(External::mistakes));
        wrong
    }

    /// Hides what is a secret.
    pub(crate) fn hide(&mut self) {
        if let Some(introspection) = &mut self.introspection {
            "(hidden)".clone_into(&mut introspection.client_secret);
        }
    }
}
