//! Who asks, as far as it was proven.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value};

/// How somebody proved who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// By a token that an issuer signed.
    #[default]
    Token,
}

impl Proof {
    /// In the words of the access log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Token => "jwt",
        }
    }
}

/// Somebody who proved who it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    /// How.
    pub(crate) proof: Proof,
    /// On whose behalf it calls.
    pub(crate) subject: String,
    /// Who vouches for it.
    pub(crate) issuer: String,
    /// What it may do.
    pub(crate) scopes: BTreeSet<String>,
    /// What else is said of it.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// From when on it is nobody again.
    pub(crate) expires: Option<SystemTime>,
}

impl Caller {
    /// For the access log.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.proof.name(), self.subject)
    }
}
