//! A service: what it offers, whom it calls, and its life from the first log line to the last.

mod advertise;
mod contract;
mod signals;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::{Request, Response};
use ninefold_proto::ninefold::registry::v1::health_check::Kind;
use ninefold_proto::ninefold::registry::v1::{Event, GrpcHealthCheck, HealthCheck, Instance, InstanceState, Protocol};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio_stream::wrappers::BroadcastStream;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tower::Service;

use crate::config::{self, Cache, Follow, Live};
use crate::connect::{self, Channel, Dialer, Discovery, Interest, Policy};
use crate::error::{Error, Mistake};
use crate::lifecycle::{OnError, Scope, Stop};
use crate::link::Link;
use crate::serve::{self, Health, Listener, LiveAdmission, ServeConfig};
use crate::session::{self, Registration, Session};
use crate::settings::{self, SdkSettings};
use crate::telemetry::{self, Identity, Telemetry};
use signals::Signals;

/// Longest wait for the platform to say that callers have seen that the instance drains; it waits for them 2 s itself.
const NOTICE_MAX: Duration = Duration::from_millis(2500);
/// Time for callers that do not say what they see, or ask another node, before no more calls are taken.
const NOTICE: Duration = Duration::from_millis(100);
/// Longest wait for the platform to hear a farewell.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// Longest wait for tasks to end after the last call.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for the last telemetry to leave.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// A service that is being put together. Made by [`app`](crate::app()).
///
/// Settings come from the environment (see [`SdkSettings`]). What is wrong with them is told by [`config`](Self::config) and
/// [`run`](Self::run), so that the calls before need no `?`.
#[derive(Debug)]
pub struct App {
    name: String,
    instance_id: String,
    version: String,
    settings: Result<SdkSettings, Vec<Mistake>>,
    contracts: Vec<&'static [u8]>,
    routes: RoutesBuilder,
    services: Vec<String>,
    platform: Link,
    discovery: OnceLock<Discovery>,
    dialer: Dialer,
    admission: LiveAdmission,
    start_time: SystemTime,
    /// Tasks that must outlive the calls: whom to call, what to run with.
    scope: Scope,
    /// Closes when the instance drains. Holds no task: it is there to be waited for.
    calls: Scope,
    telemetry: Option<Telemetry>,
}

impl App {
    pub(crate) fn new(name: &str) -> Self {
        let settings = SdkSettings::from_env();
        Self::with_settings(name, settings)
    }

    /// A service with settings that do not come from the environment, for tests and for programs with settings of their
    /// own.
    pub fn with_settings(name: &str, settings: Result<SdkSettings, Error>) -> Self {
        let mut settings = settings.map_err(|error| match error {
            Error::Settings(mistakes) => mistakes,
            // Reading settings fails in no other way; should it ever, the text is told all the same.
            other => vec![Mistake { setting: "settings".to_owned(), value: String::new(), problem: other.to_string() }],
        });
        if !settings::is_name(name) {
            let mistake = Mistake {
                setting: "name of the service".to_owned(),
                value: name.to_owned(),
                problem: settings::NAME_RULE.to_owned(),
            };
            settings = Err(settings.err().unwrap_or_default().into_iter().chain([mistake]).collect());
        }
        let given = settings.as_ref().ok();
        let instance_id = given.and_then(|settings| settings.instance_id.clone()).unwrap_or_else(|| new_id(name));
        let version = given.and_then(|settings| settings.version.clone()).unwrap_or_default();
        let platform = match given {
            Some(settings) => connect::platform_as(&settings.endpoints, &settings.credentials),
            None => connect::platform(&[]),
        };
        let scope = Scope::root(name);
        let calls = scope.child("calls");
        Self {
            name: name.to_owned(),
            instance_id,
            version,
            settings,
            contracts: Vec::new(),
            routes: RoutesBuilder::default(),
            services: Vec::new(),
            platform,
            discovery: OnceLock::new(),
            dialer: Dialer::default(),
            admission: LiveAdmission::default(),
            start_time: SystemTime::now(),
            scope,
            calls,
            telemetry: None,
        }
        .with_telemetry()
    }

