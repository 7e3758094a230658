//! The layer around every door: where from, who, whether.

mod leash;
mod refusal;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, COOKIE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use ninefold::caller::{Caller, Names};
use ninefold::serve::{Answers, Around};
use ninefold::tls::Peer;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::config::{Authentication, Config};
use crate::error::Error;
use crate::ring::Ring;
use crate::rules::{self, Rule, Rules};
use crate::tokens::Tokens;
use crate::{identity, login, origin};
use leash::Leash;

/// Looks at every request to a node.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    tokens: Arc<Tokens>,
    ring: Ring,
    rules: Arc<Rules>,
}

/// Who was let in.
struct Known {
    caller: Caller,
    leash: Leash,
}

impl Known {
    fn for_good(caller: Caller) -> Self {
        Self { caller, leash: Leash::none() }
    }
}

impl Guard {
    pub(crate) fn new(config: Arc<Config>, tokens: Arc<Tokens>, ring: Ring, rules: Arc<Rules>) -> Self {
        Self(Arc::new(Inner { config, tokens, ring, rules }))
    }

    /// The layer for a door.
    pub(crate) fn around(&self, is_secure: bool) -> Around {
        let guard = self.clone();
        Around::new(tower::layer::layer_fn(move |answers| Guarded { guard: guard.clone(), answers, is_secure }))
    }

    fn is_asking(&self) -> bool {
        self.0.config.authentication != Authentication::Off
    }

    async fn answer(&self, request: Request<Body>, answers: Answers, is_secure: bool) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let allowed = match origin::check(&head, &self.0.config) {
            Ok(allowed) => allowed,
            Err(error) => return refusal::of(&head, &error),
        };
        if let Some(origin) = &allowed
            && head.method == Method::OPTIONS
            && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return preflight(&head.headers, origin);
        }
        if self.is_asking() && head.uri.path() == login::PATH {
            let is_own = origin::is_own_page(&head);
            return login::answer(&head, body, is_own, is_secure, |token| self.find(token).is_some()).await;
        }
        let mut response = match self.admit(&mut head) {
            Ok(known) => {
                head.extensions.insert(known.caller);
                let answer = answers.oneshot(Request::from_parts(head, body)).await;
                let response = answer.unwrap_or_else(|never: Infallible| match never {});
                known.leash.hold(response)
            }
            Err(Error::CredentialsMissing | Error::TokenRefused) if login::is_wanted(&head) => login::page(""),
            Err(error) => refusal::of(&head, &error),
        };
        if let Some(origin) = allowed {
            show(response.headers_mut(), &origin);
        }
        response
    }

    /// Who sends a request, if it may be sent by them.
    fn admit(&self, head: &mut Parts) -> Result<Known, Error> {
        if !self.is_asking() {
            head.headers.remove(AUTHORIZATION);
            return Ok(Known::for_good(Caller::anybody()));
        }
        let rule = self.0.rules.decide(head);
        let known = self.identify(head);
        let (audience, is_scoped, what) = match rule {
            Rule::Open => return Ok(known.unwrap_or_else(|_| Known::for_good(stranger()))),
            Rule::For { audience, is_scoped, what } => (audience, is_scoped, what),
        };
        let known = known?;
        let identity = || known.caller.identity.to_string();
        if !rules::allows(audience, &known.caller.roles) {
            return Err(Error::RoleDenied { identity: identity(), what, audience: rules::words(audience) });
        }
        if !is_scoped && !known.caller.namespaces.are_all() {
            return Err(Error::NamespaceDenied { identity: identity(), what });
        }
        Ok(known)
    }

    /// Who sends a request. Nobody behind the guard sees the token.
    fn identify(&self, head: &mut Parts) -> Result<Known, Error> {
        let from_header = head.headers.remove(AUTHORIZATION);
        if let Some(value) = from_header {
            let token = bearer(&value).ok_or(Error::TokenRefused)?;
            return self.find(token).ok_or(Error::TokenRefused);
        }
        let from_cookie = head.headers.remove(COOKIE);
        if let Some(cookies) = from_cookie
            && let Some(token) = login::token_in(&cookies)
        {
            // A browser sends it along with whatever any page asks for.
            if !origin::is_own_page(head) {
                return Err(Error::CredentialsMissing);
            }
            return self.find(&token).ok_or(Error::TokenRefused);
        }
        match head.extensions.get::<Peer>() {
            Some(peer) if !(peer.uris.is_empty() && peer.names.is_empty()) => identity::of(peer, &self.0.config)
                .map(Known::for_good)
                .ok_or_else(|| Error::IdentityUnknown(identity::shown(peer))),
            _ => Err(Error::CredentialsMissing),
        }
    }

    fn find(&self, token: &str) -> Option<Known> {
        if let Some(caller) = self.0.ring.find(token) {
            return Some(Known::for_good(caller));
        }
        if self.0.config.authentication == Authentication::Mtls {
            return None;
        }
        let known = self.0.tokens.find(token, SystemTime::now())?;
        let leash = Leash::new(known.revoked.clone(), known.token.expires);
        Some(Known { caller: known.caller.clone(), leash })
    }
}

/// Whoever asks for what is open to all.
fn stranger() -> Caller {
    let nothing = || Names::Only([].into());
    Caller { identity: "stranger".into(), roles: [].into(), services: nothing(), namespaces: nothing() }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Tells a browser that a page from elsewhere may ask.
fn preflight(asked: &HeaderMap, origin: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"));
    if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    show(headers, origin);
    response
}

/// Lets a page from elsewhere read an answer. It has to bring its token itself: cookies are for our own page.
fn show(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("false"));
    let exposed = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, x-trace-id");
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

/// What answers behind the guard.
#[derive(Clone, Debug)]
struct Guarded {
    guard: Guard,
    answers: Answers,
    is_secure: bool,
}

impl Service<Request<Body>> for Guarded {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (guard, answers, is_secure) = (self.guard.clone(), self.answers.clone(), self.is_secure);
        async move { Ok(guard.answer(request, answers, is_secure).await) }.boxed()
    }
}
