//! Who asks, as far as it was proven.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use ninefold::tls::Peer;
use serde_json::{Map, Value, json};

use super::passport::Signed;

/// How somebody proved who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// By a token that an issuer signed.
    #[default]
    Token,
    /// By a token of which its issuer says what it is worth.
    Introspection,
    /// By an API key.
    Key,
    /// By a certificate.
    Certificate,
}

impl Proof {
    /// In the words of the access log, and of what services are told.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Token => "jwt",
            Self::Introspection => "oauth",
            Self::Key => "key",
            Self::Certificate => "cert",
        }
    }
}

/// How many requests somebody may make, by the calendar. Zero for any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    /// A day.
    pub(crate) day_max: u64,
    /// A month.
    pub(crate) month_max: u64,
}

/// Somebody who proved who it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// How.
    pub(crate) proof: Proof,
    /// On whose behalf it calls.
    pub(crate) subject: String,
    /// Who vouches for it. Empty for the platform itself.
    pub(crate) issuer: String,
    /// What it may do.
    pub(crate) scopes: BTreeSet<String>,
    /// What else is said of it.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// From when on it is nobody again.
    pub(crate) expires: Option<SystemTime>,
    /// Id of its key.
    pub(crate) key: Option<String>,
    /// How many requests its key may make.
    pub(crate) quota: Option<Quota>,
    /// What services were told of it lately.
    pub(crate) signed: Arc<Signed>,
}

impl Caller {
    /// Who a certificate says that somebody is: its first URI, else its first name. `None` for no certificate.
    pub(crate) fn certified(peer: &Peer) -> Option<Self> {
        let subject = peer.uris.first().or(peer.names.first())?.clone();
        let claims = json!({"sub": subject, "uris": &*peer.uris, "names": &*peer.names});
        let claims = claims.as_object().cloned().unwrap_or_default();
        Some(Self { proof: Proof::Certificate, subject, claims: Arc::new(claims), ..Self::default() })
    }

    /// For the access log.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.proof.name(), self.subject)
    }
}
