//! What the edge offers over REST, as an OpenAPI 3.1 document made of the contracts and their comments. Pure.
//!
//! A document tells no more than the door shows: it is made of the routes, so what is not exposed is not in it. A path
//! template that spans several segments has a parameter for each of its wildcards, as OpenAPI knows no other.

mod page;
mod schema;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value as Json, json};

pub(crate) use page::Piece;

use crate::binding::{Binding, Body, FieldPath};
use crate::pattern::Segment;
use crate::routes::{Route, Routes};
use crate::traffic::All;
use crate::transcode::notation::Notation;
use crate::transcode::{answers_http_body, is_http_body};
use crate::value;
use schema::{Schemas, comment, text};

/// Path of the whole document; those of packages are below it.
const WHOLE: &str = "/openapi.json";
const OF_PACKAGE: (&str, &str) = ("/openapi/", ".json");
/// How deep the fields of messages in messages are told as query parameters.
const QUERY_DEPTH_MAX: usize = 3;
/// Most query parameters that one operation tells.
const PARAMETERS_MAX: usize = 100;
/// HTTP methods that OpenAPI has a word for.
const VERBS: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];

/// The documents of one set of routes, each made when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<Made>);

/// Documents, and the settings by which JSON is written that they tell of.
#[derive(Debug, Default)]
struct Made {
    by: Option<All>,
    documents: HashMap<String, Document>,
}

/// A document, and a mark that changes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// JSON.
    pub(crate) body: Bytes,
    /// As `ETag` has it, with its quotes.
    pub(crate) mark: Arc<str>,
}

impl Documents {
    /// The document at a path. `None` for what is no path of a document, or names a package without routes.
    pub(crate) fn at(&self, path: &str, routes: &Routes, declared: &All) -> Option<Document> {
        let package = match path {
            WHOLE => "",
            _ => path.strip_prefix(OF_PACKAGE.0)?.strip_suffix(OF_PACKAGE.1)?,
        };
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Made { by, documents } = &mut *made;
        if !by.as_ref().is_some_and(|by| by.is(declared)) {
            documents.clear();
            *by = Some(declared.clone());
        }
        if let Some(document) = documents.get(package) {
            return Some(document.clone());
        }
        // Strangers choose paths: only what there is is kept.
        if !package.is_empty() && !packages(routes).contains(package) {
            return None;
        }
        let body = serde_json::to_vec(&whole(routes, package, declared)).unwrap_or_default();
        let body = Bytes::from(body);
        let mark = format!("\"{:016x}\"", mark(&body)).into();
        let document = Document { body, mark };
        documents.insert(package.to_owned(), document.clone());
        Some(document)
    }
}

/// FNV-1a: the same on every replica.
fn mark(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |mark, byte| (mark ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn package(route: &Route) -> &str {
    route.method.protobuf_service.rsplit_once('.').map_or("", |(package, _)| package)
}

fn packages(routes: &Routes) -> BTreeSet<&str> {
    routes.rest_routes().iter().map(|route| package(route)).collect()
}

/// The document of a package, or of all.
fn whole(routes: &Routes, of: &str, declared: &All) -> Json {
    let mut told: Vec<&Arc<Route>> =
        routes.rest_routes().iter().filter(|route| of.is_empty() || package(route) == of).collect();
    told.sort_by(|one, two| (one.template(), &one.method.name).cmp(&(two.template(), &two.method.name)));
    let mut paths = Paths::default();
    let mut schemas = Schemas::default();
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    for route in told {
        paths.add(route, declared.notation(route), &mut schemas);
        tags.entry(route.method.protobuf_service.clone()).or_insert_with(|| {
            let service = route.method.input.parent_pool().get_service_by_name(&route.method.protobuf_service);
            service.map(|service| comment(&service.parent_file(), service.path())).unwrap_or_default()
        });
    }
    let tags: Vec<Json> = tags.into_iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
    let mut components = schemas.finish();
    components.insert("Error".to_owned(), error());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": if of.is_empty() { "What the edge offers" } else { of },
            "version": of.rsplit('.').next().filter(|version| !version.is_empty()).unwrap_or("live"),
            "description": "Made of the contracts of the services that are registered now.",
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths.told,
        "components": {"schemas": components},
    })
}

/// What every error looks like.
fn error() -> Json {
    json!({
        "type": "object",
        "description": "A google.rpc.Status.",
        "required": ["code", "message"],
        "properties": {
            "code": {"type": "integer", "description": "The gRPC code."},
            "message": {"type": "string", "description": "What happened, for people."},
            "details": {
                "type": "array",
                "items": {"type": "object", "properties": {"@type": {"type": "string"}}},
                "description": "More, for programs: google.rpc.ErrorInfo and its like.",
            },
        },
    })
}

