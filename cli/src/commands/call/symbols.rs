//! What can be called: the methods of registered services and of the platform itself, by their contracts.

use std::collections::BTreeMap;

use ninefold::Link;
use ninefold_proto::ninefold::contract::v1::GetContractRequest;
use ninefold_proto::ninefold::registry::v1::{Instance, InstanceState};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor};
use serde_json::{Value, json};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Who answers a method.
pub(super) enum Target {
    /// The platform.
    Platform,
    /// An instance of a service.
    Instance(Box<Instance>),
}

impl Target {
    /// A way to reach it.
    pub(super) fn link(&self, platform: &Platform) -> Result<Link, Failure> {
        match self {
            Self::Platform => Ok(platform.link()),
            Self::Instance(instance) => {
                let address = crate::commands::ps::address(instance);
                let first = address.split(',').next().unwrap_or_default();
                Ok(Platform::instance_at(first)?.link())
            }
        }
    }
}

/// Protobuf services by full name, with the instances that answer them. The platform's own have none.
pub(super) struct Catalog(BTreeMap<String, Vec<Instance>>);

impl Catalog {
    /// Asks the registry.
    pub(super) async fn of(platform: &Platform) -> Result<Self, Failure> {
        let mut services: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
        for service in platform_pool().services() {
            services.insert(service.full_name().to_owned(), Vec::new());
        }
        for instance in platform.instances("").await? {
            for name in &instance.protobuf_services {
                services.entry(name.clone()).or_default().push(instance.clone());
            }
        }
        Ok(Self(services))
    }

    /// Prints the services.
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let keepers = |instances: &[Instance]| {
            let mut names: Vec<&str> = instances.iter().map(|instance| instance.service.as_str()).collect();
            names.dedup();
            if names.is_empty() { "ninefold".to_owned() } else { names.join(",") }
        };
        let value =
            self.0.iter().map(|(name, instances)| json!({"protobufService": name, "service": keepers(instances)}));
        output::print(format, &value.collect(), || {
            let mut table = Table::new(&["PROTOBUF SERVICE", "SERVICE", "INSTANCES"]);
            for (name, instances) in &self.0 {
                let count = if instances.is_empty() { "-".to_owned() } else { instances.len().to_string() };
                table.row([name.clone(), keepers(instances), count]);
            }
            table.render()
        })
    }

    /// Prints a service, a method or a message.
    pub(super) async fn describe(&self, platform: &Platform, symbol: &str, format: Format) -> Result<(), Failure> {
        let symbol = symbol.replace('/', ".");
        if let Some((pool, _)) = self.pool_of(platform, &symbol, None).await? {
            if let Some(service) = pool.get_service_by_name(&symbol) {
                return output::print(format, &service_json(&service), || service_text(&service));
            }
            let mut methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
            if let Some(method) = methods.find(|method| method.full_name() == symbol) {
                return output::print(format, &method_json(&method), || {
                    let (input, output) = (message_text(&method.input()), message_text(&method.output()));
                    format!("{}\n{input}\n{output}", method_text(&method))
                });
            }
        }
        for pool in self.pools(platform).await? {
            if let Some(message) = pool.get_message_by_name(&symbol) {
                return output::print(format, &message_json(&message), || message_text(&message));
            }
        }
        Err(Failure::NotFound(format!("nothing is called {symbol:?}; `ninefold call list` names what there is")))
    }

    /// Finds a method, written `package.Service/Method` or with a dot, and who answers it.
    pub(super) async fn method(
        &self,
        platform: &Platform,
        name: &str,
        keeper: Option<&str>,
    ) -> Result<(Target, MethodDescriptor), Failure> {
        let name = name.trim_start_matches('/').replace('/', ".");
        let unknown =
            || Failure::NotFound(format!("no method is called {name:?}; `ninefold call list` names what there is"));
        let (pool, target) = self.pool_of(platform, &name, keeper).await?.ok_or_else(unknown)?;
        let (service, method) = name.rsplit_once('.').ok_or_else(unknown)?;
        let service = pool.get_service_by_name(service).ok_or_else(unknown)?;
        let method = service.methods().find(|known| known.name() == method).ok_or_else(unknown)?;
        Ok((target, method))
    }

    /// The contract that holds a service or a method of it, and who answers.
    async fn pool_of(
        &self,
        platform: &Platform,
        symbol: &str,
        keeper: Option<&str>,
    ) -> Result<Option<(DescriptorPool, Target)>, Failure> {
        let parent = symbol.rsplit_once('.').map_or("", |(parent, _)| parent);
        let Some(instances) = self.0.get(symbol).or_else(|| self.0.get(parent)) else { return Ok(None) };
        let mut fitting: Vec<&Instance> =
            instances.iter().filter(|instance| keeper.is_none_or(|keeper| keeper == instance.service)).collect();
        if instances.is_empty() {
            return Ok(Some((platform_pool(), Target::Platform)));
        }
        fitting.sort_by_key(|instance| instance.state() != InstanceState::Serving);
        let Some(first) = fitting.first() else { return Ok(None) };
        let pool = contract(platform, &first.contract_digest).await?;
        Ok(Some((pool, Target::Instance(Box::new((*first).clone())))))
    }

    async fn pools(&self, platform: &Platform) -> Result<Vec<DescriptorPool>, Failure> {
        let mut digests: Vec<&str> =
            self.0.values().flatten().map(|instance| instance.contract_digest.as_str()).collect();
        digests.sort_unstable();
        digests.dedup();
        let mut pools = vec![platform_pool()];
        for digest in digests.into_iter().filter(|digest| !digest.is_empty()) {
            pools.push(contract(platform, digest).await?);
        }
        Ok(pools)
    }
}

