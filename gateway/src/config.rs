//! Settings of the edge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use ninefold::settings::duration;
use ninefold::tls::{ClientFiles, ClientTls, ServerFiles, ServerTls};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::guard::{Addresses, Auth};
use crate::journal;
use crate::limit::{self, Counters, Limit};
use crate::proxy::{self, Prefix};
use crate::traffic;

/// How the edge answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Longest time for a call that is not a stream. A caller's own `grpc-timeout` may be shorter.
    #[serde(with = "duration")]
    pub deadline: Duration,
    /// Longest time for the first words of a connection to arrive, and for the headers of an HTTP/1 request, counted from
    /// their first byte.
    #[serde(with = "duration")]
    pub headers_timeout: Duration,
    /// Longest pause while a body arrives.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    /// Longest time for which a client may take nothing of an answer that waits for it.
    #[serde(with = "duration")]
    pub answer_timeout: Duration,
    /// Most bytes of a REST body, and of one gRPC message.
    pub body_bytes_max: usize,
    /// Most bytes of one message of an answer that is turned into JSON.
    pub answer_bytes_max: usize,
    /// Most bytes of a request's header section. At least 8192.
    pub headers_bytes_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Most bytes of a request's path and query.
    pub target_bytes_max: usize,
    /// Most connections at a time; more wait in the socket's queue.
    pub connections_max: usize,
    /// Most requests at a time on one HTTP/2 connection.
    pub streams_max: u32,
    /// How often an idle stream of events gives a sign of life.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// Longest time that requests in flight have to finish when the edge stops.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// How long the routes of a service whose last instance left are kept, answering UNAVAILABLE instead of NOT_FOUND.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// Origins whose pages may call, such as `https://shop.example`; `*` for all. Credentials of browsers (cookies) are
    /// never allowed across origins.
    pub origins: Vec<String>,
    /// Whether the edge describes what it exposes by gRPC reflection. Not, unless asked: strangers need not know.
    pub reflection: bool,
    /// Path at which the edge says by HTTP whether it serves, such as `/healthz`. Absent for nowhere; `grpc.health.v1` is
    /// answered anyhow.
    pub health_path: Option<String>,
    /// Whether the edge describes its REST routes as OpenAPI at `/openapi.json`, with a page at `/docs`.
    pub openapi: bool,
    /// Share of calls, in percent, whose first messages are looked into for fields that the contract does not declare. What
    /// is found is told; the calls go on as they are. 0 for none.
    pub sample_percent: u32,
    /// Whom the edge believes, and what it asks of callers.
    pub auth: Auth,
    /// How many requests one client may send. Absent for any number.
    pub rate_limit: Option<RateLimit>,
    /// How many requests may come, by names of your own.
    pub limits: BTreeMap<String, Limit>,
    /// Where limits and quotas are counted, all but `rate_limit`.
    pub counters: Counters,
    /// Which addresses are let in, and who is believed about addresses.
    pub addresses: Addresses,
    /// TLS at the door: HTTP/2 and HTTP/1.1 behind it, nothing without it. Absent for plain HTTP/1.1 and h2c.
    pub tls: Option<Tls>,
    /// TLS to services that ask for it. Absent where those cannot be reached. Read when the edge starts; settings that
    /// come later must say the same.
    pub inward: Option<Inward>,
    /// How requests to services are steered, by the service's name.
    pub traffic: BTreeMap<String, traffic::Service>,
    /// Which requests go, as they are, to services that speak plain HTTP.
    pub http: Vec<Prefix>,
    /// Which requests are told in the access log.
    pub access_log: journal::Config,
}

/// What the edge shows, and whom it asks for a certificate. Files are looked at again when they change; ones that cannot be
/// used are told of, and what was read before stays.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and its intermediates, in PEM. Shown to who names no host, or one that no certificate has.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// More certificates, chosen by the host that a caller names.
    #[serde(default)]
    pub more: Vec<Certificate>,
    /// Who vouches for callers, in PEM. Absent to ask them for no certificate.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a caller without a certificate is turned away.
    #[serde(default)]
    pub client_required: bool,
}

/// Whom the edge trusts behind it, and what it shows there. An instance that asks for TLS has to prove that it keeps its
/// service: the service's name stands in its certificate as a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inward {
    /// Who vouches for services, in PEM.
    pub ca: PathBuf,
    /// What the edge shows where a service asks who calls. Absent for nothing.
    #[serde(default)]
    pub identity: Option<Certificate>,
}

impl Inward {
    /// Reads the files.
    pub(crate) fn open(&self) -> Result<ClientTls, Error> {
        let identity = self.identity.as_ref().map(|one| (one.cert.clone(), one.key.clone()));
        ClientTls::new(ClientFiles { ca: Some(self.ca.clone()), identity })
            .map_err(|error| Error::SettingsInvalid(vec![format!("inward: {error}")]))
    }
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate and its intermediates, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn open(&self) -> Result<ServerTls, Error> {
        let files = ServerFiles {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_ca: self.client_ca.clone(),
            client_required: self.client_required,
        };
        let more = self.more.iter().map(|one| (one.cert.clone(), one.key.clone())).collect();
        ServerTls::with_more(files, more).map_err(|error| Error::SettingsInvalid(vec![format!("tls: {error}")]))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            headers_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            body_bytes_max: 4 << 20,
            answer_bytes_max: 16 << 20,
            headers_bytes_max: 32 << 10,
            headers_max: 100,
            target_bytes_max: 8 << 10,
            connections_max: 4096,
            streams_max: 100,
            heartbeat: Duration::from_secs(15),
            drain: Duration::from_secs(10),
            linger: Duration::from_secs(300),
            origins: vec!["*".to_owned()],
            reflection: false,
            health_path: None,
            openapi: true,
            sample_percent: 0,
            auth: Auth::default(),
            rate_limit: None,
            limits: BTreeMap::new(),
            counters: Counters::default(),
            addresses: Addresses::default(),
            tls: None,
            inward: None,
            traffic: BTreeMap::new(),
            http: Vec::new(),
            access_log: journal::Config::default(),
        }
    }
}

