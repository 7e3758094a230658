//! A node: the roles in one process, their ports, and the order in which they start and stop.
//!
//! Addresses are bound before anything else, so that a busy port fails before work starts. Roles meet each other through
//! one link to all routes of the node. Stopping runs against the build order: the doors first, the store last.

mod lines;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ninefold::lifecycle::{OnError, Scope};
use ninefold::serve::{self, Listener, ServeConfig};
use ninefold::telemetry::{self, Identity, Telemetry};
use ninefold::tonic::service::{Routes, RoutesBuilder};
use ninefold::{Credentials, Link, fault};
use ninefold_config::Documents;
use ninefold_contract::Contract;
use ninefold_control::Control;
use ninefold_gateway::Gateway;
use ninefold_monitor::Monitor;
use ninefold_registry::Registry;
use serde_json::{Value, json};

use crate::client::Platform;
use crate::exit::Failure;
use crate::page;
use crate::settings::Settings;

/// Longest time for everything to end after a signal. Longer than the grace of a child.
const CLOSE_DEADLINE: Duration = Duration::from_secs(20);
/// Longest time in which what a node still has to tell is sent.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// A node that runs.
pub(crate) struct Node {
    scope: Scope,
    telemetry: Telemetry,
    platform: Platform,
    facts: Facts,
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
    /// Folder of its data.
    pub(crate) data: String,
    /// Kind of its store.
    pub(crate) store: &'static str,
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
            "data": self.data,
            "store": self.store,
            "pid": std::process::id(),
        })
    }

    /// URL at which this machine reaches the platform.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", reachable(self.platform))
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
fn tell(facts: &Facts) -> Result<Telemetry, Failure> {
    let failed = |error: ninefold::Error| Failure::Failed(fault::chain(&error));
    let itself = format!("http://{}", reachable(facts.otlp_grpc)).parse().expect("an address makes a URL");
    let mut config = telemetry::Config::from_env(&[itself], &Credentials::default()).map_err(failed)?;
    config.output = telemetry::Output::Stderr;
    let is_told = ["NINEFOLD_LOG", "RUST_LOG"].iter().any(|name| std::env::var_os(name).is_some());
    config.printed = Some(if is_told { config.filter.clone() } else { "warn".to_owned() });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    telemetry::start(&config, &Identity { service: "ninefold".to_owned(), instance_id: facts.node.clone(), version })
        .map_err(failed)
}

/// The addresses of a node, bound.
struct Doors {
    edge: tokio::net::TcpListener,
    platform: Listener,
    otlp_grpc: Listener,
    otlp_http: Listener,
}

