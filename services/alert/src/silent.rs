//! Which instances fell silent: the registry says so, whether or not they ever measured anything. Pure, but for the asking.
//!
//! An instance is silent while the registry doubts it, and once it was removed without having said goodbye, unless another of
//! its service came in its place.

use std::time::Duration;

use ninefold::Link;
use ninefold::tonic::{Request, Status};
use ninefold_proto::ninefold::registry::v1::registry_service_client::RegistryServiceClient;
use ninefold_proto::ninefold::registry::v1::{
    Event, EventKind, Instance, InstanceState, ListEventsRequest, ListInstancesRequest,
};
use prost_types::Timestamp;

use crate::document::{Instances, Texts};
use crate::state::Said;

/// All namespaces.
const EVERYWHERE: &str = "-";
/// Rows of a page, and most pages.
const PAGE: i32 = 1000;
const PAGES_MAX: usize = 20;

/// Asks the registry which instances are silent.
///
/// # Errors
/// What the registry says.
pub(crate) async fn ask(platform: Link, asked: &Instances, now: i64, time_max: Duration) -> Result<Said, Status> {
    let within = |message: ListInstancesRequest| {
        let mut request = Request::new(message);
        request.set_timeout(time_max);
        request
    };
    let mut client = RegistryServiceClient::new(platform);
    let mut instances = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let namespace = EVERYWHERE.to_owned();
        let request = ListInstancesRequest { service: asked.service.clone(), page_size: PAGE, page_token, namespace };
        let answer = client.list_instances(within(request)).await?.into_inner();
        instances.extend(answer.instances);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let events = ListEventsRequest {
        service: asked.service.clone(),
        page_size: PAGE,
        namespace: EVERYWHERE.to_owned(),
        ..ListEventsRequest::default()
    };
    let mut events = Request::new(events);
    events.set_timeout(time_max);
    let events = client.list_events(events).await?.into_inner().events;
    Ok(silent(&instances, &events, asked.within, now))
}

fn seconds(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds)
}

fn labels(namespace: &str, service: &str, instance: &str, reason: &str) -> Texts {
    let mut all = vec![("job", service), ("instance", instance), ("reason", reason)];
    if !matches!(namespace, "" | "default") {
        all.push(("namespace", namespace));
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The silent ones, each with the seconds since it was heard of. `events` are the newest first.
fn silent(instances: &[Instance], events: &[Event], within: Duration, now: i64) -> Said {
    let is_of = |event: &Event, instance: &Instance| {
        event.service == instance.service && event.instance_id == instance.instance_id
    };
    let mut said = Said::new();
    for instance in instances.iter().filter(|instance| instance.state() == InstanceState::Suspect) {
        let lost = events.iter().find(|event| event.kind() == EventKind::Suspect && is_of(event, instance));
        let since = lost.map_or(now, |event| seconds(event.time.as_ref()));
        let labels = labels(&instance.namespace, &instance.service, &instance.instance_id, "suspect");
        said.push((labels, to_number(now.saturating_sub(since))));
    }
    let oldest = now.saturating_sub(i64::try_from(within.as_secs()).unwrap_or(i64::MAX));
    let lost = events.iter().rev().filter(|event| event.kind() == EventKind::Expired && !event.instance_id.is_empty());
    let mut taken: Vec<&str> = Vec::new();
    for event in lost.filter(|event| seconds(event.time.as_ref()) >= oldest) {
        let at = seconds(event.time.as_ref());
        let own = || instances.iter().filter(|instance| instance.service == event.service);
        if own().any(|instance| instance.instance_id == event.instance_id) {
            continue;
        }
        // Who came after it takes the place of one; times are told to the second, so one of the same second counts.
        let heir = own().find(|instance| {
            seconds(instance.start_time.as_ref()) >= at && !taken.contains(&instance.instance_id.as_str())
        });
        match heir {
            Some(heir) => taken.push(&heir.instance_id),
            None => {
                let labels = labels(&event.namespace, &event.service, &event.instance_id, "gone");
                if !said.iter().any(|(known, _)| *known == labels) {
                    said.push((labels, to_number(now.saturating_sub(at))));
                }
            }
        }
    }
    said
}

#[expect(clippy::cast_precision_loss, reason = "seconds")]
fn to_number(seconds: i64) -> f64 {
    seconds as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(service: &str, id: &str, start: i64, state: InstanceState) -> Instance {
        Instance {
            service: service.to_owned(),
            instance_id: id.to_owned(),
            state: state.into(),
            start_time: Some(Timestamp { seconds: start, nanos: 0 }),
            ..Instance::default()
        }
    }

    fn event(service: &str, id: &str, at: i64, kind: EventKind) -> Event {
        Event {
            service: service.to_owned(),
            instance_id: id.to_owned(),
            time: Some(Timestamp { seconds: at, nanos: 0 }),
            kind: kind.into(),
            ..Event::default()
        }
    }

    #[test]
    fn who_is_doubted_or_gone_without_a_word_is_silent_until_another_takes_its_place() {
        let minutes = Duration::from_secs(600);
        let events = [
            event("pay", "pay-2", 990, EventKind::Suspect),
            event("cart", "cart-1", 980, EventKind::Expired),
            event("shop", "shop-1", 970, EventKind::Expired),
            event("back", "back-1", 960, EventKind::Expired),
            event("left", "left-1", 950, EventKind::Deregistered),
            event("old", "old-1", 100, EventKind::Expired),
        ];
        let serving = InstanceState::Serving;
        let mut instances = vec![
            instance("pay", "pay-2", 0, InstanceState::Suspect),
            instance("shop", "shop-2", 971, serving),
            instance("back", "back-1", 0, serving),
            instance("cart", "cart-0", 0, serving),
        ];
        let told = |instances: &[Instance]| -> Vec<_> {
            let said = silent(instances, &events, minutes, 1000);
            said.into_iter()
                .map(|(labels, value)| (labels["instance"].clone(), labels["reason"].clone(), value))
                .collect()
        };
        let line = |id: &str, reason: &str, value| (id.to_owned(), reason.to_owned(), value);
        assert_eq!(told(&instances), [line("pay-2", "suspect", 10.0), line("cart-1", "gone", 20.0)]);
        instances.push(instance("cart", "cart-2", 990, serving));
        assert_eq!(told(&instances), [line("pay-2", "suspect", 10.0)]);
    }
}
