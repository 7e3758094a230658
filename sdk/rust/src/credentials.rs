//! Who this process is to the platform: a bearer token, a certificate, both or neither.
//!
//! A token comes from a file or a variable, never from an argument, which every user of a machine can read in its list of
//! processes. A file is read again when it changes, so a token can be renewed without a restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Uri};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use crate::error::{Error, Mistake};
use crate::tls::{ClientFiles, ClientTls, Stream};

/// A token's file is read no more often than this.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Longest token.
const TOKEN_CHARS_MAX: usize = 4096;

/// Who this process is to the platform. Clones share what was read. Printing them shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    token: Option<Arc<Token>>,
    files: ClientFiles,
    tls: Arc<OnceLock<ClientTls>>,
}

enum Token {
    Given(HeaderValue),
    File { path: PathBuf, last: Mutex<Option<(Instant, HeaderValue)>> },
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => out.write_str("Given"),
            Self::File { path, .. } => out.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Credentials {
    /// Reads `NINEFOLD_TOKEN_FILE` or `NINEFOLD_TOKEN`; `NINEFOLD_CA_FILE`, which vouches for the platform where the
    /// system's own authorities do not; `NINEFOLD_CERT_FILE` and `NINEFOLD_KEY_FILE`.
    ///
    /// # Errors
    /// [`Error::Settings`] with all that cannot be used.
    pub fn from_env() -> Result<Self, Error> {
        let mut mistakes = Vec::new();
        let credentials = Self::read(&|name| std::env::var(name).ok(), &mut mistakes);
        if mistakes.is_empty() { Ok(credentials) } else { Err(Error::Settings(mistakes)) }
    }

    /// As [`from_env`](Self::from_env), by `lookup`; adds what cannot be used to `mistakes`.
    pub(crate) fn read(lookup: &dyn Fn(&str) -> Option<String>, mistakes: &mut Vec<Mistake>) -> Self {
        let named = |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let path = |name: &str| named(name).map(PathBuf::from);
        let mut refuse = |setting: &str, value: String, problem: String| {
            mistakes.push(Mistake { setting: setting.to_owned(), value, problem });
        };
        let token = match (path("NINEFOLD_TOKEN_FILE"), named("NINEFOLD_TOKEN")) {
            (Some(path), _) => {
                if let Err(error) = read_token(&path) {
                    refuse("NINEFOLD_TOKEN_FILE", path.display().to_string(), error.to_string());
                }
                Some(Token::File { path, last: Mutex::new(None) })
            }
            (None, Some(text)) => match bearer(&text) {
                Ok(value) => Some(Token::Given(value)),
                // The value is a secret, whatever is wrong with it.
                Err(error) => {
                    refuse("NINEFOLD_TOKEN", "***".to_owned(), error.to_string());
                    None
                }
            },
            (None, None) => None,
        };
        let identity = match (path("NINEFOLD_CERT_FILE"), path("NINEFOLD_KEY_FILE")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(cert), None) => {
                refuse(
                    "NINEFOLD_CERT_FILE",
                    cert.display().to_string(),
                    "needs NINEFOLD_KEY_FILE beside it".to_owned(),
                );
                None
            }
            (None, Some(key)) => {
                refuse("NINEFOLD_KEY_FILE", key.display().to_string(), "needs NINEFOLD_CERT_FILE beside it".to_owned());
                None
            }
        };
        let files = ClientFiles { ca: path("NINEFOLD_CA_FILE"), identity };
        if files != ClientFiles::default()
            && let Err(error) = ClientTls::new(files.clone())
            && let Error::Tls { path, problem } = &error
        {
            refuse(
                "NINEFOLD_CA_FILE, NINEFOLD_CERT_FILE, NINEFOLD_KEY_FILE",
                path.display().to_string(),
                problem.clone(),
            );
        }
        Self { token: token.map(Arc::new), files, tls: Arc::default() }
    }

    /// A token that this process was given by other means.
    ///
    /// # Errors
    /// When it has letters that no token has.
    pub fn of_token(token: &str) -> io::Result<Self> {
        Ok(Self { token: Some(Arc::new(Token::Given(bearer(token)?))), ..Self::default() })
    }

    /// A token in a file, and certificates in others. The files are read when they are needed.
    pub fn of_files(token: Option<PathBuf>, files: ClientFiles) -> Self {
        let token = token.map(|path| Arc::new(Token::File { path, last: Mutex::new(None) }));
        Self { token, files, tls: Arc::default() }
    }

    /// These credentials with the token in another file.
    #[must_use]
    pub fn with_token_in(&self, path: PathBuf) -> Self {
        let token = Token::File { path, last: Mutex::new(None) };
        Self { token: Some(Arc::new(token)), ..self.clone() }
    }

