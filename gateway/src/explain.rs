//! What would become of a request, without sending it: its route, why others are not its route, the message it becomes, what
//! is declared for it, and who would answer.

use std::cmp::{Ordering, Reverse};
use std::net::Ipv4Addr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use ninefold::connect::{LandscapeView, Protocol, State};
use ninefold::fault::{self, Fault as _};
use ninefold::settings::duration;
use ninefold_proto::ninefold::gateway::v1::{Candidate, Effect, MatchRouteRequest, MatchRouteResponse, NearMiss};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};

use crate::edge::Edge;
use crate::error::Error;
use crate::path::{self, Path};
use crate::pattern::{Pattern, Segment};
use crate::routes::Route;
use crate::table::Found;
use crate::traffic::{Asker, Claims, Steered};
use crate::transcode;
use crate::transcode::notation::Notation;

/// Most routes that are told for why they are not the one.
const NEAR_MAX: usize = 5;

/// A request that nobody sends.
struct Supposed {
    verb: String,
    target: String,
    path: Path,
    headers: HeaderMap,
    claims: Claims,
    body: Vec<u8>,
}

impl Supposed {
    fn new(request: MatchRouteRequest) -> Result<Self, Error> {
        let raw = request.path.split(['?', '#']).next().unwrap_or_default();
        let path = Path::parse(raw).map_err(|path::Malformed(why)| Error::invalid("path", why))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            let name = name.map_err(|_| Error::invalid("headers", "a name is no name of a header"))?;
            let value = HeaderValue::try_from(value);
            headers.append(name, value.map_err(|_| Error::invalid("headers", "a value is no value of a header"))?);
        }
        let claim = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        let claims: Map<_, _> = request.claims.into_iter().map(|(name, text)| (name, claim(text))).collect();
        Ok(Self {
            verb: request.verb,
            path,
            headers,
            claims: Claims(Arc::new(claims)),
            body: request.body.into_bytes(),
            target: request.path,
        })
    }

    fn is_grpc(&self) -> bool {
        let kind = self.headers.get(http::header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    fn asker(&self) -> Asker<'_> {
        Asker { headers: &self.headers, claims: Some(&self.claims), address: Ipv4Addr::LOCALHOST.into() }
    }
}

/// Tells what would become of a request.
///
/// # Errors
/// [`Error::RequestInvalid`] for what can be no request.
pub(crate) fn explain(
    edge: &Edge,
    view: &LandscapeView,
    request: MatchRouteRequest,
) -> Result<MatchRouteResponse, Error> {
    let supposed = Supposed::new(request)?;
    let published = edge.published.load_full();
    let raw = supposed.target.split(['?', '#']).next().unwrap_or_default();
    let (route, path) = if supposed.is_grpc() {
        (published.routes.grpc(raw), supposed.path.clone())
    } else {
        match published.routes.rest(&supposed.verb, supposed.path.clone()) {
            Found::Value { value, path } => (Some(value), path),
            Found::OtherVerbs(_) | Found::Nothing => (None, supposed.path.clone()),
        }
    };
    let plain = edge.proxies.find(&supposed.path).filter(|_| route.is_none() && !supposed.is_grpc());
    let plain = plain.and_then(|proxy| Some((proxy, proxy.route(&supposed.verb).ok()?)));
    let route = route.or(plain.map(|(_, route)| route));
    let mut near = near_misses(published.routes.rest_routes(), route, &supposed);
    if route.is_none()
        && let Some(method) = published.routes.grpc(raw)
    {
        let reason = "it is a gRPC method: POST with a content-type of application/grpc".to_owned();
        near.insert(0, NearMiss { route: Some(method.words()), reason });
    }
    let mut answer = MatchRouteResponse { near_misses: near, ..MatchRouteResponse::default() };
    let Some(route) = route else { return Ok(answer) };
    if let Some((proxy, _)) = plain {
        answer.route = proxy.words().into_iter().find(|words| words.verb == "*" || words.verb == supposed.verb);
        let target = supposed.target.parse().ok().and_then(|raw| proxy.target(&path, &raw));
        answer.request = target.map(|target| format!("{} {target}", supposed.verb)).unwrap_or_default();
    } else if let Some((words, bindings)) = published.routes.matching(&supposed.verb, supposed.path.clone())
        && !supposed.is_grpc()
    {
        (answer.route, answer.bindings) = (Some(words), bindings);
    } else {
        answer.route = Some(route.words());
    }
    match message(route, &path, &supposed, edge.traffic.all.notation(route)) {
        Ok(json) if plain.is_none() => answer.request = json,
        Ok(_) => {}
        Err(error) => answer.refusal = fault::chain(&error),
    }
    let asked = edge.requirement(route);
    let claims = Some(supposed.claims.0.clone()).filter(|claims| !claims.is_empty());
    let asked = asked.map(|asked| edge.doorkeeper.suppose(&asked, claims));
    if let Some((_, Some(error))) = &asked {
        answer.refusal = format!("{}: {error}", error.reason());
    }
    let steered = edge.traffic.steer(route, &supposed.asker());
    if let Err(maintenance) = &steered {
        answer.refusal = format!("MAINTENANCE: {}", maintenance.text);
    }
    let steered = steered.unwrap_or_default();
    answer.effects = effects(edge, view, route, &steered);
    answer.effects.extend(shadows(published.routes.rest_routes(), route));
    let asks = |(text, _)| Effect { kind: "asks for".to_owned(), text };
    answer.effects.extend(asked.map(asks));
    answer.candidates = candidates(view, route, &steered);
    Ok(answer)
}