    fn with_telemetry(mut self) -> Self {
        let Ok(settings) = &self.settings else { return self };
        let identity = Identity {
            service: self.name.clone(),
            instance_id: self.instance_id.clone(),
            version: self.version.clone(),
        };
        match telemetry::start(&settings.telemetry, &identity) {
            Ok(telemetry) => self.telemetry = Some(telemetry),
            // A service that cannot tell what it does still does it; there is no log to say so but the terminal.
            Err(error) => {
                use std::io::Write as _;
                let _ = writeln!(std::io::stderr(), "{error:?}");
            }
        }
        self
    }

    /// Names the version of the program. `NINEFOLD_VERSION` overrides it.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        if self.version.is_empty() {
            self.version = version.to_owned();
        }
        self
    }

    /// Hands in the contract: the `DESCRIPTOR_SET` that [`include_proto!`](crate::include_proto) makes. Several add up.
    #[must_use]
    pub fn contract(mut self, descriptor_set: &'static [u8]) -> Self {
        if let Some(discovery) = self.discovery.get() {
            discovery.learn(descriptor_set);
        }
        self.contracts.push(descriptor_set);
        self
    }

    /// Connects to other services otherwise than by TCP. Call it before the first [`channel`](Self::channel).
    #[must_use]
    pub fn dialing(mut self, dialer: Dialer) -> Self {
        self.dialer = dialer;
        self
    }

    /// Offers a generated service, such as `ProductServiceServer::new(product)`. Several add up.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.services.push(S::NAME.to_owned());
        self.routes.add_service(service);
        self
    }

    /// A way to call a service by its name. Generated clients take it: `ProductServiceClient::new(app.channel("product"))`.
    pub fn channel(&self, service: &str) -> Channel {
        self.discovery().channel(service)
    }

    /// As [`channel`](Self::channel), with other deadlines, retries or breakers:
    /// `app.channel_with("review", |policy| Policy { idempotent: Idempotency::All, ..policy })`. It is the base that central
    /// configuration overlays.
    pub fn channel_with(&self, service: &str, change: impl FnOnce(Policy) -> Policy) -> Channel {
        self.discovery().channel_with(service, change(Policy::default()))
    }

    fn discovery(&self) -> &Discovery {
        self.discovery.get_or_init(|| {
            let settings = self.settings.as_ref().ok();
            let namespace = settings.map(|settings| settings.namespace.clone()).unwrap_or_default();
            let settings = settings.filter(|settings| settings.cache_landscape);
            let folder = settings.and_then(|settings| settings.cache_dir.as_deref());
            let name = if namespace == "default" { self.name.clone() } else { format!("{namespace}.{}", self.name) };
            let follow = connect::Follow {
                namespace,
                watcher: format!("{}/{}", self.name, self.instance_id),
                file: settings
                    .zip(folder)
                    .map(|(settings, folder)| connect::file_of(folder, &name, &settings.endpoints)),
            };
            let mut dialer = self.dialer.clone();
            // Files that cannot be used are told of by `run`.
            if let Some(Ok(Some(tls))) = self.settings.as_ref().ok().map(|settings| settings.tls.client()) {
                dialer = dialer.secured(tls);
            }
            let zone = self.settings.as_ref().map_or("", |settings| settings.zone.as_str());
            let discovery = Discovery::start_as(follow, self.platform.clone(), Interest::Named, &self.scope)
                .placed(zone, &self.instance_id);
            self.contracts.iter().for_each(|contract| discovery.learn(contract));
            let discovery = discovery.dialing(dialer);
            let (caller, platform, calling) = (self.name.clone(), self.platform.clone(), discovery.clone());
            self.scope.run("connect.report_calls", |stop| connect::report_calls(calling, platform, caller, stop));
            discovery
        })
    }

    /// Central configuration for this service, as a value that follows its document. Waits a second at the longest, and
    /// starts with the last good document, or the default, if the platform is away.
    ///
    /// # Errors
    /// [`Error::Settings`] if the environment or the service's name cannot be used.
    pub async fn config<T>(&self) -> Result<Live<T>, Error>
    where
        T: DeserializeOwned + Default + Send + Sync + 'static,
    {
        let settings = self.settings.as_ref().map_err(|mistakes| Error::Settings(mistakes.clone()))?;
        let folder = settings.cache_dir.as_deref();
        let follow = Follow {
            service: self.name.clone(),
            environment: settings.environment.clone(),
            instance_id: self.instance_id.clone(),
            cache: folder.map(|folder| Cache::new(folder, &self.name, &settings.environment, &self.instance_id)),
        };
        Ok(config::follow(follow, self.platform.clone(), &self.scope).await)
    }

    /// The owner of the service's own background tasks. They are asked to stop after the last call has ended.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Is asked when the instance drains, while its last calls still run: answers that never end by themselves, such as
    /// watches, end then, and their callers go on with another instance.
    pub fn draining(&self) -> Stop {
        self.calls.stop()
    }

    /// Id of this instance.
    pub fn instance_id(&self) -> &str {
        &self.instance_id
    }

    /// Serves until SIGTERM, SIGINT, a request of the platform, or the failure of a task; then drains and leaves. A second
    /// signal ends the process at once.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::ContractMissing`], [`Error::Descriptors`] and [`Error::Listen`] before anything is
    /// served; [`Error::Task`] if a background task brought the service down.
    pub async fn run(self) -> Result<(), Error> {
        let mut signals = Signals::catch()?;
        let (ask, asked) = oneshot::channel::<()>();
        let mut life = pin!(self.run_until(async {
            // A dropped sender asks as well: nobody is left who could.
            let _ = asked.await;
        }));
        let (signal, _) = tokio::select! {
            outcome = &mut life => return outcome,
            signal = signals.next() => signal,
        };
        tracing::info!(signal, "stopping");
        drop(ask);
        tokio::select! {
            outcome = &mut life => outcome,
            (_, code) = signals.next() => std::process::exit(code),
        }
    }

    /// As [`run`](Self::run), until `stop` instead of a signal.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let telemetry = self.telemetry.take();
        let scope = self.scope.clone();
        let outcome = self.live(stop).await;
        let late = scope.close(CLOSE_MAX).await;
        if !late.is_empty() {
            tracing::warn!(scopes = ?late, "tasks did not stop in time and were dropped");
        }
        if let Some(telemetry) = telemetry {
            telemetry.flush(FLUSH_MAX).await;
        }
        outcome
    }

    async fn live(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let settings = self.settings.as_ref().map_err(|mistakes| Error::Settings(mistakes.clone()))?;
        let descriptor_set = contract::join(&self.contracts, &self.services)?;
        // A file that cannot be used is told of before anything is served.
        settings.tls.client()?;
        let listener = Listener::bind(settings.listen.as_str()).await?;
        let instance = self.instance(settings, listener.address());
        tracing::info!(address = %listener.address(), instance_id = self.instance_id, "listening");

        let health = Health::new();
        let serve_config = ServeConfig {
            descriptor_sets: descriptor_set.iter().cloned().collect(),
            services: self.services.clone(),
            health: health.clone(),
            drain: settings.drain,
            admission: self.admission.clone(),
            tls: settings.tls.server()?,
            ..ServeConfig::default()
        };
        let serving = self.scope.child("serve");
        let (ask, asked) = oneshot::channel::<()>();
        let (ended, has_ended) = oneshot::channel::<()>();
        let routes = self.routes.routes();
        serving.spawn("serve.run", OnError::Shutdown, |_| async move {
            let outcome = serve::run(listener, routes, serve_config, async {
                let _ = asked.await;
            })
            .await;
            drop(ended);
            outcome
        });

        let events = self.discovery.get().map_or_else(|| futures_util::stream::empty().boxed(), events);
        let registration = Registration { instance, descriptor_set };
        let session = session::hold(registration, self.platform.clone(), events, &self.scope.child("session"));
        follow_admission(&session, self.admission.clone(), &self.scope);
        follow_drain(&session, health.clone(), &self.scope);
        let outcome = tokio::select! {
            () = stop => Ok("asked to stop".to_owned()),
            reason = session.drain_requested() => Ok(reason),
            failure = self.scope.failed() => Err(failure),
        };
        let reason = outcome.as_ref().map_or("failed", String::as_str);
        tracing::info!(reason, "draining");
        let is_noted = session.set_state(InstanceState::Draining, reason, NOTICE_MAX).await;
        // Afterwards: the platform, which follows it, would take it for an illness.
        health.drain().await;
        if is_noted {
            tokio::time::sleep(NOTICE).await;
        }
        self.calls.close(Duration::ZERO).await;
        drop(ask);
        // Ends by itself within the drain time; an error only says that it has ended.
        let _ = has_ended.await;
        session.leave(reason, FAREWELL_MAX).await;
        outcome.map(drop).map_err(Error::Task)
    }

    fn instance(&self, settings: &SdkSettings, local: SocketAddr) -> Instance {
        Instance {
            namespace: settings.namespace.clone(),
            service: self.name.clone(),
            instance_id: self.instance_id.clone(),
            addresses: vec![advertise::address(local, settings.advertise.as_deref(), &settings.endpoints)],
            version: self.version.clone(),
            zone: settings.zone.clone(),
            region: settings.region.clone(),
            weight: settings.weight,
            protobuf_services: self.services.clone(),
            state: InstanceState::Serving.into(),
            start_time: Some(self.start_time.into()),
            protocol: Protocol::Grpc.into(),
            tls: settings.tls.identity.is_some(),
            health_check: Some(HealthCheck {
                kind: Some(Kind::Grpc(GrpcHealthCheck::default())),
                ..HealthCheck::default()
            }),
            ..Instance::default()
        }
    }
}

