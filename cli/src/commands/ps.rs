//! `ninefold ps`: who is there.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use ninefold_proto::ninefold::control::v1::{SlotState, WorkloadStatus};
use ninefold_proto::ninefold::monitor::v1::Usage;
use ninefold_proto::ninefold::registry::v1::{BreakerForce, Instance, InstanceState, Preservation, Service, Staleness};
use serde_json::{Value, json};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// How long what is not indispensable is waited for.
const EXTRA_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// What a landscape looks like at one moment.
pub(crate) struct View {
    pub(crate) instances: Vec<Instance>,
    pub(crate) usage: Vec<Usage>,
    pub(crate) workloads: Vec<WorkloadStatus>,
    /// The services, with how many of their watchers have seen the newest of them.
    pub(crate) services: Vec<Service>,
    /// Why all of it may be old, if it may.
    pub(crate) stale: Option<Staleness>,
}

impl View {
    /// Asks the platform. Only the instances are indispensable; a node may lack the other roles.
    pub(crate) async fn of(platform: &Platform, service: &str) -> Result<Self, Failure> {
        let extra = async {
            // A store that is away keeps the control loop from answering; who is there is told all the same, and soon.
            let both = futures_util::future::join(platform.usage(service), platform.workloads());
            tokio::time::timeout(EXTRA_WITHIN, both).await
        };
        let (instances, services, stale, extra) =
            futures_util::future::join4(platform.instances(service), platform.services(), platform.staleness(), extra)
                .await;
        let (instances, mut services, stale) = (instances?, services.unwrap_or_default(), stale.unwrap_or_default());
        services.retain(|known| service.is_empty() || known.service == service);
        let (usage, workloads) = extra.unwrap_or_else(|_| {
            output::talk(format!("the platform does not tell of workloads and usage within {EXTRA_WITHIN:?}"));
            (Ok(Vec::new()), Ok(Vec::new()))
        });
        let usage = usage.unwrap_or_default();
        let mut workloads = workloads.unwrap_or_default();
        workloads.retain(|status| service.is_empty() || service_of(status) == service);
        Ok(Self { instances, usage, workloads, services, stale })
    }

    /// The view for programs: instances with what they use, and slots without an instance.
    pub(crate) fn json(&self) -> Value {
        let usage = self.usage_by_instance();
        let instances: Vec<Value> = self
            .instances
            .iter()
            .map(|instance| {
                let mut value = output::json("ninefold.registry.v1.Instance", instance);
                if let Some(usage) = usage.get(instance.instance_id.as_str()) {
                    value["cpuCores"] = json!(usage.cpu_cores);
                    value["memoryBytes"] = json!(usage.memory_bytes);
                }
                let not_picked = not_picked(instance);
                if !not_picked.is_empty() {
                    value["notPicked"] = json!(not_picked);
                }
                value
            })
            .collect();
        json!({
            "instances": instances,
            "workloads": output::json_all("ninefold.control.v1.WorkloadStatus", &self.workloads),
            "services": output::json_all("ninefold.registry.v1.Service", &self.services),
            "stale": self.stale.as_ref().map(|stale| output::json("ninefold.registry.v1.Staleness", stale)),
        })
    }

    /// Says to people that what they see may be old.
    pub(crate) fn warn(&self) {
        if let Some(Staleness { reason, since, revision }) = &self.stale {
            let ago = output::ago(since.as_ref());
            output::talk(format!(
                "the store is away since {ago}: this is what was last known, at revision {revision} ({reason})"
            ));
        }
    }

    fn usage_by_instance(&self) -> HashMap<&str, &Usage> {
        self.usage.iter().map(|usage| (usage.instance_id.as_str(), usage)).collect()
    }

    fn table(&self) -> String {
        let usage = self.usage_by_instance();
        let mut table =
            Table::new(&["SERVICE", "INSTANCE", "STATE", "ADDRESS", "VERSION", "AGE", "CPU", "MEMORY", "NOTE"]);
        for instance in &self.instances {
            let used = usage.get(instance.instance_id.as_str());
            table.row([
                service_name(instance),
                instance.instance_id.clone(),
                state(instance),
                address(instance),
                instance.version.clone(),
                output::ago(instance.start_time.as_ref()),
                used.map_or_else(|| "-".to_owned(), |usage| format!("{:.1}%", usage.cpu_cores * 100.0)),
                used.map_or_else(|| "-".to_owned(), |usage| format!("{} MiB", usage.memory_bytes >> 20)),
                note(instance),
            ]);
        }
        let registered: Vec<&str> = self.instances.iter().map(|instance| instance.instance_id.as_str()).collect();
        for status in &self.workloads {
            for slot in status.slots.iter().filter(|slot| !registered.contains(&slot.instance_id.as_str())) {
                let name =
                    if slot.instance_id.is_empty() { format!("slot {}", slot.slot) } else { slot.instance_id.clone() };
                let state = output::word(slot_state(slot.state()), "SLOT_STATE_");
                table.row([service_of(status).to_owned(), name, state, slot.reason.clone()]);
            }
        }
        let mut text = table.render();
        for known in &self.services {
            text.push_str(&watchers(known));
        }
        text
    }
}

