//! A registry that says what the test wants, and instances that answer as the test wants.

mod door;
mod hold;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::registry::v1 as words;
use ninefold::serve::{Listener, ServeConfig, run};
use ninefold::tonic::body::Body;
use ninefold::tonic::metadata::{MetadataMap, MetadataValue};
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Code, Request, Response, Status, async_trait};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt as _};
use words::registry_service_server::{RegistryService, RegistryServiceServer};
use words::watch_instances_response::Message;

pub(crate) use door::Door;
pub(crate) use hold::Holding;

type Known = BTreeMap<(String, String), words::Instance>;

/// What the registry knows.
#[derive(Clone)]
pub(crate) struct Registry {
    known: watch::Sender<Known>,
    is_away: watch::Sender<bool>,
    /// How often it went away.
    cuts: watch::Sender<u32>,
    policy: Arc<Mutex<Option<words::Policy>>>,
    /// What it says of watches that acknowledge; `None` for a registry that is older than them.
    holding: Option<Holding>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            known: watch::Sender::new(Known::new()),
            is_away: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            policy: Arc::default(),
            holding: None,
        }
    }

    /// One that knows watches that acknowledge.
    pub(crate) fn holding(holding: &Holding) -> Self {
        Self { holding: Some(holding.clone()), ..Self::new() }
    }

    pub(crate) fn put(&self, instance: words::Instance) {
        let key = (instance.service.clone(), instance.instance_id.clone());
        self.known.send_modify(|known| drop(known.insert(key, instance)));
    }

    /// Says how "pump" is to be called from now on.
    pub(crate) fn say(&self, policy: words::Policy) {
        *self.policy.lock().unwrap() = Some(policy);
        self.known.send_modify(|_| {});
    }

    pub(crate) fn forget_all(&self) {
        self.known.send_modify(Known::clear);
    }

    /// Ends all streams and answers none.
    pub(crate) fn go_away(&self) {
        self.is_away.send_replace(true);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(crate) fn come_back(&self) {
        self.is_away.send_replace(false);
    }

    /// Until it goes away.
    fn cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut cuts = self.cuts.subscribe();
        async move { drop(cuts.changed().await) }
    }

    pub(crate) fn link(&self) -> Link {
        let inner = Link::from(Routes::new(RegistryServiceServer::new(self.clone())));
        let is_away = self.is_away.subscribe();
        Link::new(tower::service_fn(move |request| {
            let (inner, is_away) = (inner.clone(), *is_away.borrow());
            async move { if is_away { Ok(Status::unavailable("away").into_http()) } else { inner.oneshot(request).await } }
        }))
    }
}

#[async_trait]
impl RegistryService for Registry {
    type HoldSessionStream = stream::Pending<Result<words::HoldSessionResponse, Status>>;
    type WatchInstancesStream = stream::BoxStream<'static, Result<words::WatchInstancesResponse, Status>>;
    type HoldWatchStream = stream::BoxStream<'static, Result<words::HoldWatchResponse, Status>>;

    async fn watch_instances(
        &self,
        request: Request<words::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let services = request.into_inner().services;
        let mut known = self.known.subscribe();
        known.mark_changed();
        let policy = self.policy.clone();
        let messages = stream::unfold((known, None), move |(mut known, last): (_, Option<Known>)| {
            let (services, policy) = (services.clone(), policy.clone());
            async move {
                known.changed().await.ok()?;
                let mut now = known.borrow_and_update().clone();
                now.retain(|(service, _), _| services.is_empty() || services.contains(service));
                let policies: Vec<_> = policy.lock().unwrap().clone().into_iter().collect();
                let message = match last {
                    None => Message::Snapshot(words::Snapshot { instances: now.values().cloned().collect(), policies }),
                    Some(last) => Message::Delta(words::Delta { policies, ..delta(&last, &now) }),
                };
                let message = words::WatchInstancesResponse { message: Some(message), revision: 1 };
                Some((Ok(message), (known, Some(now))))
            }
        });
        Ok(Response::new(messages.take_until(self.cut()).boxed()))
    }

    async fn hold_session(
        &self,
        _: Request<ninefold::tonic::Streaming<words::HoldSessionRequest>>,
    ) -> Result<Response<Self::HoldSessionStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_services(
        &self,
        _: Request<words::ListServicesRequest>,
    ) -> Result<Response<words::ListServicesResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_instances(
        &self,
        _: Request<words::ListInstancesRequest>,
    ) -> Result<Response<words::ListInstancesResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_instance(
        &self,
        _: Request<words::GetInstanceRequest>,
    ) -> Result<Response<words::GetInstanceResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn hold_watch(
        &self,
        request: Request<ninefold::tonic::Streaming<words::HoldWatchRequest>>,
    ) -> Result<Response<Self::HoldWatchStream>, Status> {
        let Some(holding) = &self.holding else { return Err(Status::unimplemented("not asked for here")) };
        let told = holding.open(request.into_inner(), self.known.subscribe()).await?;
        Ok(Response::new(told.take_until(self.cut()).boxed()))
    }

