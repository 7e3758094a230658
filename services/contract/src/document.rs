//! Documentation of a package from its contract: comments, bindings, types, and examples to try. Pure.

mod example;

use ninefold_proto::ninefold::contract::v1 as proto;

use crate::schema::{Enum, Field, Label, Message, Method, Options, Schema, Service};

/// Field of `google.protobuf.MethodOptions` that holds `google.api.http`.
const HTTP: u64 = 72_295_728;
/// Field of the options of services and methods that says that they are deprecated.
const DEPRECATED_CALL: u64 = 33;
/// The same for messages and fields.
const DEPRECATED_PART: u64 = 3;

/// Documents a package. The package itself, its revision and its history are for the caller to fill in.
pub(crate) fn document(schema: &Schema, package: &str) -> proto::GetDocumentationResponse {
    let is_in = |file: usize| &*schema.file_at(file).package == package;
    let services = schema.services().iter().filter(|one| is_in(one.file));
    let messages = schema.messages().iter().filter(|one| is_in(one.file) && !one.is_map_entry);
    let enums = schema.enums().iter().filter(|one| is_in(one.file));
    proto::GetDocumentationResponse {
        services: services.map(|service| service_of(schema, service)).collect(),
        messages: messages.map(|message| message_of(schema, message)).collect(),
        enums: enums.map(|one| enum_of(schema, one)).collect(),
        ..proto::GetDocumentationResponse::default()
    }
}

/// The comment of a part, without what the source indents it by.
fn comment(schema: &Schema, file: usize, path: &[i32]) -> String {
    let comments = schema.comments(file, path);
    let text = if comments.leading.is_empty() { comments.trailing } else { comments.leading };
    let lines = text.trim_end().lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

fn service_of(schema: &Schema, service: &Service) -> proto::ServiceDocumentation {
    proto::ServiceDocumentation {
        name: service.full.to_string(),
        comment: comment(schema, service.file, &service.path),
        deprecated: schema.service_options(service).flag(DEPRECATED_CALL).unwrap_or_default(),
        methods: service.methods.iter().map(|method| method_of(schema, service, method)).collect(),
    }
}

fn method_of(schema: &Schema, service: &Service, method: &Method) -> proto::MethodDocumentation {
    let options = schema.method_options(method);
    let bindings = bindings(&options);
    proto::MethodDocumentation {
        name: method.name.to_string(),
        comment: comment(schema, service.file, &method.path),
        deprecated: options.flag(DEPRECATED_CALL).unwrap_or_default(),
        request: method.input.to_string(),
        response: method.output.to_string(),
        client_streaming: method.is_client_streaming,
        server_streaming: method.is_server_streaming,
        examples: Some(example::of(schema, service, method, bindings.first())),
        bindings,
    }
}

/// The HTTP bindings of a method, the main one first.
fn bindings(options: &Options<'_>) -> Vec<proto::HttpDocumentation> {
    let Some(rule) = options.message_if_set(HTTP) else { return Vec::new() };
    let more = rule.messages(11);
    std::iter::once(rule).chain(more).filter_map(|rule| binding(&rule)).collect()
}

fn binding(rule: &Options<'_>) -> Option<proto::HttpDocumentation> {
    let body = rule.text(7).unwrap_or_default().to_owned();
    let plain = [(2, "GET"), (3, "PUT"), (4, "POST"), (5, "DELETE"), (6, "PATCH")];
    let found = plain.into_iter().find_map(|(number, verb)| Some((verb.to_owned(), rule.text(number)?.to_owned())));
    let custom = || {
        let custom = rule.message_if_set(8)?;
        Some((custom.text(1)?.to_owned(), custom.text(2)?.to_owned()))
    };
    let (verb, path) = found.or_else(custom)?;
    Some(proto::HttpDocumentation { verb, path, body })
}

fn message_of(schema: &Schema, message: &Message) -> proto::MessageDocumentation {
    proto::MessageDocumentation {
        name: message.full.to_string(),
        comment: comment(schema, message.file, &message.path),
        deprecated: schema.message_options(message).flag(DEPRECATED_PART).unwrap_or_default(),
        fields: message.fields.iter().map(|field| field_of(schema, message, field)).collect(),
    }
}

fn field_of(schema: &Schema, message: &Message, field: &Field) -> proto::FieldDocumentation {
    let oneof = field.oneof.and_then(|place| message.oneofs.get(place)).filter(|oneof| !oneof.is_synthetic);
    proto::FieldDocumentation {
        name: field.name().to_owned(),
        json_name: field.json_name.to_string(),
        number: field.number,
        r#type: type_of(schema, field),
        type_name: if field.is_map { String::new() } else { field.type_name.to_string() },
        oneof: oneof.map(|oneof| oneof.name.to_string()).unwrap_or_default(),
        comment: comment(schema, field.file, &field.path),
        deprecated: schema.field_options(field).flag(DEPRECATED_PART).unwrap_or_default(),
    }
}

/// A field's type as it is written.
fn type_of(schema: &Schema, field: &Field) -> String {
    let plain = |field: &Field| {
        if field.kind.is_named() { field.type_name.to_string() } else { field.kind.as_str().to_owned() }
    };
    if let Some(entry) = schema.message(&field.type_name).filter(|_| field.is_map)
        && let (Some(key), Some(value)) = (entry.field(1), entry.field(2))
    {
        return format!("map<{}, {}>", plain(key), plain(value));
    }
    let label = match field.label {
        Label::Repeated => "repeated ",
        Label::Required => "required ",
        Label::Optional if field.is_proto3_optional => "optional ",
        Label::Optional => "",
    };
    format!("{label}{}", plain(field))
}

fn enum_of(schema: &Schema, one: &Enum) -> proto::EnumDocumentation {
    let values = one.values.iter().map(|value| proto::EnumValueDocumentation {
        name: value.name.to_string(),
        number: value.number,
        comment: comment(schema, one.file, &value.path),
    });
    proto::EnumDocumentation {
        name: one.full.to_string(),
        comment: comment(schema, one.file, &one.path),
        values: values.collect(),
    }
}
