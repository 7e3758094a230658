//! Between a request's route and its call: who asks, whether it may, and where it goes. Every protocol comes through here.

use std::sync::Arc;

use http::request::Parts;
use ninefold::tonic::body::Body;

use super::rest;
use super::{Client, Edge};
use crate::access::Record;
use crate::contract::Method;
use crate::error::Error;
use crate::frames::{Broken, Frames, Packing};
use crate::guard::{Known, Promise, Requirement};
use crate::limit::Subject;
use crate::reply;
use crate::routes::Route;
use crate::traffic::{Claims, Steered};

impl Edge {
    /// Settles where a request comes from, before anybody asks where it goes.
    ///
    /// # Errors
    /// [`Error::AddressDenied`] and [`Error::RateLimited`].
    pub(super) async fn come_from(&self, head: &mut Parts, client: &Client, record: &mut Record) -> Result<(), Error> {
        let peer = client.address.ip();
        let origin = self.config.addresses.origin(peer, client.peer.is_some(), &head.headers)?;
        head.extensions.insert(origin);
        if let Some(limiter) = &self.limiter {
            let verdict = limiter.admit(Subject::address(origin.address)).await;
            let held = verdict.held();
            record.verdicts.push(verdict);
            held?;
        }
        Ok(())
    }

    /// Lets a request in, and says where it goes.
    ///
    /// # Errors
    /// [`Error::CallerUnknown`], [`Error::CallerDenied`], [`Error::IssuerAway`]; [`Error::RateLimited`],
    /// [`Error::QuotaSpent`]; [`Error::Refused`], [`Error::AuthorityAway`]; [`Error::Maintenance`] where that is what is
    /// answered instead.
    pub(super) async fn admit(
        &self,
        head: &mut Parts,
        route: &Route,
        client: &Client,
        record: &mut Record,
    ) -> Result<Steered, Error> {
        let requirement = self.requirement(route);
        let caller = match self.doorkeeper.identify(&mut head.headers, client.peer.as_ref()).await {
            // What is for anybody is so for those whose token ran out, too.
            Err(_) if requirement.as_ref().is_some_and(|requirement| requirement.public) => None,
            identified => identified?,
        };
        if let Some(caller) = &caller {
            record.identity = caller.name();
            head.extensions.insert(Claims(caller.claims.clone()));
            head.extensions.insert(Known(caller.clone()));
        }
        let judge = |requirement| self.doorkeeper.judge(requirement, caller.clone());
        let promise = requirement.map(judge).transpose()?.flatten();
        let place = self.traffic.rules(route).map(|rules| rules.limits_at());
        let address = client.origin(head).address;
        self.limits.admit(place, caller.as_deref(), address, &mut record.verdicts).await?;
        if let Some(authority) = self.doorkeeper.external() {
            authority.ask(head, route, caller.as_deref(), address).await?;
        }
        let mut steered = self.steer(head, route, client)?;
        steered.promise = promise;
        Ok(steered)
    }

    /// What is asked of callers of a route.
    pub(crate) fn requirement(&self, route: &Route) -> Option<Arc<Requirement>> {
        let settings = self.traffic.rules(route).and_then(|rules| rules.requirement());
        self.doorkeeper.requirement(settings, &route.method)
    }

    /// Holds the one message of a gRPC call to a promise. It is read whole for that, and goes on as it came.
    ///
    /// # Errors
    /// As for [`Promise::check`]; what a body may lack besides.
    pub(super) async fn check_body(
        config: &crate::config::Config,
        promise: &Promise,
        method: &Method,
        packing: Packing,
        body: Body,
    ) -> Result<Body, Error> {
        let raw = rest::read(config, body).await?;
        let mut frames = Frames::new(reply::body(raw.clone()), config.body_bytes_max).packed(packing);
        let malformed = |broken: Broken| match broken {
            Broken::Protocol(why) => Error::RequestMalformed(why),
            Broken::Body(_) => Error::RequestMalformed("the body ends within a message"),
        };
        let message = frames.next().await.map_err(malformed)?;
        let message = message.ok_or(Error::RequestMalformed("the call has no message"))?;
        // What is checked must be all that the service can read.
        if frames.next().await.map_err(malformed)?.is_some() {
            return Err(Error::RequestMalformed("the call has two messages where one is promised"));
        }
        promise.check(method, &message)?;
        Ok(reply::body(raw))
    }
}