/// The message that a request becomes, as JSON. Empty for gRPC, whose message is its body.
fn message(route: &Route, path: &Path, supposed: &Supposed, notation: Notation) -> Result<String, Error> {
    let Some(binding) = &route.binding else { return Ok(String::new()) };
    let query = supposed.target.split_once('?').map_or("", |(_, query)| query.split('#').next().unwrap_or_default());
    let body = supposed.body.clone().into();
    let parts = transcode::Parts { path, query, headers: &supposed.headers, body, notation };
    let raw = transcode::request(&route.method, binding, &parts)?;
    let read = DynamicMessage::decode(route.method.input.clone(), &*raw);
    let read = read.map_err(|error| Error::invalid("", error.to_string()))?;
    let mut json = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut json);
    let written = read.serialize_with_options(&mut writer, &SerializeOptions::new());
    written.map_err(|error| Error::invalid("", error.to_string()))?;
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// What is declared for a route, and what of it meets this request.
fn effects(edge: &Edge, view: &LandscapeView, route: &Route, steered: &Steered) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut add = |kind: &str, text: String| effects.push(Effect { kind: kind.to_owned(), text });
    let is_stream = route.method.is_server_streaming || route.method.is_client_streaming;
    match (is_stream, steered.timeout) {
        (true, _) => add("timeout", "a stream: as long as its caller says".to_owned()),
        (false, Some(time)) => add("timeout", format!("{}, declared for it", duration::format(time))),
        (false, None) => add("timeout", format!("{}, the edge's own", duration::format(edge.config.deadline))),
    }
    add("body", format!("at most {} bytes", edge.config.body_bytes_max));
    if let Some(limit) = &edge.config.rate_limit {
        add("limit", format!("{} requests a second of one client, {} at once", limit.per_second, limit.burst));
    }
    for text in edge.limits.words(edge.traffic.rules(route).map(|rules| rules.limits_at())) {
        add("limit", text);
    }
    for (kind, text) in edge.traffic.rules(route).map(|rules| rules.words()).unwrap_or_default() {
        add(kind, text);
    }
    if let Some(text) = route.binding.as_ref().and_then(|_| edge.traffic.all.notation(route).words()) {
        add("json", text);
    }
    match steered.canary {
        Some(number) => add("falls to", format!("canary {number}")),
        None if steered.subset.is_some() => add("falls to", "all but canaries and mirrors".to_owned()),
        None => {}
    }
    match view.policy(&route.service) {
        Some(policy) => add("policy", format!("of {}, revision {}", route.service, policy.revision)),
        None => add("policy", "the defaults".to_owned()),
    }
    effects
}

/// What routes of other services take of a route's requests, or this one of theirs: its contract's author may not know.
fn shadows(all: &[Arc<Route>], route: &Arc<Route>) -> Vec<Effect> {
    let Some(own) = &route.binding else { return Vec::new() };
    let told = all.iter().filter(|other| other.service != route.service).filter_map(|other| {
        let binding = other.binding.as_ref()?;
        let any = crate::table::ANY_VERB;
        if binding.verb != own.verb && binding.verb != any && own.verb != any {
            return None;
        }
        let named = format!("{} {} of {} ({})", binding.verb, other.template(), other.service, other.method.name);
        let (kind, text) = match own.pattern.beside(&binding.pattern)? {
            Ordering::Less => ("shadows", format!("it goes before {named} where both match")),
            _ => ("shadowed", format!("{named} goes before it where both match")),
        };
        Some(Effect { kind: kind.to_owned(), text })
    });
    told.take(NEAR_MAX).collect()
}