    async fn list_watchers(
        &self,
        _: Request<words::ListWatchersRequest>,
    ) -> Result<Response<words::ListWatchersResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn check_policy(
        &self,
        _: Request<words::CheckPolicyRequest>,
    ) -> Result<Response<words::CheckPolicyResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn get_policy(
        &self,
        _: Request<words::GetPolicyRequest>,
    ) -> Result<Response<words::GetPolicyResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn list_events(
        &self,
        _: Request<words::ListEventsRequest>,
    ) -> Result<Response<words::ListEventsResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn set_override(
        &self,
        _: Request<words::SetOverrideRequest>,
    ) -> Result<Response<words::SetOverrideResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }

    async fn clear_override(
        &self,
        _: Request<words::ClearOverrideRequest>,
    ) -> Result<Response<words::ClearOverrideResponse>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

fn delta(last: &Known, now: &Known) -> words::Delta {
    let gone = last.keys().filter(|key| !now.contains_key(*key));
    let removes = gone.map(|(service, id)| words::InstanceKey {
        service: service.clone(),
        instance_id: id.clone(),
        ..words::InstanceKey::default()
    });
    let changed = now.iter().filter(|(key, instance)| last.get(*key) != Some(*instance));
    words::Delta {
        removes: removes.collect(),
        upserts: changed.map(|(_, instance)| instance.clone()).collect(),
        policies: Vec::new(),
    }
}

/// How an instance answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// With one message, after a while.
    Answer(Duration),
    /// With a status, and nothing else.
    Refuse(Code),
    /// With UNAVAILABLE, because of a service behind it.
    PassOn,
    /// With UNAVAILABLE, and a word on when to come again: milliseconds, or -1 for never.
    Push(i32),
    /// With RESOURCE_EXHAUSTED, and a word on when to come again: milliseconds, or -1 for never.
    Shed(i32),
    /// Never.
    Hang,
    /// With a message every so often, for ever.
    Stream(Duration),
    /// Every second call with a status and nothing else, the others with one message.
    Half(Code),
    /// With a message, and then with a status.
    FailLate(Code),
    /// With a message, and then the stream is reset.
    Reset,
    /// With a message, and a word on its load: a hundred calls a second, and the share of what it can do, in percent.
    Tell(u32),
}

/// An instance of the service "pump", listening on a port of its own.
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    /// Calls that are not answered yet.
    in_work: Arc<()>,
    answering: Answering,
    killed: CancellationToken,
    stopped: CancellationToken,
}

impl Instance {
    pub(crate) async fn start(id: &str, scope: &Scope) -> Self {
        Self::start_with(id, ServeConfig::default(), scope).await
    }

    pub(crate) async fn start_with(id: &str, config: ServeConfig, scope: &Scope) -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let in_work = Arc::default();
        let answering = Answering {
            calls: Arc::default(),
            in_work: Arc::downgrade(&in_work),
            manner: Arc::new(Mutex::new(Manner::Answer(Duration::ZERO))),
            own: Arc::default(),
            headers: Arc::default(),
        };
        let instance = Self {
            id: id.to_owned(),
            address: listener.address(),
            in_work,
            answering: answering.clone(),
            killed: CancellationToken::new(),
            stopped: CancellationToken::new(),
        };
        let (killed, stopped) = (instance.killed.clone(), instance.stopped.clone());
        scope.run("test.serve", |stop| async move {
            let served = run(listener, Routes::new(answering), config, stopped.cancelled_owned());
            tokio::select! {
                served = served => served.unwrap(),
                () = killed.cancelled() => {}
                () = stop.asked() => {}
            }
        });
        instance
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.answering.manner.lock().unwrap() = manner;
    }

    /// Behaves otherwise for methods whose path ends so.
    pub(crate) fn behave_for(&self, method: &'static str, manner: Manner) {
        *self.answering.own.lock().unwrap() = Some((method, manner));
    }

    pub(crate) fn calls(&self) -> u32 {
        self.answering.calls.load(Ordering::SeqCst)
    }

    /// Calls that are not answered yet, nor given up. Each holds one of these.
    pub(crate) fn in_work(&self) -> usize {
        Arc::strong_count(&self.in_work) - 1
    }

    /// The headers of the last call.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.answering.headers.lock().unwrap().clone()
    }

    /// Drops the socket and all connections, as the system does for a process that is killed.
    pub(crate) fn kill(&self) {
        self.killed.cancel();
    }

    /// Tells the callers to go elsewhere and finishes their calls.
    pub(crate) fn stop(&self) {
        self.stopped.cancel();
    }

    /// The instance as the registry knows it while it serves.
    pub(crate) fn words(&self) -> words::Instance {
        Self::words_at("pump", &self.id, self.address)
    }

    /// An instance of any service, at any address.
    pub(crate) fn words_at(service: &str, id: &str, address: SocketAddr) -> words::Instance {
        words::Instance {
            service: service.to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![words::Address { host: address.ip().to_string(), port: address.port().into() }],
            contract_digest: format!("sha256:{id}"),
            state: words::InstanceState::Serving.into(),
            ..words::Instance::default()
        }
    }

    pub(crate) fn words_in(&self, state: words::InstanceState) -> words::Instance {
        words::Instance { state: state.into(), ..self.words() }
    }
}

