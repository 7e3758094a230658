//! One HTTP binding of a method, checked against its messages when the contract arrives.

use std::sync::Arc;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::contract::{HttpPattern, HttpRule};
use crate::pattern::{Malformed, Pattern, Segment};
use crate::table::ANY_VERB;
use crate::transcode::mask;

/// One HTTP binding.
#[derive(Debug)]
pub(crate) struct Binding {
    /// The place that it takes among routes: a text that two bindings share exactly if they match the same requests.
    pub(crate) place: Arc<str>,
    /// HTTP method, or `*`.
    pub(crate) verb: String,
    /// Path template.
    pub(crate) pattern: Pattern,
    /// The fields that the template's variables are bound to, in its order.
    pub(crate) variables: Vec<FieldPath>,
    /// Where the body goes.
    pub(crate) body: Body,
    /// The field that is the answer's body, where it is not the whole answer.
    pub(crate) response_body: Option<FieldDescriptor>,
    /// The field that says which fields are changed, where requests have one and need not say it.
    pub(crate) mask: Option<FieldDescriptor>,
}

/// Where a request's body goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    /// There is none.
    Nowhere,
    /// It is the whole message, save what the path binds.
    Whole,
    /// It is this field.
    Field(FieldPath),
}

/// The way to a field: every step but the last is a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldPath(Vec<FieldDescriptor>);

impl FieldPath {
    /// Finds a field by names with dots between; each may be the Protobuf name or the JSON name.
    ///
    /// # Errors
    /// Which name is not there, as a sentence fragment.
    pub(crate) fn find<'n>(
        message: &MessageDescriptor,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, String> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        for name in names {
            let parent = match fields.last() {
                None => message.clone(),
                Some(field) => match field.kind() {
                    Kind::Message(inner) if !field.is_list() && !field.is_map() => inner,
                    _ => return Err(format!("{} is no message, so it has no field {name:?}", field.name())),
                },
            };
            let field = parent.get_field_by_name(name).or_else(|| parent.get_field_by_json_name(name));
            fields.push(field.ok_or_else(|| format!("{} has no field {name:?}", parent.full_name()))?);
        }
        if fields.is_empty() { Err("it names no field".to_owned()) } else { Ok(Self(fields)) }
    }

    /// The field that is meant, and those on the way.
    pub(crate) fn split(&self) -> (&FieldDescriptor, &[FieldDescriptor]) {
        self.0.split_last().expect("a field path is never empty")
    }

    /// The numbers of the fields, from the outermost on.
    pub(crate) fn numbers(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.0.iter().map(FieldDescriptor::number)
    }

    /// The number of the field, if it is one of the message itself and of no oneof.
    pub(crate) fn number_of_one(&self) -> Option<u32> {
        match self.0.as_slice() {
            [field] if field.containing_oneof().is_none() => Some(field.number()),
            _ => None,
        }
    }

    /// The name of the field, if it is one of the message itself.
    pub(crate) fn name_of_one(&self) -> Option<&str> {
        match self.0.as_slice() {
            [field] => Some(field.name()),
            _ => None,
        }
    }

    /// Whether these fields, from the outermost on, lead to it.
    pub(crate) fn is(&self, way: &[FieldDescriptor]) -> bool {
        self.0 == way
    }

    /// The way to a field below this one.
    pub(crate) fn with(&self, below: &[FieldDescriptor]) -> Vec<FieldDescriptor> {
        self.0.iter().chain(below).cloned().collect()
    }

    /// Whether this is `other` or leads through it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, field) in self.0.iter().enumerate() {
            write!(formatter, "{}{}", if at == 0 { "" } else { "." }, field.name())?;
        }
        Ok(())
    }
}

