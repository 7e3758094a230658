//! Instances that are asked whether they are well: over real sockets.

use std::time::Duration;

use ninefold_proto::ninefold::registry::v1 as proto;
use proto::health_check::Kind;
use proto::{GrpcHealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;

use crate::house::{House, instance};

fn asked(kind: Kind, port: u16) -> proto::Instance {
    let fast = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let health_check = proto::HealthCheck { kind: Some(kind), interval: fast, timeout: None, rise: 2, fall: 2 };
    proto::Instance {
        addresses: vec![proto::Address { host: "127.0.0.1".to_owned(), port: port.into() }],
        health_check: Some(health_check),
        ..instance("pump", "p-1")
    }
}

#[tokio::test]
async fn an_instance_whose_port_is_closed_does_not_serve_until_it_is_open() {
    let house = House::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let _pump = house.register(asked(Kind::Tcp(TcpHealthCheck {}), address.port())).await.unwrap();
    house.until("pump", &["p-1 NOT_SERVING"]).await;
    let reason = house.instances("pump").await[0].state_reason.clone();
    assert!(reason.starts_with("its health check failed 2 times: "), "{reason}");
    let _listener = TcpListener::bind(address).await.unwrap();
    house.until("pump", &["p-1 SERVING"]).await;
}

#[tokio::test]
async fn an_http_status_tells_whether_an_instance_is_well() {
    let house = House::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let status = watch::Sender::new("503 Service Unavailable");
    let answers = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", *status.borrow());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let story = async {
        let kind = Kind::Http(HttpHealthCheck { path: "/healthz".to_owned() });
        let _pump = house.register(asked(kind, port)).await.unwrap();
        house.until("pump", &["p-1 NOT_SERVING"]).await;
        let reason = house.instances("pump").await[0].state_reason.clone();
        assert!(reason.ends_with("GET /healthz is answered 503"), "{reason}");
        status.send_replace("204 No Content");
        house.until("pump", &["p-1 SERVING"]).await;
    };
    tokio::select! {
        () = answers => unreachable!("it answers for ever"),
        () = story => {}
    }
}

#[tokio::test]
async fn the_own_word_of_a_grpc_server_is_taken_at_once() {
    let house = House::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let serve =
        tonic::transport::Server::builder().add_service(health).serve_with_incoming(TcpListenerStream::new(listener));
    let story = async {
        let kind = Kind::Grpc(GrpcHealthCheck { service: String::new() });
        let _pump = house.register(asked(kind, port)).await.unwrap();
        // Long enough for the first question, after which its word is listened to.
        tokio::time::sleep(Duration::from_millis(400)).await;
        reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        house.until("pump", &["p-1 NOT_SERVING"]).await;
        let reason = house.instances("pump").await[0].state_reason.clone();
        assert!(reason.contains("it says NOT_SERVING"), "{reason}");
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        house.until("pump", &["p-1 SERVING"]).await;
    };
    tokio::select! {
        outcome = serve => panic!("it serves on: {outcome:?}"),
        () = story => {}
    }
}
