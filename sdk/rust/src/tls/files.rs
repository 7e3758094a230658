//! Certificates and keys on disk, and a look at whether they have changed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Wrong;

/// Files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Largest file that is read: a bundle of the world's authorities is a quarter of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Something made from files, made anew when one of them changes.
pub(super) struct Reloading<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, Wrong> + Send + Sync>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
}

struct Seen {
    looked: Instant,
    stamps: Vec<Stamp>,
}

/// What tells one version of a file from another.
type Stamp = Option<(SystemTime, u64)>;

impl<T> Reloading<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, Wrong> + Send + Sync + 'static,
    ) -> Result<Self, Wrong> {
        // Looked at before they are read: what changes in between is read again.
        let seen = Seen { looked: Instant::now(), stamps: stamps(&files) };
        let current = ArcSwap::from_pointee(make()?);
        Ok(Self { files, make: Box::new(make), current, seen: Mutex::new(seen) })
    }

    /// What the files say, as of a second ago at the latest.
    pub(super) fn current(&self) -> Arc<T> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked.elapsed() >= LOOK_EVERY {
            seen.looked = Instant::now();
            let stamps = stamps(&self.files);
            if stamps != seen.stamps {
                seen.stamps = stamps;
                match (self.make)() {
                    Ok(made) => {
                        self.current.store(Arc::new(made));
                        tracing::info!(files = ?self.files, "read changed certificates");
                    }
                    Err(wrong) => tracing::error!(
                        path = %wrong.path.display(),
                        problem = wrong.problem,
                        "changed certificates cannot be used; those read before stay"
                    ),
                }
            }
        }
        self.current.load_full()
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

/// Reads a small file whole.
fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| Wrong::new(path, error))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| Wrong::new(path, error))?;
    Ok(bytes)
}

/// The certificates in a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Wrong::new(path, "has no certificate in PEM")),
        Err(error) => Err(Wrong::new(path, error)),
    }
}

/// The first private key in a PEM file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| Wrong::new(path, format!("has no private key: {error}")))
}

/// The authorities in a PEM file, all of which must be usable.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| Wrong::new(path, error))?;
    }
    Ok(roots)
}

/// The authorities that this system trusts. Some bundles hold a few that are too old to be read; the rest counts.
pub(super) fn system_roots() -> Result<RootCertStore, Wrong> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_ROOTS.iter().map(PathBuf::from);
    let Some(path) = named.into_iter().chain(known).find(|path| path.exists()) else {
        return Err(Wrong::new(Path::new(SYSTEM_ROOTS[0]), "this system has no list of authorities: name one"));
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(&path)?);
    Ok(roots)
}
