//! `ninefold run`: a program of any language as an instance of a service.
//!
//! The program gets a port and the names of things through its environment; what it offers is read from its reflection;
//! it is registered for as long as it runs, and what it prints goes to the central logs. A platform that is away changes
//! nothing for the program: it joins later.

mod proc;
mod queue;
mod ready;
mod reflection;
mod ship;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use ninefold::lifecycle::Scope;
use ninefold::session::{self, Registration, Session};
use ninefold::settings::duration;
use ninefold::tonic::Code;
use ninefold_control::Error;
use ninefold_control::process::{Ended, Exit, Process, Spawner, Spec, Step};
use ninefold_proto::ninefold::registry::v1::health_check::Kind;
use ninefold_proto::ninefold::registry::v1::{
    Address, GetInstanceRequest, GrpcHealthCheck, HealthCheck, HttpHealthCheck, Instance, InstanceState,
    ListServicesRequest, Protocol, TcpHealthCheck,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::{Platform, within};
use crate::exit::Failure;
use crate::output::talk;
use queue::Lines;
use ready::Spoken;

/// How long callers have to see that an instance drains before its program is asked to leave.
const DRAIN_SEEN: Duration = Duration::from_millis(300);
/// How long the platform may take to say that callers have seen that an instance drains; it waits for them 2 s itself.
const DRAIN_PATIENCE: Duration = Duration::from_millis(2500);
/// How long the platform may take to note a farewell.
const PLATFORM_PATIENCE: Duration = Duration::from_millis(500);
/// After this long without the platform, the person at the terminal is told.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the last lines may take to reach the platform.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Longest name of a service.
const NAME_CHARS_MAX: usize = 63;

/// What to run, and as what.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Name of the service.
    #[arg(short, long, value_parser = service_name)]
    name: String,
    /// Id of the instance. Made up if none is given.
    #[arg(long, value_name = "ID")]
    instance_id: Option<String>,
    /// Port that the program is to listen on, given to it as PORT. A free one is picked if none is given.
    #[arg(long)]
    port: Option<u16>,
    /// What the program speaks. Found out if not given.
    #[arg(long, value_enum)]
    protocol: Option<Speech>,
    /// Version of the program.
    #[arg(long = "program-version", value_name = "VERSION", default_value = "")]
    version: String,
    /// A label, such as team=pumps. May be given more than once.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How the platform asks the program whether it is well: grpc, tcp, off, or a path that is answered 200 to 399 over
    /// HTTP, such as /healthz [default: grpc for gRPC, tcp for HTTP].
    #[arg(long, value_name = "HOW", value_parser = health)]
    health: Option<Asked>,
    /// How often it asks.
    #[arg(long, default_value = "5s", value_parser = duration::parse, value_name = "TIME")]
    health_interval: Duration,
    /// Share of calls, 1 to 10000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    weight: u32,
    /// How long the program may take to leave before it is killed.
    #[arg(long, default_value = "10s", value_parser = duration::parse, value_name = "TIME")]
    grace: Duration,
    /// How long the program may take to listen.
    #[arg(long, default_value = "60s", value_parser = duration::parse, value_name = "TIME")]
    wait: Duration,
    /// Program and arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Speech {
    /// gRPC over cleartext HTTP/2.
    Grpc,
    /// Plain HTTP/1.1.
    Http,
}

/// How a program is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Not at all.
    Off,
    /// By grpc.health.v1.
    Grpc,
    /// By connecting.
    Tcp,
    /// By a GET of this path.
    Http(String),
}

fn health(text: &str) -> Result<Asked, String> {
    match text {
        "off" => Ok(Asked::Off),
        "grpc" => Ok(Asked::Grpc),
        "tcp" => Ok(Asked::Tcp),
        path if path.starts_with('/') => Ok(Asked::Http(path.to_owned())),
        _ => Err("is neither grpc, tcp, off nor a path such as /healthz".to_owned()),
    }
}

/// How the platform is to ask the program.
fn health_check(args: &RunArgs, protocol: Protocol) -> Option<HealthCheck> {
    let usual = if protocol == Protocol::Http { Asked::Tcp } else { Asked::Grpc };
    let kind = match args.health.clone().unwrap_or(usual) {
        Asked::Off => return None,
        Asked::Grpc => Kind::Grpc(GrpcHealthCheck::default()),
        Asked::Tcp => Kind::Tcp(TcpHealthCheck {}),
        Asked::Http(path) => Kind::Http(HttpHealthCheck { path }),
    };
    let interval = prost_types::Duration::try_from(args.health_interval).ok();
    Some(HealthCheck { kind: Some(kind), interval, ..HealthCheck::default() })
}