    /// Whether there is a token to send.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// These credentials for whoever is at `endpoints`, if all of them are hosts of the platform. A token is for the
    /// platform alone: a collector elsewhere is not told it.
    #[must_use]
    pub fn among(&self, platform: &[Uri], endpoints: &[Uri]) -> Self {
        let is_known = |uri: &Uri| platform.iter().any(|known| known.host().is_some() && known.host() == uri.host());
        let token = self.token.clone().filter(|_| endpoints.iter().all(is_known));
        Self { token, files: self.files.clone(), tls: self.tls.clone() }
    }

    /// The value of the header `authorization`. A file that cannot be read any more leaves what was read before.
    pub fn bearer(&self) -> Option<HeaderValue> {
        match self.token.as_deref()? {
            Token::Given(value) => Some(value.clone()),
            Token::File { path, last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((read, value)) = &*last
                    && read.elapsed() < READ_EVERY
                {
                    return Some(value.clone());
                }
                match read_token(path) {
                    Ok(value) => *last = Some((Instant::now(), value)),
                    Err(error) => tracing::warn!(path = %path.display(), %error, "cannot read the token"),
                }
                last.as_ref().map(|(_, value)| value.clone())
            }
        }
    }

    /// Adds the token to the headers of a request, unless they say already who asks.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        if !headers.contains_key(http::header::AUTHORIZATION)
            && let Some(value) = self.bearer()
        {
            headers.insert(http::header::AUTHORIZATION, value);
        }
    }

    /// Makes a fresh connection one of TLS, if `uri` begins with `https`.
    pub(crate) async fn secure(&self, uri: &Uri, stream: TcpStream) -> io::Result<Stream> {
        if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
            return Ok(Either::Left(stream));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        self.tls()?.connect(host, stream).await
    }

    fn tls(&self) -> io::Result<&ClientTls> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let made = ClientTls::new(self.files.clone()).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(self.tls.get_or_init(|| made))
    }
}

fn read_token(path: &Path) -> io::Result<HeaderValue> {
    bearer(std::fs::read_to_string(path)?.trim())
}

fn bearer(token: &str) -> io::Result<HeaderValue> {
    let is_plain = token.bytes().all(|letter| letter.is_ascii_graphic());
    if token.is_empty() || token.len() > TOKEN_CHARS_MAX || !is_plain {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is no token: one word of at most 4096 letters"));
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    // Whoever prints or compresses headers leaves it out.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Credentials, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        (Credentials::read(&lookup, &mut mistakes), mistakes)
    }

    #[test]
    fn a_token_comes_from_a_variable_or_a_file_and_the_file_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "nf_from_file\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(read(&[("NINEFOLD_TOKEN", "nf_x")]).0.bearer().unwrap(), "Bearer nf_x");
        let both = [("NINEFOLD_TOKEN", "nf_x"), ("NINEFOLD_TOKEN_FILE", path)];
        assert_eq!(read(&both).0.bearer().unwrap(), "Bearer nf_from_file");
        assert!(read(&[]).0.bearer().is_none());
    }

    #[test]
    fn no_secret_is_printed() {
        let (credentials, _) = read(&[("NINEFOLD_TOKEN", "nf_secret")]);
        assert!(!format!("{credentials:?} {:?}", credentials.bearer()).contains("secret"));
        let (_, mistakes) = read(&[("NINEFOLD_TOKEN", "nf_secret with a space")]);
        assert!(!format!("{mistakes:?}").contains("secret"), "{mistakes:?}");
    }

    #[test]
    fn a_collector_elsewhere_is_not_told_the_token() {
        let (credentials, _) = read(&[("NINEFOLD_TOKEN", "nf_x")]);
        let platform = [Uri::from_static("https://platform:9900")];
        assert!(credentials.among(&platform, &[Uri::from_static("https://platform:4317")]).has_token());
        assert!(!credentials.among(&platform, &[Uri::from_static("https://collector:4317")]).has_token());
    }

    #[test]
    fn what_is_missing_is_told_before_anything_is_sent() {
        let told =
            |variables: &[(&str, &str)]| read(variables).1.into_iter().map(|one| one.setting).collect::<Vec<_>>();
        assert_eq!(told(&[("NINEFOLD_TOKEN_FILE", "/nowhere/token")]), ["NINEFOLD_TOKEN_FILE"]);
        assert_eq!(told(&[("NINEFOLD_CERT_FILE", "/nowhere/cert")]), ["NINEFOLD_CERT_FILE"]);
        assert_eq!(told(&[("NINEFOLD_CA_FILE", "/nowhere/ca")]).len(), 1);
    }
}
