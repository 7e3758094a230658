//! Reads a contract: untrusted descriptor bytes become methods with their bindings, or a reason why not.

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};

use crate::binding::Binding;
use crate::guard::Requirement;
use crate::transcode::direct::{Builder, Plan};
use crate::transcode::notation::Notation;

/// `google.protobuf.MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS`.
const NO_SIDE_EFFECTS: i32 = 1;
/// Most HTTP bindings of one method.
const BINDINGS_MAX: usize = 32;

/// A contract that was read.
#[derive(Debug)]
pub(crate) struct Contract {
    /// Methods that the contract exposes at the edge, in its order.
    pub(crate) methods: Vec<Arc<Method>>,
    /// Parts that gave no route, and why.
    pub(crate) refusals: Vec<String>,
}

/// A method that is exposed.
#[derive(Debug)]
pub(crate) struct Method {
    /// Full name of its Protobuf service, such as `shop.product.v1.ProductService`.
    pub(crate) protobuf_service: String,
    /// Full name, such as `shop.product.v1.ProductService.GetProduct`.
    pub(crate) name: String,
    /// The place that its gRPC calls take among routes.
    pub(crate) place: Arc<str>,
    /// Path of its gRPC calls, such as `/shop.product.v1.ProductService/GetProduct`.
    pub(crate) path: PathAndQuery,
    /// What it is sent.
    pub(crate) input: MessageDescriptor,
    /// What it answers.
    pub(crate) output: MessageDescriptor,
    /// The quick way to read what it is sent.
    pub(crate) reading: Option<Plan>,
    /// The quick way to write what it answers.
    pub(crate) writing: Option<Plan>,
    /// Whether it takes a stream.
    pub(crate) is_client_streaming: bool,
    /// Whether the answer is a stream.
    pub(crate) is_server_streaming: bool,
    /// Whether its contract says that it changes nothing (`idempotency_level = NO_SIDE_EFFECTS`).
    pub(crate) is_safe: bool,
    /// Longest time that its contract gives it.
    pub(crate) timeout: Option<Duration>,
    /// What its contract asks of callers.
    pub(crate) requirement: Option<Arc<Requirement>>,
    /// How its JSON is read and written by REST.
    pub(crate) notation: Notation,
    /// Its HTTP bindings; none for a method that is exposed as gRPC alone.
    pub(crate) bindings: Vec<Arc<Binding>>,
}

/// Reads raw descriptor bytes.
///
/// Never panics, whatever the bytes are: editions, which the reflection library cannot read, are looked for first.
///
/// # Errors
/// Why the whole contract is refused, as a sentence.
pub(crate) fn read(raw: &[u8]) -> Result<Contract, String> {
    let pool = pool(raw)?;
    let mut contract = Contract { methods: Vec::new(), refusals: Vec::new() };
    let mut tables = Builder::default();
    let mut exposed = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        if let Some(method) = contract.expose(&method) {
            tables.add(&method.0.input);
            tables.add(&method.0.output);
            exposed.push(method);
        }
    }
    let tables = Arc::new(tables.finish());
    for (mut method, rule) in exposed {
        method.reading = Plan::new(&tables, method.input.full_name());
        method.writing = Plan::new(&tables, method.output.full_name());
        contract.add(method, rule);
    }
    Ok(contract)
}

/// Resolves raw descriptor bytes.
///
/// # Errors
/// As for [`read`].
pub(crate) fn pool(raw: &[u8]) -> Result<DescriptorPool, String> {
    let syntaxes = Syntaxes::decode(raw).map_err(|error| format!("it is not a descriptor set: {error}"))?;
    for file in &syntaxes.files {
        match file.syntax.as_str() {
            "" | "proto2" | "proto3" if file.edition == 0 => {}
            _ => return Err(format!("{} is written in an edition, which the edge cannot read yet", file.name)),
        }
    }
    // The reflection library is not made for hostile input; a panic there must not end more than this contract.
    panic::catch_unwind(AssertUnwindSafe(|| DescriptorPool::decode(raw)))
        .map_err(|_| "its descriptors cannot be resolved".to_owned())?
        .map_err(|error| format!("its descriptors cannot be resolved: {error}"))
}

