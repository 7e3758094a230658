//! Keeps who may talk to the platform.
//!
//! A layer stands around every door of a node ([`Access::around`]): it looks where a request comes from, who sends it,
//! and whether that caller may call that method, and hands the caller on as a request extension. What a caller may see
//! of a role's own matters, the role decides by it. Tokens lie in the store, without their secrets; every node keeps them
//! in memory and follows the store, so that a request costs no read and a revocation reaches all nodes at once.
//!
//! It knows nothing of what the methods do: who may call them is written in their contracts.

mod bindings;
mod config;
mod error;
mod guard;
mod identity;
mod keys;
mod login;
mod model;
mod openness;
mod origin;
mod ring;
mod rules;
mod secret;
mod service;
mod signers;
mod tokens;
mod wire;

use std::path::Path;
use std::sync::Arc;

use ninefold::lifecycle::Scope;
use ninefold::serve::Around;
use ninefold_proto::ninefold::access::v1::access_service_server::AccessServiceServer;
use ninefold_proto::ninefold::access::v1::key_service_server::KeyServiceServer;
use ninefold_proto::ninefold::access::v1::signer_service_server::SignerServiceServer;
use ninefold_store::{Remembered, Store};
use tonic::service::RoutesBuilder;

pub use config::{Authentication, Config, Identity};
pub use error::Error;
pub use openness::{Door, Openness, is_loopback, judge};
pub use ring::Ring;

use guard::Guard;
use keys::Keys;
use model::NewToken;
use service::Service;
use signers::Signers;
use tokens::Tokens;

/// What access needs of its node.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where the tokens lie.
    pub store: Arc<dyn Store>,
    /// The tokens that this node gave to itself and its own children.
    pub ring: Ring,
    /// Where this node remembers the tokens, hashed, of a store that others may take away. `None` for a store of its own.
    pub remembered: Option<Remembered>,
}

/// Who may talk to one node of the platform.
#[derive(Clone, Debug)]
pub struct Access {
    service: Service,
    keys: Keys,
    signers: Signers,
    guard: Guard,
}

impl Access {
    /// Reads the tokens, and starts to follow them; while the store is away, those that this node remembers. `descriptor_set` holds the contracts of all methods that are offered.
    ///
    /// # Errors
    /// [`Error::Misconfigured`]; [`Error::Store`] when the store cannot be read, and nothing is remembered.
    pub async fn start(config: Config, deps: Deps, descriptor_set: &[u8], scope: &Scope) -> Result<Self, Error> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(Error::Misconfigured(mistakes));
        }
        let config = Arc::new(config);
        let keys = Keys::new(deps.store.clone(), config.keys_max);
        let signers = Signers::new(deps.store.clone());
        let tokens = Tokens::start(deps.store, deps.remembered, config.tokens_max, &scope.child("access")).await?;
        let rules = Arc::new(rules::Rules::of(descriptor_set));
        let guard = Guard::new(config.clone(), tokens.clone(), deps.ring, rules);
        let service = Service { tokens, is_asked: config.authentication != Authentication::Off };
        Ok(Self { service, keys, signers, guard })
    }

    /// Sees to it that there is an administrator's token in `file`, which only this user may read. One is made where the
    /// file is not there yet; whoever can take it away owns the node's data anyway. Tells whether one was made.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written; [`Error::Store`].
    pub async fn put_admin_token(&self, file: &Path, node: &str) -> Result<bool, Error> {
        self.put_token(file, NewToken::administrator(node), node).await
    }

    /// As [`put_admin_token`](Self::put_admin_token), for the token by which a node asks the other nodes of its store.
    ///
    /// # Errors
    /// As [`put_admin_token`](Self::put_admin_token).
    pub async fn put_node_token(&self, file: &Path, node: &str) -> Result<bool, Error> {
        self.put_token(file, NewToken::of_node(node), node).await
    }

    async fn put_token(&self, file: &Path, token: NewToken, node: &str) -> Result<bool, Error> {
        if file.exists() {
            return Ok(false);
        }
        let (_, secret) = self.service.tokens.create(token, format!("node {node}")).await?;
        secret::write_file(file, &secret).map_err(|source| Error::File { path: file.to_owned(), source })?;
        Ok(true)
    }

    /// The layer that stands around a door. `is_secure` where TLS is spoken behind it.
    pub fn around(&self, is_secure: bool) -> Around {
        self.guard.around(is_secure)
    }

    /// Adds the contracts.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        routes.add_service(KeyServiceServer::new(self.keys.clone()));
        routes.add_service(SignerServiceServer::new(self.signers.clone()));
        routes.add_service(AccessServiceServer::new(self.service.clone()));
    }
}

/// Writes a token to a file that only this user may read.
///
/// # Errors
/// [`Error::File`].
pub fn write_token(file: &Path, token: &str) -> Result<(), Error> {
    secret::write_file(file, token).map_err(|source| Error::File { path: file.to_owned(), source })
}