/// Paths and their operations.
#[derive(Default)]
struct Paths {
    told: Map<String, Json>,
    /// By the shape of a path, how it is written: two paths may differ in more than the names of their parameters.
    shapes: HashMap<String, (String, Vec<String>)>,
    ids: BTreeSet<String>,
}

/// A piece of a path that a request chooses.
struct Wildcard<'b> {
    /// The field that it is a part of.
    field: Option<&'b FieldPath>,
    /// Whether it is the whole of the field.
    is_whole: bool,
    is_rest: bool,
}

impl Paths {
    fn add(&mut self, route: &Route, notation: Notation, schemas: &mut Schemas) {
        let Some(binding) = &route.binding else { return };
        let Some(verb) = VERBS.iter().find(|verb| **verb == binding.verb) else { return };
        let (shape, wildcards) = wildcards(binding);
        let (path, names) =
            self.shapes.entry(shape.clone()).or_insert_with(|| written(&shape, names_of(&wildcards))).clone();
        let mut id = route.method.name.clone();
        let mut count = 1;
        while !self.ids.insert(id.clone()) {
            count += 1;
            id = format!("{}_{count}", route.method.name);
        }
        let mut parameters: Vec<Json> =
            names.iter().zip(&wildcards).map(|(name, wildcard)| of_path(name, wildcard, binding, schemas)).collect();
        if binding.body != Body::Whole {
            let mut way = Vec::new();
            query(&route.method.input, binding, &mut way, schemas, &mut parameters);
        }
        let mut operation = Map::new();
        operation.insert("operationId".to_owned(), json!(id));
        operation.insert("tags".to_owned(), json!([route.method.protobuf_service]));
        describe(route, &mut operation);
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), json!(parameters));
        }
        if let Some(body) = body(route, binding, schemas) {
            operation.insert("requestBody".to_owned(), body);
        }
        operation.insert("responses".to_owned(), responses(route, binding, notation, schemas));
        let item = self.told.entry(path).or_insert_with(|| json!({}));
        item[verb.to_ascii_lowercase()] = Json::Object(operation);
    }
}

fn describe(route: &Route, operation: &mut Map<String, Json>) {
    let pool = route.method.input.parent_pool();
    let service = pool.get_service_by_name(&route.method.protobuf_service);
    let method = service.and_then(|service| service.methods().find(|method| method.full_name() == route.method.name));
    let Some(method) = method else { return };
    let about = comment(&method.parent_file(), method.path());
    if let Some(first) = about.split(['\n', '.']).next().filter(|first| !first.is_empty()) {
        operation.insert("summary".to_owned(), json!(first.trim()));
        operation.insert("description".to_owned(), json!(about));
    }
    if method.method_descriptor_proto().options.as_ref().is_some_and(prost_types::MethodOptions::deprecated) {
        operation.insert("deprecated".to_owned(), json!(true));
    }
}

/// The shape of a template, and its wildcards from left to right.
fn wildcards(binding: &Binding) -> (String, Vec<Wildcard<'_>>) {
    let pattern = &binding.pattern;
    let mut shape = String::new();
    let mut found = Vec::new();
    for (at, segment) in pattern.segments().iter().enumerate() {
        shape.push('/');
        if let Segment::Literal(literal) = segment {
            shape.push_str(literal);
            continue;
        }
        shape.push_str("{}");
        let spans = pattern.variables().iter().zip(&binding.variables);
        let of = spans.into_iter().find(|(variable, _)| variable.covers(at));
        let is_rest = *segment == Segment::Rest;
        let is_whole = of.is_some_and(|(variable, _)| variable.is_all_at(at));
        found.push(Wildcard { field: of.map(|(_, field)| field), is_whole, is_rest });
    }
    if shape.is_empty() {
        shape.push('/');
    }
    if let Some(verb) = pattern.verb() {
        shape.push(':');
        shape.push_str(verb);
    }
    (shape, found)
}

/// Names for the parameters of a path, each once.
fn names_of(wildcards: &[Wildcard<'_>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for wildcard in wildcards {
        let base = wildcard.field.map_or_else(|| "segment".to_owned(), ToString::to_string);
        let mut name = base.clone();
        let mut count = 1;
        while names.contains(&name) {
            count += 1;
            name = format!("{base}_{count}");
        }
        names.push(name);
    }
    names
}