fn service_name(text: &str) -> Result<String, String> {
    let is_plain = text.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-'));
    if text.is_empty() || text.len() > NAME_CHARS_MAX || !is_plain {
        return Err("a name is 1 to 63 lowercase letters, digits and hyphens".to_owned());
    }
    Ok(text.to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs a program until it ends or this process is asked to leave. A program that ends badly is [`Failure::Child`] with
/// its code (128 and the signal's number for a signal).
pub(crate) async fn run(args: RunArgs, platform: &Platform) -> Result<(), Failure> {
    let scope = Scope::root("run");
    let outcome = run_in(args, platform, &scope).await;
    scope.close(CLOSE_WITHIN).await;
    outcome
}

async fn run_in(args: RunArgs, platform: &Platform, scope: &Scope) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| Failure::Failed(format!("cannot listen to signals: {error}")))?;
    let port = args.port.map_or_else(free_port, Ok);
    let port = port.map_err(|error| Failure::Failed(format!("no free port can be had: {error}")))?;
    let id = || format!("{}-{}", args.name, std::iter::repeat_with(fastrand::lowercase).take(5).collect::<String>());
    let instance_id = args.instance_id.clone().unwrap_or_else(id);

    // Lines are sent on to the very end: their scope is the last to close.
    let lines = Arc::new(Lines::default());
    let shipping = ship::Shipping::new(platform.link(), &args.name, &instance_id);
    shipping.ship_lines(lines.clone(), &scope.child("run.lines"));
    let hands = scope.child("run.program");
    let started = start(&args, port, &instance_id, platform, lines, &hands).await;
    let process = started.map_err(|error| Failure::Failed(ninefold::fault::chain(&error)))?;
    shipping.ship_usage(process.pid(), &scope.child("run.usage"));

    let mut program = Program { process, grace: args.grace };
    let spoken = tokio::select! {
        ended = program.process.ended() => return outcome(&ended),
        () = signals.next() => return program.leave(&mut signals).await,
        spoken = ready::wait(port, args.protocol, args.wait) => spoken,
    };
    let Some(spoken) = spoken else {
        talk(format!(
            "ninefold run: the program does not listen on port {port} after {}; it is stopped\n  \
             it finds its port in the variable PORT; --port gives it another, --wait more time",
            duration::format(args.wait)
        ));
        let _ = program.leave(&mut signals).await;
        return Err(Failure::Unhealthy(format!("{} did not listen in time", args.name)));
    };
    let registration = registration(&args, platform.namespace(), &instance_id, &spoken).await;
    let session = join(registration, platform, scope).await;
    let told = tokio::select! {
        ended = program.process.ended() => Told::Ended(ended),
        () = signals.next() => Told::Leave("stopping".to_owned()),
        reason = asked_by_platform(session.as_ref()) => Told::Leave(reason),
    };
    match told {
        Told::Ended(ended) => {
            farewell(session.as_ref(), &ended).await;
            outcome(&ended)
        }
        Told::Leave(reason) => {
            drain(session.as_ref(), &reason, &mut signals).await;
            let outcome = program.leave(&mut signals).await;
            if let Some(session) = &session {
                session.leave(&reason, PLATFORM_PATIENCE).await;
            }
            outcome
        }
    }
}

enum Told {
    Ended(Ended),
    Leave(String),
}

/// A port that was free a moment ago. Another program could take it in between; the program then says so and ends.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?.port())
}

async fn start(
    args: &RunArgs,
    port: u16,
    instance_id: &str,
    platform: &Platform,
    lines: Arc<Lines>,
    scope: &Scope,
) -> Result<Process, Error> {
    let spec = Spec {
        service: args.name.clone(),
        instance_id: instance_id.to_owned(),
        command: args.command.clone(),
        environment: environment(args, port, instance_id, platform, |name| std::env::var(name).ok()),
        withheld: vec!["NINEFOLD_LISTEN".to_owned()],
        working_directory: None,
        grace: args.grace,
        delivers: false,
    };
    Spawner::start(scope)?.spawn(spec, lines).await
}

