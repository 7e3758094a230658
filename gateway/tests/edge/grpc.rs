//! gRPC through the edge, with a generated client.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use ninefold::fault;
use ninefold::proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold::proto::ninefold::config::v1::{GetDocumentRequest, PutDocumentRequest, WatchDocumentRequest};
use ninefold::proto::ninefold::contract::v1::CheckContractRequest;
use ninefold::proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use ninefold::tonic::transport::{Channel, Endpoint};
use ninefold::tonic::{Code, Request};
use ninefold_gateway::Config;

use crate::landscape::{CONFIG, CONTRACT, Landscape};

async fn channel(house: &Landscape) -> Channel {
    Endpoint::try_from(format!("http://{}", house.edge)).unwrap().connect().await.unwrap()
}

fn document(service: &str) -> GetDocumentRequest {
    GetDocumentRequest { service: service.to_owned(), environment: "test".to_owned(), revision: None }
}

#[tokio::test]
async fn a_generated_client_calls_through_the_edge() {
    let house = Landscape::start().await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    let answer = client.get_document(document("shop")).await.unwrap();
    assert_eq!(answer.metadata().get("x-answered-with").unwrap(), "metadata");
    assert_eq!(answer.metadata().get("x-trace-id").unwrap().len(), 32);
    assert_eq!(answer.into_inner().document.unwrap().author, "a");
    let refused = client.get_document(document("missing")).await.unwrap_err();
    assert_eq!((refused.code(), fault::reason(&refused).as_deref()), (Code::NotFound, Some("DOCUMENT_UNKNOWN")));
    assert_eq!(refused.message(), "no document \"missing\" is there");
}

#[tokio::test]
async fn where_in_the_landscape_a_call_failed_is_not_for_the_outside() {
    let house = Landscape::start().await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    // In the headers of an answer without messages, and in the trailers of a stream: noted by the edge's own channel, or
    // by one behind it.
    for service in ["missing", "behind"] {
        let refused = client.get_document(document(service)).await.unwrap_err();
        assert!(refused.metadata().get("x-ninefold-failed-at").is_none(), "{refused:?}");
    }
    let watch =
        WatchDocumentRequest { service: "broken".to_owned(), environment: "test".to_owned(), known_revision: 1 };
    let stream = client.watch_document(watch).await.unwrap().into_inner();
    let broken = stream.try_collect::<Vec<_>>().await.unwrap_err();
    assert!(broken.code() == Code::NotFound && broken.metadata().get("x-ninefold-failed-at").is_none(), "{broken:?}");
    let answer = crate::client::raw(
        house.edge,
        "GET /v1/documents/behind/test HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 503") && !answer.contains("failed-at"), "{answer}");
    let web = "POST /ninefold.config.v1.ConfigService/GetDocument HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
               content-type: application/grpc-web+proto\r\ncontent-length: 13\r\n\r\n\0\0\0\0\x08\x0a\x06behind";
    let answer = crate::client::raw(house.edge, web).await;
    assert!(answer.contains("the store is away") || answer.contains("the%20store"), "{answer}");
    assert!(!answer.contains("failed-at"), "{answer}");
}