/// A shape with names in it.
fn written(shape: &str, names: Vec<String>) -> (String, Vec<String>) {
    let mut path = String::new();
    let mut pieces = shape.split("{}");
    path.push_str(pieces.next().unwrap_or_default());
    for (name, piece) in names.iter().zip(pieces) {
        path.push('{');
        path.push_str(name);
        path.push('}');
        path.push_str(piece);
    }
    (path, names)
}

fn of_path(name: &str, wildcard: &Wildcard<'_>, binding: &Binding, schemas: &mut Schemas) -> Json {
    let mut about = wildcard.field.map(|field| text(field.split().0)).unwrap_or_default();
    let mut schema = match wildcard.field {
        Some(field) if wildcard.is_whole => schemas.of_one(field.split().0),
        _ => {
            about = format!("{about}\n\nA piece of the template {}.", binding.pattern.text()).trim().to_owned();
            json!({"type": "string"})
        }
    };
    if wildcard.is_rest {
        about = format!("{about}\n\nMay span several segments.").trim().to_owned();
    }
    if schema["type"] == "string" && schema.get("enum").is_none() && schema.get("pattern").is_none() {
        schema["minLength"] = json!(1);
    }
    json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
}

/// Tells the fields that neither path nor body has as parameters of the query.
fn query(
    message: &MessageDescriptor,
    binding: &Binding,
    way: &mut Vec<FieldDescriptor>,
    schemas: &mut Schemas,
    parameters: &mut Vec<Json>,
) {
    for field in message.fields() {
        if parameters.len() >= PARAMETERS_MAX {
            return;
        }
        way.push(field.clone());
        let is_taken = binding.variables.iter().any(|variable| variable.is(way))
            || matches!(&binding.body, Body::Field(body) if body.is(way));
        let is_message = matches!(field.kind(), Kind::Message(inner) if !value::has_text(&inner));
        match field.kind() {
            _ if is_taken => {}
            Kind::Message(entry) if field.is_map() => {
                let has_text = match entry.map_entry_value_field().kind() {
                    Kind::Message(inner) => value::has_text(&inner),
                    _ => true,
                };
                if has_text {
                    parameters.push(of_query(way, schemas, Some("deepObject")));
                }
            }
            Kind::Message(inner) if is_message => {
                let is_one = !field.is_list();
                let is_round = way.iter().filter(|step| step.parent_message() == &inner).count() > 0;
                if is_one && !is_round && way.len() < QUERY_DEPTH_MAX {
                    query(&inner, binding, way, schemas, parameters);
                }
            }
            _ => parameters.push(of_query(way, schemas, None)),
        }
        way.pop();
    }
}

fn of_query(way: &[FieldDescriptor], schemas: &mut Schemas, style: Option<&str>) -> Json {
    let name = way.iter().map(FieldDescriptor::json_name).collect::<Vec<_>>().join(".");
    let field = way.last().expect("a way leads to a field");
    let mut told = json!({"name": name, "in": "query", "description": text(field), "schema": schemas.of(field)});
    if let Some(style) = style {
        (told["style"], told["explode"]) = (json!(style), json!(true));
    }
    told
}

fn body(route: &Route, binding: &Binding, schemas: &mut Schemas) -> Option<Json> {
    let input = &route.method.input;
    let (schema, is_http_body) = match &binding.body {
        Body::Nowhere => return None,
        Body::Whole => {
            let bound: Vec<&str> = binding.variables.iter().filter_map(FieldPath::name_of_one).collect();
            let schema = if bound.is_empty() { schemas.of_message(input) } else { schemas.without(input, &bound) };
            (schema, is_http_body(input))
        }
        Body::Field(path) => {
            let field = path.split().0;
            let is_body = matches!(field.kind(), Kind::Message(inner) if !field.is_list() && is_http_body(&inner));
            (schemas.of(field), is_body)
        }
    };
    let content = match (is_http_body, route.method.is_client_streaming) {
        (true, _) => json!({"application/octet-stream": {}}),
        (false, true) => json!({
            "application/x-ndjson": {"schema": {"type": "string", "description": "A message a line."}},
            "application/json": {"schema": {"type": "array", "items": schema}},
        }),
        (false, false) => json!({"application/json": {"schema": schema}}),
    };
    Some(json!({"content": content, "required": true}))
}

