//! One request, from its head to its answer: guard, kind, then REST or gRPC.

mod admit;
pub(crate) mod bindings;
pub(crate) mod connect;
mod cors;
mod documents;
mod farewell;
mod grpc;
mod own;
mod pieces;
mod plain;
mod rest;
mod socket;
mod upload;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use ninefold::connect::{Among, deadline};
use ninefold::lifecycle::Stop;
use ninefold::telemetry::Requests;
use ninefold::tls::{Peer, ServerTls};
use ninefold::tonic::body::Body;
use tracing::Instrument as _;

use cors::Cors;

use crate::access::Record;
use crate::config::{Config, Tls};
use crate::contracts::Published;
use crate::error::Error;
use crate::guard::limits::Limits;
use crate::guard::{self, Doorkeeper, Known, Origin, inspector::Inspector};
use crate::journal::Journal;
use crate::limit::{self, Limiter};
use crate::patience::Answers;
use crate::proxy::{self, Proxies};
use crate::reply;
use crate::routes::{Route, Routes};
use crate::sample::Sampler;
use crate::traffic::mirror::Draft;
use crate::traffic::{Asker, Maintenance, Steered, Traffic};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What all requests share. A request holds the one that it began with to its end; new settings make a new one.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) config: Config,
    pub(crate) published: Arc<ArcSwap<Published>>,
    pub(crate) requests: Requests,
    pub(crate) limiter: Option<Arc<Limiter>>,
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) limits: Limits,
    pub(crate) sampler: Sampler,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) traffic: Traffic,
    pub(crate) proxies: Proxies,
    pub(crate) journal: Journal,
    pub(crate) stop: Stop,
}

