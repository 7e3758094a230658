//! TLS at the edge: which certificate is shown, whom callers are, and files that change while requests are under way.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold::serve::ServeConfig;
use ninefold::tls::{ClientFiles, ClientTls, ServerFiles, ServerTls};
use ninefold_gateway::{Certificate, Config, Inward, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;

use crate::landscape::Landscape;

/// Who vouches for certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.ca(), authority.issuer.pem()).unwrap();
        authority
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn sign(&self, name: &str, host: &str) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let at = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(at("crt"), cert.pem()).unwrap();
        std::fs::write(at("key"), key.serialize_pem()).unwrap();
        Certificate { cert: at("crt"), key: at("key") }
    }

    fn client(&self, identity: Option<Certificate>) -> ClientTls {
        let identity = identity.map(|one| (one.cert, one.key));
        ClientTls::new(ClientFiles { ca: Some(self.ca()), identity }).unwrap()
    }
}

fn config(Certificate { cert, key }: Certificate, more: Vec<Certificate>, client_ca: Option<PathBuf>) -> Config {
    let client_required = client_ca.is_some();
    Config { tls: Some(Tls { cert, key, more, client_ca, client_required }), ..Config::default() }
}

/// Asks over HTTP/2 for the document of a service.
async fn ask(house: &Landscape, tls: &ClientTls, host: &str) -> std::io::Result<Response<Incoming>> {
    let stream = tls.connect(host, TcpStream::connect(house.edge).await?).await?;
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut client, connection) = shaken.map_err(std::io::Error::other)?;
    #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
    tokio::spawn(connection);
    let request = Request::post(format!("https://{host}/rooms/r/say")).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"{\"text\":\"x\"}"))).unwrap();
    client.send_request(request).await.map_err(std::io::Error::other)
}

#[tokio::test]
async fn the_certificate_is_that_of_the_host_which_the_caller_names() {
    let authority = Authority::new();
    let more = vec![authority.sign("api", "api.example"), authority.sign("wild", "*.shop.example")];
    let house = Landscape::talking(config(authority.sign("main", "main.example"), more, None)).await;
    let tls = authority.client(None);
    for host in ["main.example", "api.example", "eu.shop.example"] {
        assert_eq!(ask(&house, &tls, host).await.unwrap().status(), 200, "{host}");
        assert_eq!(house.backend.seen.lock().unwrap()["x-forwarded-proto"], "https");
    }
    assert!(ask(&house, &tls, "other.example").await.is_err(), "nobody vouches for that name");
    // Who speaks no TLS gets no answer, and harms nobody.
    let plain = crate::client::raw(house.edge, "GET /rooms/r HTTP/1.1\r\nhost: main.example\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
}

#[tokio::test]
async fn a_service_that_asks_for_tls_is_reached_if_it_proves_its_name() {
    let authority = Authority::new();
    let identity = Some(authority.sign("edge", "edge"));
    let inward = Some(Inward { ca: authority.ca(), identity });
    let house = Landscape::empty(Config { inward: inward.clone(), ..Config::default() }).await;
    house.offer("sha256:talk", &crate::talk::contract());
    let serving = |name: &str| {
        let Certificate { cert, key } = authority.sign(name, name);
        let files = ServerFiles { cert, key, client_ca: Some(authority.ca()), client_required: true };
        ServeConfig { tls: Some(ServerTls::new(files).unwrap()), ..ServeConfig::default() }
    };
    house.join_with("talker", "t", "sha256:talk", &[crate::talk::TALK], "", serving("talker")).await;
    house.until_routed("GET", "/files/x").await;
    let say = "POST /rooms/r/say HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
               content-length: 12\r\n\r\n{\"text\":\"x\"}";
    let answer = crate::client::raw(house.edge, say).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Another one with the wrong name is not believed.
    house.join_with("talker", "liar", "sha256:talk", &[crate::talk::TALK], "", serving("other")).await;
    house.leave("t");
    loop {
        let answer = crate::client::raw(house.edge, say).await;
        if answer.starts_with("HTTP/1.1 503") {
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_turned_away_where_one_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let house =
        Landscape::talking(config(authority.sign("main", "main.example"), Vec::new(), Some(authority.ca()))).await;
    let known = authority.client(Some(authority.sign("caller", "caller.example")));
    assert_eq!(ask(&house, &known, "main.example").await.unwrap().status(), 200);
    for identity in [None, Some(stranger.sign("caller", "caller.example"))] {
        assert!(ask(&house, &authority.client(identity), "main.example").await.is_err());
    }
}

#[tokio::test]
async fn certificates_change_without_a_lost_request_and_bad_ones_change_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let shown = old.sign("main", "main.example");
    let house = Landscape::talking(config(shown.clone(), Vec::new(), None)).await;
    let (before, after) = (old.client(None), new.client(None));
    let stream = before.connect("main.example", TcpStream::connect(house.edge).await.unwrap()).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut kept, connection) = shaken.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
    tokio::spawn(connection);

    std::fs::write(&shown.cert, "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask(&house, &before, "main.example").await.unwrap().status(), 200, "what was read before stays");

    let next = new.sign("next", "main.example");
    std::fs::copy(&next.key, &shown.key).unwrap();
    std::fs::copy(&next.cert, &shown.cert).unwrap();
    let changed = async {
        while ask(&house, &after, "main.example").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the new certificate is shown");
    let request = Request::post("https://main.example/rooms/r/say").header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    assert_eq!(kept.send_request(request).await.unwrap().status(), 200, "open connections stay as they are");
}

#[tokio::test]
async fn certificates_change_through_the_edges_document() {
    let (old, new) = (Authority::new(), Authority::new());
    let house = Landscape::talking(config(old.sign("main", "main.example"), Vec::new(), None)).await;
    let (before, after) = (old.client(None), new.client(None));
    let stream = before.connect("main.example", TcpStream::connect(house.edge).await.unwrap()).await.unwrap();
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut kept, connection) = shaken.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
    tokio::spawn(connection);

    let document =
        |Certificate { cert, key }: &Certificate| serde_json::json!({"tls": {"cert": cert, "key": key}}).to_string();
    let next = new.sign("next", "main.example");
    let missing = Certificate { cert: next.cert.with_extension("gone"), key: next.key.clone() };
    let refusal = house.documents.put(&document(&missing)).await;
    assert!(refusal.contains("next.gone"), "{refusal}");
    assert_eq!(ask(&house, &before, "main.example").await.unwrap().status(), 200, "the last good ones hold");

    assert_eq!(house.documents.put(&document(&next)).await, "");
    assert_eq!(ask(&house, &after, "main.example").await.unwrap().status(), 200);
    assert!(ask(&house, &before, "main.example").await.is_err(), "the old one is shown to nobody");
    let request = Request::post("https://main.example/rooms/r/say").header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"{}"))).unwrap();
    assert_eq!(kept.send_request(request).await.unwrap().status(), 200, "open connections stay as they are");
}
