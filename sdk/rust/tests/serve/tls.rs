//! TLS on a door: who is believed, who is let in, and certificates that change while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ninefold::Link;
use ninefold::connect::platform_as;
use ninefold::credentials::Credentials;
use ninefold::serve::{Answers, Around, ServeConfig};
use ninefold::tls::{ClientFiles, Peer, ServerFiles, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt as _;

use super::{PATIENCE, server};

/// An authority that signs what a test asks for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.ca(), authority.issuer.pem()).unwrap();
        authority
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for a host name, with a URI if one is given.
    fn sign(&self, name: &str, host: &str, uri: Option<&str>) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let at = |ending: &str| self.folder.path().join(format!("{name}.{ending}"));
        std::fs::write(at("crt"), cert.pem()).unwrap();
        std::fs::write(at("key"), key.serialize_pem()).unwrap();
        (at("crt"), at("key"))
    }
}

fn files((cert, key): (PathBuf, PathBuf), client_ca: Option<PathBuf>) -> ServerFiles {
    ServerFiles { cert, key, client_ca, client_required: true }
}

/// A server behind TLS, and the peers that it saw.
async fn secured(files: ServerFiles) -> (String, Arc<Mutex<Vec<Peer>>>, ninefold::lifecycle::Scope) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let around = Around::new(tower::layer::layer_fn(move |answers: Answers| {
        let noted = noted.clone();
        answers.map_request(move |request: http::Request<_>| {
            noted.lock().unwrap().extend(request.extensions().get::<Peer>().cloned());
            request
        })
    }));
    let tls = Some(ServerTls::new(files).unwrap());
    let (address, scope) = server(ServeConfig { tls, around: Some(around), ..ServeConfig::default() }).await;
    (format!("https://localhost:{}", address.port()), seen, scope)
}

fn link(endpoint: &str, ca: Option<&Path>, identity: Option<(PathBuf, PathBuf)>) -> Link {
    let files = ClientFiles { ca: ca.map(ToOwned::to_owned), identity };
    platform_as(&[endpoint.parse().unwrap()], &Credentials::of_files(None, files))
}

async fn is_answered(link: Link) -> bool {
    let mut client = HealthClient::new(link);
    let check = client.check(HealthCheckRequest::default());
    tokio::time::timeout(PATIENCE, check).await.expect("an answer comes in time").is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_only_with_a_certificate_of_its_name() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let (endpoint, _, _scope) = secured(files(authority.sign("server", "localhost", None), None)).await;
    assert!(is_answered(link(&endpoint, Some(&authority.ca()), None)).await);
    assert!(!is_answered(link(&endpoint, Some(&stranger.ca()), None)).await, "another authority's word counts");
    assert!(!is_answered(link(&endpoint.replace("localhost", "127.0.0.1"), Some(&authority.ca()), None)).await);
    assert!(!is_answered(link(&endpoint.replace("https", "http"), None, None)).await, "it answers without TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_known_by_its_certificate() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let (endpoint, seen, _scope) =
        secured(files(authority.sign("server", "localhost", None), Some(authority.ca()))).await;
    let uri = "spiffe://test/ns/default/svc/product";
    let own = authority.sign("product", "product.test", Some(uri));
    assert!(is_answered(link(&endpoint, Some(&authority.ca()), Some(own))).await);
    let peer = seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!((peer.uris.to_vec(), peer.names.to_vec()), (vec![uri.to_owned()], vec!["product.test".to_owned()]));
    assert!(!is_answered(link(&endpoint, Some(&authority.ca()), None)).await, "no certificate is needed");
    let forged = stranger.sign("product", "product.test", Some(uri));
    assert!(!is_answered(link(&endpoint, Some(&authority.ca()), Some(forged))).await, "anybody's certificate will do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let authority = Authority::new();
    let (endpoint, _, _scope) = secured(files(authority.sign("server", "localhost", None), None)).await;
    assert!(is_answered(link(&endpoint, Some(&authority.ca()), None)).await);
    // A renewal that went wrong changes nothing.
    let (cert, _) = authority.sign("server", "elsewhere", None);
    std::fs::write(&cert, "nothing").unwrap();
    assert!(is_answered(link(&endpoint, Some(&authority.ca()), None)).await);
    authority.sign("server", "elsewhere", None);
    let changed = async {
        while is_answered(link(&endpoint, Some(&authority.ca()), None)).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.expect("the new certificate is shown");
}