impl Node {
    /// Starts all roles. What was started before a failure is closed again.
    pub(crate) async fn start(settings: Settings) -> Result<Self, Failure> {
        prepare(&settings.data)?;
        let name = node_name(&settings.data)?;
        let doors = Doors::bind(&settings).await?;
        let facts = Facts {
            node: name.clone(),
            edge: local(&doors.edge)?,
            platform: doors.platform.address(),
            otlp_grpc: doors.otlp_grpc.address(),
            otlp_http: doors.otlp_http.address(),
            data: settings.data.display().to_string(),
            store: match settings.store.backend {
                ninefold_store::Backend::Embedded => "embedded",
                ninefold_store::Backend::Etcd => "etcd",
            },
        };
        let telemetry = tell(&facts)?;
        let scope = Scope::root("node");
        match start_roles(settings, doors, &facts, &scope).await {
            Ok(platform) => Ok(Self { scope, telemetry, platform, facts }),
            Err(failure) => {
                scope.close(CLOSE_DEADLINE).await;
                Err(failure)
            }
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

impl Doors {
    /// Binds all addresses, and names all that cannot be had.
    async fn bind(settings: &Settings) -> Result<Self, Failure> {
        let listen = &settings.listen;
        let doors = (
            bind(listen.edge, "the edge", "--edge-listen").await,
            bind(listen.platform, "the platform", "--listen").await,
            bind(listen.otlp_grpc, "OTLP over gRPC", "--otlp-grpc-listen").await,
            bind(listen.otlp_http, "OTLP over HTTP", "--otlp-http-listen").await,
        );
        match doors {
            (Ok(edge), Ok(platform), Ok(otlp_grpc), Ok(otlp_http)) => Ok(Self {
                edge,
                platform: Listener::of(platform).map_err(|error| unusable(&error))?,
                otlp_grpc: Listener::of(otlp_grpc).map_err(|error| unusable(&error))?,
                otlp_http: Listener::of(otlp_http).map_err(|error| unusable(&error))?,
            }),
            (edge, platform, otlp_grpc, otlp_http) => {
                let refused = [edge.err(), platform.err(), otlp_grpc.err(), otlp_http.err()];
                Err(Failure::Addresses(refused.into_iter().flatten().collect()))
            }
        }
    }
}

fn unusable(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("a bound socket has no address: {error}"))
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> Result<tokio::net::TcpListener, String> {
    let refused = |error| format!("on {address} for {what} ({flag}): {error}");
    tokio::net::TcpListener::bind(address).await.map_err(refused)
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
async fn start_roles(settings: Settings, doors: Doors, facts: &Facts, scope: &Scope) -> Result<Platform, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(fault::chain(error));
    let (link, later) = Link::later();
    let platform = Platform::here(link.clone(), facts.endpoint());

    let store = ninefold_store::open(&settings.store, &scope.child("store"))
        .await
        .map_err(|error| Failure::Store(fault::chain(&error)))?;
    // The doors of the platform stand below the roles that use it on their way out: control stops children, which say
    // goodbye to the registry, and telemetry is taken in to the end. So they are made early and closed late.
    let door_scope = scope.child("platform");
    let monitor = Monitor::start(settings.monitor, &scope.child("monitor"));
    let contract = Contract::start(settings.contract, store.clone(), &scope.child("contract"))
        .await
        .map_err(|error| failed(&error))?;
    let registry_deps = ninefold_registry::Deps { store: store.clone(), node: facts.node.clone() };
    let registry = Registry::start(settings.registry, registry_deps, &scope.child("registry"))
        .await
        .map_err(|error| failed(&error))?;
    let documents = Documents::start(settings.config, store.clone(), &scope.child("config"));
    let control_deps = ninefold_control::Deps {
        store,
        registry: link.clone(),
        node: facts.node.clone(),
        environment: child_environment(facts),
        runner: std::env::current_exe().map_err(|error| failed(&error))?,
        logs: Arc::new(lines::ToMonitor(monitor.lines())),
    };
    let control = Control::start(settings.control, control_deps, &scope.child("control"))
        .await
        .map_err(|error| failed(&error))?;
    let gateway_deps = ninefold_gateway::Deps { registry: link.clone(), contract: link.clone() };
    let gateway = Gateway::start(settings.gateway, gateway_deps, doors.edge, &scope.child("gateway"))
        .await
        .map_err(|error| failed(&error))?;

    let mut routes = RoutesBuilder::default();
    contract.add_to(&mut routes);
    registry.add_to(&mut routes);
    documents.add_to(&mut routes);
    monitor.add_to(&mut routes);
    control.add_to(&mut routes);
    gateway.add_to(&mut routes);
    let routes = routes.routes();
    later.leads_to(Link::from(routes.clone()));

    let page = page::router(platform.clone(), facts.clone());
    open_doors(doors.platform, doors.otlp_grpc, doors.otlp_http, routes, page, &monitor, &door_scope);
    Ok(platform)
}

fn open_doors(
    platform: Listener,
    otlp_grpc: Listener,
    otlp_http: Listener,
    routes: Routes,
    page: axum::Router,
    monitor: &Monitor,
    scope: &Scope,
) {
    let descriptor_sets = vec![bytes::Bytes::from_static(ninefold_proto::DESCRIPTOR_SET)];
    let config = ServeConfig { http1: true, descriptor_sets, ..ServeConfig::default() };
    scope.spawn("platform.serve", OnError::Shutdown, {
        move |stop| serve::run(platform, page::with(routes, page), config, async move { stop.asked().await })
    });
    let otlp = monitor.otlp_routes();
    scope.spawn("otlp.serve", OnError::Shutdown, move |stop| {
        serve::run(otlp_grpc, otlp, ServeConfig::default(), async move { stop.asked().await })
    });
    let http = Routes::from(monitor.http_router());
    scope.spawn("otlp.serve_http", OnError::Shutdown, move |stop| {
        let config = ServeConfig { http1: true, ..ServeConfig::default() };
        serve::run(otlp_http, http, config, async move { stop.asked().await })
    });
}

/// What every child is told on top of what is its own.
fn child_environment(facts: &Facts) -> BTreeMap<String, String> {
    let otlp = format!("http://{}", reachable(facts.otlp_grpc));
    [
        ("NINEFOLD_ENDPOINT", facts.endpoint()),
        // The node's own variable of this name must not become the child's.
        ("NINEFOLD_LISTEN", "127.0.0.1:0".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp),
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
