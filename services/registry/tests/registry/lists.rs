//! Lists, page by page.

use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_registry::Config;
use tonic::Code;

use crate::house::{House, check, instance};

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages_that_hold_everything_once() {
    let house = House::start().await;
    let mut sessions = Vec::new();
    for service in ["pump", "tank", "valve"] {
        for number in 0..5 {
            sessions.push(house.join(service, &format!("{service}-{number}")).await);
        }
    }
    for (service, wanted) in [("", 15), ("tank", 5)] {
        let mut seen = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = proto::ListInstancesRequest {
                service: service.to_owned(),
                page_size: 2,
                page_token,
                ..Default::default()
            };
            let page = house.client.clone().list_instances(request).await.unwrap().into_inner();
            assert!(page.instances.len() <= 2);
            seen.extend(page.instances.into_iter().map(|one| (one.service, one.instance_id)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert!(seen.is_sorted() && seen.len() == wanted, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_are_told_with_what_they_are_made_of() {
    let house = House::start().await;
    let starting = proto::Instance { state: proto::InstanceState::Starting.into(), ..instance("pump", "p-2") };
    let _pumps = (house.join("pump", "p-1").await, house.register(starting).await.unwrap());
    let _valve = house.join("valve", "v-1").await;
    let request = proto::ListServicesRequest { page_size: 1, ..Default::default() };
    let page = house.client.clone().list_services(request).await.unwrap().into_inner();
    let pump = &page.services[0];
    assert_eq!((pump.service.as_str(), pump.instances, pump.serving), ("pump", 2, 1));
    assert_eq!(pump.protobuf_services, ["shop.pump.v1.PumpService"]);
    let request = proto::ListServicesRequest { page_size: 1, page_token: page.next_page_token, ..Default::default() };
    let page = house.client.clone().list_services(request).await.unwrap().into_inner();
    assert_eq!((page.services[0].service.as_str(), page.next_page_token.as_str()), ("valve", ""));
}

#[tokio::test(start_paused = true)]
async fn events_are_remembered_up_to_a_number_newest_first() {
    let house = House::with(Config { events_max: 5, ..Config::default() }).await;
    for number in 0..4 {
        house.join("pump", &format!("p-{number}")).await.leave("").await;
    }
    let ask = async |page_token: String, instance_id: &str| {
        let instance_id = instance_id.to_owned();
        let request = proto::ListEventsRequest { instance_id, page_size: 3, page_token, ..Default::default() };
        let page = house.client.clone().list_events(request).await.unwrap().into_inner();
        (page.events.iter().map(|event| event.instance_id.clone()).collect::<Vec<_>>(), page.next_page_token)
    };
    let (ids, token) = ask(String::new(), "").await;
    assert_eq!(ids, ["p-3", "p-3", "p-3"]);
    let (ids, token) = ask(token, "").await;
    assert_eq!((ids.len(), token.as_str()), (2, ""));
    assert_eq!(ask(String::new(), "p-2").await.0, ["p-2", "p-2"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_wrongly_is_refused_by_name() {
    let house = House::start().await;
    let mut client = house.client.clone();
    let page_token = "not a token".to_owned();
    let request = proto::ListInstancesRequest { page_token: page_token.clone(), ..Default::default() };
    check(&client.list_instances(request).await.unwrap_err(), Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    let request = proto::ListServicesRequest { page_token: page_token.clone(), ..Default::default() };
    check(&client.list_services(request).await.unwrap_err(), Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    let request = proto::ListEventsRequest { page_token, ..Default::default() };
    check(&client.list_events(request).await.unwrap_err(), Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    let request = proto::ListServicesRequest { page_size: -1, ..Default::default() };
    check(&client.list_services(request).await.unwrap_err(), Code::InvalidArgument, "PAGE_SIZE_INVALID");
    let request =
        proto::GetInstanceRequest { service: "pump".to_owned(), instance_id: "p".to_owned(), ..Default::default() };
    check(&client.get_instance(request).await.unwrap_err(), Code::NotFound, "INSTANCE_UNKNOWN");
}