impl Contract {
    /// Looks whether a method is exposed; gives it without its bindings, and the rule that they are made from.
    fn expose(&mut self, descriptor: &MethodDescriptor) -> Option<(Method, Option<HttpRule>)> {
        let options = match MethodOptions::decode(descriptor.options().encode_to_vec().as_slice()) {
            Ok(options) => options,
            Err(error) => {
                self.refusals.push(format!("the options of {} are malformed: {error}", descriptor.full_name()));
                return None;
            }
        };
        let is_exposed = match (Exposure::try_from(options.exposure), &options.http) {
            (Ok(Exposure::Internal), _) | (Ok(Exposure::Unspecified), None) => false,
            (Ok(Exposure::Unspecified), Some(_)) | (Ok(Exposure::Public), _) => true,
            // A word of a later version of ours: what is not understood stays inside.
            (Err(_), _) => false,
        };
        if !is_exposed {
            return None;
        }
        let requirement = match requirement(&options.requirement, descriptor) {
            Ok(requirement) => requirement,
            Err(why) => {
                self.refusals.push(format!("the requirement of {}: {why}", descriptor.full_name()));
                return None;
            }
        };
        let service = descriptor.parent_service().full_name().to_owned();
        let Ok(path) = PathAndQuery::try_from(format!("/{service}/{}", descriptor.name())) else {
            self.refusals.push(format!("the name of {} is malformed", descriptor.full_name()));
            return None;
        };
        let method = Method {
            place: format!("grpc {path}").into(),
            protobuf_service: service,
            name: descriptor.full_name().to_owned(),
            path,
            input: descriptor.input(),
            output: descriptor.output(),
            reading: None,
            writing: None,
            is_client_streaming: descriptor.is_client_streaming(),
            is_server_streaming: descriptor.is_server_streaming(),
            is_safe: options.idempotency_level == NO_SIDE_EFFECTS,
            timeout: options.traffic.and_then(|traffic| traffic.timeout).and_then(|time| time.try_into().ok()),
            requirement,
            notation: Notation::of(options.json.unwrap_or_default(), descriptor.is_server_streaming()),
            bindings: Vec::new(),
        };
        Some((method, options.http))
    }

    /// Adds a method with the bindings of its rule.
    fn add(&mut self, mut method: Method, rule: Option<HttpRule>) {
        if let Some(rule) = rule {
            self.bind(&mut method, rule);
        }
        self.methods.push(Arc::new(method));
    }

    fn bind(&mut self, method: &mut Method, mut rule: HttpRule) {
        let additional = std::mem::take(&mut rule.additional_bindings);
        if additional.len() >= BINDINGS_MAX {
            self.refusals.push(format!("{} has more than {BINDINGS_MAX} bindings", method.name));
            return;
        }
        for rule in std::iter::once(rule).chain(additional) {
            let nests = !rule.additional_bindings.is_empty();
            let binding = if nests {
                Err("additional_bindings nest".to_owned())
            } else {
                Binding::new(&rule, &method.input, &method.output)
            };
            match binding {
                Ok(binding) => method.bindings.push(Arc::new(binding)),
                Err(why) => self.refusals.push(format!("a binding of {}: {why}", method.name)),
            }
        }
    }

    /// The methods of the named Protobuf services.
    pub(crate) fn methods_of(&self, services: &BTreeSet<String>) -> impl Iterator<Item = &Arc<Method>> {
        self.methods.iter().filter(|method| services.contains(&method.protobuf_service))
    }
}

/// What a method's options ask of callers. What is not understood is not passed over: a later version may ask for more.
fn requirement(parts: &[Vec<u8>], method: &MethodDescriptor) -> Result<Option<Arc<Requirement>>, String> {
    if parts.is_empty() {
        return Ok(None);
    }
    let mut declared = wire::Requirement::default();
    for part in parts {
        let read = wire::Requirement::decode(part.as_slice()).map_err(|error| error.to_string())?;
        if read.encoded_len() < part.len() {
            return Err("it asks what is not understood".to_owned());
        }
        // Protobuf merges what is written one after the other.
        declared.merge(part.as_slice()).map_err(|error| error.to_string())?;
    }
    Requirement::of(declared, &method.input(), method.is_client_streaming()).map(|read| Some(Arc::new(read)))
}

