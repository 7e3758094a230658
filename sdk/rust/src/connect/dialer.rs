//! How connections to instances are made: over TCP or what the program brings, with TLS where the instance asks for it.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::connect::connection::{Version, Way};
use crate::connect::error::Cause;
use crate::connect::landscape::Address;
use crate::tls::ClientTls;

/// A stream of bytes to an instance and back.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connect = dyn Fn(Address) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync;

/// How connections to instances are made. The default is TCP, and no TLS.
#[derive(Clone, Default)]
pub struct Dialer {
    connect: Option<Arc<Connect>>,
    tls: Option<ClientTls>,
}

impl Dialer {
    /// Makes connections with `connect` instead of TCP: through a proxy, a Unix socket, a pipe in memory. It is given an
    /// address of an instance, and has two seconds; HTTP/2 (and TLS, where the instance asks for it) is spoken over what it
    /// gives.
    ///
    /// ```
    /// # use ninefold::connect::Dialer;
    /// let dialer = Dialer::default()
    ///     .connecting(|address| async move { tokio::net::UnixStream::connect(format!("/run/{}.sock", address.host)).await });
    /// ```
    #[must_use]
    pub fn connecting<F, W, I>(mut self, connect: F) -> Self
    where
        F: Fn(Address) -> W + Send + Sync + 'static,
        W: Future<Output = io::Result<I>> + Send + 'static,
        I: Io + 'static,
    {
        self.connect = Some(Arc::new(move |address| {
            let connecting = connect(address);
            async move { Ok(Box::new(connecting.await?) as Box<dyn Io>) }.boxed()
        }));
        self
    }

    /// Trusts, and shows, what `tls` says where an instance asks for TLS. Without it such instances cannot be reached.
    #[must_use]
    pub fn secured(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Connects. Where the instance asks for TLS, it has to prove that it keeps the service: the name stands in its
    /// certificate as a DNS name.
    pub(crate) async fn dial(&self, way: &Way<'_>, address: &Address) -> Result<Box<dyn Io>, Cause> {
        let failed = |error| Cause::Io(Arc::new(error));
        let stream: Box<dyn Io> = match &self.connect {
            Some(connect) => connect(address.clone()).await.map_err(failed)?,
            None => {
                let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                Box::new(stream)
            }
        };
        match (&self.tls, way.is_tls) {
            (_, false) => Ok(stream),
            (None, true) => Err(Cause::TlsMissing),
            (Some(tls), true) => {
                let secured = match way.version {
                    Version::One => tls.secure_http1(way.service, stream).await,
                    Version::Two => tls.secure(way.service, stream).await,
                };
                Ok(Box::new(secured.map_err(|error| Cause::Tls(Arc::new(error)))?))
            }
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connect = if self.connect.is_some() { "custom" } else { "tcp" };
        out.debug_struct("Dialer").field("connect", &connect).field("tls", &self.tls).finish()
    }
}
