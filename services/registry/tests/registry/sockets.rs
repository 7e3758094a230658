//! Over real sockets: what a process that dies looks like from here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ninefold::Link;
use ninefold::lifecycle::{OnError, Scope};
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use proto::registry_service_client::RegistryServiceClient;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

use crate::house::{Session, instance, routes};
use crate::memory::Memory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_is_gone_within_a_second() {
    let scope = Scope::root("test");
    let routes = routes("node-1", Arc::new(Memory::new()), Config::default(), &scope).await;
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let mut here = RegistryServiceClient::new(Link::from(routes.clone()));
    scope.child("door").spawn("test.serve", OnError::Log, |stop| async move {
        Server::builder().add_routes(routes).serve_with_incoming_shutdown(incoming, stop.asked()).await
    });

    // A process: when its runtime goes, the system closes its sockets, as after kill -9.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (joined, has_joined) = tokio::sync::oneshot::channel();
    process.spawn(async move {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let client = RegistryServiceClient::new(Link::new(channel));
        let session = Session::register(client, instance("pump", "p-1")).await.unwrap();
        joined.send(()).unwrap();
        std::future::pending::<()>().await;
        drop(session);
    });
    has_joined.await.unwrap();
    let killed = Instant::now();
    process.shutdown_background();
    let mut seen = Vec::new();
    loop {
        let request = proto::ListInstancesRequest::default();
        let listed = here.list_instances(request).await.unwrap().into_inner().instances;
        let Some(state) = listed.first().map(proto::Instance::state) else { break };
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        assert!(killed.elapsed() < Duration::from_secs(10), "still there: {seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("gone after {:?}", killed.elapsed());
    assert_eq!(seen.last(), Some(&proto::InstanceState::Suspect), "{seen:?}");
    assert!(scope.close(Duration::from_secs(5)).await.is_empty());
}
