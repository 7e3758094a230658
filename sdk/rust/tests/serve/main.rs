//! The server, as the platform uses it: pages beside gRPC, strange descriptors, bounds, TLS.

#![expect(clippy::unwrap_used, reason = "test support: a panic is the failure")]

mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use ninefold::lifecycle::{OnError, Scope};
use ninefold::serve::{self, Listener, ServeConfig};
use ninefold::tonic::service::Routes;
use ninefold::tonic::transport::Endpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const PATIENCE: Duration = Duration::from_secs(10);

async fn server(config: ServeConfig) -> (SocketAddr, Scope) {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    let scope = Scope::root("test");
    scope.spawn("test.serve", OnError::Log, |stop| async move {
        serve::run(listener, Routes::default(), config, async move { stop.asked().await }).await
    });
    (address, scope)
}

/// What a plain HTTP/1 client reads until the server hangs up; empty where it hangs up at once.
async fn http1(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    // A server that does not speak HTTP/1 may hang up before it has read all.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn health(address: SocketAddr) -> HealthClient<ninefold::tonic::transport::Channel> {
    HealthClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

#[tokio::test]
async fn pages_are_served_beside_grpc_where_that_is_wanted() {
    let (address, _scope) = server(ServeConfig { http1: true, ..ServeConfig::default() }).await;
    assert!(http1(address).await.starts_with("HTTP/1.1 200"), "the fallback of gRPC answers UNIMPLEMENTED in a 200");
    assert!(health(address).await.check(HealthCheckRequest::default()).await.is_ok());

    let (address, _scope) = server(ServeConfig::default()).await;
    assert!(!http1(address).await.starts_with("HTTP/1.1"));
}

#[tokio::test]
async fn health_tells_that_the_server_drains() {
    let config = ServeConfig { services: vec!["shop.v1.Shop".to_owned()], ..ServeConfig::default() };
    let said = config.health.clone();
    let (address, _scope) = server(config).await;
    let mut client = health(address).await;
    let request = HealthCheckRequest { service: "shop.v1.Shop".to_owned() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let status = |answer: Option<HealthCheckResponse>| answer.unwrap().status();
    assert_eq!(status(watch.message().await.unwrap()), ServingStatus::Serving);
    said.drain().await;
    assert_eq!(status(watch.message().await.unwrap()), ServingStatus::NotServing);
}

#[tokio::test]
async fn descriptors_of_a_newer_edition_are_served_as_they_are() {
    // A file with `syntax = "editions"` and `edition = 2024`, which our descriptor types do not know.
    let file = b"\x0a\x07a.proto\x12\x01a\x32\x05\x0a\x03Svc\x62\x08editions\x70\xe9\x07";
    let mut set = vec![0x0a, u8::try_from(file.len()).unwrap()];
    set.extend_from_slice(file);
    let config = ServeConfig { descriptor_sets: vec![set.into()], ..ServeConfig::default() };
    let (address, _scope) = server(config).await;
    let request = HealthCheckRequest { service: "a.Svc".to_owned() };
    let answer = health(address).await.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn connections_above_the_bound_wait_for_their_turn() {
    let (address, _scope) = server(ServeConfig { connections_max: 1, ..ServeConfig::default() }).await;
    let first = health(address).await;
    let second = async { health(address).await.check(HealthCheckRequest::default()).await };
    let mut second = Box::pin(second);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err());
    drop(first);
    assert!(tokio::time::timeout(PATIENCE, second).await.unwrap().is_ok());
}
