//! Prefixes of paths whose requests go to services that speak plain HTTP: declared in settings, as such services have no
//! contract to say it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use ninefold::connect::policy::Timeouts;
use ninefold::connect::{Channel, Discovery, Policy};
use ninefold::settings::duration;
use ninefold_proto::ninefold::gateway::v1 as wire;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use serde::{Deserialize, Serialize};

use crate::contract::Method;
use crate::contracts::STREAM_START_MAX;
use crate::error::Error;
use crate::path::{self, Path};
use crate::routes::Route;
use crate::transcode::notation::Notation;

/// Most prefixes.
const PREFIXES_MAX: usize = 256;
/// The verbs that rules, limits and policies tell apart; the last stands for all others.
const VERBS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER];
/// Any other verb.
const OTHER: &str = "_OTHER";

/// A prefix of paths, and the service that gets its requests as they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prefix {
    /// Whole segments that a path begins with, such as `/blog`; `/` for all that no contract has a route for.
    pub prefix: String,
    /// Name of the service. Only its instances that are registered as speaking HTTP are asked.
    pub service: String,
    /// What stands in the prefix's place in the service's own path, such as `/`. Absent for the prefix itself.
    #[serde(default)]
    pub replace: Option<String>,
    /// HTTP methods that pass. All but TRACE and CONNECT, if there are none.
    #[serde(default)]
    pub verbs: BTreeSet<String>,
    /// Most bytes of a request's body, instead of the edge's `body_bytes_max`.
    #[serde(default)]
    pub body_bytes_max: Option<u64>,
    /// Longest pause within an answer or, after an upgrade, of both sides.
    #[serde(default = "idle", with = "duration")]
    pub idle: Duration,
}

/// Long enough for a stream of events whose service seldom has something to say.
const fn idle() -> Duration {
    Duration::from_secs(300)
}

impl Prefix {
    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, text) in [("prefix", Some(&self.prefix)), ("replace", self.replace.as_ref())] {
            let Some(text) = text else { continue };
            match Path::parse(text) {
                Err(path::Malformed(why)) => wrong.push(format!("{name} {text:?}: {why}")),
                Ok(path) if path.segments().iter().any(|one| one.is_empty() || one.contains(['*', '?', '#', '{'])) => {
                    wrong.push(format!("{name} {text:?} is to be plain segments, such as /blog"));
                }
                Ok(_) => {}
            }
        }
        if self.service.is_empty() {
            wrong.push("service is empty".to_owned());
        }
        if self.idle.is_zero() {
            wrong.push("idle is zero".to_owned());
        }
        for verb in &self.verbs {
            if matches!(verb.as_str(), "TRACE" | "CONNECT") || !verb.bytes().all(|byte| byte.is_ascii_uppercase()) {
                wrong.push(format!("verbs: {verb:?} does not pass"));
            }
        }
        wrong
    }

    /// Whether a verb passes. TRACE would show what the edge adds, and CONNECT is no request for a service.
    pub(crate) fn takes(&self, verb: &str) -> bool {
        !matches!(verb, "TRACE" | "CONNECT") && (self.verbs.is_empty() || self.verbs.contains(verb))
    }

    /// The prefix as a template.
    fn template(&self) -> String {
        format!("{}/**", self.prefix.trim_end_matches('/'))
    }
}

/// All that is wrong with prefixes.
pub(crate) fn mistakes(prefixes: &[Prefix]) -> Vec<String> {
    let mut wrong = Vec::new();
    if prefixes.len() > PREFIXES_MAX {
        wrong.push(format!("http has {} prefixes, more than {PREFIXES_MAX}", prefixes.len()));
    }
    let mut known = BTreeSet::new();
    for (at, prefix) in prefixes.iter().enumerate() {
        wrong.extend(prefix.mistakes().into_iter().map(|wrong| format!("http[{at}].{wrong}")));
        if !known.insert(prefix.template()) {
            wrong.push(format!("http[{at}].prefix {:?} is there twice", prefix.prefix));
        }
    }
    wrong
}

/// All prefixes, as requests look them up. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    /// The longest first.
    all: Arc<[Proxy]>,
    discovery: Discovery,
}

/// A prefix, and who answers.
#[derive(Debug)]
pub(crate) struct Proxy {
    segments: Vec<String>,
    pub(crate) prefix: Arc<Prefix>,
    /// One for each of [`VERBS`].
    routes: Vec<Arc<Route>>,
    pub(crate) channel: Channel,
}

impl Proxies {
    /// No prefixes.
    pub(crate) fn new(discovery: Discovery) -> Self {
        Self { all: Arc::default(), discovery }
    }

    /// The same with other prefixes, which have been checked.
    pub(crate) fn renewed(&self, prefixes: &[Prefix]) -> Self {
        let mut all: Vec<Proxy> =
            prefixes.iter().filter_map(|prefix| Proxy::new(prefix.clone(), &self.discovery)).collect();
        all.sort_by_key(|proxy| std::cmp::Reverse(proxy.segments.len()));
        Self { all: all.into(), discovery: self.discovery.clone() }
    }

    /// Whose a path is: the longest prefix goes first.
    pub(crate) fn find(&self, path: &Path) -> Option<&Proxy> {
        self.all.iter().find(|proxy| path.segments().starts_with(&proxy.segments))
    }

