//! What a change of one of a thousand services costs: the edge alone, before a registry and a contract store in this
//! process's hands, while requests go through it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::stream::{self, StreamExt as _};
use http::Request;
use ninefold::Link;
use ninefold::lifecycle::{OnError, Scope};
use ninefold::proto::ninefold::contract::v1::{GetContractRequest, GetContractResponse};
use ninefold::proto::ninefold::registry::v1 as registry;
use ninefold::serve::{self, Listener, ServeConfig};
use ninefold::telemetry::Journal;
use ninefold_gateway::{Config, Deps, Gateway, Notice, Opening, Witness};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::service::Routes;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::order::SMALL;
use crate::place::{Process, median};
use crate::service::pb;

/// Services, and methods of each; a method has a route of REST and one of gRPC.
const SERVICES: usize = 1000;
const METHODS: usize = 10;
/// Changes that are measured.
const CHANGES: usize = 21;
/// Pause between two changes.
const PAUSE: Duration = Duration::from_millis(200);
/// Requests a second meanwhile.
const PER_SECOND: u64 = 1000;
/// How long the load runs.
const LOAD_MILLIS: u64 = 12_000;

type Contracts = Arc<Mutex<HashMap<String, Vec<u8>>>>;

struct Nobody;

impl Witness for Nobody {
    fn note(&self, _: Notice) {}
}

