//! Asks who a caller is, and whether it may.

use std::sync::Arc;

use http::{HeaderMap, header};
use ninefold::lifecycle::Scope;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

use super::caller::Caller;
use super::issuers::{self, Issuers, Refused};
use super::requirement::{Lack, Requirement};
use super::settings::Auth;
use crate::contract::Method;
use crate::error::Error;

/// Stands at the door. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    auth: Arc<Auth>,
    issuers: Issuers,
    /// What is asked where nobody says anything.
    otherwise: Option<Arc<Requirement>>,
    scope: Scope,
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
    /// Asks nobody anything yet. What runs for it runs in `scope`.
    pub(crate) fn new(scope: Scope) -> Self {
        Self { auth: Arc::default(), issuers: Issuers::none(), otherwise: None, scope }
    }

    /// The same with other settings.
    pub(crate) fn renewed(&self, auth: &Auth) -> Self {
        if *self.auth == *auth {
            return self.clone();
        }
        Self {
            auth: Arc::new(auth.clone()),
            issuers: self.issuers.renewed(auth, &self.scope),
            otherwise: auth.required.then(Arc::default),
            scope: self.scope.clone(),
        }
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
    pub(crate) async fn identify(&self, headers: &mut HeaderMap) -> Result<Option<Arc<Caller>>, Error> {
        if self.issuers.is_empty() {
            return Ok(None);
        }
        let mut lines = headers.get_all(header::AUTHORIZATION).into_iter();
        let (Some(line), second) = (lines.next(), lines.next()) else { return Ok(None) };
        if second.is_some() {
            return Err(Refused::Token("there is more than one authorization").into());
        }
        let line = line.to_str().unwrap_or_default();
        let bearer = line.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Another scheme is between the caller and the service.
        let Some((_, token)) = bearer else { return Ok(None) };
        let caller = self.issuers.verify(token.trim()).await?;
        if !self.auth.forward {
            headers.remove(header::AUTHORIZATION);
        }
        Ok(Some(caller))
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