fn platform_pool() -> DescriptorPool {
    DescriptorPool::decode(ninefold_proto::DESCRIPTOR_SET).expect("our own contracts are well-formed proto3")
}

async fn contract(platform: &Platform, digest: &str) -> Result<DescriptorPool, Failure> {
    let request = GetContractRequest { digest: digest.to_owned() };
    let answer = platform.ask(platform.contracts().get_contract(request)).await?;
    let edition = answer.contract.unwrap_or_default().edition;
    // The reflection library panics on editions.
    if edition != "proto2" && edition != "proto3" {
        return Err(Failure::Failed(format!(
            "the contract uses edition {edition}, which `ninefold call` cannot read yet; use grpcurl"
        )));
    }
    DescriptorPool::decode(answer.descriptor_set.as_slice())
        .map_err(|error| Failure::Failed(format!("the contract {digest} cannot be read: {error}")))
}

fn service_text(service: &ServiceDescriptor) -> String {
    let methods: String = service.methods().map(|method| format!("  {}\n", method_text(&method))).collect();
    format!("service {} {{\n{methods}}}", service.full_name())
}

fn method_text(method: &MethodDescriptor) -> String {
    let stream = |is_stream| if is_stream { "stream " } else { "" };
    format!(
        "rpc {}({}{}) returns ({}{});",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().full_name(),
        stream(method.is_server_streaming()),
        method.output().full_name()
    )
}

fn service_json(service: &ServiceDescriptor) -> Value {
    let methods: Vec<Value> = service.methods().map(|method| signature(&method)).collect();
    json!({"service": service.full_name(), "methods": methods})
}

fn signature(method: &MethodDescriptor) -> Value {
    json!({
        "method": method.full_name(),
        "input": method.input().full_name(),
        "output": method.output().full_name(),
        "clientStreaming": method.is_client_streaming(),
        "serverStreaming": method.is_server_streaming(),
    })
}

fn method_json(method: &MethodDescriptor) -> Value {
    let mut value = signature(method);
    value["input"] = message_json(&method.input());
    value["output"] = message_json(&method.output());
    value
}

fn message_json(message: &MessageDescriptor) -> Value {
    let field = |field: FieldDescriptor| {
        json!({
            "name": field.name(),
            "jsonName": field.json_name(),
            "number": field.number(),
            "type": kind(&field),
            "repeated": field.is_list() || field.is_map(),
        })
    };
    json!({"message": message.full_name(), "fields": message.fields().map(field).collect::<Vec<_>>()})
}

/// The type of a field, as its contract writes it.
fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            format!("map<{}, {}>", kind(&entry.map_entry_key_field()), kind(&entry.map_entry_value_field()))
        }
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    }
}

fn message_text(message: &MessageDescriptor) -> String {
    let fields: String = message
        .fields()
        .map(|field| {
            let label = if field.is_list() { "repeated " } else { "" };
            format!("  {label}{} {} = {};\n", kind(&field), field.name(), field.number())
        })
        .collect();
    format!("message {} {{\n{fields}}}", message.full_name())
}
