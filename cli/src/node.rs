//! A node: the roles in one process, their ports, and the order in which they start and stop.
//!
//! Addresses are bound before anything else, so that a busy port fails before work starts. Roles meet each other through
//! one link to all routes of the node. Stopping runs against the build order: the doors first, the store last.

mod doors;
mod handover;
mod lines;
mod passes;
mod witness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ninefold::lifecycle::Scope;
use ninefold::link::Knife;
use ninefold::telemetry::{self, Identity, Journal, Telemetry};
use ninefold::tls::ServerTls;
use ninefold::tonic::service::RoutesBuilder;
use ninefold::{Credentials, Link, fault};
use ninefold_access::{Access, Authentication, Openness, Ring};
use ninefold_alert::Alerts;
use ninefold_config::Documents;
use ninefold_contract::Contract;
use ninefold_control::Control;
use ninefold_dialect::Dialect;
use ninefold_gateway::{Bindings, Gateway, Opening};
use ninefold_monitor::Monitor;
use ninefold_proto::ninefold::control::v1::{ListWorkloadsRequest, SlotState, WorkloadStatus};
use ninefold_registry::Registry;
use ninefold_store::Remembered;
use serde_json::{Value, json};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output;
use crate::page;
use crate::settings::Settings;
use doors::{Behind, Doors};
pub(crate) use handover::Talk;
use handover::{Post, Sockets};

/// Longest time for everything to end after a signal. Longer than the grace of a child.
const CLOSE_DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait until all that ran before runs again in a node that takes over, and how often it is looked at.
const SETTLE_MAX: Duration = Duration::from_secs(30);
const SETTLE_LOOK: Duration = Duration::from_millis(50);
/// Longest time in which what a node still has to tell is sent.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// A node that runs.
pub(crate) struct Node {
    scope: Scope,
    telemetry: Telemetry,
    platform: Platform,
    facts: Facts,
    roles: Roles,
    /// Its sockets once more, for an heir.
    sockets: Sockets,
    /// Where heirs ask.
    post: Option<Post>,
}

/// What of the roles is needed when the node hands over.
struct Roles {
    /// All but the edge and the children.
    base: Scope,
    monitor: Monitor,
    control: Control,
    gateway: Gateway,
    /// Cuts the edge off from the rest.
    knife: Knife,
}

/// What a node tells of itself.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Name of the node.
    pub(crate) node: String,
    /// Address of the edge.
    pub(crate) edge: SocketAddr,
    /// Address of the platform.
    pub(crate) platform: SocketAddr,
    /// Address of OTLP over gRPC.
    pub(crate) otlp_grpc: SocketAddr,
    /// Address of OTLP over HTTP.
    pub(crate) otlp_http: SocketAddr,
    /// Address of DNS, if it is answered.
    pub(crate) dns: Option<SocketAddr>,
    /// Folder of its data.
    pub(crate) data: String,
    /// Kind of its store.
    pub(crate) store: &'static str,
    /// How callers have to say who they are: `off`, `token` or `mtls`.
    pub(crate) authentication: &'static str,
    /// Whether the platform's doors speak TLS.
    pub(crate) is_secure: bool,
    /// Whether others reach the node without being asked who they are.
    pub(crate) is_insecure: bool,
    /// Where the first administrator's token lies, if tokens are asked for.
    pub(crate) admin_token: Option<String>,
    /// Where the node and its children are spoken with in clear text, if everybody else speaks TLS.
    inner: Option<SocketAddr>,
}

impl Facts {
    /// The facts for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "edge": self.edge.to_string(),
            "platform": self.platform.to_string(),
            "otlpGrpc": self.otlp_grpc.to_string(),
            "otlpHttp": self.otlp_http.to_string(),
            "dns": self.dns.map(|address| address.to_string()),
            "data": self.data,
            "store": self.store,
            "pid": std::process::id(),
            "authentication": self.authentication,
            "tls": self.is_secure,
            "insecure": self.is_insecure,
            "adminToken": self.admin_token,
        })
    }

    /// URL at which this machine reaches the platform.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, reachable(self.platform))
    }

    /// URL at which the node's own children reach the platform.
    fn own_endpoint(&self) -> String {
        format!("http://{}", self.inner.unwrap_or(reachable(self.platform)))
    }

    /// URL at which the node and its own children reach OTLP over gRPC.
    fn own_otlp(&self) -> String {
        format!("http://{}", self.inner.unwrap_or(reachable(self.otlp_grpc)))
    }
}