/// Who is at the other end of a connection.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Its address as services are told of it.
    name: Option<HeaderValue>,
    pub(crate) inspector: Inspector,
    pub(crate) requests: AtomicU64,
    /// Whether it came by TLS, and what its certificate says.
    pub(crate) peer: Option<Peer>,
    /// What goes on with the connection when it is no longer one of HTTP.
    conversation: Mutex<Option<BoxFuture<'static, ()>>>,
    /// Its answers by HTTP/2 that are under way.
    pub(crate) answers: Answers,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Client {
    /// Somebody who has just come.
    pub(crate) fn new(address: SocketAddr, inspector: Inspector, peer: Option<Peer>) -> Self {
        let name = HeaderValue::try_from(address.ip().to_canonical().to_string()).ok();
        Self {
            address,
            name,
            inspector,
            requests: AtomicU64::new(0),
            peer,
            conversation: Mutex::default(),
            answers: Answers::default(),
        }
    }

    /// Whether a request of HTTP/1 has come.
    pub(crate) fn has_asked_http1(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Where a request of theirs comes from.
    fn origin(&self, head: &Parts) -> Origin {
        let itself = || Origin { address: self.address.ip().to_canonical(), is_secure: self.peer.is_some() };
        head.extensions.get().copied().unwrap_or_else(itself)
    }

    /// Leaves a conversation to the connection, for when its last answer is written.
    fn converse(&self, conversation: BoxFuture<'static, ()>) {
        *self.conversation.lock().unwrap_or_else(PoisonError::into_inner) = Some(conversation);
    }

    /// The conversation that goes on.
    pub(crate) fn conversation(&self) -> Option<BoxFuture<'static, ()>> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a request speaks, told by its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Rest,
    Grpc,
    GrpcWeb,
    Connect,
}

impl Spoken {
    fn by(head: &Parts, routes: &Routes) -> Self {
        match head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default() {
            b"application/grpc-web"
            | b"application/grpc-web+proto"
            | b"application/grpc-web-text"
            | b"application/grpc-web-text+proto" => Self::GrpcWeb,
            b"application/grpc" => Self::Grpc,
            kind if kind.starts_with(b"application/grpc+") || kind.starts_with(b"application/grpc;") => Self::Grpc,
            _ if connect::is_spoken(head, routes) => Self::Connect,
            _ => Self::Rest,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Connect => "connect",
        }
    }
}

impl Edge {
    /// The same with other settings. What they do not change stays, and so does what was counted.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] with all that is wrong.
    pub(crate) fn renewed(&self, config: Config) -> Result<Self, Error> {
        config.check()?;
        if config.inward != self.config.inward {
            return Err(Error::SettingsInvalid(vec!["inward: cannot change while the edge works".to_owned()]));
        }
        let limiter = match &config.rate_limit {
            limit if *limit == self.config.rate_limit => self.limiter.clone(),
            limit => limit.as_ref().map(Limiter::of_clients).transpose()?.map(Arc::new),
        };
        let tls = match &config.tls {
            tls if *tls == self.config.tls => self.tls.clone(),
            tls => tls.as_ref().map(Tls::open).transpose()?,
        };
        Ok(Self {
            limiter,
            tls,
            limits: self.limits.renewed(&config)?,
            doorkeeper: self.doorkeeper.renewed(&config.auth),
            sampler: self.sampler.drawing(config.sample_percent),
            traffic: self.traffic.renewed(&config.traffic, &proxy::services(&config.http)),
            proxies: self.proxies.renewed(&config.http),
            journal: self.journal.renewed(&config.access_log),
            config,
            ..self.clone()
        })
    }

    /// Answers a request. Whatever happens becomes an answer.
    pub(crate) async fn serve(&self, request: Request<Incoming>, client: &Client) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let is_http2 = head.version == Version::HTTP_2;
        if let Some(peer) = &client.peer {
            head.extensions.insert(peer.clone());
        }
        let spoken = Spoken::by(&head, &self.published.load().routes);
        let mut record = Record::begin(&head.method, &head.headers, self.requests.clone());
        record.protocol = spoken.name();
        record.journal = Some(self.journal.clone());
        let span = record.span.clone();
        let cors = Cors::of(&head, &self.config.origins);
        let answered = self.answer(head, body, spoken, &cors, client, &mut record).instrument(span.clone()).await;
        let mut answer = answered.unwrap_or_else(|error| {
            let _entered = span.enter();
            let chain = ninefold::fault::chain(&error);
            if matches!(error, Error::AnswerMalformed { .. }) {
                tracing::warn!(error = chain, "an answer was refused");
            } else {
                tracing::debug!(error = chain, "a request was refused");
            }
            reply::of_error(&error)
        });
        limit::tell(&record.verdicts, answer.headers_mut());
        cors.permit(answer.headers_mut());
        let answer = record.follow(answer);
        if is_http2 && !answer.body().is_end_stream() { answer.map(|body| client.answers.hold(body)) } else { answer }
    }

    async fn answer(
        &self,
        mut head: Parts,
        body: Incoming,
        spoken: Spoken,
        cors: &Cors,
        client: &Client,
        record: &mut Record,
    ) -> Result<Response<Body>, Error> {
        let path = self.guard(&head, client)?;
        if let Some(preflight) = cors.preflight(&head) {
            return Ok(preflight);
        }
        let admitted = self.come_from(&mut head, client, record).await;
        match (admitted, spoken) {
            (Err(error), Spoken::Rest) => Err(error),
            (Err(error), Spoken::Grpc) => Ok(reply::of_error_to_grpc(&error)),
            (Err(error), Spoken::GrpcWeb) => Ok(reply::of_error_to_grpc_web(&error)),
            (Err(error), Spoken::Connect) => Ok(connect::refused(&head, &error)),
            (Ok(()), Spoken::Rest) if self.is_plain(&head, &path) => match cors {
                Cors::Refused if socket::is_asked(&head) => Err(Error::OriginRefused),
                Cors::Refused | Cors::NoPage | Cors::Allowed(_) => {
                    Box::pin(self.plain(head, &path, body, client, record)).await
                }
            },
            (Ok(()), Spoken::Rest) if socket::is_asked(&head) => match cors {
                // A page may open a socket to anywhere; only the origin that it names keeps strangers' pages out.
                Cors::Refused => Err(Error::OriginRefused),
                Cors::NoPage | Cors::Allowed(_) => self.socket(head, &path, client, record).await,
            },
            // In boxes, or the future of each request is as large as the largest of them, and moved as a whole.
            (Ok(()), Spoken::Rest) => Box::pin(self.rest(head, path, body, client, record)).await,
            (Ok(()), Spoken::Grpc) => Ok(self.grpc(head, body, client, record).await),
            (Ok(()), Spoken::GrpcWeb) => Ok(Box::pin(self.grpc_web(head, body, client, record)).await),
            (Ok(()), Spoken::Connect) => Ok(Box::pin(self.connect(head, body, client, record)).await),
        }
    }

    /// Checks a head. Every request of a connection must come here, as they are counted.
    fn guard(&self, head: &Parts, client: &Client) -> Result<crate::path::Path, Error> {
        if head.version < Version::HTTP_2 {
            let number = client.requests.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some(why) = client.inspector.violation(number) {
                return Err(Error::RequestMalformed(why));
            }
        }
        guard::check(head, &self.config)
    }

    /// Where a request goes, and how long it may take.
    ///
    /// # Errors
    /// [`Error::Maintenance`] where that is what is answered instead.
    fn steer(&self, head: &Parts, route: &Route, client: &Client) -> Result<Steered, Error> {
        let asker =
            Asker { headers: &head.headers, claims: head.extensions.get(), address: client.origin(head).address };
        let steered = self.traffic.steer(route, &asker);
        steered.map_err(|Maintenance { text, retry_after, .. }| Error::Maintenance { text, retry_after })
    }

    /// The copy of a call that others hear, if any do.
    fn copied(&self, steered: &Steered, call: &Request<()>, route: &Route) -> Option<Draft> {
        // What has no end in sight is not copied.
        let heard = steered.mirror.as_ref().filter(|_| !route.method.is_client_streaming)?;
        Some(self.traffic.mirrors.copy(call, heard.channel.clone(), heard.subset.clone()))
    }

    /// The head of the call that a request becomes, without the headers that `except` names.
    fn call(
        &self,
        (head, except): (&Parts, &[HeaderName]),
        route: &Route,
        client: &Client,
        steered: &Steered,
        record: &Record,
    ) -> Request<()> {
        let mut call = Request::new(());
        *call.method_mut() = http::Method::POST;
        *call.uri_mut() = route.method.path.clone().into();
        *call.version_mut() = Version::HTTP_2;
        let mut headers = self.headers((head, except), route, client, record);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        *call.headers_mut() = headers;
        call.extensions_mut().insert(Among(route.among.clone()));
        if let Some(subset) = &steered.subset {
            call.extensions_mut().insert(subset.clone());
        }
        call
    }

    /// The headers that a service is told, without those that `except` names: what may enter, and what the edge says of
    /// where the request came from, by whom, and in which trace.
    fn headers(
        &self,
        (head, except): (&Parts, &[HeaderName]),
        route: &Route,
        client: &Client,
        record: &Record,
    ) -> HeaderMap {
        let mut headers = guard::let_in(&head.headers, except);
        let origin = client.origin(head);
        let scheme = if origin.is_secure { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        let is_peer = origin.address == client.address.ip().to_canonical();
        let named = || HeaderValue::try_from(origin.address.to_string()).ok();
        if let Some(address) = client.name.clone().filter(|_| is_peer).or_else(named) {
            headers.insert(X_FORWARDED_FOR, address);
        }
        let host = head.headers.get(header::HOST).cloned();
        let host = host.or_else(|| head.uri.authority().and_then(|host| HeaderValue::try_from(host.as_str()).ok()));
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
        if let Some(Known(caller)) = head.extensions.get() {
            headers.insert(ninefold::edge::HEADER, self.doorkeeper.passport(caller, &route.service));
        }
        record.trace(&mut headers);
        headers
    }

    /// The time that a call has: what its caller says, and for calls that are no streams what the edge says at most.
    fn time_for(&self, route: &Route, headers: &HeaderMap, steered: &Steered) -> Option<Duration> {
        let asked = deadline::left(headers);
        let is_stream = route.method.is_server_streaming || route.method.is_client_streaming;
        let most = steered.timeout.unwrap_or(self.config.deadline);
        if is_stream { asked } else { Some(asked.unwrap_or(most).min(most)) }
    }
}

/// Writes the time left, in the unit that keeps it whole.
fn write_timeout(headers: &mut HeaderMap, time: Option<Duration>) {
    headers.remove(deadline::HEADER);
    if let Some(time) = time {
        // At most eight digits, so that hours fit too; a millisecond more or less is nothing to a caller of the edge.
        let text = match time.as_millis() {
            millis @ 0..=99_999_999 => format!("{millis}m"),
            _ => format!("{}S", time.as_secs().min(99_999_999)),
        };
        headers.insert(deadline::HEADER, HeaderValue::try_from(text).expect("digits and a letter are a header value"));
    }
}