    /// All prefixes of a service, or of all, in the words of the contract.
    pub(crate) fn words(&self, service: &str) -> Vec<wire::Route> {
        let named = self.all.iter().filter(|proxy| service.is_empty() || proxy.prefix.service == service);
        named.flat_map(Proxy::words).collect()
    }
}

impl Proxy {
    /// `None` if it is no prefix, which [`mistakes`] tells.
    fn new(prefix: Prefix, discovery: &Discovery) -> Option<Self> {
        let segments = Path::parse(&prefix.prefix).ok()?.segments().to_vec();
        let timeouts = Timeouts { call: STREAM_START_MAX, ..Timeouts::default() };
        let channel = discovery.http_channel(&prefix.service, Policy { timeouts, ..Policy::default() });
        let prefix = Arc::new(prefix);
        let routes = VERBS.iter().map(|verb| route(&prefix, verb)).collect::<Option<_>>()?;
        Some(Self { segments, prefix, routes, channel })
    }

    /// The way of a request.
    ///
    /// # Errors
    /// [`Error::VerbNotAllowed`].
    pub(crate) fn route(&self, verb: &str) -> Result<&Arc<Route>, Error> {
        if !self.prefix.takes(verb) {
            let verbs: Vec<_> = match self.prefix.verbs.is_empty() {
                true => VERBS[..7].iter().map(ToString::to_string).collect(),
                false => self.prefix.verbs.iter().cloned().collect(),
            };
            return Err(Error::VerbNotAllowed { verb: verb.chars().take(32).collect(), allowed: verbs });
        }
        let at = VERBS.iter().position(|known| *known == verb).unwrap_or(VERBS.len() - 1);
        Ok(&self.routes[at])
    }

    /// The path that the service is asked for. A slash at the end, which routing overlooks, stays: it may mean something
    /// to the service.
    pub(crate) fn target(&self, path: &Path, raw: &PathAndQuery) -> Option<PathAndQuery> {
        let (before, rest) = match &self.prefix.replace {
            Some(replace) => (replace.trim_end_matches('/'), &path.segments()[self.segments.len()..]),
            None => ("", path.segments()),
        };
        let mut target = before.to_owned();
        for segment in rest {
            target.push('/');
            target.push_str(segment);
        }
        if target.is_empty() || (raw.path().ends_with('/') && !target.ends_with('/')) {
            target.push('/');
        }
        if let Some(query) = raw.query() {
            target.push('?');
            target.push_str(query);
        }
        target.try_into().ok()
    }

    /// The prefix in the words of the contract: once, or once for each verb.
    pub(crate) fn words(&self) -> Vec<wire::Route> {
        let verbs: Vec<&str> = match self.prefix.verbs.is_empty() {
            true => vec![crate::table::ANY_VERB],
            false => self.prefix.verbs.iter().map(String::as_str).collect(),
        };
        let word = |verb: &str| wire::Route {
            verb: verb.to_owned(),
            template: self.prefix.template(),
            service: self.prefix.service.clone(),
            protocol: wire::RouteProtocol::Http.into(),
            ..wire::Route::default()
        };
        verbs.into_iter().map(word).collect()
    }
}

/// The route of a verb: what stands for its method has no messages, and is named by the verb.
fn route(prefix: &Arc<Prefix>, verb: &str) -> Option<Arc<Route>> {
    let method = Method {
        protobuf_service: String::new(),
        name: verb.to_owned(),
        place: format!("http {}", prefix.prefix).into(),
        path: prefix.template().try_into().ok()?,
        input: empty()?,
        output: empty()?,
        reading: None,
        writing: None,
        is_client_streaming: false,
        is_server_streaming: false,
        is_safe: matches!(verb, "GET" | "HEAD" | "OPTIONS"),
        timeout: None,
        requirement: None,
        notation: Notation::default(),
        bindings: Vec::new(),
    };
    Some(Arc::new(Route {
        service: prefix.service.as_str().into(),
        method: Arc::new(method),
        binding: None,
        is_plain: true,
        among: Arc::default(),
    }))
}

fn empty() -> Option<MessageDescriptor> {
    DescriptorPool::global().get_message_by_name("google.protobuf.Empty")
}

/// Names of the services that speak plain HTTP.
pub(crate) fn services(prefixes: &[Prefix]) -> BTreeSet<&str> {
    prefixes.iter().map(|prefix| prefix.service.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(prefix: &str) -> Prefix {
        serde_json::from_value(serde_json::json!({"prefix": prefix, "service": "blog"})).unwrap()
    }

    #[test]
    fn what_is_no_prefix_is_told_with_its_place() {
        assert!(mistakes(&[prefix("/"), prefix("/blog"), prefix("/blog/a%20b")]).is_empty());
        for wrong in ["", "blog", "/blog//x", "/blog/*", "/a/../b", "/a?b"] {
            assert!(!mistakes(&[prefix(wrong)]).is_empty(), "{wrong}");
        }
        assert_eq!(mistakes(&[prefix("/blog"), prefix("/blog/")]), ["http[1].prefix \"/blog/\" is there twice"]);
        let trace = Prefix { verbs: ["TRACE".to_owned()].into(), ..prefix("/x") };
        assert_eq!(mistakes(&[trace]), ["http[0].verbs: \"TRACE\" does not pass"]);
    }

    #[test]
    fn a_route_is_made_for_every_verb() {
        assert!(VERBS.iter().all(|verb| route(&Arc::new(prefix("/")), verb).is_some()));
    }
}
