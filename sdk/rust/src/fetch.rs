//! Asks somebody on the web, within bounds: one request, one answer, no redirects.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::fault;
use crate::tls::{ClientFiles, ClientTls};

/// Longest time for an answer.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Asks by HTTP/1.1, in clear text or behind TLS as a URL says.
#[derive(Clone, Debug)]
pub struct Fetcher {
    ca: Option<PathBuf>,
}

impl Fetcher {
    /// Believes servers for which `ca` vouches; `None` for the system's own list.
    pub const fn new(ca: Option<PathBuf>) -> Self {
        Self { ca }
    }

    /// Gets what is at a URL.
    ///
    /// # Errors
    /// Why there is nothing, in a sentence.
    pub async fn get(&self, url: &Uri) -> Result<Bytes, String> {
        let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()));
        self.ask(url, request.header(header::ACCEPT, "application/json"), Bytes::new()).await
    }

    /// Hands something in.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn post(&self, url: &Uri, content_type: &str, body: Bytes) -> Result<Bytes, String> {
        let request = Request::post(url.path_and_query().map_or("/", |path| path.as_str()));
        self.ask(url, request.header(header::CONTENT_TYPE, content_type), body).await
    }

    /// Asks, and gives the body of an answer that says that all is well.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn ask(&self, url: &Uri, head: http::request::Builder, body: Bytes) -> Result<Bytes, String> {
        let host = url.authority().map_or("", |host| host.as_str()).to_owned();
        let request = head.header(header::HOST, host).body(Full::new(body)).map_err(|error| error.to_string())?;
        let asked = timeout(TIME_MAX, self.exchange(url, request)).await;
        asked.map_err(|_| format!("no answer within {} s", TIME_MAX.as_secs()))?
    }

    async fn exchange(&self, url: &Uri, request: Request<Full<Bytes>>) -> Result<Bytes, String> {
        let is_secure = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
        if !is_secure {
            return talk(stream, request).await;
        }
        let tls = ClientTls::new(ClientFiles { ca: self.ca.clone(), identity: None });
        let tls = tls.map_err(|error| fault::chain(&error))?;
        let stream = tls.connect_http1(host, stream).await.map_err(|error| format!("TLS failed: {error}"))?;
        talk(stream, request).await
    }
}

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Bytes, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| format!("no HTTP: {error}"))?;
    let mut connection = pin!(async {
        let _ = connection.await;
        // What came before the end is still to be read.
        std::future::pending::<()>().await;
    });
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
        if !answer.status().is_success() {
            return Err(format!("answered with status {}", answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes())
    };
    tokio::select! {
        answer = exchange => answer,
        () = &mut connection => Err("the connection ended".to_owned()),
    }
}
