//! What callers may say, and what they are told.

use ninefold::fault;
use ninefold_proto::ninefold::control::v1::{
    DeleteWorkloadRequest, GetWorkloadRequest, ListDecisionsRequest, ListWorkloadsRequest, PutWorkloadRequest,
    ScaleWorkloadRequest, Workload,
};
use tonic_types::StatusExt as _;

use crate::house::{House, workload};

#[tokio::test(flavor = "multi_thread")]
async fn all_mistakes_of_a_workload_are_told_at_once() {
    let house = House::new().await;
    let node = house.node("a").await;
    let wrong = Workload {
        service: "Pump!".into(),
        instances: 65,
        environment: [("A=B".to_owned(), String::new())].into(),
        grace: Some(prost_types::Duration { seconds: 601, nanos: 0 }),
        ..Default::default()
    };
    let request = PutWorkloadRequest { workload: Some(wrong), expected_revision: None };
    let status = node.client.clone().put_workload(request).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("WORKLOAD_INVALID"));
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let expected = [
        "workload.service",
        "workload.instances",
        "workload.command",
        "workload.environment[\"A=B\"]",
        "workload.grace",
    ];
    assert_eq!(fields, expected);
    let nothing = PutWorkloadRequest { workload: None, expected_revision: Some(-1) };
    let status = node.client.clone().put_workload(nothing).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("WORKLOAD_INVALID"));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_an_old_revision_is_refused() {
    let house = House::new().await;
    let node = house.node("a").await;
    let put = async |expected| {
        let request = PutWorkloadRequest { workload: Some(workload(0, "true")), expected_revision: expected };
        let answer = node.client.clone().put_workload(request).await;
        answer.map(|answer| answer.into_inner().workload.unwrap().revision)
    };
    assert_eq!(put(Some(0)).await.unwrap(), 1);
    let status = put(Some(0)).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("REVISION_CONFLICT"));
    assert_eq!(put(Some(1)).await.unwrap(), 2);
    assert_eq!(put(None).await.unwrap(), 3);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_unknown_and_can_be_deleted() {
    let house = House::new().await;
    let node = house.node("a").await;
    let mut client = node.client.clone();
    let service = || "pump".to_owned();
    let status = client.get_workload(GetWorkloadRequest { service: service() }).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("WORKLOAD_UNKNOWN"));
    let status = client.scale_workload(ScaleWorkloadRequest { service: service(), instances: 1 }).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("WORKLOAD_UNKNOWN"));
    let status = client.scale_workload(ScaleWorkloadRequest { service: service(), instances: 65 }).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("WORKLOAD_INVALID"));
    client.delete_workload(DeleteWorkloadRequest { service: service() }).await.unwrap();
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let house = House::new().await;
    let node = house.node("a").await;
    for service in ["c", "a", "b"] {
        node.put(Workload { service: service.into(), ..workload(0, "true") }).await;
    }
    let mut client = node.client.clone();
    let mut page = async |token: &str| {
        let request = ListWorkloadsRequest { page_size: 2, page_token: token.into() };
        let answer = client.list_workloads(request).await.unwrap().into_inner();
        let names: Vec<_> = answer.statuses.into_iter().map(|status| status.workload.unwrap().service).collect();
        (names, answer.next_page_token)
    };
    let (names, next) = page("").await;
    assert_eq!(names, ["a", "b"]);
    assert_eq!(page(&next).await, (vec!["c".to_owned()], String::new()));
    let mut client = node.client.clone();
    let wrong = ListWorkloadsRequest { page_size: 0, page_token: "../x".into() };
    let status = client.list_workloads(wrong).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("PAGE_TOKEN_INVALID"));
    let wrong = ListDecisionsRequest { page_token: "x".into(), ..Default::default() };
    let status = client.list_decisions(wrong).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("PAGE_TOKEN_INVALID"));
    node.close().await;
}
