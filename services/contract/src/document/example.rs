//! Examples of calls, made from the types alone. Pure.

use ninefold_proto::ninefold::contract::v1 as proto;
use serde_json::{Map, Value, json};

use crate::schema::{Field, Kind, Label, Method, Schema, Service};

/// How deep messages within messages are shown.
const DEPTH_MAX: usize = 3;
/// Most fields of one message that are shown.
const FIELDS_MAX: usize = 40;

/// Examples of one method; `binding` is how it is called over HTTP, if it is.
pub(super) fn of(
    schema: &Schema,
    service: &Service,
    method: &Method,
    binding: Option<&proto::HttpDocumentation>,
) -> proto::MethodExamples {
    let request = message(schema, &method.input, 0);
    let name = format!("{}/{}", service.full, method.name);
    let data = quoted(&request.to_string());
    proto::MethodExamples {
        request_json: pretty(&request),
        response_json: pretty(&message(schema, &method.output, 0)),
        ninefold: format!("ninefold call {name} -d {data}"),
        grpcurl: format!("grpcurl -plaintext -d {data} 127.0.0.1:8080 {name}"),
        curl: binding.map(|binding| curl(binding, &request)).unwrap_or_default(),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn message(schema: &Schema, name: &str, depth: usize) -> Value {
    if let Some(known) = well_known(name) {
        return known;
    }
    let Some(message) = schema.message(name).filter(|_| depth < DEPTH_MAX) else { return json!({}) };
    let mut object = Map::new();
    let mut said = Vec::new();
    for field in message.fields.iter().take(FIELDS_MAX) {
        // Of a oneof, the first.
        if let Some(place) = field.oneof {
            if said.contains(&place) {
                continue;
            }
            said.push(place);
        }
        object.insert(field.json_name.to_string(), value(schema, field, depth));
    }
    Value::Object(object)
}

fn value(schema: &Schema, field: &Field, depth: usize) -> Value {
    if field.is_map {
        let Some(inner) = schema.message(&field.type_name).and_then(|entry| entry.field(2)) else { return json!({}) };
        return json!({"key": one(schema, inner, depth)});
    }
    let one = one(schema, field, depth);
    if field.label == Label::Repeated { json!([one]) } else { one }
}

fn one(schema: &Schema, field: &Field, depth: usize) -> Value {
    match field.kind {
        Kind::Message | Kind::Group => message(schema, &field.type_name, depth + 1),
        Kind::Enum => {
            let values = schema.enumeration(&field.type_name).map(|one| one.values.as_slice()).unwrap_or_default();
            // The first says that nothing is said.
            let shown = values.get(1).or_else(|| values.first());
            shown.map_or(Value::Null, |value| json!(&*value.name))
        }
        Kind::String => json!("text"),
        Kind::Bytes => json!("Ynl0ZXM="),
        Kind::Bool => json!(true),
        Kind::Double | Kind::Float => json!(1.5),
        // JSON numbers hold 53 bits, so Protobuf writes these as text.
        Kind::Int64 | Kind::Uint64 | Kind::Fixed64 | Kind::Sfixed64 | Kind::Sint64 => json!("1"),
        Kind::Int32 | Kind::Uint32 | Kind::Fixed32 | Kind::Sfixed32 | Kind::Sint32 => json!(1),
    }
}

/// Messages with a JSON form of their own.
fn well_known(name: &str) -> Option<Value> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => json!("2026-01-31T12:00:00Z"),
        "Duration" => json!("1.5s"),
        "FieldMask" => json!("field"),
        "Struct" | "Empty" => json!({}),
        "Value" => json!("anything"),
        "ListValue" => json!([]),
        "StringValue" => json!("text"),
        "BytesValue" => json!("Ynl0ZXM="),
        "BoolValue" => json!(true),
        "Int32Value" | "UInt32Value" => json!(1),
        "Int64Value" | "UInt64Value" => json!("1"),
        "DoubleValue" | "FloatValue" => json!(1.5),
        "Any" => json!({"@type": "type.googleapis.com/google.protobuf.Empty"}),
        _ => return None,
    })
}

/// A request over HTTP: what the path binds goes there, the rest into the body or the query.
fn curl(binding: &proto::HttpDocumentation, request: &Value) -> String {
    let mut rest = request.as_object().cloned().unwrap_or_default();
    let mut path = String::new();
    let mut template = binding.path.as_str();
    while let Some((before, inside)) = template.split_once('{') {
        let Some((variable, after)) = inside.split_once('}') else { break };
        let (name, _) = variable.split_once('=').unwrap_or((variable, ""));
        let mut steps = name.split('.').map(crate::print::json_name);
        let bound = steps.next().and_then(|first| rest.remove(&first));
        let bound = steps.fold(bound, |value, step| value.and_then(|value| value.get(step).cloned()));
        path.push_str(before);
        path.push_str(&plain(&bound.unwrap_or_else(|| json!("text"))));
        template = after;
    }
    path.push_str(template);
    let body = match binding.body.as_str() {
        "" => None,
        "*" => Some(Value::Object(std::mem::take(&mut rest))),
        field => rest.remove(&crate::print::json_name(field)),
    };
    let query: Vec<String> = rest
        .iter()
        .filter(|(_, value)| !value.is_object() && !value.is_array())
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    if !query.is_empty() {
        path.push_str(&format!("?{}", query.join("&")));
    }
    let verb = if binding.verb == "GET" { String::new() } else { format!("-X {} ", binding.verb) };
    let data = body.map(|body| format!(" -H 'content-type: application/json' -d {}", quoted(&body.to_string())));
    format!("curl {verb}'http://127.0.0.1:8080{path}'{}", data.unwrap_or_default())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
