//! Prometheus' `http_sd`: the instances as targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing};
use ninefold::Caller;
use ninefold_proto::ninefold::registry::v1 as words;
use serde::Serialize;
use tokio::sync::watch;

use crate::model::World;

/// Where Prometheus asks.
const PATH: &str = "/sd/prometheus";
/// A label of an instance that names the port of its metrics, where that is another.
const PORT: &str = "prometheus.port";
/// A label of an instance that names the path of its metrics, where that is another.
const METRICS_PATH: &str = "prometheus.path";
/// Begins the labels that relabelling can see.
const META: &str = "__meta_ninefold_";

/// What is asked for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    /// Only this service; empty for all.
    service: String,
    /// Only this namespace; empty for all.
    namespace: String,
}

impl Asked {
    /// Reads a query. Names need no escapes. Fails with a parameter that is not known: overlooked, it would be everything.
    fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("service", value)) => value.clone_into(&mut asked.service),
                Some(("namespace" | "ns", value)) => value.clone_into(&mut asked.namespace),
                _ => return Err(pair.chars().take(100).collect()),
            }
        }
        Ok(asked)
    }
}

/// One target, with what is known of it.
#[derive(Debug, PartialEq, Serialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// The routes of service discovery over HTTP.
pub(crate) fn router(world: watch::Receiver<Arc<World>>) -> Router {
    Router::new().route(PATH, routing::get(targets)).with_state(world)
}

/// Until the landscape is known, Prometheus is to keep what it knew: it does on anything but 200.
async fn targets(State(world): State<watch::Receiver<Arc<World>>>, request: Request) -> Response {
    let caller = Caller::of(request.extensions());
    let asked = match Asked::read(request.uri().query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(unknown) => {
            let text = format!("{unknown:?} is not known; there are service and namespace\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let world = world.borrow().clone();
    if !world.is_known {
        return (StatusCode::SERVICE_UNAVAILABLE, "the landscape is not known yet\n").into_response();
    }
    Json(groups(&world, &asked, &caller)).into_response()
}

fn groups(world: &World, asked: &Asked, caller: &Caller) -> Vec<Group> {
    let services = world.services.iter().filter(|(name, _)| {
        (asked.service.is_empty() || asked.service == name.service())
            && (asked.namespace.is_empty() || asked.namespace == name.namespace())
            && caller.may_see(name.namespace())
    });
    services
        .flat_map(|(name, service)| service.instances.iter().filter_map(|one| group(one, name.namespace())))
        .collect()
}

fn group(instance: &words::Instance, namespace: &str) -> Option<Group> {
    let address = instance.addresses.first()?;
    let port = match instance.labels.get(PORT) {
        Some(port) => port.parse().ok()?,
        None => address.port,
    };
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let state = instance.state().as_str_name();
    let mut labels: BTreeMap<String, String> = [
        ("service", instance.service.as_str()),
        ("namespace", namespace),
        ("instance_id", instance.instance_id.as_str()),
        ("version", instance.version.as_str()),
        ("zone", instance.zone.as_str()),
        ("region", instance.region.as_str()),
        ("state", state.strip_prefix("INSTANCE_STATE_").unwrap_or(state)),
        ("protocol", if instance.protocol() == words::Protocol::Http { "http" } else { "grpc" }),
    ]
    .map(|(name, value)| (format!("{META}{name}"), value.to_owned()))
    .into();
    labels.extend(instance.labels.iter().map(|(name, value)| (format!("{META}label_{}", legal(name)), value.clone())));
    if let Some(path) = instance.labels.get(METRICS_PATH) {
        labels.insert("__metrics_path__".to_owned(), path.clone());
    }
    Some(Group { targets: [format!("{host}:{port}")], labels })
}

/// A name of a label, as Prometheus allows it.
fn legal(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_what_is_known_of_its_instance_and_may_name_another_port() {
        let instance = words::Instance {
            service: "pump".to_owned(),
            instance_id: "pump-1".to_owned(),
            addresses: vec![words::Address { host: "::1".to_owned(), port: 80 }],
            labels: [("prometheus.port", "9100"), ("prometheus.path", "/m"), ("team", "water")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            state: words::InstanceState::Serving.into(),
            ..words::Instance::default()
        };
        let group = group(&instance, "default").unwrap();
        assert_eq!(group.targets, ["[::1]:9100"]);
        for (name, value) in [
            ("__meta_ninefold_service", "pump"),
            ("__meta_ninefold_state", "SERVING"),
            ("__meta_ninefold_label_team", "water"),
            ("__metrics_path__", "/m"),
        ] {
            assert_eq!(group.labels.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}