/// Takes in what the service's own policy says, as it changes.
fn follow_admission(session: &Session, admission: LiveAdmission, scope: &Scope) {
    let mut known = session.known();
    scope.child("admission").run("serve.admit", |stop| async move {
        let follow = async {
            loop {
                let central = known.borrow_and_update().policy.clone();
                let policy = central.map_or_else(Policy::default, |central| Policy::default().overlaid(&central));
                admission.set(policy.admission);
                if known.changed().await.is_err() {
                    // The session has ended for good.
                    return;
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = stop.asked() => {}
        }
    });
}

/// Says by health, to whoever asks that, that the instance is drained by an operator, until that is taken back. Its callers
/// know it from the platform.
fn follow_drain(session: &Session, health: Health, scope: &Scope) {
    let mut known = session.known();
    scope.child("drain").run("serve.follow_drain", |stop| async move {
        let follow = async {
            let mut was_drained = false;
            while known.wait_for(|known| known.drained.is_some() != was_drained).await.map(drop).is_ok() {
                was_drained = !was_drained;
                if was_drained {
                    health.drain().await;
                } else {
                    health.resume().await;
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = stop.asked() => {}
        }
    });
}

/// What the channels see of others. A session that lags behind misses the oldest; they are for people to read.
fn events(discovery: &Discovery) -> BoxStream<'static, Event> {
    BroadcastStream::new(discovery.events()).filter_map(|event| std::future::ready(event.ok())).boxed()
}

/// An id that no other instance of the service has: 40 random bits.
fn new_id(service: &str) -> String {
    let mut random = fastrand::Rng::new();
    let letters = (0..8).map(|_| char::from(b"abcdefghjkmnpqrstuvwxyz023456789"[random.usize(..32)]));
    format!("{service}-{}", letters.collect::<String>())
}
