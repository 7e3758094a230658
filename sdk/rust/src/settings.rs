//! Settings: how a service finds its place, read from the environment.

pub mod duration;

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::credentials::Credentials;
use crate::error::{Error, Mistake};
use crate::telemetry;
use crate::tls::{ClientFiles, ClientTls, ServerFiles, ServerTls};

/// Where the platform is, unless told otherwise.
const ENDPOINT: &str = "http://127.0.0.1:9900";

/// Share of calls of an instance that names none, and the greatest.
const WEIGHT_USUAL: u32 = 100;
const WEIGHT_MAX: u32 = 10_000;
/// Longest names of services and environments.
const NAME_LENGTH_MAX: usize = 63;

/// What a service reads from its environment before it starts.
#[derive(Clone, Debug)]
pub struct SdkSettings {
    /// The nodes of the platform; any one will do. `NINEFOLD_ENDPOINT`, separated by commas.
    pub endpoints: Vec<Uri>,
    /// Where to listen. `NINEFOLD_LISTEN`, or `127.0.0.1:$PORT`; otherwise a free port of the loopback address.
    pub listen: String,
    /// Host, or host and port, that others are to call, where it differs from where the service listens.
    /// `NINEFOLD_ADVERTISE`.
    pub advertise: Option<String>,
    /// Id of the instance. `NINEFOLD_INSTANCE_ID`; otherwise one is made.
    pub instance_id: Option<String>,
    /// Which documents to run with. `NINEFOLD_ENVIRONMENT`, otherwise `default`.
    pub environment: String,
    /// Namespace of the service, and of the services that it calls. `NINEFOLD_NAMESPACE`, otherwise `default`.
    pub namespace: String,
    /// Failure domain. `NINEFOLD_ZONE`, otherwise empty.
    pub zone: String,
    /// The larger place that the zone is in. `NINEFOLD_REGION`, otherwise empty.
    pub region: String,
    /// Relative share of calls. `NINEFOLD_WEIGHT`, 1 to 10,000, otherwise 100.
    pub weight: u32,
    /// Version of the program, over the one that it names itself. `NINEFOLD_VERSION`.
    pub version: Option<String>,
    /// Where the last good config is kept. `NINEFOLD_CACHE_DIR`, otherwise `ninefold` in the user's cache folder; `None`
    /// where there is no such folder.
    pub cache_dir: Option<PathBuf>,
    /// Whether the last known landscape is kept there too, for a start while the platform is away.
    /// `NINEFOLD_CACHE_LANDSCAPE`, `on` or `off`, otherwise on.
    pub cache_landscape: bool,
    /// Longest time that calls have to finish when the service stops. `NINEFOLD_DRAIN`, otherwise 10 s.
    pub drain: Duration,
    /// Who this process is to the platform. `NINEFOLD_TOKEN_FILE` or `NINEFOLD_TOKEN`, `NINEFOLD_CA_FILE`,
    /// `NINEFOLD_CERT_FILE` and `NINEFOLD_KEY_FILE`.
    pub credentials: Credentials,
    /// TLS between services. `NINEFOLD_TLS_CERT`, `NINEFOLD_TLS_KEY` and `NINEFOLD_TLS_CA`.
    pub tls: TlsFiles,
    /// What to tell, and to whom.
    pub telemetry: telemetry::Config,
}

