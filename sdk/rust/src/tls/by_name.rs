//! Which certificate is shown: by the host that a caller names.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Certificates with the hosts that they are for.
#[derive(Debug)]
pub(super) struct ByName(Vec<(Vec<String>, Arc<CertifiedKey>)>);

impl ByName {
    /// The first certificate is shown to whoever names no host, or one that no certificate has.
    pub(super) fn new(certificates: Vec<Arc<CertifiedKey>>) -> Self {
        let named = certificates.into_iter().map(|certified| {
            let names = certified.end_entity_cert().ok().and_then(|first| {
                let certificate = webpki::EndEntityCert::try_from(first).ok()?;
                Some(certificate.valid_dns_names().map(str::to_ascii_lowercase).collect())
            });
            (names.unwrap_or_default(), certified)
        });
        Self(named.collect())
    }

    fn find(&self, host: &str) -> Option<&Arc<CertifiedKey>> {
        let host = host.to_ascii_lowercase();
        let parent = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let of = |name: &str| self.0.iter().find(|(names, _)| names.iter().any(|one| one == name));
        of(&host).or_else(|| of(&parent?)).map(|(_, certified)| certified)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|host| self.find(host));
        named.or_else(|| self.0.first().map(|(_, certified)| certified)).cloned()
    }
}
