//! What `ninefold xds bootstrap` is told.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// What `xds bootstrap` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Id of the client, as it is shown by `ninefold xds`.
    #[arg(long, default_value = "client")]
    pub(crate) node: String,
    /// Region of the client.
    #[arg(long, default_value = "")]
    pub(crate) region: String,
    /// Zone of the client: instances there are preferred.
    #[arg(long, default_value = "")]
    pub(crate) zone: String,
    /// For an Envoy, instead of a gRPC library.
    #[arg(long)]
    pub(crate) envoy: bool,
    /// Where the Envoy listens for calls to all services, told apart by their authority.
    #[arg(long, requires = "envoy", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the Envoy answers its operator.
    #[arg(long, requires = "envoy", value_name = "ADDRESS")]
    pub(crate) admin: Option<SocketAddr>,
    /// Tell the Envoy all resources again and again, instead of what changed.
    #[arg(long, requires = "envoy")]
    pub(crate) world: bool,
    /// Where the platform is reached by https: who vouches for it; otherwise those whom the system trusts.
    #[arg(long, env = "NINEFOLD_CA_FILE", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate that the client shows.
    #[arg(long, env = "NINEFOLD_CERT_FILE", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, env = "NINEFOLD_KEY_FILE", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Write the token of this file, which is a secret, into the Envoy's bootstrap. gRPC libraries show certificates alone.
    #[arg(long, requires = "envoy", value_name = "FILE")]
    pub(crate) with_token: Option<PathBuf>,
}
