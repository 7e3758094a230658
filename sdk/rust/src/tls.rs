//! TLS for doors and for calls: certificates from files, read again when the files change.
//!
//! Renewing a certificate needs no restart: each new connection looks, at most once a second, whether one of the files
//! has changed. Files that cannot be used any more are told of once, and what was read before stays.

mod by_name;
mod files;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::either::Either;

use crate::error::Error;
use by_name::ByName;
use files::{Reloading, certificates, private_key, roots};

/// Longest time for the peer of a new connection to finish its handshake.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// What is spoken behind TLS, the best first.
const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A connection to somebody, with or without TLS.
pub type Stream = Either<TcpStream, Box<tokio_rustls::client::TlsStream<TcpStream>>>;
/// A connection from somebody.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// What a door shows, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate and its intermediates, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Who vouches for callers, in PEM. `None` to ask callers for no certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether a caller without a certificate is turned away by the handshake. Means nothing without `client_ca`.
    pub client_required: bool,
}

/// Whom a caller trusts, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Who vouches for servers, in PEM. `None` for the system's own list.
    pub ca: Option<PathBuf>,
    /// The caller's certificate and its private key, in PEM. `None` to show none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// TLS on a door.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Reloading<rustls::ServerConfig>>);

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Tls`] with the file that cannot be used.
    pub fn new(files: ServerFiles) -> Result<Self, Error> {
        Self::with_more(files, Vec::new())
    }

    /// As [`new`](Self::new), with more certificates and their keys: each is shown to who names one of its hosts, that of
    /// `files` to everybody else.
    ///
    /// # Errors
    /// [`Error::Tls`] with the file that cannot be used.
    pub fn with_more(files: ServerFiles, more: Vec<(PathBuf, PathBuf)>) -> Result<Self, Error> {
        let watched = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()].into_iter().flatten();
        let watched = watched.chain(more.iter().flat_map(|(cert, key)| [cert, key])).cloned().collect();
        Ok(Self(Arc::new(Reloading::new(watched, move || server_config(&files, &more))?)))
    }

    /// Shakes hands with the peer of a new connection, and tells what its certificate says.
    ///
    /// # Errors
    /// When the peer speaks no TLS, shows nothing that is vouched for, or does not finish within ten seconds.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(ServerStream, Peer)> {
        let accepted = TlsAcceptor::from(self.0.current()).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_MAX, accepted).await??;
        let peer = Peer::of(stream.get_ref().1);
        Ok((stream, peer))
    }
}

/// TLS for calls.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<Reloading<rustls::ClientConfig>>);

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Tls`] with the file that cannot be used.
    pub fn new(files: ClientFiles) -> Result<Self, Error> {
        let identity = files.identity.clone();
        let (cert, key) = identity.unzip();
        let watched = [files.ca.clone(), cert, key].into_iter().flatten().collect();
        Ok(Self(Arc::new(Reloading::new(watched, move || client_config(&files))?)))
    }

    /// Shakes hands with a server that is to prove that it is `host`. Only HTTP/2 is offered.
    ///
    /// # Errors
    /// When the server does not prove it, does not answer in time, or does not speak HTTP/2.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Stream> {
        Ok(Either::Right(Box::new(self.secure(host, stream).await?)))
    }

    /// As [`connect`](Self::connect), but only HTTP/1.1 is offered: for servers of the web at large.
    ///
    /// # Errors
    /// When the server does not prove who it is, or does not answer in time.
    pub async fn connect_http1(&self, host: &str, stream: TcpStream) -> io::Result<Stream> {
        Ok(Either::Right(Box::new(self.secure_http1(host, stream).await?)))
    }

    /// As [`connect_http1`](Self::connect_http1), over any stream of bytes.
    pub(crate) async fn secure_http1<S>(&self, host: &str, stream: S) -> io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let mut config = rustls::ClientConfig::clone(&self.0.current());
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(HANDSHAKE_MAX, connecting).await?
    }

    /// As [`connect`](Self::connect), over any stream of bytes.
    pub(crate) async fn secure<S>(&self, host: &str, stream: S) -> io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connecting = TlsConnector::from(self.0.current()).connect(name, stream);
        let stream = tokio::time::timeout(HANDSHAKE_MAX, connecting).await??;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
            return Err(io::Error::other("the server does not offer HTTP/2 over TLS"));
        }
        Ok(stream)
    }
}

/// Who is at the other end of a TLS connection: the names in its certificate, which the handshake has proved. A request
/// extension; empty where the caller showed no certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// URIs among the subject's alternative names, such as `spiffe://example.org/ns/default/svc/product`.
    pub uris: Arc<[String]>,
    /// Host names among them.
    pub names: Arc<[String]>,
}

impl Peer {
    fn of(connection: &rustls::ServerConnection) -> Self {
        let Some(first) = connection.peer_certificates().and_then(|chain| chain.first()) else {
            return Self::default();
        };
        // It was read by the same library during the handshake.
        let Ok(certificate) = webpki::EndEntityCert::try_from(first) else { return Self::default() };
        Self {
            uris: certificate.valid_uri_names().map(ToOwned::to_owned).collect(),
            names: certificate.valid_dns_names().map(ToOwned::to_owned).collect(),
        }
    }
}

/// What the peer of a connection agreed to speak.
pub(crate) fn speaks_h2(stream: &ServerStream) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(ALPN_H2)
}

/// What is wrong with a file.
pub(crate) struct Wrong {
    path: PathBuf,
    problem: String,
}

impl Wrong {
    fn new(path: &Path, problem: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), problem: problem.to_string() }
    }
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        Self::Tls { path: wrong.path, problem: wrong.problem }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn server_config(files: &ServerFiles, more: &[(PathBuf, PathBuf)]) -> Result<rustls::ServerConfig, Wrong> {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions");
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider());
            let verifier = if files.client_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| Wrong::new(path, error))?)
        }
    };
    let mut shown = Vec::with_capacity(1 + more.len());
    for (cert, key) in std::iter::once((&files.cert, &files.key)).chain(more.iter().map(|(cert, key)| (cert, key))) {
        let certified = CertifiedKey::from_der(certificates(cert)?, private_key(key)?, &provider())
            .map_err(|error| Wrong::new(cert, format!("does not go with {}: {error}", key.display())))?;
        shown.push(Arc::new(certified));
    }
    let mut config = builder.with_cert_resolver(Arc::new(ByName::new(shown)));
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    Ok(config)
}

fn client_config(files: &ClientFiles) -> Result<rustls::ClientConfig, Wrong> {
    let trusted = match &files.ca {
        Some(path) => roots(path)?,
        None => files::system_roots()?,
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
        .with_root_certificates(trusted);
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| Wrong::new(cert, format!("does not go with {}: {error}", key.display())))?,
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}