fn responses(route: &Route, binding: &Binding, notation: Notation, schemas: &mut Schemas) -> Json {
    let output = &route.method.output;
    schemas.speak(notation);
    let schema = match &binding.response_body {
        Some(field) => schemas.of(field),
        None => schemas.of_message(output),
    };
    schemas.speak(Notation::default());
    let content = if answers_http_body(output, binding) {
        json!({"*/*": {}})
    } else if route.method.is_server_streaming {
        json!({
            "application/x-ndjson": {"schema": {"type": "string", "description": "A message a line."}},
            "text/event-stream": {"schema": {"type": "string", "description": "A message an event."}},
            "application/json": {"schema": {"type": "array", "items": schema}},
        })
    } else {
        json!({"application/json": {"schema": schema}})
    };
    let failed = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
    json!({
        "200": {"description": text_or(&schemas.about(output), "The answer."), "content": content},
        "default": {"description": "What went wrong.", "content": failed},
    })
}

fn text_or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::contract;
    use crate::routes::Kept;
    use crate::testing;

    fn document(source: &str) -> Json {
        let kept = Kept {
            service: "pump".into(),
            digest: "sha256:1".into(),
            protobuf_services: BTreeSet::from(["pump.v1.PumpService".to_owned()]).into(),
            contract: Ok(Arc::new(contract::read(&testing::compile(source)).unwrap())),
            created: SystemTime::UNIX_EPOCH,
            is_live: true,
        };
        let routes = Routes::build(&[kept], &Routes::default());
        assert_eq!(routes.refusals, Vec::new());
        let documents = Documents::default();
        let of = |path: &str| documents.at(path, &routes, &All::default());
        let whole = of("/openapi.json").unwrap();
        assert_eq!(of("/openapi/pump.v1.json").map(|of| of.mark != whole.mark), Some(true));
        assert!(of("/openapi/valve.v1.json").is_none());
        serde_json::from_slice(&whole.body).unwrap()
    }

    const PUMP: &str = r#"syntax = "proto3"; package pump.v1;
        import "google/api/annotations.proto"; import "google/protobuf/timestamp.proto";
        // Keeps pumps.
        service PumpService {
          // Gets a pump. It must be there.
          rpc GetPump(GetPumpRequest) returns (Pump) { option (google.api.http) = {get: "/v1/{name=sites/*/pumps/*}"}; }
          // Changes a pump.
          rpc PutPump(Pump) returns (Pump) {
            option (google.api.http) = {put: "/v1/pumps/{id}" body: "*" additional_bindings: {post: "/v1/pumps/{id}:put" body: "*"}};
          }
          rpc Watch(GetPumpRequest) returns (stream Pump) { option (google.api.http) = {get: "/v1/pumps/{site.id}"}; }
          rpc Hidden(Pump) returns (Pump);
        }
        message GetPumpRequest { string name = 1; Site site = 2; repeated Kind kinds = 3; google.protobuf.Timestamp since = 4; }
        message Site { string id = 1; string city_name = 2; Site outer = 3; }
        enum Kind { KIND_UNSPECIFIED = 0; KIND_BIG = 1; }
        // Moves water.
        message Pump {
          // Its id.
          int64 id = 1;
          map<string, Pump> parts = 2; bytes label = 3; Kind kind = 4; }
        "#;

    #[test]
    fn a_document_tells_of_what_is_exposed_and_nothing_else() {
        let document = document(PUMP);
        let text = document.to_string();
        assert!(!text.contains("Hidden"));
        let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        assert_eq!(paths, ["/v1/pumps/{id}", "/v1/pumps/{id}:put", "/v1/sites/{name}/pumps/{name_2}"]);
        let item = &document["paths"]["/v1/pumps/{id}"];
        assert_eq!(item["put"]["operationId"], "pump.v1.PumpService.PutPump");
        assert_eq!(item["get"]["operationId"], "pump.v1.PumpService.Watch");
        assert_eq!(item["get"]["parameters"][0]["name"], "id", "one path, one name");
        assert!(item["get"]["responses"]["200"]["content"]["text/event-stream"].is_object());
        assert!(item["put"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["id"].is_null());
    }

    #[test]
    fn fields_that_nothing_else_binds_are_parameters_of_the_query() {
        let document = document(PUMP);
        let parameters = document["paths"]["/v1/pumps/{id}"]["get"]["parameters"].as_array().unwrap();
        let names: Vec<&str> = parameters.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["id", "name", "site.cityName", "kinds", "since"]);
        assert_eq!(parameters[4]["schema"]["format"], "date-time");
        assert_eq!(parameters[3]["schema"]["items"]["$ref"], "#/components/schemas/pump.v1.Kind");
    }
}
