//! Who may call what: what the contracts say of their methods, and what is said here of those that are not ours.

use std::collections::HashMap;

use http::Method;
use http::request::Parts;
use ninefold::caller::Role;
use ninefold_proto::ninefold::access::v1::{Access, Audience};
use prost::Message;

use crate::bindings::Pattern;

/// Methods of other people's contracts that the platform answers. A method that stands nowhere is for administrators.
const FOREIGN: &[(&str, Audience, bool)] = &[
    ("/grpc.health.v1.Health/Watch", Audience::Known, true),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Audience::Known, true),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Audience::Known, true),
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", Audience::Instances, true),
    ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", Audience::Instances, true),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Audience::Instances, true),
    // They tell a caller of its own namespaces alone.
    ("/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", Audience::Members, true),
    ("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", Audience::Members, true),
];
/// Where OTLP over HTTP is taken, Prometheus' remote write, and Loki's push.
const OTLP: [&str; 5] = ["/v1/logs", "/v1/traces", "/v1/metrics", "/api/v1/write", "/loki/api/v1/push"];
/// Where Prometheus' query API, and Loki's, take questions that are too long for an address.
const QUESTIONS: [&str; 11] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/query_exemplars",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/loki/api/v1/query",
    "/loki/api/v1/query_range",
    "/loki/api/v1/series",
    "/loki/api/v1/labels",
];
/// One question and one answer, so a stranger cannot keep a place with it.
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Who may make a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Anybody, unasked.
    Open,
    /// Whoever is in the audience.
    For {
        audience: Audience,
        /// Whether the method keeps namespaces apart.
        is_scoped: bool,
        /// What it is, for whoever is refused.
        what: String,
    },
}

/// The rules of all methods.
#[derive(Debug)]
pub(crate) struct Rules {
    methods: HashMap<String, (Audience, bool)>,
    bindings: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    verb: Method,
    pattern: Pattern,
    method: String,
}

impl Rules {
    /// Reads the rules of all methods in a serialized `google.protobuf.FileDescriptorSet`.
    pub(crate) fn of(descriptor_set: &[u8]) -> Self {
        let set = FileSet::decode(descriptor_set).unwrap_or_default();
        let mut methods: HashMap<String, (Audience, bool)> =
            FOREIGN.iter().map(|(path, audience, is_scoped)| ((*path).to_owned(), (*audience, *is_scoped))).collect();
        let mut bindings = Vec::new();
        for file in set.file {
            for service in file.service {
                for method in service.method {
                    let path = format!("/{}.{}/{}", file.package, service.name, method.name);
                    let options = method.options.unwrap_or_default();
                    let access = options.access.unwrap_or_default();
                    methods.entry(path.clone()).or_insert((access.audience(), access.scoped));
                    for http in options.http.into_iter().flat_map(Http::all) {
                        bindings.extend(http.binding().map(|(verb, template)| Binding {
                            verb,
                            pattern: Pattern::parse(template),
                            method: path.clone(),
                        }));
                    }
                }
            }
        }
        Self { methods, bindings }
    }

    /// Who may make a request.
    pub(crate) fn decide(&self, head: &Parts) -> Rule {
        let path = head.uri.path();
        if path == HEALTH {
            return Rule::Open;
        }
        if let Some((audience, is_scoped)) = self.methods.get(path) {
            return Rule::For {
                audience: *audience,
                is_scoped: *is_scoped,
                what: path.trim_start_matches('/').to_owned(),
            };
        }
        let what = format!("{} {path}", head.method);
        if head.method == Method::POST && OTLP.contains(&path) {
            return Rule::For { audience: Audience::Instances, is_scoped: true, what };
        }
        if head.method == Method::POST && QUESTIONS.contains(&path) {
            return Rule::For { audience: Audience::Readers, is_scoped: false, what };
        }
        let is_read = matches!(head.method, Method::GET | Method::HEAD);
        let verb = if is_read { &Method::GET } else { &head.method };
        let bound = self.bindings.iter().filter(|one| one.verb == *verb && one.pattern.fits(path));
        // Should a path be of two methods, whoever may call both may call it.
        let strictest = bound
            .filter_map(|one| self.methods.get(&one.method))
            .max_by_key(|(audience, is_scoped)| (strictness(*audience), !is_scoped));
        let (audience, is_scoped) = match strictest {
            Some(found) => *found,
            // Pages and listings that are no methods: they show, they change nothing.
            None if is_read && !path.starts_with("/v1/") => (Audience::Readers, false),
            None => (Audience::Admins, false),
        };
        Rule::For { audience, is_scoped, what }
    }
}

fn strictness(audience: Audience) -> u8 {
    match audience {
        Audience::Known => 0,
        Audience::Members => 1,
        Audience::Readers | Audience::Instances => 2,
        Audience::Operators => 3,
        Audience::Admins => 4,
        Audience::Unspecified => 5,
    }
}

/// Whether somebody with these roles is in an audience.
pub(crate) fn allows(audience: Audience, roles: &[Role]) -> bool {
    let has = |wanted: &[Role]| roles.iter().any(|role| wanted.contains(role));
    match audience {
        Audience::Unspecified => false,
        Audience::Known => true,
        Audience::Members => has(&[Role::Read, Role::Instance, Role::Operator, Role::Admin]),
        Audience::Readers => has(&[Role::Read, Role::Operator, Role::Admin]),
        Audience::Instances => has(&[Role::Instance, Role::Operator, Role::Admin]),
        Audience::Operators => has(&[Role::Operator, Role::Admin]),
        Audience::Admins => has(&[Role::Admin]),
    }
}

