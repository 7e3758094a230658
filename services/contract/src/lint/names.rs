//! Rules about names and numbers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Slip;
use super::case::{lower_snake, pascal, upper_snake};
use crate::schema::{Enum, EnumValue, Field, Label, Method, Schema, Service};

fn path(path: &[i32], more: &[i32]) -> Vec<i32> {
    path.iter().chain(more).copied().collect()
}

fn values(schema: &Schema) -> impl Iterator<Item = (&Enum, &EnumValue)> {
    schema.enums().iter().flat_map(|one| one.values.iter().map(move |value| (one, value)))
}

fn methods(schema: &Schema) -> impl Iterator<Item = (&Service, &Method)> {
    schema.services().iter().flat_map(|service| service.methods.iter().map(move |method| (service, method)))
}

fn fields(schema: &Schema) -> impl Iterator<Item = &Field> {
    let written = schema.messages().iter().filter(|message| !message.is_map_entry);
    written.flat_map(|message| &message.fields).chain(schema.extensions())
}

fn value_slip(one: &Enum, value: &EnumValue, more: i32, message: String) -> Slip {
    Slip::new(format!("{}.{}", one.full, value.name), one.file, path(&value.path, &[more]), message)
}

pub(super) fn enum_first_value_zero(schema: &Schema) -> Vec<Slip> {
    let first = schema.enums().iter().filter_map(|one| Some((one, one.values.first()?)));
    let slips = first.filter(|(_, value)| value.number != 0).map(|(one, value)| {
        let message = format!("First enum value {:?} should have a numeric value of 0", value.name);
        value_slip(one, value, 2, message).fix("put a value 0 first")
    });
    slips.collect()
}

pub(super) fn enum_no_allow_alias(schema: &Schema) -> Vec<Slip> {
    let aliased = schema.enums().iter().filter(|one| schema.enum_options(one).flag(2) == Some(true));
    let slips = aliased.map(|one| {
        let message = format!("Enum option \"allow_alias\" on enum {:?} must be false.", one.name());
        Slip::new(&*one.full, one.file, path(&one.path, &[3, 2]), message).fix("give each number one name")
    });
    slips.collect()
}

