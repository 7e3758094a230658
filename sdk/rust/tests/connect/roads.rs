//! Ways to an instance: TLS that proves who it is, and connections that the program makes itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ninefold::connect::{Dialer, Policy};
use ninefold::fault;
use ninefold::proto::ninefold::registry::v1 as words;
use ninefold::serve::ServeConfig;
use ninefold::tls::{ClientFiles, ClientTls, ServerFiles, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;

use crate::fake::Instance;
use crate::{House, get, wait_for, warm};

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

    fn sign(&self, service: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![service.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let at = |ending: &str| self.folder.path().join(format!("{service}.{ending}"));
        std::fs::write(at("crt"), cert.pem()).unwrap();
        std::fs::write(at("key"), key.serialize_pem()).unwrap();
        (at("crt"), at("key"))
    }

    /// A server that shows a certificate for `service`, and asks callers for one of this authority.
    fn server(&self, service: &str) -> ServeConfig {
        let (cert, key) = self.sign(service);
        let files = ServerFiles { cert, key, client_ca: Some(self.ca()), client_required: true };
        ServeConfig { tls: Some(ServerTls::new(files).unwrap()), ..ServeConfig::default() }
    }

    fn dialer(&self, identity: Option<&str>) -> Dialer {
        let files = ClientFiles { ca: Some(self.ca()), identity: identity.map(|service| self.sign(service)) };
        Dialer::default().secured(ClientTls::new(files).unwrap())
    }
}

async fn secured(house: &House, id: &str, config: ServeConfig) -> Instance {
    let instance = Instance::start_with(id, config, &house.scope).await;
    house.registry.put(words::Instance { tls: true, ..instance.words() });
    instance
}

fn impatient() -> Policy {
    let mut policy = Policy::default();
    policy.timeouts.ready = Duration::from_millis(500);
    policy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_prove_to_each_other_who_they_are() {
    let authority = Authority::new();
    let house = House::dialing(authority.dialer(Some("caller")));
    let client = house.client();
    let _instance = secured(&house, "secured", authority.server("pump")).await;
    warm(&client, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_prove_who_it_is_is_not_talked_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    // An instance of another service, one that another authority vouches for, a caller without a certificate, and one that
    // was told of no authority.
    for (dialer, config) in [
        (authority.dialer(Some("caller")), authority.server("valve")),
        (authority.dialer(Some("caller")), stranger.server("pump")),
        (authority.dialer(None), authority.server("pump")),
        (Dialer::default(), authority.server("pump")),
    ] {
        let house = House::dialing(dialer);
        let client = house.client_with(impatient());
        let instance = secured(&house, "secured", config).await;
        house.knows(1).await;
        let status = get(&client).await.unwrap_err();
        assert_eq!(status.code(), ninefold::tonic::Code::Unavailable, "{status:?}");
        // A server that refuses the caller's certificate says so after the caller has finished its part.
        let reason = fault::reason(&status);
        let is_meant = matches!(reason.as_deref(), Some("INSTANCE_UNREACHABLE" | "BREAKER_OPEN" | "CONNECTION_LOST"));
        assert!(is_meant, "{reason:?}");
        assert_eq!(instance.calls(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_may_bring_its_own_connections() {
    let made = Arc::new(AtomicU32::new(0));
    let real = Arc::new(std::sync::OnceLock::new());
    let scope = ninefold::lifecycle::Scope::root("pipes");
    let dialer = {
        let (made, real) = (made.clone(), real.clone());
        Dialer::default().connecting(move |address| {
            let (made, real, scope) = (made.clone(), real.clone(), scope.clone());
            async move {
                assert_eq!((address.host.as_str(), address.port), ("nowhere.invalid", 1));
                made.fetch_add(1, Ordering::SeqCst);
                // A pipe in memory, whose other end somebody carries to the instance.
                let (near, mut far) = tokio::io::duplex(64 * 1024);
                let mut stream = TcpStream::connect(*real.get().expect("the instance listens")).await?;
                scope.run("test.carry", |_| async move {
                    let _ = tokio::io::copy_bidirectional(&mut far, &mut stream).await;
                });
                Ok(near)
            }
        })
    };
    let house = House::dialing(dialer);
    let client = house.client();
    let instance = Instance::start("piped", &house.scope).await;
    real.set(instance.address).unwrap();
    let address = words::Address { host: "nowhere.invalid".to_owned(), port: 1 };
    house.registry.put(words::Instance { addresses: vec![address], ..instance.words() });
    warm(&client, 1).await;
    wait_for(|| made.load(Ordering::SeqCst) > 0).await;
}
