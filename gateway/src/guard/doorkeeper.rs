//! Asks who a caller is, and whether it may.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::tls::Peer;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

use super::caller::Caller;
use super::external::{self, Authority};
use super::introspect::Introspector;
use super::issuers::{self, Issuers, Refused};
use super::keys::{self, Keys};
use super::passport::Passports;
use super::requirement::{Lack, Requirement};
use super::settings::Auth;
use crate::contract::Method;
use crate::error::Error;

/// The header in which keys are looked for, besides `authorization`.
const KEY_HEADER: &str = "x-api-key";

/// Who a request's caller is; among its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Known(pub(crate) Arc<Caller>);

/// Stands at the door. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    auth: Arc<Auth>,
    issuers: Issuers,
    introspector: Option<Introspector>,
    keys: Keys,
    passports: Passports,
    external: Option<Arc<Authority>>,
    /// What is asked where nobody says anything.
    otherwise: Option<Arc<Requirement>>,
    scope: Scope,
}

/// What a caller shows.
enum Shown {
    Key(String),
    Token(String),
}

/// What a request must still hold to when it is bound.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    requirement: Arc<Requirement>,
    caller: Arc<Caller>,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Token(why) => Self::CallerUnknown { why, is_refused: true },
            Refused::Away(issuer) => Self::IssuerAway(issuer),
        }
    }
}

impl Doorkeeper {
    /// Asks nobody anything yet. What runs for it runs in `scope`; keys are known by `access`, and told there.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] if the system gives no randomness.
    pub(crate) fn start(access: Link, scope: Scope) -> Result<Self, Error> {
        let (keys, passports) = (Keys::new(), Passports::new()?);
        let (following, publishing, link) = (keys.clone(), passports.clone(), access.clone());
        scope.run("gateway.follow_keys", |stop| following.follow(link, stop));
        scope.run("gateway.publish_signer", |stop| publishing.publish(access, stop));
        let issuers = Issuers::none();
        let auth = Arc::default();
        Ok(Self { auth, issuers, introspector: None, keys, passports, external: None, otherwise: None, scope })
    }

    /// The same with other settings.
    pub(crate) fn renewed(&self, auth: &Auth) -> Self {
        if *self.auth == *auth {
            return self.clone();
        }
        let introspector = match &auth.introspection {
            asked if *asked == self.auth.introspection => self.introspector.clone(),
            asked => asked.as_ref().map(Introspector::new),
        };
        Self {
            auth: Arc::new(auth.clone()),
            issuers: self.issuers.renewed(auth, &self.scope),
            introspector,
            external: external::renewed(self.external.as_ref(), auth.external.as_ref()),
            otherwise: auth.required.then(Arc::default),
            ..self.clone()
        }
    }

    /// Whom to ask whether a request may pass.
    pub(crate) const fn external(&self) -> Option<&Arc<Authority>> {
        self.external.as_ref()
    }

    /// What a service is told of a caller.
    pub(crate) fn passport(&self, caller: &Caller, service: &Arc<str>) -> HeaderValue {
        self.passports.say(caller, service)
    }

    /// What is asked for a method: what settings say, else its contract, else of all.
    pub(crate) fn requirement(&self, settings: Option<&Arc<Requirement>>, method: &Method) -> Option<Arc<Requirement>> {
        settings.or(method.requirement.as_ref()).or(self.otherwise.as_ref()).cloned()
    }

    /// What the caller would lack of what is asked, were it known by these claims; with what is asked.
    pub(crate) fn suppose(
        &self,
        requirement: &Arc<Requirement>,
        claims: Option<Arc<Map<String, Value>>>,
    ) -> (String, Option<Error>) {
        let caller = claims.map(|claims| {
            let scopes = claims.get("scope").map(issuers::scopes).unwrap_or_default();
            Arc::new(Caller { scopes, claims, ..Caller::default() })
        });
        (requirement.words(), self.judge(requirement.clone(), caller).err())
    }

    /// Who a caller is; nobody is who shows nothing.
    ///
    /// # Errors
    /// [`Error::CallerUnknown`] and [`Error::IssuerAway`] for what is shown and not believed.
    pub(crate) async fn identify(
        &self,
        headers: &mut HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Option<Arc<Caller>>, Error> {
        if let Some((name, shown)) = self.shown(headers)? {
            let caller = match shown {
                Shown::Key(key) => self.keys.verify(&key).await?,
                Shown::Token(token) => self.verify(&token).await?,
            };
            if !self.auth.forward {
                headers.remove(name);
            }
            return Ok(Some(caller));
        }
        let peer = peer.filter(|_| self.auth.certificates);
        Ok(peer.and_then(Caller::certified).map(Arc::new))
    }

    /// What a caller shows, and in which header. What is between it and the service is not looked at.
    fn shown(&self, headers: &HeaderMap) -> Result<Option<(HeaderName, Shown)>, Error> {
        let mut found = None;
        for name in [header::AUTHORIZATION, HeaderName::from_static(KEY_HEADER)] {
            for line in headers.get_all(&name) {
                let line = line.to_str().unwrap_or_default();
                let text = if name == header::AUTHORIZATION {
                    let bearer = line.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                    bearer.map(|(_, token)| token.trim())
                } else {
                    Some(line.trim())
                };
                let shown = match text {
                    Some(key) if self.auth.keys && key.starts_with(keys::PREFIX) => Shown::Key(key.to_owned()),
                    Some(token) if name == header::AUTHORIZATION && self.takes_tokens() => {
                        Shown::Token(token.to_owned())
                    }
                    Some(_) | None => continue,
                };
                if found.replace((name.clone(), shown)).is_some() {
                    return Err(Refused::Token("more than one thing is shown").into());
                }
            }
        }
        Ok(found)
    }

    fn takes_tokens(&self) -> bool {
        self.introspector.is_some() || !self.issuers.is_empty()
    }

    async fn verify(&self, token: &str) -> Result<Arc<Caller>, Refused> {
        match &self.introspector {
            Some(introspector) if !self.issuers.knows(token) => introspector.verify(token).await,
            Some(_) | None => self.issuers.verify(token).await,
        }
    }

    /// Whether a caller may call what asks this.
    ///
    /// # Errors
    /// [`Error::CallerUnknown`] and [`Error::CallerDenied`].
    pub(crate) fn judge(
        &self,
        requirement: Arc<Requirement>,
        caller: Option<Arc<Caller>>,
    ) -> Result<Option<Promise>, Error> {
        if requirement.public {
            return Ok(None);
        }
        let unknown = Error::CallerUnknown { why: "the caller must say who it is", is_refused: false };
        let caller = caller.ok_or(unknown)?;
        requirement.met_by(&caller).map_err(Error::CallerDenied)?;
        Ok(requirement.asks_request().then_some(Promise { requirement, caller }))
    }
}

impl Promise {
    /// Holds a message to it, as the method reads it.
    ///
    /// # Errors
    /// [`Error::CallerDenied`] if the caller may not ask for this, [`Error::RequestInvalid`] if it cannot be read.
    pub(crate) fn check(&self, method: &Method, message: &[u8]) -> Result<(), Error> {
        let read = DynamicMessage::decode(method.input.clone(), message);
        let read = read.map_err(|_| Error::invalid("", "the message does not fit the contract"))?;
        self.requirement.met_with(&self.caller, &read).map_err(Error::CallerDenied)
    }
}

impl Lack {
    /// In a sentence fragment.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Scopes(scopes) => format!("the caller lacks a scope: {scopes}"),
            Self::Claim(claim) => format!("the caller's claim {claim:?} does not allow it"),
        }
    }
}