/// The instances of a route's service, and whether the request may go there.
fn candidates(view: &LandscapeView, route: &Route, steered: &Steered) -> Vec<Candidate> {
    let one = |instance: &Arc<ninefold::connect::Instance>| {
        let is_in_subset = steered.subset.as_ref().is_none_or(|subset| subset.has(instance));
        let why = match instance.state {
            State::Serving if route.is_plain != (instance.protocol == Protocol::Http) => "it speaks otherwise",
            State::Serving if !route.is_plain && !route.among.contains(&instance.contract_digest) => {
                "its contract reads it otherwise"
            }
            State::Serving if !is_in_subset => "others are chosen",
            State::Serving => "",
            State::Suspect => "suspect: only where nobody else can answer",
            State::Starting => "starting",
            State::Draining => "draining",
            State::Gone => "gone",
        };
        Candidate {
            instance_id: instance.id.to_string(),
            version: instance.version.clone(),
            address: instance.addresses.first().map(ToString::to_string).unwrap_or_default(),
            chosen: why.is_empty(),
            reason: why.to_owned(),
        }
    };
    view.instances(&route.service).iter().map(one).collect()
}

/// The routes that came closest, the closest first, and why each is not the one.
fn near_misses(all: &[Arc<Route>], chosen: Option<&Arc<Route>>, supposed: &Supposed) -> Vec<NearMiss> {
    let mut near: Vec<(usize, NearMiss)> = all
        .iter()
        .filter(|route| chosen.is_none_or(|chosen| !Arc::ptr_eq(chosen, route)))
        .filter_map(|route| {
            let binding = route.binding.as_ref()?;
            let (closeness, reason) = difference(&binding.pattern, &binding.verb, supposed, chosen.map(|one| &**one))?;
            Some((closeness, NearMiss { route: Some(route.words()), reason }))
        })
        .collect();
    near.sort_by_key(|(closeness, near)| {
        (Reverse(*closeness), near.route.as_ref().map(|route| (route.template.clone(), route.verb.clone())))
    });
    near.into_iter().take(NEAR_MAX).map(|(_, near)| near).collect()
}

/// How close a template is, and why it does not match. `None` if they have nothing in common.
fn difference(pattern: &Pattern, verb: &str, supposed: &Supposed, chosen: Option<&Route>) -> Option<(usize, String)> {
    let whole = supposed.path.clone();
    let (stem, custom) = match (pattern.verb(), whole.split_verb()) {
        (Some(_), Some((stem, custom))) => (stem, Some(custom)),
        (_, _) => (whole, None),
    };
    let segments = stem.segments();
    let mut alike = 0;
    for (at, wanted) in pattern.segments().iter().enumerate() {
        let said = segments.get(at);
        let reason = match (wanted, said) {
            (Segment::Rest, _) => break,
            (Segment::Literal(wanted), Some(said)) if wanted == said => None,
            (Segment::Any, Some(said)) if !said.is_empty() => None,
            (Segment::Literal(wanted), Some(said)) => Some(format!("segment {} is {said:?}, not {wanted:?}", at + 1)),
            (Segment::Any, Some(_)) => Some(format!("segment {} is empty", at + 1)),
            (_, None) => Some(format!("the path ends after {} of {} segments", at, pattern.segments().len())),
        };
        if let Some(reason) = reason {
            return (alike > 0).then_some((alike, reason));
        }
        alike += if matches!(wanted, Segment::Literal(_)) { 2 } else { 1 };
    }
    let has_rest = pattern.segments().last() == Some(&Segment::Rest);
    if !has_rest && segments.len() > pattern.segments().len() {
        let reason = format!("the path has {} segments, the template {}", segments.len(), pattern.segments().len());
        return (alike > 0).then_some((alike, reason));
    }
    if let Some(wanted) = pattern.verb().filter(|wanted| custom.as_deref() != Some(*wanted)) {
        return Some((alike, format!("it ends in :{wanted}")));
    }
    if verb != supposed.verb && verb != crate::table::ANY_VERB {
        return Some((alike + 1, format!("it takes {verb}, not {}", supposed.verb)));
    }
    let chosen = chosen.map_or("another", Route::template);
    Some((alike + 2, format!("it matches too, but {chosen} is more literal")))
}