/// An address that a process on this machine can connect to.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let loopback = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(loopback, address.port())
}

/// Starts the node's own telemetry: to itself by OTLP, and to people on stderr what they should see.
/// Gives what the edge tells its requests to, which is kept under its own name.
fn tell(facts: &Facts, credentials: &Credentials) -> Result<(Telemetry, Journal), Failure> {
    let failed = |error: ninefold::Error| Failure::Failed(fault::chain(&error));
    let itself = facts.own_otlp().parse().expect("an address makes a URL");
    let mut config = telemetry::Config::from_env(&[itself], credentials).map_err(failed)?;
    config.output = telemetry::Output::Stderr;
    let is_told = ["NINEFOLD_LOG", "RUST_LOG"].iter().any(|name| std::env::var_os(name).is_some());
    config.printed = Some(if is_told { config.filter.clone() } else { "warn".to_owned() });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let identity = |service: &str| Identity {
        service: service.to_owned(),
        instance_id: facts.node.clone(),
        version: version.clone(),
    };
    let telemetry = telemetry::start(&config, &identity("ninefold")).map_err(failed)?;
    let journal = telemetry.journal(&config, &identity("edge")).map_err(failed)?;
    Ok((telemetry, journal))
}

impl Node {
    /// Starts all roles. What was started before a failure is closed again.
    pub(crate) async fn start(settings: Settings) -> Result<Self, Failure> {
        Self::begin(settings, Sockets::new(), None).await
    }

    /// As [`start`](Self::start), in the place of the node that uses the data folder, if one does. Returns when requests
    /// are answered by this node alone.
    pub(crate) async fn take_over(settings: Settings) -> Result<Self, Failure> {
        let Some(talk) = Talk::with(&settings.data).map_err(|error| handover::failed(&error))? else {
            return Self::start(settings).await;
        };
        let (talk, sockets) = talk.take().await.map_err(|error| handover::failed(&error))?;
        Self::begin(settings, sockets, Some(talk)).await
    }

    async fn begin(settings: Settings, taken: Sockets, talk: Option<Talk>) -> Result<Self, Failure> {
        prepare(&settings.data)?;
        let name = node_name(&settings.data)?;
        let mut doors = Doors::bind(&settings, taken).await?;
        let sockets = std::mem::take(&mut doors.sockets);
        let mut facts = Facts {
            node: name.clone(),
            edge: local(&doors.edge)?,
            platform: doors.platform.platform.address(),
            otlp_grpc: doors.platform.otlp_grpc.address(),
            otlp_http: doors.platform.otlp_http.address(),
            inner: doors.platform.inner.as_ref().map(ninefold::serve::Listener::address),
            dns: None,
            data: settings.data.display().to_string(),
            store: match settings.store.backend {
                ninefold_store::Backend::Embedded => "embedded",
                ninefold_store::Backend::Etcd => "etcd",
            },
            authentication: match settings.access.authentication {
                Authentication::Off => "off",
                Authentication::Token => "token",
                Authentication::Mtls => "mtls",
            },
            is_secure: settings.access.tls_cert.is_some(),
            is_insecure: settings.openness == Openness::Insecure,
            admin_token: (settings.access.authentication == Authentication::Token)
                .then(|| passes::admin_token(&settings.data).display().to_string()),
        };
        warn(&settings.openness);
        let ring = Ring::default();
        let (telemetry, journal) = tell(&facts, &passes::own(&ring, &name, settings.access.authentication)?)?;
        let scope = Scope::root("node");
        // From here on all that can go wrong is what only the store knows.
        let (opening, talk) = match talk {
            None => (Opening::AtOnce, None),
            Some(talk) => (Opening::WhenKnown, Some(talk.taken().await.map_err(|error| handover::failed(&error))?)),
        };
        match start_roles(settings, (doors, opening), &mut facts, ring, journal, &scope).await {
            Ok((platform, roles)) => {
                let node = Self { scope, telemetry, platform, facts, roles, sockets, post: None };
                let Some(talk) = talk else { return Ok(node) };
                match node.settle(talk).await {
                    Ok(()) => Ok(node),
                    Err(failure) => {
                        node.close().await;
                        Err(failure)
                    }
                }
            }
            Err(failure) => {
                scope.close(CLOSE_DEADLINE).await;
                Err(failure)
            }
        }
    }

    /// Waits until this node can do what the one before did, and says so.
    async fn settle(&self, talk: Talk) -> Result<(), Failure> {
        let settled = async {
            self.roles.gateway.until_known().await;
            self.until_children_serve().await;
        };
        if tokio::time::timeout(SETTLE_MAX, settled).await.is_err() {
            tracing::warn!("not all that ran before runs again; taking over all the same");
        }
        talk.ready().map_err(|error| handover::failed(&error))
    }