/// Answers any method of the config service: an empty message is a valid one of any type.
#[derive(Clone)]
struct Answering {
    calls: Arc<AtomicU32>,
    in_work: Weak<()>,
    manner: Arc<Mutex<Manner>>,
    own: Arc<Mutex<Option<(&'static str, Manner)>>>,
    headers: Arc<Mutex<HeaderMap>>,
}

impl ninefold::tonic::server::NamedService for Answering {
    const NAME: &'static str = "ninefold.config.v1.ConfigService";
}

impl Service<http::Request<Body>> for Answering {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let turn = self.calls.fetch_add(1, Ordering::SeqCst);
        *self.headers.lock().unwrap() = request.headers().clone();
        let own = *self.own.lock().unwrap();
        let own = own.filter(|(method, _)| request.uri().path().ends_with(method)).map(|(_, manner)| manner);
        let manner = own.unwrap_or(*self.manner.lock().unwrap());
        let in_work = self.in_work.upgrade();
        async move {
            let answer = answer(manner, turn).await;
            drop(in_work);
            Ok(answer)
        }
        .boxed()
    }
}

async fn answer(manner: Manner, turn: u32) -> http::Response<Body> {
    let message = || Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5])));
    let status = |code| {
        let mut trailers = HeaderMap::new();
        Status::new(code, "as the test wants").add_header(&mut trailers).unwrap();
        trailers
    };
    let one = |code| Body::new(StreamBody::new(stream::iter([message(), Ok(Frame::trailers(status(code)))])));
    let body = match manner {
        Manner::Answer(after) => {
            // No wait at all also where time is held.
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            one(Code::Ok)
        }
        Manner::Half(code) if turn % 2 == 1 => return Status::new(code, "as the test wants").into_http(),
        Manner::Half(_) => one(Code::Ok),
        Manner::FailLate(code) => one(code),
        Manner::Tell(percent) => {
            let mut trailers = MetadataMap::from_headers(status(Code::Ok));
            trailers.insert_bin("endpoint-load-metrics-bin", MetadataValue::from_bytes(&load_report(percent)));
            Body::new(StreamBody::new(stream::iter([message(), Ok(Frame::trailers(trailers.into_headers()))])))
        }
        Manner::Reset => {
            let breaks = stream::once(async {
                // The message has arrived by then: what is reset at once may arrive as nothing but a reset.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(Status::internal("it breaks"))
            });
            Body::new(StreamBody::new(stream::iter([message()]).chain(breaks)))
        }
        Manner::Refuse(code) => return Status::new(code, "as the test wants").into_http(),
        Manner::PassOn => {
            let mut response = Status::unavailable("as the test wants").into_http();
            response.headers_mut().insert("x-ninefold-failed-at", HeaderValue::from_static("valve"));
            return response;
        }
        Manner::Push(wait) => {
            let mut response = Status::unavailable("as the test wants").into_http();
            response.headers_mut().insert("grpc-retry-pushback-ms", HeaderValue::from(wait));
            return response;
        }
        Manner::Shed(wait) => {
            let mut response = Status::resource_exhausted("as the test wants").into_http();
            response.headers_mut().insert("grpc-retry-pushback-ms", HeaderValue::from(wait));
            return response;
        }
        Manner::Hang => std::future::pending().await,
        Manner::Stream(every) => Body::new(StreamBody::new(stream::unfold((), move |()| async move {
            tokio::time::sleep(every).await;
            Some((message(), ()))
        }))),
    };
    let mut response = http::Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// An `xds.data.orca.v3.OrcaLoadReport`: `rps_fractional`, which is field 6, and `application_utilization`, which is 9.
fn load_report(percent: u32) -> Vec<u8> {
    let double = |field: u8, value: f64| [&[field << 3 | 1][..], &value.to_le_bytes()].concat();
    [double(6, 100.0), double(9, f64::from(percent) / 100.0)].concat()
}

/// A flag that a loop of callers looks at.
#[derive(Clone, Default)]
pub(crate) struct Flag(Arc<AtomicBool>);

impl Flag {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