impl Binding {
    /// Checks a rule against the messages of its method.
    ///
    /// # Errors
    /// Why it gives no route, as a sentence fragment.
    pub(crate) fn new(rule: &HttpRule, input: &MessageDescriptor, output: &MessageDescriptor) -> Result<Self, String> {
        let (verb, template) = verb_and_template(rule)?;
        let pattern = Pattern::parse(template)
            .map_err(|Malformed(why)| format!("the template {template:?} is malformed: {why}"))?;
        let variables = pattern.variables().iter().map(|variable| {
            let path = FieldPath::find(input, variable.field.iter().map(String::as_str))?;
            check_variable(&path)?;
            Ok(path)
        });
        let variables = variables.collect::<Result<Vec<_>, String>>()?;
        let body = match rule.body.as_str() {
            "" => Body::Nowhere,
            "*" => Body::Whole,
            name => Body::Field(FieldPath::find(input, name.split('.'))?),
        };
        if body != Body::Nowhere && matches!(verb, "GET" | "HEAD") {
            return Err(format!("{verb} takes no body"));
        }
        if let Body::Field(field) = &body
            && variables.iter().any(|variable| field.is_within(variable))
        {
            return Err(format!("{field} is bound to the path and to the body"));
        }
        let response_body = match rule.response_body.as_str() {
            "" => None,
            name => {
                let path = FieldPath::find(output, [name])?;
                Some(path.split().0.clone())
            }
        };
        let place = place(verb, &pattern).into();
        let mask = mask::field(verb, &body, input);
        Ok(Self { place, verb: verb.to_owned(), pattern, variables, body, response_body, mask })
    }

    /// The body as the rule has it.
    pub(crate) fn body_text(&self) -> String {
        match &self.body {
            Body::Nowhere => String::new(),
            Body::Whole => "*".to_owned(),
            Body::Field(field) => field.to_string(),
        }
    }

    /// Whether a request that is read with this binding means the same to an instance that has `other`: the same fields,
    /// by number and type, are bound to the same places.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let same_path = |one: &FieldPath, two: &FieldPath| {
            one.0.len() == two.0.len()
                && one.0.iter().zip(&two.0).all(|(one, two)| one.number() == two.number() && same_kind(one, two))
        };
        let same_body = match (&self.body, &other.body) {
            (Body::Nowhere, Body::Nowhere) | (Body::Whole, Body::Whole) => true,
            (Body::Field(one), Body::Field(two)) => same_path(one, two),
            (Body::Nowhere | Body::Whole | Body::Field(_), _) => false,
        };
        let same_answer = match (&self.response_body, &other.response_body) {
            (None, None) => true,
            (Some(one), Some(two)) => one.number() == two.number() && same_kind(one, two),
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_body
            && same_answer
            && self.pattern.segments() == other.pattern.segments()
            && self.variables.len() == other.variables.len()
            && self.variables.iter().zip(&other.variables).all(|(one, two)| same_path(one, two))
    }
}

/// A text that two bindings share exactly if they match the same requests.
fn place(verb: &str, pattern: &Pattern) -> String {
    let mut place = format!("{verb} ");
    for segment in pattern.segments() {
        place.push('/');
        place.push_str(match segment {
            Segment::Literal(text) => text,
            Segment::Any => "{}",
            Segment::Rest => "{**}",
        });
    }
    if let Some(custom) = pattern.verb() {
        place.push(' ');
        place.push_str(custom);
    }
    place
}

fn same_kind(one: &FieldDescriptor, two: &FieldDescriptor) -> bool {
    let name = |field: &FieldDescriptor| match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    };
    one.cardinality() == two.cardinality() && name(one) == name(two)
}

fn verb_and_template(rule: &HttpRule) -> Result<(&str, &str), String> {
    match &rule.pattern {
        Some(HttpPattern::Get(template)) => Ok(("GET", template)),
        Some(HttpPattern::Put(template)) => Ok(("PUT", template)),
        Some(HttpPattern::Post(template)) => Ok(("POST", template)),
        Some(HttpPattern::Delete(template)) => Ok(("DELETE", template)),
        Some(HttpPattern::Patch(template)) => Ok(("PATCH", template)),
        Some(HttpPattern::Custom(custom)) => {
            let is_method = custom.kind == ANY_VERB || http::Method::from_bytes(custom.kind.as_bytes()).is_ok();
            if is_method {
                Ok((&custom.kind, &custom.path))
            } else {
                Err(format!("{:?} is no HTTP method", custom.kind))
            }
        }
        None => Err("it has no template".to_owned()),
    }
}

/// A field of the path is one value that has a text.
fn check_variable(path: &FieldPath) -> Result<(), String> {
    let (field, _) = path.split();
    if field.is_list() || field.is_map() {
        return Err(format!("{path} is repeated and cannot be bound to the path"));
    }
    match field.kind() {
        Kind::Message(message) if !crate::value::has_text(&message) => {
            Err(format!("{path} is a message and cannot be bound to the path"))
        }
        _ => Ok(()),
    }
}
