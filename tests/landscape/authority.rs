//! Certificates.

use std::path::PathBuf;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// An authority that signs what a test asks for.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    /// Makes one, and writes its certificate to `ca.pem`.
    ///
    /// # Errors
    /// Those of keys and files.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, folder: tempfile::tempdir()? };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem())?;
        Ok(authority)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a file of this name is, or may be put.
    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Signs a certificate for a host, and for a URI where one is named: NAME.crt and NAME.key.
    ///
    /// # Errors
    /// Those of keys and files, and names that are none.
    pub fn sign(&self, name: &str, host: &str, uri: Option<&str>) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        // One that is called as its issuer is taken for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        std::fs::write(self.file(&format!("{name}.crt")), params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }
}
