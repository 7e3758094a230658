//! Which fields a PATCH is about: those that its body names, where the caller does not say.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde_json::Value as Json;

use crate::binding::{Binding, Body, FieldPath};
use crate::value;

/// The field that says which fields are changed.
const MASK: &str = "update_mask";
const FIELD_MASK: &str = "google.protobuf.FieldMask";
/// Most fields that a mask names; a body that names more is taken as it is, without a mask.
const PATHS_MAX: usize = 1024;

/// The field that says which fields are changed, where a request has one and its body is one message.
pub(crate) fn field(verb: &str, body: &Body, input: &MessageDescriptor) -> Option<FieldDescriptor> {
    let Body::Field(path) = body else { return None };
    if verb != "PATCH" || !is_open(path.split().0) {
        return None;
    }
    let field = input.get_field_by_name(MASK).filter(|field| !field.is_list())?;
    matches!(field.kind(), Kind::Message(kind) if kind.full_name() == FIELD_MASK).then_some(field)
}

/// Says which fields a PATCH is about, unless it says so itself. Fields that the path binds are not changed by it.
pub(super) fn fill(message: &mut DynamicMessage, binding: &Binding, body: &[u8]) {
    let (Some(mask), Body::Field(changed)) = (&binding.mask, &binding.body) else { return };
    if message.has_field(mask) || body.is_empty() {
        return;
    }
    let (Kind::Message(kind), Ok(Json::Object(members))) = (changed.split().0.kind(), serde_json::from_slice(body))
    else {
        return;
    };
    let mut names = Names { binding, changed, way: Vec::new(), paths: Vec::new() };
    names.gather(&kind, &members);
    if names.paths.len() > PATHS_MAX {
        return;
    }
    let Kind::Message(kind) = mask.kind() else { return };
    let mut told = DynamicMessage::new(kind);
    let paths = names.paths.into_iter().map(Value::String).collect();
    told.set_field_by_name("paths", Value::List(paths));
    message.set_field(mask, Value::Message(told));
}

/// Whether the parts of a field have names of their own.
fn is_open(field: &FieldDescriptor) -> bool {
    let Kind::Message(kind) = field.kind() else { return false };
    let is_known = kind.package_name() == "google.protobuf" || super::is_http_body(&kind);
    !field.is_list() && !field.is_map() && !value::has_text(&kind) && !is_known
}

struct Names<'b> {
    binding: &'b Binding,
    changed: &'b FieldPath,
    way: Vec<FieldDescriptor>,
    paths: Vec<String>,
}

impl Names<'_> {
    fn gather(&mut self, message: &MessageDescriptor, members: &serde_json::Map<String, Json>) {
        for (name, value) in members {
            let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
            let Some(field) = field else { continue };
            self.way.push(field.clone());
            match (field.kind(), value) {
                (Kind::Message(inner), Json::Object(below)) if is_open(&field) && !below.is_empty() => {
                    self.gather(&inner, below);
                }
                _ if self.is_bound() || self.paths.len() > PATHS_MAX => {}
                _ => {
                    let path: Vec<&str> = self.way.iter().map(FieldDescriptor::name).collect();
                    self.paths.push(path.join("."));
                }
            }
            self.way.pop();
        }
    }

    /// Whether the path of the request says which this is.
    fn is_bound(&self) -> bool {
        let whole = self.changed.with(&self.way);
        self.binding.variables.iter().any(|variable| variable.is(&whole))
    }
}