    /// Waits until all that is wanted runs.
    async fn until_children_serve(&self) {
        loop {
            let asked = ListWorkloadsRequest { page_size: 1000, ..ListWorkloadsRequest::default() };
            if let Ok(listed) = self.platform.ask(self.platform.control().list_workloads(asked)).await {
                let is_up = |status: &WorkloadStatus| {
                    let wanted = status.workload.as_ref().map_or(0, |workload| workload.instances);
                    let running = status.slots.iter().filter(|slot| slot.state() == SlotState::Running).count();
                    u32::try_from(running).is_ok_and(|running| running >= wanted)
                };
                if listed.statuses.iter().all(is_up) {
                    return;
                }
            }
            tokio::time::sleep(SETTLE_LOOK).await;
        }
    }

    /// Lets others ask from now on to take this node's place.
    pub(crate) fn expect_heirs(&mut self) {
        let post = Post::open(Path::new(&self.facts.data));
        // It works all the same; a path that is too long for a socket is the usual reason.
        self.post = post.inspect_err(|error| tracing::warn!(%error, "this node cannot be asked to hand over")).ok();
    }

    /// Waits for somebody who wants to take this node's place. Cancel safe.
    pub(crate) async fn heir(&self) -> Talk {
        match &self.post {
            Some(post) => post.heir().await,
            None => std::future::pending().await,
        }
    }

    /// Gives an heir the sockets. `None` if it turns out that it cannot use them: then nothing has changed.
    pub(crate) async fn give(&self, talk: Talk) -> Option<Talk> {
        let given = talk.give(&self.sockets).await;
        given.inspect_err(|error| tracing::warn!(%error, "an heir gave up; this node goes on")).ok()
    }

    /// Leaves everything to an heir that has the sockets: first all but the edge and the children, which go on until the
    /// heir answers. Tells what did not end in time.
    ///
    /// # Errors
    /// When the heir ended before it answered.
    pub(crate) async fn hand_over(mut self, talk: Talk) -> Result<Vec<String>, Failure> {
        self.roles.control.hold(CLOSE_DEADLINE).await;
        self.roles.knife.cut();
        self.post = None;
        let mut late = self.roles.base.close(CLOSE_DEADLINE).await;
        self.roles.monitor.let_go();
        let inherited = tokio::select! {
            inherited = talk.freed() => inherited,
            _ = until_stopped(&self.scope) => Ok(()),
        };
        late.extend(self.close().await);
        match inherited {
            Ok(()) => Ok(late),
            Err(error) => Err(Failure::Failed(format!("whoever was to take over ended before it answered: {error}"))),
        }
    }

    /// What the node tells of itself.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The platform, reached without a socket.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The scope of all that runs.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Stops everything in order. Tells what did not end in time.
    pub(crate) async fn close(self) -> Vec<String> {
        let late = self.scope.close(CLOSE_DEADLINE).await;
        self.telemetry.flush(FLUSH_DEADLINE).await;
        late
    }
}

fn unusable(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("a bound socket has no address: {error}"))
}

fn local(listener: &tokio::net::TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| unusable(&error))
}

/// Makes the data folder and proves that it can be written.
fn prepare(data: &Path) -> Result<(), Failure> {
    let refused = |error: std::io::Error| Failure::Data { path: data.display().to_string(), why: error.to_string() };
    std::fs::create_dir_all(data).map_err(refused)?;
    let probe = data.join(".writable");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(refused)
}

/// The node's name, made once and kept with its data.
fn node_name(data: &Path) -> Result<String, Failure> {
    let refused = |error: std::io::Error| Failure::Data { path: data.display().to_string(), why: error.to_string() };
    let path = data.join("node");
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
        Ok(_) => make_name(&path).map_err(refused),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make_name(&path).map_err(refused),
        Err(error) => Err(refused(error)),
    }
}

fn make_name(path: &Path) -> std::io::Result<String> {
    let name = format!("node-{}", std::iter::repeat_with(fastrand::lowercase).take(6).collect::<String>());
    std::fs::write(path, &name)?;
    Ok(name)
}