/// How many requests one client may send. A client is an IP address (of IPv6, its /64 network).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second, over time.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
    /// Where replicas of the edge share their counters, such as `redis://127.0.0.1:6379`. Absent to count alone.
    #[serde(default)]
    pub redis: Option<String>,
    /// Longest wait for Redis, for one request; an edge that waits longer counts alone for a second.
    #[serde(default = "redis_timeout", with = "duration")]
    pub redis_timeout: Duration,
}

/// A limit must not cost more than what it guards.
const fn redis_timeout() -> Duration {
    Duration::from_millis(50)
}

impl RateLimit {
    /// A limit that an edge keeps alone.
    pub const fn alone(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, redis: None, redis_timeout: redis_timeout() }
    }
}

impl Config {
    /// Hides what is a secret, or may hold one: passwords of the node's own file.
    pub(crate) fn hide(&mut self) {
        let redis = self.rate_limit.as_mut().and_then(|limit| limit.redis.as_mut());
        for url in redis.into_iter().chain(&mut self.counters.redis) {
            "(hidden)".clone_into(url);
        }
        self.auth.hide();
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] with all that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for (name, duration) in [
            ("deadline", self.deadline),
            ("headers_timeout", self.headers_timeout),
            ("body_timeout", self.body_timeout),
            ("answer_timeout", self.answer_timeout),
            ("heartbeat", self.heartbeat),
        ] {
            if duration.is_zero() {
                wrong.push(format!("{name} is zero"));
            }
        }
        for (name, number, least) in [
            ("body_bytes_max", self.body_bytes_max, 1),
            ("answer_bytes_max", self.answer_bytes_max, 1),
            ("headers_bytes_max", self.headers_bytes_max, 8192),
            ("headers_max", self.headers_max, 10),
            ("target_bytes_max", self.target_bytes_max, 256),
            ("connections_max", self.connections_max, 1),
            ("streams_max", self.streams_max as usize, 1),
        ] {
            if number < least {
                wrong.push(format!("{name} is {number}, less than {least}"));
            }
        }
        if self.sample_percent > 100 {
            wrong.push(format!("sample_percent is {}, more than 100", self.sample_percent));
        }
        for (name, bytes) in [("headers_bytes_max", self.headers_bytes_max), ("body_bytes_max", self.body_bytes_max)] {
            if u32::try_from(bytes).is_err() {
                wrong.push(format!("{name} is {bytes}, more than 4 GiB"));
            }
        }
        for origin in &self.origins {
            if origin != "*" && (http::HeaderValue::try_from(origin).is_err() || !origin.contains("://")) {
                wrong.push(format!("origins: {origin:?} is neither * nor an origin such as https://shop.example"));
            }
        }
        if let Some(path) = &self.health_path
            && !(path.starts_with('/') && path.parse::<PathAndQuery>().is_ok_and(|known| known.path() == path))
        {
            wrong.push(format!("health_path: {path:?} is no path such as /healthz"));
        }
        if let Some(limit) = &self.rate_limit
            && (limit.per_second == 0 || limit.burst == 0)
        {
            wrong.push("rate_limit: per_second and burst must be at least 1".to_owned());
        }
        if self.rate_limit.as_ref().is_some_and(|limit| limit.redis_timeout.is_zero()) {
            wrong.push("rate_limit: redis_timeout is zero".to_owned());
        }
        if self.tls.as_ref().is_some_and(|tls| tls.client_required && tls.client_ca.is_none()) {
            wrong.push("tls: client_required needs client_ca".to_owned());
        }
        wrong.extend(self.auth.mistakes().into_iter().map(|wrong| format!("auth.{wrong}")));
        wrong.extend(limit::mistakes(&self.limits));
        wrong.extend(self.addresses.mistakes().into_iter().map(|wrong| format!("addresses.{wrong}")));
        if self.counters.redis_timeout.is_zero() {
            wrong.push("counters.redis_timeout is zero".to_owned());
        }
        wrong.extend(self.access_log.mistakes().into_iter().map(|wrong| format!("access_log.{wrong}")));
        wrong.extend(proxy::mistakes(&self.http));
        for (service, traffic) in &self.traffic {
            wrong.extend(traffic.mistakes().into_iter().map(|wrong| format!("traffic.{service}.{wrong}")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::SettingsInvalid(wrong)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_all_mistakes_are_told_at_once() {
        assert!(Config::default().check().is_ok());
        let config =
            Config { deadline: Duration::ZERO, headers_max: 0, origins: vec!["shop".to_owned()], ..Config::default() };
        let Err(Error::SettingsInvalid(wrong)) = config.check() else { panic!("three mistakes") };
        assert_eq!(wrong.len(), 3);
    }
}
