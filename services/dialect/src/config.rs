//! Settings of the dialects.

use std::net::SocketAddr;
use std::time::Duration;

use ninefold::fault::Violation;
use ninefold::settings::duration;
use serde::Deserialize;

/// How the landscape is told in the dialects of others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most xDS streams of this node.
    pub xds_streams_max: usize,
    /// How long a service is told after its last instance left, so that a restart costs nobody a route.
    #[serde(with = "duration")]
    pub linger: Duration,
    /// How long after a start of the platform nobody is told that something is not there: its instances may be on their
    /// way back.
    #[serde(with = "duration")]
    pub settle: Duration,
    /// Where DNS is answered, over UDP and TCP. Not at all where this is absent.
    pub dns_listen: Option<SocketAddr>,
    /// Whether DNS, which asks nobody who they are, may be answered where others than this machine reach it.
    pub dns_open: bool,
    /// The domain that DNS answers for.
    pub dns_zone: String,
    /// How long an answer of DNS may be kept. At most 60 s; more than a second hides what changes.
    #[serde(with = "duration")]
    pub dns_ttl: Duration,
    /// Most connections over which DNS is asked by TCP.
    pub dns_connections_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            xds_streams_max: 5000,
            linger: Duration::from_secs(60),
            settle: Duration::from_secs(5),
            dns_listen: None,
            dns_open: false,
            dns_zone: "ninefold".to_owned(),
            dns_ttl: Duration::from_secs(1),
            dns_connections_max: 64,
        }
    }
}

impl Config {
    /// Names every setting whose value cannot work. Empty when all is well.
    pub fn mistakes(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = |holds: bool, field: &str, description: String| {
            if !holds {
                found.push(Violation::new(field, description));
            }
        };
        let text = duration::format;
        for (value, field) in
            [(self.xds_streams_max, "xds_streams_max"), (self.dns_connections_max, "dns_connections_max")]
        {
            check(value > 0, field, "is 0, must be at least 1".to_owned());
        }
        check(
            self.settle <= Duration::from_secs(60),
            "settle",
            format!("is {}, must be at most 60s", text(self.settle)),
        );
        check(
            self.linger <= Duration::from_secs(86400),
            "linger",
            format!("is {}, must be at most 24h", text(self.linger)),
        );
        check(
            self.dns_ttl <= Duration::from_secs(60),
            "dns_ttl",
            format!("is {}, must be at most 60s", text(self.dns_ttl)),
        );
        let is_reached = self.dns_listen.is_some_and(|address| !address.ip().is_loopback());
        check(
            self.dns_open || !is_reached,
            "dns_listen",
            "is reached from elsewhere, and DNS asks nobody who they are: say so with dns_open = true".to_owned(),
        );
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
        };
        let is_zone = self.dns_zone.len() <= 100 && self.dns_zone.split('.').all(is_label);
        check(is_zone, "dns_zone", format!("is {:?}, must be a domain such as \"ninefold\"", self.dns_zone));
        found
    }
}