fn service_of(status: &WorkloadStatus) -> &str {
    status.workload.as_ref().map_or("", |workload| workload.service.as_str())
}

/// How many of a service's watchers have seen the newest of it, and whether its silent instances are kept; a line each.
fn watchers(known: &Service) -> String {
    let Service { service, watchers, watchers_current, revision, .. } = known;
    let mut text = String::new();
    if *watchers > 0 {
        text.push_str(&format!("{service}: {watchers_current} of {watchers} watchers at revision {revision}\n"));
    }
    if let Some(Preservation { lost, of }) = &known.preservation {
        text.push_str(&format!("{service}: {lost} of {of} instances fell silent at once; none is removed for now\n"));
    }
    text
}

/// Why an instance gets no calls at all. Empty where it gets some.
pub(crate) fn not_picked(instance: &Instance) -> String {
    let decided = instance.r#override.as_ref();
    match instance.state() {
        InstanceState::Serving if decided.is_some_and(|decided| decided.weight == Some(0)) => {
            "an operator gave it weight 0".to_owned()
        }
        InstanceState::Serving if decided.is_some_and(|decided| decided.force() == BreakerForce::Open) => {
            "an operator forced its breakers open".to_owned()
        }
        InstanceState::Serving => String::new(),
        InstanceState::Suspect => {
            format!("suspect, called only where nobody else is: {}", output::cell(&instance.state_reason))
        }
        state => {
            let state = output::word(state.as_str_name(), "INSTANCE_STATE_");
            let reason = output::cell(&instance.state_reason).to_string();
            if reason.is_empty() { state } else { format!("{state}: {reason}") }
        }
    }
}

/// Name of a slot's state.
pub(crate) fn slot_state(state: SlotState) -> &'static str {
    state.as_str_name()
}

/// Name of an instance's service; with the namespace, if that is not the default.
pub(crate) fn service_name(instance: &Instance) -> String {
    match instance.namespace.as_str() {
        "" | "default" => instance.service.clone(),
        namespace => format!("{namespace}/{}", instance.service),
    }
}

/// Why an instance is not called as others are. Empty where it is.
pub(crate) fn note(instance: &Instance) -> String {
    let is_serving = instance.state() == InstanceState::Serving;
    let reason = if is_serving { String::new() } else { output::cell(&instance.state_reason).to_string() };
    match decided(instance) {
        // The reason says it already.
        _ if !is_serving && instance.r#override.as_ref().is_some_and(|decided| decided.drain) => reason,
        decided if reason.is_empty() => decided.trim_start_matches(", ").to_owned(),
        decided => format!("{reason}{decided}"),
    }
}

/// What an operator decided of an instance, as an addition to a sentence.
pub(crate) fn decided(instance: &Instance) -> String {
    let Some(decided) = &instance.r#override else { return String::new() };
    let mut text = String::new();
    if let Some(weight) = decided.weight {
        text.push_str(&format!(", weight {weight} by an operator"));
    }
    match decided.force() {
        BreakerForce::Unspecified => {}
        BreakerForce::Open => text.push_str(", breakers forced open"),
        BreakerForce::Closed => text.push_str(", breakers forced closed"),
    }
    text
}

/// An instance's state as a word.
pub(crate) fn state(instance: &Instance) -> String {
    output::word(instance.state().as_str_name(), "INSTANCE_STATE_")
}

/// Where an instance listens.
pub(crate) fn address(instance: &Instance) -> String {
    let one = |address: &ninefold_proto::ninefold::registry::v1::Address| {
        if address.host.contains(':') {
            format!("[{}]:{}", address.host, address.port)
        } else {
            format!("{}:{}", address.host, address.port)
        }
    };
    instance.addresses.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Prints who is there, once or again and again.
pub(crate) async fn ps(platform: &Platform, service: &str, watch: bool, format: Format) -> Result<(), Failure> {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        tick.tick().await;
        let view = View::of(platform, service).await?;
        view.warn();
        if !watch && view.instances.is_empty() && view.workloads.is_empty() {
            if !service.is_empty() {
                return Err(Failure::NotFound(format!("no instance of {service:?} is registered")));
            }
            output::talk("no instances yet: try `ninefold demo`, or `ninefold run --name NAME -- COMMAND`");
        }
        if !watch {
            return output::print(format, &view.json(), || view.table());
        }
        // Clears the screen and goes home, where there is one.
        let home = if std::io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "" };
        output::next(format, &view.json(), || format!("{home}{}", view.table()))?;
    }
}
