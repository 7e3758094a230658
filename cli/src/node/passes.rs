//! How this node's own callers say who they are: itself, and the children that it starts.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ninefold::caller::{Caller, DEFAULT_NAMESPACE, Names, Role};
use ninefold::{Credentials, fault};
use ninefold_access::{Access, Authentication, Ring};
use ninefold_control::Passes;
use ninefold_monitor::Among;
use ninefold_store::Store;

use super::Facts;
use crate::exit::Failure;
use crate::settings::Settings;

/// Folder of the children's tokens, in the node's data folder.
const FOLDER: &str = "tokens";
/// The first token of an administrator.
const ADMIN_TOKEN: &str = "admin-token";
/// The token by which a node asks the other nodes.
const NODE_TOKEN: &str = "node-token";

/// Where the first token of an administrator lies.
pub(super) fn admin_token(data: &Path) -> PathBuf {
    data.join(ADMIN_TOKEN)
}

/// Sees to it that there is a token by which the node asks the other nodes. It goes on without.
pub(super) async fn put_node_token(access: &Access, data: &Path, node: &str) {
    if let Err(error) = access.put_node_token(&data.join(NODE_TOKEN), node).await {
        tracing::warn!(error = %fault::chain(&error), "the other nodes cannot be asked before the next start");
    }
}

/// What the node is to the other nodes. It shows what the environment says, and its own token where tokens are asked for.
pub(super) fn among_nodes(settings: &Settings, facts: &Facts, store: Arc<dyn Store>) -> Result<Among, Failure> {
    let told = Credentials::from_env().map_err(|error| Failure::Failed(fault::chain(&error)))?;
    let token = settings.data.join(NODE_TOKEN);
    let has_token = settings.access.authentication == Authentication::Token && token.exists();
    let credentials = if has_token { told.with_token_in(token) } else { told };
    let endpoint = settings.monitor.advertise.clone().unwrap_or_else(|| advertised(facts));
    Ok(Among { store, node: facts.node.clone(), endpoint, credentials })
}

/// URL at which other machines reach the platform.
fn advertised(facts: &Facts) -> String {
    if !facts.platform.ip().is_unspecified() {
        return facts.endpoint();
    }
    let uname = rustix::system::uname();
    let machine = uname.nodename().to_string_lossy();
    format!("{}://{machine}:{}", if facts.is_secure { "https" } else { "http" }, facts.platform.port())
}

/// What the node itself shows at its own doors.
pub(super) fn own(ring: &Ring, node: &str, authentication: Authentication) -> Result<Credentials, Failure> {
    if authentication == Authentication::Off {
        return Ok(Credentials::default());
    }
    let caller = Caller { identity: format!("node {node}").into(), ..Caller::anybody() };
    let failed = |error: &dyn std::error::Error| Failure::Failed(fault::chain(error));
    let token = ring.give(caller).map_err(|error| failed(&error))?;
    Credentials::of_token(&token).map_err(|error| failed(&error))
}

/// What children are given.
pub(super) fn of_children(ring: Ring, data: &Path, authentication: Authentication) -> Arc<dyn Passes> {
    match authentication {
        Authentication::Off => Arc::new(ninefold_control::NoPasses),
        Authentication::Token | Authentication::Mtls => Arc::new(Files { ring, folder: data.join(FOLDER) }),
    }
}

/// Tokens in files: a variable would show them to whoever reads a process's environment.
#[derive(Debug)]
struct Files {
    ring: Ring,
    folder: PathBuf,
}

impl Passes for Files {
    fn pass(&self, service: &str) -> BTreeMap<String, String> {
        match self.write(service) {
            Ok(path) => [("NINEFOLD_TOKEN_FILE".to_owned(), path.display().to_string())].into(),
            Err(error) => {
                tracing::error!(service, error = %fault::chain(&error), "could not give a child its token");
                BTreeMap::new()
            }
        }
    }
}

impl Files {
    fn write(&self, service: &str) -> Result<PathBuf, ninefold_access::Error> {
        let caller = Caller {
            identity: format!("child {service}").into(),
            roles: [Role::Instance].into(),
            services: Names::Only([service.to_owned()].into()),
            namespaces: Names::Only([DEFAULT_NAMESPACE.to_owned()].into()),
        };
        let token = self.ring.give(caller)?;
        // If it cannot be made, the file in it cannot be written, and that is told.
        let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        let path = self.folder.join(service);
        ninefold_access::write_token(&path, &token)?;
        Ok(path)
    }
}