/// Starts the roles from the bottom up; answers the way to reach them from inside.
///
/// All but the children and the edge have a scope of their own, because those two outlive it when a node hands over.
async fn start_roles(
    settings: Settings,
    (doors, opening): (Doors, Opening),
    facts: &mut Facts,
    ring: Ring,
    journal: Journal,
    scope: &Scope,
) -> Result<(Platform, Roles), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(fault::chain(error));
    let (link, later) = Link::later();
    let platform = Platform::here(link.clone(), facts.endpoint());

    let tls = settings.access.tls().map(ServerTls::new).transpose().map_err(|error| failed(&error))?;
    let base = scope.child("base");
    let store = open_store(&settings, &base.child("store")).await?;
    // The doors of the platform stand below the roles that use it on their way out: control stops children, which say
    // goodbye to the registry, and telemetry is taken in to the end. So they are made early and closed late.
    let door_scope = base.child("platform");
    let access = start_access(&settings, store.clone(), ring.clone(), facts, &base.child("access")).await?;
    crate::host::watch(settings.data.clone());
    let among = passes::among_nodes(&settings, facts, store.clone())?;
    let monitor = Monitor::open(settings.monitor, &base.child("monitor"))
        .await
        .map_err(|error| Failure::Store(fault::chain(&error)))?;
    monitor.join(among, &base.child("monitor.nodes"));
    monitor.follow(link.clone(), facts.node.clone(), &base.child("monitor.rules"));
    let contract_deps = ninefold_contract::Deps {
        store: store.clone(),
        registry: Some(link.clone()),
        remembered: is_shared(&settings.store).then(|| settings.data.join("contract")),
    };
    let contract = Contract::start(settings.contract, contract_deps, &base.child("contract"))
        .await
        .map_err(|error| failed(&error))?;
    let registry_deps = ninefold_registry::Deps {
        store: store.clone(),
        contract: Some(link.clone()),
        node: facts.node.clone(),
        remembered: remembered(&settings.store, &settings.data, "registry"),
    };
    let registry = Registry::start(settings.registry, registry_deps, &base.child("registry"))
        .await
        .map_err(|error| failed(&error))?;
    registry.follow_policies(link.clone());
    let documents = Documents::start(settings.config, store.clone(), &base.child("config"));
    let alert_deps = ninefold_alert::Deps { platform: link.clone(), store: store.clone(), node: facts.node.clone() };
    let alerts = Alerts::start(&settings.alert, alert_deps, &base.child("alert"));
    let control_deps = ninefold_control::Deps {
        store,
        registry: link.clone(),
        node: facts.node.clone(),
        environment: child_environment(facts),
        passes: passes::of_children(ring, &settings.data, settings.access.authentication),
        runner: std::env::current_exe().map_err(|error| failed(&error))?,
        logs: Arc::new(lines::ToMonitor(monitor.lines())),
    };
    let control = Control::start(settings.control, control_deps, &scope.child("control"))
        .await
        .map_err(|error| failed(&error))?;
    let (severable, knife) = link.clone().severable();
    let gateway_deps = ninefold_gateway::Deps {
        opening,
        registry: severable.clone(),
        contract: severable.clone(),
        access: severable.clone(),
        config: severable,
        node: facts.node.clone(),
        witness: Arc::new(witness::ToRegistry(registry.clone())),
        journal,
    };
    let gateway = Gateway::start(settings.gateway, gateway_deps, doors.edge, &scope.child("gateway"))
        .await
        .map_err(|error| failed(&error))?;

    let dialect_deps = ninefold_dialect::Deps {
        registry: link.clone(),
        node: facts.node.clone(),
        witness: Arc::new(witness::ToRegistry(registry.clone())),
    };
    let dialect =
        Dialect::start(settings.dialect, dialect_deps, &base.child("dialect")).await.map_err(|error| failed(&error))?;
    facts.dns = dialect.dns();

    let mut routes = RoutesBuilder::default();
    access.add_to(&mut routes);
    contract.add_to(&mut routes);
    registry.add_to(&mut routes);
    documents.add_to(&mut routes);
    monitor.add_to(&mut routes);
    alerts.add_to(&mut routes);
    control.add_to(&mut routes);
    gateway.add_to(&mut routes);
    dialect.add_to(&mut routes);
    let routes = routes.routes();
    later.leads_to(Link::from(routes.clone()));

    // Through the same routes as gRPC, so that what guards a method guards it whatever is spoken.
    let bindings = Bindings::new(ninefold_proto::DESCRIPTOR_SET, Link::from(routes.clone()), door_scope.stop())
        .map_err(Failure::Failed)?;
    let page = page::router(platform.clone(), facts.clone(), bindings)
        .merge(dialect.http_router())
        .merge(monitor.query_router())
        .merge(alerts.http_router())
        .merge(monitor.guests_router());
    doors.platform.open(Behind { routes, page, monitor: &monitor, access: &access, tls }, &door_scope);
    Ok((platform, Roles { base, monitor, control, gateway, knife }))
}