/// An audience in words.
pub(crate) const fn words(audience: Audience) -> &'static str {
    match audience {
        Audience::Unspecified => "nobody: its contract names no audience",
        Audience::Known => "whoever is known",
        Audience::Members => "instances, readers, operators and administrators",
        Audience::Readers => "readers, operators and administrators",
        Audience::Instances => "instances, operators and administrators",
        Audience::Operators => "operators and administrators",
        Audience::Admins => "administrators",
    }
}

// The parts of descriptors that are needed here. The generated types forget options that they do not know.

#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<MethodOf>,
}

#[derive(Clone, PartialEq, Message)]
struct MethodOf {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(message, optional, tag = "50902")]
    access: Option<Access>,
    #[prost(message, optional, tag = "72295728")]
    http: Option<Http>,
}

/// `google.api.HttpRule`, without its body.
#[derive(Clone, PartialEq, Message)]
struct Http {
    #[prost(string, tag = "2")]
    get: String,
    #[prost(string, tag = "3")]
    put: String,
    #[prost(string, tag = "4")]
    post: String,
    #[prost(string, tag = "5")]
    delete: String,
    #[prost(string, tag = "6")]
    patch: String,
    #[prost(message, repeated, tag = "11")]
    additional: Vec<Http>,
}

impl Http {
    fn all(mut self) -> Vec<Self> {
        let additional = std::mem::take(&mut self.additional);
        std::iter::once(self).chain(additional).collect()
    }

    fn binding(&self) -> Option<(Method, &str)> {
        [
            (Method::GET, &self.get),
            (Method::PUT, &self.put),
            (Method::POST, &self.post),
            (Method::DELETE, &self.delete),
            (Method::PATCH, &self.patch),
        ]
        .into_iter()
        .find(|(_, template)| !template.is_empty())
        .map(|(verb, template)| (verb, template.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(verb: &str, path: &str) -> Rule {
        let rules = Rules::of(ninefold_proto::DESCRIPTOR_SET);
        rules.decide(&http::Request::builder().method(verb).uri(path).body(()).unwrap().into_parts().0)
    }

    #[track_caller]
    fn check(verb: &str, path: &str, expected: Audience) {
        let Rule::For { audience, .. } = decide(verb, path) else { panic!("{path} is open") };
        assert_eq!(audience, expected, "{verb} {path}");
    }

    #[test]
    fn a_method_is_for_whom_its_contract_says() {
        check("POST", "/ninefold.registry.v1.RegistryService/HoldSession", Audience::Instances);
        check("POST", "/ninefold.access.v1.AccessService/CreateToken", Audience::Admins);
        check("POST", "/ninefold.control.v1.ControlService/ScaleWorkload", Audience::Operators);
        check("POST", "/opentelemetry.proto.collector.logs.v1.LogsService/Export", Audience::Instances);
        assert_eq!(decide("POST", HEALTH), Rule::Open);
    }

    #[test]
    fn its_http_binding_is_for_the_same() {
        check("GET", "/v1/tokens", Audience::Admins);
        check("DELETE", "/v1/tokens/abc", Audience::Admins);
        check("GET", "/v1/services", Audience::Members);
        check("HEAD", "/v1/services/a/instances", Audience::Members);
        check("PUT", "/v1/documents/a/default", Audience::Operators);
        check("POST", "/v1/logs", Audience::Instances);
    }

    #[test]
    fn what_is_unknown_is_for_administrators_unless_it_is_a_page() {
        check("GET", "/", Audience::Readers);
        check("GET", "/landscape.json", Audience::Readers);
        check("GET", "/v1/nothing", Audience::Admins);
        check("GET", "/v1/tokens/", Audience::Admins);
        check("POST", "/x.y.Z/Method", Audience::Admins);
        check("POST", "/ninefold.registry.v1.RegistryService/Nothing", Audience::Admins);
    }

    #[test]
    fn every_method_of_the_platform_has_an_audience() {
        let rules = Rules::of(ninefold_proto::DESCRIPTOR_SET);
        let nobodys: Vec<_> =
            rules.methods.iter().filter(|(_, (audience, _))| *audience == Audience::Unspecified).collect();
        assert!(nobodys.is_empty() && rules.methods.len() > 40, "{nobodys:?}");
    }

    #[test]
    fn roles_hold_what_smaller_roles_hold() {
        let audiences =
            [Audience::Known, Audience::Members, Audience::Readers, Audience::Instances, Audience::Operators];
        for audience in audiences {
            assert!(allows(audience, &[Role::Operator]) && allows(audience, &[Role::Admin]), "{audience:?}");
        }
        assert!(allows(Audience::Admins, &[Role::Admin]) && !allows(Audience::Admins, &[Role::Operator]));
        assert!(!allows(Audience::Readers, &[Role::Instance]) && !allows(Audience::Instances, &[Role::Read]));
        assert!(!allows(Audience::Unspecified, &[Role::Admin]) && !allows(Audience::Members, &[]));
    }
}