/// What the program is told. Where it exports telemetry to is its user's choice, if there is one.
fn environment(
    args: &RunArgs,
    port: u16,
    instance_id: &str,
    platform: &Platform,
    outer: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let attributes = outer("OTEL_RESOURCE_ATTRIBUTES").filter(|attributes| !attributes.is_empty());
    let attributes = attributes.filter(|attributes| !attributes.contains("service.instance.id="));
    let attributes = attributes.map(|attributes| format!(",{attributes}")).unwrap_or_default();
    let mut environment = BTreeMap::from(
        [
            ("PORT", port.to_string()),
            ("NINEFOLD_ENDPOINT", platform.endpoint().to_owned()),
            ("NINEFOLD_NAMESPACE", platform.namespace().to_owned()),
            ("NINEFOLD_SERVICE", args.name.clone()),
            ("NINEFOLD_INSTANCE_ID", instance_id.to_owned()),
            ("OTEL_SERVICE_NAME", args.name.clone()),
            ("OTEL_RESOURCE_ATTRIBUTES", format!("service.instance.id={instance_id}{attributes}")),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let is_unset = |name: &str| outer(name).is_none_or(|value| value.is_empty());
    if is_unset("OTEL_EXPORTER_OTLP_ENDPOINT") {
        // Any node of the platform takes OTLP over gRPC on its own port.
        let first = platform.endpoint().split(',').next().unwrap_or_default().trim().to_owned();
        environment.insert("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), first);
        environment.insert("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), "grpc".to_owned());
        // Stock exporters know no other way to be told a token than this variable.
        if let (Some(value), true) = (platform.credentials().bearer(), is_unset("OTEL_EXPORTER_OTLP_HEADERS")) {
            let value = value.to_str().unwrap_or_default().replace(' ', "%20");
            environment.insert("OTEL_EXPORTER_OTLP_HEADERS".to_owned(), format!("authorization={value}"));
        }
        if let (Some(ca), true) = (outer("NINEFOLD_CA_FILE"), is_unset("OTEL_EXPORTER_OTLP_CERTIFICATE")) {
            environment.insert("OTEL_EXPORTER_OTLP_CERTIFICATE".to_owned(), ca);
        }
    }
    environment
}

/// What is said of the program to the platform. Its contract is read from its reflection; without one it is registered
/// all the same, and its user is told what is missing.
async fn registration(args: &RunArgs, namespace: &str, instance_id: &str, spoken: &Spoken) -> Registration {
    let contract = match spoken.protocol {
        Protocol::Http => None,
        Protocol::Grpc | Protocol::Unspecified => match reflection::read(spoken.address).await {
            Ok(contract) => Some(contract),
            Err(error) => {
                talk(format!(
                    "ninefold run: warning: {}\n  it is registered without its contract: other services reach it by \
                     name, the edge does not show it",
                    ninefold::fault::chain(&error)
                ));
                None
            }
        },
    };
    let (services, descriptor_set) =
        contract.map_or((Vec::new(), None), |contract| (contract.services, Some(contract.set)));
    if !services.is_empty() {
        talk(format!("ninefold run: {instance_id} offers {}", services.join(", ")));
    }
    let instance = Instance {
        namespace: namespace.to_owned(),
        service: args.name.clone(),
        instance_id: instance_id.to_owned(),
        addresses: vec![Address { host: spoken.address.ip().to_string(), port: spoken.address.port().into() }],
        version: args.version.clone(),
        zone: std::env::var("NINEFOLD_ZONE").unwrap_or_default(),
        region: std::env::var("NINEFOLD_REGION").unwrap_or_default(),
        weight: args.weight,
        labels: args.labels.iter().cloned().collect(),
        protobuf_services: services,
        state: InstanceState::Serving.into(),
        start_time: Some(SystemTime::now().into()),
        protocol: spoken.protocol.into(),
        health_check: health_check(args, spoken.protocol),
        ..Instance::default()
    };
    Registration { instance, descriptor_set }
}

/// Registers the program, unless it has done so itself under the id that it was given.
async fn join(registration: Registration, platform: &Platform, scope: &Scope) -> Option<Session> {
    let Instance { namespace, service, instance_id, .. } = registration.instance.clone();
    let request = within(GetInstanceRequest { service: service.clone(), instance_id: instance_id.clone(), namespace });
    if platform.registry().get_instance(request).await.is_ok() {
        talk(format!("ninefold run: {instance_id} has joined by itself"));
        return None;
    }
    let nothing_seen = futures_util::stream::pending().boxed();
    let session = session::hold(registration, platform.link(), nothing_seen, &scope.child("run.session"));
    let mut known = session.known();
    let platform = platform.clone();
    scope.run("run.tell", |stop| async move {
        let tell = async {
            let is_joined = |known: &session::Known| known.instance.is_some();
            if !matches!(tokio::time::timeout(JOIN_PATIENCE, known.wait_for(is_joined)).await, Ok(Ok(_))) {
                talk(format!("ninefold run: {}", not_joined(&platform).await));
                if known.wait_for(is_joined).await.is_err() {
                    return;
                }
            }
            let refused = known.borrow().refused.clone();
            if !refused.is_empty() {
                talk(refusal(&service, &refused));
                if known.wait_for(|known| known.refused.is_empty()).await.is_err() {
                    return;
                }
            }
            talk(format!("ninefold run: {instance_id} has joined as an instance of {service}"));
        };
        tokio::select! {
            () = stop.asked() => {}
            () = tell => {}
        }
    });
    Some(session)
}

/// What a refused contract means, for people.
fn refusal(service: &str, findings: &[String]) -> String {
    let listed: String = findings.iter().map(|finding| format!("\n  {finding}")).collect();
    format!(
        "ninefold run: the contract is refused, so {service} gets no calls here:{listed}\n  \
         mend it, move to a new package (ninefold contract fork), or have it accepted: ninefold contract accept {service} \
         --reason ..."
    )
}

/// Why the program has not joined yet, as far as one question tells.
async fn not_joined(platform: &Platform) -> String {
    let question =
        platform.registry().list_services(within(ListServicesRequest { page_size: 1, ..Default::default() })).await;
    match question {
        Ok(_) => "the platform has not taken the program in yet; its log tells why".to_owned(),
        Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => format!(
            "the platform at {} does not let us in: {}; the program runs on and joins when it does",
            platform.endpoint(),
            status.message()
        ),
        Err(status) => format!(
            "no platform answers at {} ({}); the program runs on and joins when there is one",
            platform.endpoint(),
            status.message()
        ),
    }
}

async fn asked_by_platform(session: Option<&Session>) -> String {
    match session {
        Some(session) => session.drain_requested().await,
        None => std::future::pending().await,
    }
}

async fn farewell(session: Option<&Session>, ended: &Ended) {
    if let Some(session) = session {
        session.leave(&ended.to_string(), PLATFORM_PATIENCE).await;
    }
}

/// Has callers go elsewhere before the program leaves. A second signal cuts it short.
async fn drain(session: Option<&Session>, reason: &str, signals: &mut Signals) {
    let Some(session) = session else { return };
    let drain = async {
        if session.set_state(InstanceState::Draining, reason, DRAIN_PATIENCE).await {
            tokio::time::sleep(DRAIN_SEEN).await;
        }
    };
    tokio::select! {
        () = drain => {}
        () = signals.next() => {}
    }
}

/// A running program.
struct Program {
    process: Process,
    grace: Duration,
}

impl Program {
    /// Asks the program to leave and waits for it; a signal meanwhile kills it. Leaving when asked is no failure.
    async fn leave(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        self.process.stop(self.grace);
        let ended = tokio::select! {
            ended = self.process.ended() => ended,
            () = signals.next() => {
                self.process.stop(Duration::ZERO);
                self.process.ended().await
            }
        };
        match (ended.step, ended.exit) {
            (Step::Asked, Exit::Code(0) | Exit::Signal(_)) => Ok(()),
            (Step::ByItself | Step::Asked | Step::Killed, _) => outcome(&ended),
        }
    }
}

/// How this process ends when its program has ended so.
fn outcome(ended: &Ended) -> Result<(), Failure> {
    match ended.exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(Failure::Child(u8::try_from(code).unwrap_or(1))),
        Exit::Signal(signal) => Err(Failure::Child(u8::try_from(128 + signal).unwrap_or(1))),
        Exit::Unknown => Err(Failure::Child(1)),
    }
}

/// The signals that ask this process to leave.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