#[tokio::test]
async fn streams_pass_through() {
    let house = Landscape::start().await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    let watch = |service: &str, known_revision| WatchDocumentRequest {
        service: service.to_owned(),
        environment: "test".to_owned(),
        known_revision,
    };
    let stream = client.watch_document(watch("shop", 500)).await.unwrap().into_inner();
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap().len(), 500);
    let stream = client.watch_document(watch("broken", 1)).await.unwrap().into_inner();
    assert_eq!(stream.try_collect::<Vec<_>>().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_method_that_is_not_exposed_is_not_there() {
    let house = Landscape::start().await;
    let mut client = ContractServiceClient::new(channel(&house).await);
    let refused = client.check_contract(CheckContractRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(fault::reason(&refused).as_deref(), Some("METHOD_NOT_EXPOSED"));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let config = Config { body_bytes_max: 1000, ..Config::default() };
    let house = Landscape::start_with(config).await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    let large = PutDocumentRequest { service: "shop".to_owned(), content: "x".repeat(5000), ..Default::default() };
    let refused = client.put_document(large).await.unwrap_err();
    assert_eq!((refused.code(), fault::reason(&refused).as_deref()), (Code::ResourceExhausted, Some("BODY_TOO_LARGE")));
    assert!(client.get_document(document("shop")).await.is_ok(), "the connection lives on");
    assert_eq!(
        client.get_document(document("large")).await.unwrap().into_inner().document.unwrap().content.len(),
        3 << 20
    );
}

#[tokio::test]
async fn a_deadline_of_the_caller_holds() {
    let house = Landscape::start().await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    let mut asked = Request::new(document("slow"));
    asked.set_timeout(Duration::from_millis(100));
    // Either side may notice first; tonic's client calls its own notice Cancelled.
    let code = client.get_document(asked).await.unwrap_err().code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    let config = Config { deadline: Duration::from_millis(100), ..Config::default() };
    let house = Landscape::start_with(config).await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    assert_eq!(client.get_document(document("slow")).await.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_edge_describes_what_it_exposes() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let shut = Landscape::start().await;
    let refused = ServerReflectionClient::new(channel(&shut).await)
        .server_reflection_info(futures_util::stream::iter([ServerReflectionRequest::default()]))
        .await;
    assert_eq!(refused.map(drop).unwrap_err().code(), Code::Unimplemented, "it is not told unless asked for");
    let house = Landscape::start_with(Config { reflection: true, ..Config::default() }).await;
    let mut client = ServerReflectionClient::new(channel(&house).await);
    let questions = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol(CONFIG.to_owned()),
        MessageRequest::FileContainingSymbol(CONTRACT.to_owned()),
    ];
    let asked =
        questions.map(|message| ServerReflectionRequest { message_request: Some(message), ..Default::default() });
    let answers = client.server_reflection_info(futures_util::stream::iter(asked)).await.unwrap().into_inner();
    let answers: Vec<ServerReflectionResponse> = answers.try_collect().await.unwrap();
    match &answers.into_iter().filter_map(|answer| answer.message_response).collect::<Vec<_>>()[..] {
        [
            MessageResponse::ListServicesResponse(list),
            MessageResponse::FileDescriptorResponse(files),
            MessageResponse::ErrorResponse(error),
        ] => {
            assert_eq!(list.service.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), [CONFIG]);
            assert!(files.file_descriptor_proto.len() > 3, "with all it imports");
            assert_eq!(error.error_code, 5, "what is not exposed is not described");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_edge_tells_its_health() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

    let house = Landscape::start().await;
    let mut client = HealthClient::new(channel(&house).await);
    let asked = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", CONFIG] {
        let answer = client.check(asked(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    assert_eq!(client.check(asked(CONTRACT)).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(asked("")).await.unwrap().into_inner();
    assert_eq!(watch.try_next().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let (_, last) = tokio::join!(house.door.close(Duration::from_secs(20)), watch.try_next());
    assert_eq!(last.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_stopping_edge_ends_streams_of_grpc_and_says_why() {
    let house = Landscape::start().await;
    let mut client = ConfigServiceClient::new(channel(&house).await);
    let asked = WatchDocumentRequest { service: "endless".to_owned(), known_revision: 1, ..Default::default() };
    let mut watch = client.watch_document(asked).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let (late, last) = tokio::join!(house.door.close(Duration::from_secs(60)), watch.message());
    assert_eq!(late, Vec::<String>::new(), "nothing had to be dropped");
    let status = last.unwrap_err();
    assert_eq!((status.code(), fault::reason(&status).as_deref()), (Code::Unavailable, Some("EDGE_DRAINING")));
}