/// What of a descriptor set must be known before anything else reads it.
#[derive(Clone, PartialEq, prost::Message)]
struct Syntaxes {
    #[prost(message, repeated, tag = "1")]
    files: Vec<FileSyntax>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileSyntax {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "12")]
    syntax: String,
    #[prost(int32, tag = "14")]
    edition: i32,
}

/// The options that the edge reads, decoded from their bytes: what a contract calls an extension does not matter, and it
/// may lack the files that define them.
#[derive(Clone, PartialEq, prost::Message)]
struct MethodOptions {
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
    #[prost(enumeration = "Exposure", tag = "50901")]
    exposure: i32,
    /// Its parts; compilers write one for each statement.
    #[prost(bytes = "vec", repeated, tag = "50903")]
    requirement: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "50910")]
    traffic: Option<Traffic>,
    #[prost(message, optional, tag = "50911")]
    json: Option<wire::Json>,
    #[prost(int32, tag = "34")]
    idempotency_level: i32,
}

use ninefold_proto::ninefold::gateway::v1::{self as wire, Exposure, Traffic};

/// `google.api.HttpRule`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HttpRule {
    /// Template and HTTP method.
    #[prost(oneof = "HttpPattern", tags = "2, 3, 4, 5, 6, 8")]
    pub(crate) pattern: Option<HttpPattern>,
    /// Where the body goes.
    #[prost(string, tag = "7")]
    pub(crate) body: String,
    /// Which field is the answer's body.
    #[prost(string, tag = "12")]
    pub(crate) response_body: String,
    /// More bindings of the same method.
    #[prost(message, repeated, tag = "11")]
    pub(crate) additional_bindings: Vec<HttpRule>,
}

/// Template and HTTP method of a rule.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum HttpPattern {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(string, tag = "3")]
    Put(String),
    #[prost(string, tag = "4")]
    Post(String),
    #[prost(string, tag = "5")]
    Delete(String),
    #[prost(string, tag = "6")]
    Patch(String),
    #[prost(message, tag = "8")]
    Custom(CustomPattern),
}

/// A pattern of an HTTP method without a field of its own.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CustomPattern {
    /// The HTTP method, or `*`.
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    /// The template.
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_own_contracts_are_read() {
        let contract = read(ninefold_proto::DESCRIPTOR_SET).unwrap();
        assert_eq!(contract.refusals, Vec::<String>::new());
        let names: Vec<_> = contract.methods.iter().map(|method| method.name.as_str()).collect();
        assert!(names.contains(&"ninefold.config.v1.ConfigService.PutDocument"));
        assert!(!names.iter().any(|name| name.ends_with("HoldSession")), "it has no binding, so it stays inside");
        let list = contract.methods.iter().find(|method| method.name.ends_with("ListInstances")).unwrap();
        assert_eq!(list.bindings.len(), 2);
    }

    #[test]
    fn bytes_of_strangers_are_refused_not_panicked_at() {
        let edition = prost_types::FileDescriptorSet {
            file: vec![prost_types::FileDescriptorProto {
                name: Some("new.proto".into()),
                syntax: Some("editions".into()),
                ..Default::default()
            }],
        };
        assert!(read(&edition.encode_to_vec()).unwrap_err().contains("edition"));
        let circular = prost_types::FileDescriptorSet {
            file: vec![prost_types::FileDescriptorProto {
                name: Some("a.proto".into()),
                dependency: vec!["a.proto".into()],
                ..Default::default()
            }],
        };
        let _ = read(&circular.encode_to_vec());
        assert!(read(b"\xff\xff\xff garbage").is_err());
        assert!(read(b"").unwrap().methods.is_empty());
        // Every prefix and every flipped byte of a real contract is either read or refused.
        let real = ninefold_proto::DESCRIPTOR_SET;
        for at in (0..real.len()).step_by(real.len() / 40) {
            let _ = read(&real[..at]);
            let mut flipped = real.to_vec();
            flipped[at] ^= 0x55;
            let _ = read(&flipped);
        }
    }
}
