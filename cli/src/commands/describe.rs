//! `ninefold describe`: all that is known of a service or an instance.

use ninefold_proto::ninefold::registry::v1::{Instance, Preservation, Service};
use serde_json::json;

use crate::client::Platform;
use crate::commands::ps::{self, View};
use crate::commands::why;
use crate::exit::Failure;
use crate::output::{self, Format};

/// Newest entries of the story that are shown.
const STORY_LINES: usize = 8;

/// Prints all that is known of a service, or of the instance with this id.
pub(crate) async fn describe(platform: &Platform, name: &str, format: Format) -> Result<(), Failure> {
    let mut view = View::of(platform, "").await?;
    view.warn();
    let is_meant = |instance: &Instance| instance.service == name || instance.instance_id == name;
    view.instances.retain(is_meant);
    let service = view.instances.first().map_or(name, |instance| instance.service.as_str()).to_owned();
    view.workloads.retain(|status| status.workload.as_ref().is_some_and(|workload| workload.service == service));
    if view.instances.is_empty() && view.workloads.is_empty() {
        return Err(Failure::NotFound(format!("no service or instance is called {name:?}; `ninefold ps` lists them")));
    }
    let mut known = platform.services().await.unwrap_or_default();
    known.retain(|known| known.service == service);
    let routes = platform.routes(&service).await.unwrap_or_default();
    let story = why::story(platform, name).await.unwrap_or_default();

    let mut value = view.json();
    value["service"] = json!(service);
    value["watchers"] = output::json_all("ninefold.registry.v1.Service", &known);
    value["routes"] = output::json_all("ninefold.gateway.v1.Route", &routes);
    value["events"] = why::json(&story[story.len().saturating_sub(STORY_LINES)..]);
    output::print(format, &value, || {
        let mut text = format!("Service:   {service}\n");
        known.iter().for_each(|known| text.push_str(&watchers(known)));
        for status in &view.workloads {
            if let Some(workload) = &status.workload {
                text.push_str(&format!("Wanted:    {} × {}\n", workload.instances, workload.command.join(" ")));
            }
        }
        for instance in &view.instances {
            text.push_str(&instance_text(instance, &view));
        }
        if !routes.is_empty() {
            text.push_str("\nRoutes at the edge:\n");
            for route in &routes {
                text.push_str(&format!("  {:<6} {}  ->  {}\n", route.verb, route.template, route.method));
            }
        }
        text.push_str("\nLast events:\n");
        for entry in &story[story.len().saturating_sub(STORY_LINES)..] {
            text.push_str(&format!("  {}\n", entry.line()));
        }
        text
    })
}

/// Who has seen the newest of a service, and whether its silent instances are kept.
fn watchers(known: &Service) -> String {
    let Service { watchers, watchers_current, revision, .. } = known;
    let mut text = format!("Watchers:  {watchers_current} of {watchers} at revision {revision}\n");
    if let Some(Preservation { lost, of }) = &known.preservation {
        text.push_str(&format!("Kept:      {lost} of {of} instances fell silent at once; none is removed for now\n"));
    }
    text
}

fn instance_text(instance: &Instance, view: &View) -> String {
    let mut text = format!("\nInstance:  {}\n", instance.instance_id);
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<12} {value}\n"));
        }
    };
    let reason = if instance.state_reason.is_empty() { String::new() } else { format!(" ({})", instance.state_reason) };
    field("state", format!("{}{reason}, for {}", ps::state(instance), output::ago(instance.change_time.as_ref())));
    field("not picked", ps::not_picked(instance));
    field("override", ps::decided(instance).trim_start_matches(", ").to_owned());
    field("address", ps::address(instance));
    field("version", instance.version.clone());
    field("namespace", instance.namespace.clone());
    field("region", instance.region.clone());
    field("zone", instance.zone.clone());
    field("weight", instance.weight.to_string());
    field("started", format!("{} ago", output::ago(instance.start_time.as_ref())));
    field("node", instance.node.clone());
    field("contract", instance.contract_digest.clone());
    field("answers", instance.protobuf_services.join(", "));
    let mut labels: Vec<_> = instance.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    field("labels", labels.join(", "));
    if let Some(usage) = view.usage.iter().find(|usage| usage.instance_id == instance.instance_id) {
        field("cpu", format!("{:.1}% of a core", usage.cpu_cores * 100.0));
        field("memory", format!("{} MiB", usage.memory_bytes >> 20));
    }
    text
}