impl SdkSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`Error::Settings`] with everything that cannot be used.
    pub fn from_env() -> Result<Self, Error> {
        Self::read(&|name| std::env::var(name).ok())
    }

    fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut mistakes = Vec::new();
        let named = |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut refuse = |setting: &str, value: &str, problem: &str| {
            let (setting, value, problem) = (setting.to_owned(), value.to_owned(), problem.to_owned());
            mistakes.push(Mistake { setting, value, problem });
        };

        let mut endpoints = Vec::new();
        let text = named("NINEFOLD_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        for one in text.split(',').map(str::trim) {
            match one.parse::<Uri>() {
                Ok(uri) if is_endpoint(&uri) => endpoints.push(uri),
                _ => refuse("NINEFOLD_ENDPOINT", one, "is no address such as http://127.0.0.1:9900"),
            }
        }

        let listen = match (named("NINEFOLD_LISTEN"), named("PORT")) {
            (Some(listen), _) => {
                if listen.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                    refuse("NINEFOLD_LISTEN", &listen, "is no address and port such as 127.0.0.1:8081");
                }
                listen
            }
            (None, Some(port)) => {
                if port.parse::<u16>().is_err() {
                    refuse("PORT", &port, "is no port, 0 to 65535");
                }
                format!("127.0.0.1:{port}")
            }
            (None, None) => "127.0.0.1:0".to_owned(),
        };

        let environment = named("NINEFOLD_ENVIRONMENT").unwrap_or_else(|| "default".to_owned());
        if !is_name(&environment) {
            refuse("NINEFOLD_ENVIRONMENT", &environment, NAME_RULE);
        }
        let namespace = named("NINEFOLD_NAMESPACE").unwrap_or_else(|| "default".to_owned());
        if !is_name(&namespace) || namespace == "-" {
            refuse("NINEFOLD_NAMESPACE", &namespace, NAME_RULE);
        }
        let weight = weight(named("NINEFOLD_WEIGHT"), &mut refuse);
        let drain = match named("NINEFOLD_DRAIN") {
            None => Duration::from_secs(10),
            Some(text) => duration::parse(&text).unwrap_or_else(|_| {
                refuse("NINEFOLD_DRAIN", &text, "is no duration such as 250ms or 10s");
                Duration::ZERO
            }),
        };
        let cache_dir = named("NINEFOLD_CACHE_DIR")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(named("XDG_CACHE_HOME")?).join("ninefold")))
            .or_else(|| Some(PathBuf::from(named("HOME")?).join(".cache/ninefold")));
        let cache_landscape = match named("NINEFOLD_CACHE_LANDSCAPE").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                refuse("NINEFOLD_CACHE_LANDSCAPE", other, "is neither on nor off");
                true
            }
        };
        let tls = TlsFiles::read(lookup, &mut mistakes);
        let credentials = Credentials::read(lookup, &mut mistakes);
        let telemetry = telemetry::Config::read(lookup, &endpoints, &credentials, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(Error::Settings(mistakes));
        }
        Ok(Self {
            endpoints,
            listen,
            advertise: named("NINEFOLD_ADVERTISE"),
            instance_id: named("NINEFOLD_INSTANCE_ID"),
            environment,
            namespace,
            zone: named("NINEFOLD_ZONE").unwrap_or_default(),
            region: named("NINEFOLD_REGION").unwrap_or_default(),
            weight,
            version: named("NINEFOLD_VERSION"),
            cache_dir,
            cache_landscape,
            drain,
            credentials,
            tls,
            telemetry,
        })
    }
}

/// The files of TLS between services, in PEM. Read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate, with the name of the service as a DNS name, and its private key. With them, the service speaks TLS
    /// only, and shows the certificate to whom it calls.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who vouches for other services. With it, services that ask for TLS can be called, and callers of this one have to
    /// show a certificate.
    pub ca: Option<PathBuf>,
}