/// Where a role remembers what it last read of a store that others may take away.
fn remembered(store: &ninefold_store::Config, data: &Path, role: &str) -> Option<Remembered> {
    is_shared(store).then(|| Remembered::at(data.join(role).join("known")))
}

fn is_shared(store: &ninefold_store::Config) -> bool {
    store.backend == ninefold_store::Backend::Etcd
}

/// Opens the store. One that is away is opened all the same by a node that remembers what it last read there.
async fn open_store(settings: &Settings, scope: &Scope) -> Result<Arc<dyn ninefold_store::Store>, Failure> {
    let failed = |error: &ninefold_store::Error| Failure::Store(fault::chain(error));
    let (store, away) = ninefold_store::open_anyway(&settings.store, scope).await.map_err(|error| failed(&error))?;
    let Some(away) = away else { return Ok(store) };
    let knows = |role| remembered(&settings.store, &settings.data, role).is_some_and(|file| file.is_there());
    if !(knows("registry") && knows("access")) {
        return Err(failed(&away));
    }
    output::talk(format!(
        "ninefold: WARNING: the store is away; the node starts with what it remembers, and changes nothing until the \
         store is back: {}",
        fault::chain(&away),
    ));
    Ok(store)
}

/// Starts access, and sees to it that somebody can ask for more tokens.
async fn start_access(
    settings: &Settings,
    store: Arc<dyn ninefold_store::Store>,
    ring: Ring,
    facts: &Facts,
    scope: &Scope,
) -> Result<Access, Failure> {
    let failed = |error: ninefold_access::Error| Failure::Failed(fault::chain(&error));
    let remembered = remembered(&settings.store, &settings.data, "access");
    let deps = ninefold_access::Deps { store, ring, remembered };
    let access = Access::start(settings.access.clone(), deps, ninefold_proto::DESCRIPTOR_SET, scope);
    let access = access.await.map_err(failed)?;
    if settings.access.authentication == Authentication::Token {
        access.put_admin_token(&passes::admin_token(&settings.data), &facts.node).await.map_err(failed)?;
        if is_shared(&settings.store) {
            passes::put_node_token(&access, &settings.data, &facts.node).await;
        }
    }
    Ok(access)
}

/// Says at every start who reaches the node.
fn warn(openness: &Openness) {
    match openness {
        Openness::Loopback | Openness::Guarded { is_secure: true } | Openness::Refused(_) => {}
        Openness::Guarded { is_secure: false } => output::talk(
            "ninefold: note: tokens travel in clear text beyond this machine: give the platform a certificate \
             (--tls-cert, --tls-key), or put it behind TLS",
        ),
        Openness::Insecure => output::talk(
            "\nninefold: WARNING: --insecure: this node listens beyond this machine and asks nobody who they are.\n  \
             Whoever reaches it can do everything, run commands included. Use --auth token or --auth mtls instead.\n",
        ),
    }
}

/// What every child is told on top of what is its own.
fn child_environment(facts: &Facts) -> BTreeMap<String, String> {
    // What children remember is of this landscape, and goes with it.
    let cache = std::path::absolute(&facts.data).unwrap_or_else(|_| facts.data.clone().into()).join("cache");
    [
        ("NINEFOLD_ENDPOINT", facts.own_endpoint()),
        // The node's own variable of this name must not become the child's.
        ("NINEFOLD_LISTEN", "127.0.0.1:0".to_owned()),
        ("NINEFOLD_CACHE_DIR", cache.display().to_string()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", facts.own_otlp()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Waits for Ctrl-C, SIGTERM or a failure inside; answers the failure. A second signal ends the process at once.
pub(crate) async fn until_stopped(scope: &Scope) -> Option<String> {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return Some("signals cannot be listened for".to_owned());
    };
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = scope.failed() => Some(failure),
    };
    scope.run("node.second_signal", |stop| async move {
        tokio::select! {
            _ = terminate.recv() => std::process::exit(130),
            _ = interrupt.recv() => std::process::exit(130),
            // Open until the very end: the root's own tasks stop last.
            () = stop.asked() => {}
        }
    });
    failure
}

/// How long a start took, for the banner.
pub(crate) fn since(start: Instant) -> String {
    format!("{} ms", start.elapsed().as_millis())
}
