//! The way to the platform, over several nodes.

use std::time::Duration;

use ninefold::Link;
use ninefold::connect::platform;
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::tonic::{Code, Request, Status};
use tokio::time::{Instant, timeout};

use crate::fake::{Instance, Manner};
use crate::{wait_for, wait_until_refused};

type Client = config::config_service_client::ConfigServiceClient<Link>;

fn client(nodes: &[&Instance]) -> Client {
    let endpoints: Vec<_> = nodes.iter().map(|node| format!("http://{}", node.address).parse().unwrap()).collect();
    Client::new(platform(&endpoints))
}

async fn get(client: &Client) -> Result<(), Status> {
    client.clone().get_document(config::GetDocumentRequest::default()).await.map(drop)
}

#[tokio::test]
async fn a_dead_node_is_skipped() {
    let scope = Scope::root("test");
    let (first, second) = (Instance::start("first", &scope).await, Instance::start("second", &scope).await);
    first.kill();
    wait_until_refused(&first).await;
    let started = Instant::now();
    get(&client(&[&first, &second])).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_read_survives_the_death_of_the_node_that_works_on_it() {
    let scope = Scope::root("test");
    let (first, second) = (Instance::start("first", &scope).await, Instance::start("second", &scope).await);
    let client = client(&[&first, &second]);
    first.behave(Manner::Hang);
    let story = async {
        wait_for(|| first.calls() == 1).await;
        first.kill();
    };
    let (answer, ()) = tokio::join!(get(&client), story);
    answer.unwrap();
    assert_eq!(second.calls(), 1);
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_named_and_found_when_it_comes() {
    let scope = Scope::root("test");
    let node = Instance::start("node", &scope).await;
    let other = Instance::start("other", &scope).await;
    node.kill();
    other.kill();
    wait_until_refused(&node).await;
    let client = client(&[&node]);
    let status = get(&client).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("PLATFORM_UNREACHABLE"));
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), format!("the platform cannot be reached at http://{}/", node.address));
}

#[tokio::test]
async fn a_node_that_does_not_answer_ends_in_deadline_exceeded() {
    let scope = Scope::root("test");
    let node = Instance::start("node", &scope).await;
    node.behave(Manner::Hang);
    let mut request = Request::new(config::GetDocumentRequest::default());
    request.set_timeout(Duration::from_millis(100));
    let status = client(&[&node]).get_document(request).await.unwrap_err();
    assert_eq!((status.code(), fault::reason(&status).as_deref()), (Code::DeadlineExceeded, Some("CALL_DEADLINE")));
}

#[tokio::test]
async fn a_stream_goes_on_for_longer_than_headers_may_take() {
    let scope = Scope::root("test");
    let node = Instance::start("node", &scope).await;
    node.behave(Manner::Stream(Duration::from_millis(1)));
    let mut client = client(&[&node]);
    let mut stream = client.watch_document(config::WatchDocumentRequest::default()).await.unwrap().into_inner();
    for _ in 0..20 {
        stream.message().await.unwrap().unwrap();
    }
    node.kill();
    let end = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status = timeout(Duration::from_secs(5), end).await.unwrap();
    assert_eq!(fault::reason(&status).as_deref(), Some("PLATFORM_UNREACHABLE"), "{status:?}");
}
