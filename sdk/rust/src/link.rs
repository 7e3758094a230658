//! A way to reach a contract: a role in this process, or a channel to another.
//!
//! Generated clients accept any tower service from HTTP request to HTTP response, and a tonic server is one. `Link` is
//! that service in a box, so `RegistryServiceClient<Link>` is one concrete type whether the registry runs here or there.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

/// What a link fails with.
pub type BoxError = Box<dyn Error + Send + Sync>;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// A way to reach a contract. Clones are cheap and share what is behind.
#[derive(Clone, Debug)]
pub struct Link(BoxCloneSyncService<Request, Response, BoxError>);

impl Link {
    /// Boxes a service, such as a channel.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        Self(BoxCloneSyncService::new(service.map_err(Into::into)))
    }

    /// A link to routes of this process that are not made yet, and the end that makes them known.
    ///
    /// Roles are given links before all of them are built; until then a call answers UNAVAILABLE.
    pub fn later() -> (Self, Later) {
        let slot = Arc::new(OnceLock::new());
        (Self::new(Deferred(slot.clone())), Later(slot))
    }

    /// A link to the same that can be cut, for who goes on when what is behind the link ends.
    pub fn severable(self) -> (Self, Knife) {
        let is_cut = Arc::new(AtomicBool::new(false));
        (Self::new(Severable { link: self, is_cut: is_cut.clone() }), Knife(is_cut))
    }
}

/// The end of [`Link::severable`] that cuts the link. Dropped, it cuts nothing.
#[derive(Debug)]
pub struct Knife(Arc<AtomicBool>);

impl Knife {
    /// Cuts the link: calls that are made from now on answer UNAVAILABLE. Those under way are left alone.
    pub fn cut(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
struct Severable {
    link: Link,
    is_cut: Arc<AtomicBool>,
}

impl Service<Request> for Severable {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if self.is_cut.load(Ordering::Relaxed) {
            return std::future::ready(Ok(Status::unavailable("the link is cut").into_http())).boxed();
        }
        self.link.clone().oneshot(request).boxed()
    }
}

impl Service<Request> for Link {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(request)
    }
}

/// The end of [`Link::later`] that says where the link leads.
#[derive(Debug)]
pub struct Later(Arc<OnceLock<Link>>);

impl Later {
    /// Says where the link leads. Only the first word counts.
    pub fn leads_to(&self, link: Link) {
        let _ = self.0.set(link);
    }
}

#[derive(Clone, Debug)]
struct Deferred(Arc<OnceLock<Link>>);

impl Service<Request> for Deferred {
    type Response = Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.0.get() {
            Some(link) => link.clone().oneshot(request).boxed(),
            None => std::future::ready(Ok(Status::unavailable("the node is starting").into_http())).boxed(),
        }
    }
}

/// Makes a link to routes of this process.
impl From<tonic::service::Routes> for Link {
    fn from(routes: tonic::service::Routes) -> Self {
        Self::new(routes.prepare())
    }
}