pub(super) fn enum_pascal_case(schema: &Schema) -> Vec<Slip> {
    let slips = schema.enums().iter().filter_map(|one| {
        let (name, wanted) = (one.name(), pascal(one.name()));
        let message = format!("Enum name {name:?} should be PascalCase, such as {wanted:?}.");
        let at = path(&one.path, &[1]);
        (name != wanted).then(|| Slip::new(&*one.full, one.file, at, message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn enum_value_prefix(schema: &Schema) -> Vec<Slip> {
    let slips = values(schema).filter_map(|(one, value)| {
        let prefix = format!("{}_", upper_snake(one.name()));
        let message = format!("Enum value name {:?} should be prefixed with {prefix:?}.", value.name);
        let fix = format!("name it {prefix}{}", value.name);
        (!value.name.starts_with(&prefix)).then(|| value_slip(one, value, 1, message).fix(fix))
    });
    slips.collect()
}

pub(super) fn enum_value_upper_snake_case(schema: &Schema) -> Vec<Slip> {
    let slips = values(schema).filter_map(|(one, value)| {
        let wanted = upper_snake(&value.name);
        let message = format!("Enum value name {:?} should be UPPER_SNAKE_CASE, such as {wanted:?}.", value.name);
        (*value.name != *wanted).then(|| value_slip(one, value, 1, message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn enum_zero_value_suffix(schema: &Schema) -> Vec<Slip> {
    const SUFFIX: &str = "_UNSPECIFIED";
    let zeros = values(schema).filter(|(_, value)| value.number == 0 && !value.name.ends_with(SUFFIX));
    let slips = zeros.map(|(one, value)| {
        let message = format!("Enum zero value name {:?} should be suffixed with {SUFFIX:?}.", value.name);
        let fix = format!("name it {}{SUFFIX}", upper_snake(one.name()));
        value_slip(one, value, 1, message).fix(fix)
    });
    slips.collect()
}

pub(super) fn field_lower_snake_case(schema: &Schema) -> Vec<Slip> {
    let slips = fields(schema).filter_map(|field| {
        let (name, wanted) = (field.name(), lower_snake(field.name()));
        let message = format!("Field name {name:?} should be lower_snake_case, such as {wanted:?}.");
        let at = path(&field.path, &[1]);
        (name != wanted).then(|| Slip::new(&*field.full, field.file, at, message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn field_not_required(schema: &Schema) -> Vec<Slip> {
    let required = fields(schema).filter(|field| field.label == Label::Required);
    let slips = required.map(|field| {
        let message = format!("Field named {:?} should not be required.", field.name());
        Slip::new(&*field.full, field.file, path(&field.path, &[1]), message).fix("make it optional")
    });
    slips.collect()
}

pub(super) fn file_lower_snake_case(schema: &Schema) -> Vec<Slip> {
    let slips = schema.files().iter().enumerate().filter_map(|(index, file)| {
        let base = file.name.rsplit('/').next().unwrap_or(&file.name);
        let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
        let extension = base.get(stem.len()..).unwrap_or_default();
        let wanted = lower_snake(stem);
        let message =
            format!("Filename {base:?} should be lower_snake_case{extension}, such as \"{wanted}{extension}\".");
        let fix = format!("name it {wanted}{extension}");
        (stem != wanted).then(|| Slip::new(&*file.name, index, Vec::new(), message).fix(fix))
    });
    slips.collect()
}

pub(super) fn message_pascal_case(schema: &Schema) -> Vec<Slip> {
    let slips = schema.messages().iter().filter(|message| !message.is_map_entry).filter_map(|one| {
        let (name, wanted) = (one.name(), pascal(one.name()));
        let message = format!("Message name {name:?} should be PascalCase, such as {wanted:?}.");
        let at = path(&one.path, &[1]);
        (name != wanted).then(|| Slip::new(&*one.full, one.file, at, message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn oneof_lower_snake_case(schema: &Schema) -> Vec<Slip> {
    let oneofs = schema.messages().iter().flat_map(|message| message.oneofs.iter().map(move |oneof| (message, oneof)));
    let slips = oneofs.filter(|(_, oneof)| !oneof.is_synthetic).filter_map(|(message, oneof)| {
        let wanted = lower_snake(&oneof.name);
        let told = format!("Oneof name {:?} should be lower_snake_case, such as {wanted:?}.", oneof.name);
        let at = path(&oneof.path, &[1]);
        let element = format!("{}.{}", message.full, oneof.name);
        (*oneof.name != *wanted).then(|| Slip::new(element, message.file, at, told).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

fn method_slip(service: &Service, method: &Method, more: &[i32], message: String) -> Slip {
    let element = format!("{}.{}", service.full, method.name);
    Slip::new(element, service.file, path(&method.path, more), message)
}

pub(super) fn rpc_pascal_case(schema: &Schema) -> Vec<Slip> {
    let slips = methods(schema).filter_map(|(service, method)| {
        let wanted = pascal(&method.name);
        let message = format!("RPC name {:?} should be PascalCase, such as {wanted:?}.", method.name);
        (*method.name != *wanted).then(|| method_slip(service, method, &[1], message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn rpc_request_response_unique(schema: &Schema) -> Vec<Slip> {
    const FIX: &str = "give each RPC messages of its own: they can grow apart then";
    let mut slips = Vec::new();
    let mut users: BTreeMap<&str, BTreeSet<(usize, usize)>> = BTreeMap::new();
    for (index, service) in schema.services().iter().enumerate().filter(|(_, one)| !schema.file_at(one.file).is_import)
    {
        for (number, method) in service.methods.iter().enumerate() {
            if method.input == method.output {
                let message =
                    format!("RPC {:?} has the same type {:?} for the request and response.", method.name, method.input);
                slips.push(method_slip(service, method, &[], message).fix(FIX));
            }
            users.entry(&method.input).or_default().insert((index, number));
            users.entry(&method.output).or_default().insert((index, number));
        }
    }
    for (name, users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        for (index, number) in users {
            let service = &schema.services()[index];
            let message = format!("{name:?} is used as the request or response type for multiple RPCs.");
            slips.push(method_slip(service, &service.methods[number], &[], message).fix(FIX));
        }
    }
    slips
}

fn standard_name(schema: &Schema, side: &str, suffix: &str, step: i32, of: fn(&Method) -> &str) -> Vec<Slip> {
    let slips = methods(schema).filter_map(|(service, method)| {
        let name = of(method).rsplit('.').next().unwrap_or_default();
        let short = format!("{}{suffix}", pascal(&method.name));
        let long = format!("{}{short}", pascal(service.name()));
        let message = format!("RPC {side} type {name:?} should be named {short:?} or {long:?}.");
        (name != short && name != long)
            .then(|| method_slip(service, method, &[step], message).fix(format!("name it {short}")))
    });
    slips.collect()
}

pub(super) fn rpc_request_standard_name(schema: &Schema) -> Vec<Slip> {
    standard_name(schema, "request", "Request", 2, |method| &method.input)
}

pub(super) fn rpc_response_standard_name(schema: &Schema) -> Vec<Slip> {
    standard_name(schema, "response", "Response", 3, |method| &method.output)
}

fn service_slip(service: &Service, message: String) -> Slip {
    Slip::new(&*service.full, service.file, path(&service.path, &[1]), message)
}

pub(super) fn service_pascal_case(schema: &Schema) -> Vec<Slip> {
    let slips = schema.services().iter().filter_map(|service| {
        let (name, wanted) = (service.name(), pascal(service.name()));
        let message = format!("Service name {name:?} should be PascalCase, such as {wanted:?}.");
        (name != wanted).then(|| service_slip(service, message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn service_suffix(schema: &Schema) -> Vec<Slip> {
    const SUFFIX: &str = "Service";
    let others = schema.services().iter().filter(|service| !service.name().ends_with(SUFFIX));
    let slips = others.map(|service| {
        let message = format!("Service name {:?} should be suffixed with {SUFFIX:?}.", service.name());
        service_slip(service, message).fix(format!("name it {}{SUFFIX}", service.name()))
    });
    slips.collect()
}