impl TlsFiles {
    fn read(lookup: &dyn Fn(&str) -> Option<String>, mistakes: &mut Vec<Mistake>) -> Self {
        let named = |name: &str| lookup(name).map(|path| path.trim().to_owned()).filter(|path| !path.is_empty());
        let (cert, key) = (named("NINEFOLD_TLS_CERT"), named("NINEFOLD_TLS_KEY"));
        let ca = named("NINEFOLD_TLS_CA").map(PathBuf::from);
        let mut lonely = |setting: &str, value: &str, other: &str| {
            let problem = format!("means nothing without {other}");
            mistakes.push(Mistake { setting: setting.to_owned(), value: value.to_owned(), problem });
            None
        };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
            (Some(cert), None) => lonely("NINEFOLD_TLS_CERT", &cert, "NINEFOLD_TLS_KEY"),
            (None, Some(key)) => lonely("NINEFOLD_TLS_KEY", &key, "NINEFOLD_TLS_CERT"),
            (None, None) => None,
        };
        Self { identity, ca }
    }

    /// What the service's own socket shows, and whom it lets in. `None` for no TLS.
    ///
    /// # Errors
    /// [`Error::Tls`] with the file that cannot be used.
    pub fn server(&self) -> Result<Option<ServerTls>, Error> {
        let Some((cert, key)) = self.identity.clone() else { return Ok(None) };
        let client_required = self.ca.is_some();
        ServerTls::new(ServerFiles { cert, key, client_ca: self.ca.clone(), client_required }).map(Some)
    }

    /// Whom calls trust, and what they show. `None` where services that ask for TLS cannot be called.
    ///
    /// # Errors
    /// [`Error::Tls`] with the file that cannot be used.
    pub fn client(&self) -> Result<Option<ClientTls>, Error> {
        let Some(ca) = self.ca.clone() else { return Ok(None) };
        ClientTls::new(ClientFiles { ca: Some(ca), identity: self.identity.clone() }).map(Some)
    }
}

/// Whether a URI names a place that gRPC can be spoken with.
pub(crate) fn is_endpoint(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some()
}

fn weight(text: Option<String>, refuse: &mut dyn FnMut(&str, &str, &str)) -> u32 {
    let Some(text) = text else { return WEIGHT_USUAL };
    match text.parse() {
        Ok(weight @ 1..=WEIGHT_MAX) => weight,
        _ => {
            refuse("NINEFOLD_WEIGHT", &text, "is no share of calls, 1 to 10000");
            WEIGHT_USUAL
        }
    }
}

/// What names of services and environments look like.
pub(crate) const NAME_RULE: &str = "is no name: lowercase letters, digits and hyphens, 1 to 63 characters";

/// Whether a text can name a service or an environment.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<SdkSettings, Error> {
        SdkSettings::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_settings_that_work() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.endpoints, ["http://127.0.0.1:9900/"]);
        assert_eq!(settings.listen, "127.0.0.1:0");
        assert_eq!((settings.environment.as_str(), settings.namespace.as_str()), ("default", "default"));
        assert_eq!(settings.cache_dir, None);
        assert_eq!(settings.telemetry.endpoints, settings.endpoints);
    }

    #[test]
    fn a_port_alone_is_enough_and_an_address_overrides_it() {
        assert_eq!(read(&[("PORT", "8081")]).unwrap().listen, "127.0.0.1:8081");
        assert_eq!(read(&[("PORT", "8081"), ("NINEFOLD_LISTEN", "0.0.0.0:1")]).unwrap().listen, "0.0.0.0:1");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error = read(&[
            ("NINEFOLD_ENDPOINT", "http://a:1,nowhere"),
            ("PORT", "99999"),
            ("NINEFOLD_ENVIRONMENT", "Prod!"),
            ("NINEFOLD_NAMESPACE", "-"),
            ("NINEFOLD_WEIGHT", "0"),
            ("NINEFOLD_DRAIN", "soon"),
            ("RUST_LOG", "a=b=c"),
        ])
        .unwrap_err();
        let Error::Settings(mistakes) = error else { panic!("{error:?}") };
        let told: Vec<_> = mistakes.iter().map(|mistake| mistake.setting.as_str()).collect();
        let wrong = [
            "NINEFOLD_ENDPOINT",
            "PORT",
            "NINEFOLD_ENVIRONMENT",
            "NINEFOLD_NAMESPACE",
            "NINEFOLD_WEIGHT",
            "NINEFOLD_DRAIN",
            "RUST_LOG",
        ];
        assert_eq!(told, wrong);
    }
}
