//! Settings of access.

use std::path::PathBuf;

use ninefold::caller::Role;
use ninefold::fault::Violation;
use ninefold::tls::ServerFiles;
use serde::Deserialize;

/// Who may talk to the platform, and from where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How callers have to say who they are.
    pub authentication: Authentication,
    /// Certificate of the platform's doors and its intermediates, in PEM. With it they speak TLS.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    pub tls_key: Option<PathBuf>,
    /// Authorities that vouch for callers' certificates, in PEM.
    pub client_ca: Option<PathBuf>,
    /// The trust domain whose `spiffe://DOMAIN/ns/NAMESPACE/svc/SERVICE` names an instance. Empty for any that
    /// `client_ca` vouches for.
    pub trust_domain: String,
    /// What else certificates may stand for. The first that fits counts.
    pub identities: Vec<Identity>,
    /// Host names by which browsers may reach the platform, besides `localhost` and addresses.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages from elsewhere that may ask the platform, such as `https://console.example.org`.
    pub allowed_origins: Vec<String>,
    /// Most tokens.
    pub tokens_max: usize,
    /// Most API keys of the edge.
    pub keys_max: usize,
}

/// How callers have to say who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// Not at all: everybody may do everything.
    #[default]
    Off,
    /// By a bearer token; by a certificate as well, if `client_ca` is set.
    Token,
    /// By a certificate alone.
    Mtls,
}

/// What a certificate may stand for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// A URI or a host name among the subject's alternative names; a `*` at the end stands for any rest.
    pub name: String,
    /// What its owner may do: `read`, `instance`, `operator`, `admin`.
    #[serde(deserialize_with = "roles")]
    pub roles: Vec<Role>,
    /// Services that it may join as; `*` for all.
    #[serde(default)]
    pub services: Vec<String>,
    /// Namespaces that it may see and join; `*` for all.
    #[serde(default = "default_namespaces")]
    pub namespaces: Vec<String>,
}

fn default_namespaces() -> Vec<String> {
    vec![ninefold::caller::DEFAULT_NAMESPACE.to_owned()]
}

fn roles<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Role>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let read = |name: &String| crate::model::role_of(name).ok_or_else(|| name.clone());
    let roles: Result<Vec<Role>, String> = names.iter().map(read).collect();
    roles.map_err(|name| serde::de::Error::custom(format!("{name:?} is none of read, instance, operator, admin")))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            authentication: Authentication::Off,
            tls_cert: None,
            tls_key: None,
            client_ca: None,
            trust_domain: String::new(),
            identities: Vec::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            tokens_max: 1000,
            keys_max: 10_000,
        }
    }
}

impl Config {
    /// Names every setting whose value cannot work. Empty when all is well.
    pub fn mistakes(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = |holds: bool, field: &str, description: &str| {
            if !holds {
                found.push(Violation::new(field, description));
            }
        };
        check(self.tls_cert.is_some() || self.tls_key.is_none(), "tls_cert", "is needed beside tls_key");
        check(self.tls_key.is_some() || self.tls_cert.is_none(), "tls_key", "is needed beside tls_cert");
        check(self.client_ca.is_none() || self.tls_cert.is_some(), "tls_cert", "is needed beside client_ca");
        let is_mutual = self.authentication == Authentication::Mtls;
        check(!is_mutual || self.client_ca.is_some(), "client_ca", "is needed for authentication = \"mtls\"");
        check(
            self.client_ca.is_none() || self.authentication != Authentication::Off,
            "authentication",
            "is \"off\" although client_ca is set: say \"mtls\" or \"token\"",
        );
        check(self.tokens_max > 0, "tokens_max", "is 0, must be at least 1");
        check(self.keys_max > 0, "keys_max", "is 0, must be at least 1");
        for origin in &self.allowed_origins {
            let is_origin = origin.split_once("://").is_some_and(|(scheme, rest)| {
                ["http", "https"].contains(&scheme) && !rest.is_empty() && !rest.contains(['/', '*'])
            });
            check(is_origin, "allowed_origins", "holds what is no origin such as https://console.example.org");
        }
        found
    }

    /// The files of TLS, if it is spoken.
    pub fn tls(&self) -> Option<ServerFiles> {
        let (cert, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        // The guard asks for credentials: it can say what is missing, a handshake cannot. And health stays open.
        Some(ServerFiles { cert, key, client_ca: self.client_ca.clone(), client_required: false })
    }
}
