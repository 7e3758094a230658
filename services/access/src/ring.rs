//! Tokens that a node gives to itself and to its own children. They live and die with its process, and are no other
//! node's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ninefold::Caller;

use crate::error::Error;
use crate::secret::{self, Hash};

/// The tokens of one node's own. Clones are the same ring.
#[derive(Clone, Default)]
pub struct Ring(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// By id.
    known: HashMap<String, (Hash, Caller)>,
    /// By identity, so that all instances of a service share one, and restarts do not add up.
    given: HashMap<Arc<str>, String>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Ring")
    }
}

impl Ring {
    /// The token of a caller; the same one for the same identity.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn give(&self, caller: Caller) -> Result<String, Error> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = inner.given.get(&caller.identity) {
            return Ok(token.clone());
        }
        let (id, token) = secret::make().map_err(Error::Random)?;
        inner.given.insert(caller.identity.clone(), token.clone());
        inner.known.insert(id, (secret::hash(&token), caller));
        Ok(token)
    }

    /// Whose a token is.
    pub(crate) fn find(&self, token: &str) -> Option<Caller> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (hash, caller) = inner.known.get(secret::id_of(token)?)?;
        secret::is_same(token, hash).then(|| caller.clone())
    }
}