/// Measures, and prints a table.
pub(crate) async fn run() -> Result<()> {
    let scope = Scope::root("bench");
    let backend = Listener::bind("127.0.0.1:0").await?;
    let port = backend.address().port();
    let routes = Routes::new(pb::order_service_server::OrderServiceServer::new(crate::service::Service));
    scope.spawn("bench.serve", OnError::Log, move |stop| async move {
        serve::run(backend, routes, ServeConfig::default(), async move { stop.asked().await }).await
    });
    let contracts = Contracts::default();
    put(&contracts, "sha256:order", pb::DESCRIPTOR_SET.to_vec());
    let mut instances = vec![instance("order", "sha256:order", port, &["bench.edge.v1.OrderService".to_owned()])];
    for service in 0..SERVICES {
        put(&contracts, &digest(service, 0), contract(service, METHODS - 1)?);
        instances.push(instance(&format!("s{service}"), &digest(service, 0), port, &protobuf_services(service)));
    }
    let (changed, changes) = watch::channel(registry::Instance::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let edge = listener.local_addr()?;
    let deps = Deps {
        config: Link::new(service_fn(|_: Request<Body>| async { unknown() })),
        access: Link::new(service_fn(|_: Request<Body>| async { unknown() })),
        node: "bench".to_owned(),
        witness: Arc::new(Nobody),
        journal: Journal::silent(),
        registry: told(instances, changes),
        contract: kept(contracts.clone()),
        opening: Opening::WhenKnown,
    };
    let begin = Instant::now();
    let gateway = Gateway::start(Config::default(), deps, listener, &scope.child("gateway")).await?;
    gateway.until_known().await;
    println!(
        "| {} routes of {SERVICES} services known after | {} ms |",
        2 * SERVICES * METHODS,
        millis(begin.elapsed())
    );
    println!("|---|---|");
    let mut load = load(edge)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut took = Vec::new();
    for at in 0..CHANGES {
        // A version with one more method, each time of another service.
        let service = at * SERVICES / CHANGES;
        put(&contracts, &digest(service, 1), contract(service, METHODS)?);
        let begin = Instant::now();
        changed.send_replace(instance(&format!("s{service}"), &digest(service, 1), port, &protobuf_services(service)));
        while status(edge, &path(service, METHODS - 1)).await? == 404 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(millis(begin.elapsed()));
        tokio::time::sleep(PAUSE).await;
    }
    let worst = took.iter().copied().fold(0.0, f64::max);
    println!("| from a changed instance to its new route, median of {CHANGES} | {:.0} ms |", median(took));
    println!("| worst | {worst:.0} ms |");
    let during: Value = serde_json::from_str(&load.line().context("a request failed")?)?;
    let alone: Value = serde_json::from_str(&self::load(edge)?.line().context("a request failed")?)?;
    let of = |value: &Value| value["p99_us"].as_f64().unwrap_or(f64::NAN) / 1e3;
    println!("| p99 of {PER_SECOND} requests a second meanwhile, none failed | {:.2} ms |", of(&during));
    println!("| p99 without changes | {:.2} ms |", of(&alone));
    scope.close(Duration::from_secs(5)).await;
    Ok(())
}

fn load(edge: std::net::SocketAddr) -> Result<Process> {
    let plan = json!({"kind": "rest", "address": edge.to_string(), "lanes": 8, "per_second": PER_SECOND,
        "pid": std::process::id(), "lines": SMALL, "millis": LOAD_MILLIS});
    Process::own(&["load", &plan.to_string()], &[])
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

fn put(contracts: &Contracts, digest: &str, raw: Vec<u8>) {
    contracts.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.to_owned(), raw);
}

fn digest(service: usize, version: usize) -> String {
    format!("sha256:{service:060}{version:04}")
}

fn path(service: usize, method: usize) -> String {
    format!("/v1/c{service:04}{method:03}s/ada/orders")
}

/// Names of what a service answers, with room for what comes.
fn protobuf_services(service: usize) -> Vec<String> {
    (0..=METHODS).map(|method| format!("b{service:04}.m{method:03}.v1.OrderService")).collect()
}

fn instance(service: &str, digest: &str, port: u16, protobuf_services: &[String]) -> registry::Instance {
    registry::Instance {
        service: service.to_owned(),
        instance_id: format!("{service}-0"),
        addresses: vec![registry::Address { host: "127.0.0.1".to_owned(), port: port.into() }],
        protobuf_services: protobuf_services.to_vec(),
        contract_digest: digest.to_owned(),
        state: registry::InstanceState::Serving.into(),
        ..registry::Instance::default()
    }
}

/// A contract with so many copies of the order service, under names of the same length.
fn contract(service: usize, methods: usize) -> Result<Vec<u8>> {
    let files = files(pb::DESCRIPTOR_SET)?;
    let has = |file: &[u8], text: &[u8]| file.windows(text.len()).any(|window| window == text);
    let (own, others): (Vec<&[u8]>, Vec<&[u8]>) = files.into_iter().partition(|file| has(file, b"bench.edge.v1"));
    let own = own.first().context("the contract has a file of its own")?;
    let mut raw = others.concat();
    for method in 0..methods {
        let file = replaced(own, b"bench.edge.v1", format!("b{service:04}.m{method:03}.v1").as_bytes());
        let file = replaced(&file, b"/v1/customers/", format!("/v1/c{service:04}{method:03}s/").as_bytes());
        raw.extend(replaced(&file, b"bench/edge/v1", format!("b{service:04}/m{method:03}/v1").as_bytes()));
    }
    Ok(raw)
}

/// The files of a descriptor set, each with its tag and length.
fn files(raw: &[u8]) -> Result<Vec<&[u8]>> {
    let (mut files, mut rest) = (Vec::new(), raw);
    while !rest.is_empty() {
        let mut after = rest.get(1..).context("a length")?;
        let length = prost::decode_length_delimiter(&mut after)?;
        let end = rest.len() - after.len() + length;
        ensure!(end <= rest.len(), "a descriptor set ends within a file");
        files.push(&rest[..end]);
        rest = &rest[end..];
    }
    Ok(files)
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "lengths before names stay right");
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

fn unknown() -> Result<http::Response<Body>, Infallible> {
    Ok(Status::unimplemented("not a part of this bench").into_http())
}

/// A registry that tells these instances, and then those that change.
fn told(instances: Vec<registry::Instance>, changes: watch::Receiver<registry::Instance>) -> Link {
    let instances = Arc::new(instances);
    Link::new(service_fn(move |request: Request<Body>| {
        let (instances, changes) = (instances.clone(), changes.clone());
        async move {
            if !request.uri().path().ends_with("/WatchInstances") {
                return unknown();
            }
            let watch = service_fn(move |_: tonic::Request<registry::WatchInstancesRequest>| {
                use registry::watch_instances_response::Message;
                let message =
                    |message| Ok::<_, Status>(registry::WatchInstancesResponse { revision: 1, message: Some(message) });
                let snapshot = registry::Snapshot { instances: instances.to_vec(), ..Default::default() };
                let changed = WatchStream::from_changes(changes.clone()).map(move |instance| {
                    message(Message::Delta(registry::Delta { upserts: vec![instance], ..Default::default() }))
                });
                let first = stream::iter([message(Message::Snapshot(snapshot))]);
                async move { Ok::<_, Status>(Response::new(first.chain(changed).boxed())) }
            });
            let codec = ProstCodec::<registry::WatchInstancesResponse, registry::WatchInstancesRequest>::default();
            Ok(Grpc::new(codec).server_streaming(watch, request).await)
        }
    }))
}

/// A store of contracts.
fn kept(contracts: Contracts) -> Link {
    Link::new(service_fn(move |request: Request<Body>| {
        let contracts = contracts.clone();
        async move {
            if !request.uri().path().ends_with("/GetContract") {
                return unknown();
            }
            let get = service_fn(move |request: tonic::Request<GetContractRequest>| {
                let digest = request.into_inner().digest;
                let raw = contracts.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
                let answer = raw.map(|descriptor_set| GetContractResponse { contract: None, descriptor_set });
                let answer = answer.map(Response::new).ok_or_else(|| Status::not_found("no such contract"));
                std::future::ready(answer)
            });
            let codec = ProstCodec::<GetContractResponse, GetContractRequest>::default();
            Ok(Grpc::new(codec).unary(get, request).await)
        }
    }))
}

/// The status that a request without a body is answered with.
async fn status(edge: std::net::SocketAddr, path: &str) -> Result<u16> {
    let mut stream = tokio::net::TcpStream::connect(edge).await?;
    let request =
        format!("POST {path} HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")
}
