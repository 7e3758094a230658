//! What a method asks of its callers: declared in its contract, or in settings, which go before.

use ninefold_proto::ninefold::gateway::v1 as wire;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value as Field};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::caller::Caller;

/// Most scopes and most claims of one requirement.
const PARTS_MAX: usize = 64;

/// What a caller must show. All that is named must hold; one that names nothing is met by any caller who is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirement {
    /// Anybody may call. Stands alone.
    pub public: bool,
    /// Scopes that the caller must have, all of them.
    pub scopes_all: Vec<String>,
    /// Scopes of which the caller must have one.
    pub scopes_any: Vec<String>,
    /// What must be said of the caller.
    pub claims: Vec<ClaimRule>,
}

/// What must be said of a caller: one of `equals`, `contains` and `equals_field`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimRule {
    /// Name of the claim; with dots between, a claim within claims.
    pub claim: String,
    /// The claim is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// The claim is a list or words with spaces between, and this is among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// The claim is what this field of the request says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals_field: Option<String>,
}

/// What a caller lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Scopes, with spaces between.
    Scopes(String),
    /// A claim.
    Claim(String),
}

impl Requirement {
    /// Reads what a contract says.
    ///
    /// # Errors
    /// Why it cannot be kept: what is not understood must not be passed over.
    pub(crate) fn of(declared: wire::Requirement, input: &MessageDescriptor, is_stream: bool) -> Result<Self, String> {
        let rule = |rule: wire::ClaimRule| {
            let mut read = ClaimRule { claim: rule.claim, ..ClaimRule::default() };
            match rule.rule {
                Some(wire::claim_rule::Rule::Equals(text)) => read.equals = Some(text),
                Some(wire::claim_rule::Rule::Contains(text)) => read.contains = Some(text),
                Some(wire::claim_rule::Rule::EqualsField(path)) => {
                    check_field(&path, input, is_stream)?;
                    read.equals_field = Some(path);
                }
                None => return Err(format!("of the claim {:?} it asks what is not understood", read.claim)),
            }
            Ok(read)
        };
        let claims = declared.claims.into_iter().map(rule).collect::<Result<_, _>>()?;
        let wire::Requirement { public, scopes_all, scopes_any, .. } = declared;
        let read = Self { public, scopes_all, scopes_any, claims };
        match read.mistakes().into_iter().next() {
            Some(wrong) => Err(wrong),
            None => Ok(read),
        }
    }

    /// All that is wrong, each with its place.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let parts = self.scopes_all.len() + self.scopes_any.len() + self.claims.len();
        if self.public && parts > 0 {
            wrong.push("requirement is public and asks for something".to_owned());
        }
        if parts > PARTS_MAX {
            wrong.push(format!("requirement asks for more than {PARTS_MAX} things"));
        }
        for (number, rule) in self.claims.iter().enumerate() {
            let rules = [&rule.equals, &rule.contains, &rule.equals_field];
            if rule.claim.is_empty() || rules.iter().filter(|rule| rule.is_some()).count() != 1 {
                wrong.push(format!(
                    "requirement.claims[{number}] names not a claim and one of equals, contains, equals_field"
                ));
            }
        }
        wrong
    }

    /// Whether it looks into the request.
    pub(crate) fn asks_request(&self) -> bool {
        self.claims.iter().any(|rule| rule.equals_field.is_some())
    }

    /// Whether a caller has what can be told without the request.
    pub(crate) fn met_by(&self, caller: &Caller) -> Result<(), Lack> {
        let has = |scope: &String| caller.scopes.contains(scope);
        let all = self.scopes_all.iter().all(has);
        if !all || !(self.scopes_any.is_empty() || self.scopes_any.iter().any(has)) {
            let wanted = if all { &self.scopes_any } else { &self.scopes_all };
            return Err(Lack::Scopes(wanted.join(" ")));
        }
        let missing = self.claims.iter().find(|rule| !rule.holds(&caller.claims));
        missing.map_or(Ok(()), |rule| Err(Lack::Claim(rule.claim.clone())))
    }

    /// Whether a caller has what only the request can tell.
    pub(crate) fn met_with(&self, caller: &Caller, message: &DynamicMessage) -> Result<(), Lack> {
        for rule in &self.claims {
            let Some(path) = &rule.equals_field else { continue };
            let said = field(message, path);
            let claimed = find(&caller.claims, &rule.claim).and_then(text);
            if said.is_none() || said != claimed {
                return Err(Lack::Claim(rule.claim.clone()));
            }
        }
        Ok(())
    }

    /// In a sentence.
    pub(crate) fn words(&self) -> String {
        if self.public {
            return "anybody".to_owned();
        }
        let mut words = "a known caller".to_owned();
        if !self.scopes_all.is_empty() {
            words.push_str(&format!(", with all of {}", self.scopes_all.join(" ")));
        }
        if !self.scopes_any.is_empty() {
            words.push_str(&format!(", with one of {}", self.scopes_any.join(" ")));
        }
        for rule in &self.claims {
            let how = match rule {
                ClaimRule { equals: Some(text), .. } => format!("is {text:?}"),
                ClaimRule { contains: Some(text), .. } => format!("has {text:?}"),
                ClaimRule { equals_field, .. } => {
                    format!("is the request's {}", equals_field.as_deref().unwrap_or_default())
                }
            };
            words.push_str(&format!(", whose {:?} {how}", rule.claim));
        }
        words
    }
}

impl ClaimRule {
    /// What needs the request is not looked at.
    fn holds(&self, claims: &Map<String, Value>) -> bool {
        let Some(claim) = find(claims, &self.claim) else { return false };
        match self {
            Self { equals: Some(wanted), .. } => text(claim).as_ref() == Some(wanted),
            Self { contains: Some(wanted), .. } => match claim {
                Value::Array(values) => values.iter().any(|value| text(value).as_ref() == Some(wanted)),
                Value::String(words) => words.split(' ').any(|word| word == wanted),
                _ => false,
            },
            Self { .. } => true,
        }
    }
}

/// A claim by its name, or by its path.
fn find<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    // Names of claims are often URLs, which have dots of their own.
    if let Some(claim) = claims.get(path) {
        return Some(claim);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |claim, part| claim.get(part))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Checks that a field can be compared.
fn check_field(path: &str, input: &MessageDescriptor, is_stream: bool) -> Result<(), String> {
    if is_stream {
        return Err(format!("equals_field {path:?}: the method takes a stream"));
    }
    let mut message = Some(input.clone());
    let mut kind = None;
    for part in path.split('.') {
        let field = message.as_ref().and_then(|message| message.get_field_by_name(part));
        let field = field.filter(|field| !field.is_list() && !field.is_map());
        let field = field.ok_or_else(|| format!("equals_field {path:?}: there is no single field {part:?}"))?;
        message = field.kind().as_message().cloned();
        kind = Some(field.kind());
    }
    match kind {
        Some(Kind::Message(_) | Kind::Bytes | Kind::Float | Kind::Double) | None => {
            Err(format!("equals_field {path:?} is no text, integer, enum or boolean"))
        }
        Some(_) => Ok(()),
    }
}

/// What a field says.
fn field(message: &DynamicMessage, path: &str) -> Option<String> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let descriptor = message.descriptor().get_field_by_name(first)?;
    let value = message.get_field(&descriptor);
    match (&*value, rest) {
        (Field::Message(inner), Some(rest)) => field(inner, rest),
        (_, Some(_)) => None,
        (Field::String(text), None) => Some(text.clone()),
        (Field::Bool(value), None) => Some(value.to_string()),
        (Field::I32(number), None) => Some(number.to_string()),
        (Field::I64(number), None) => Some(number.to_string()),
        (Field::U32(number), None) => Some(number.to_string()),
        (Field::U64(number), None) => Some(number.to_string()),
        (Field::EnumNumber(number), None) => {
            let kind = descriptor.kind();
            let value = kind.as_enum()?.get_value(*number)?;
            Some(value.name().to_owned())
        }
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn caller() -> Caller {
        let claims =
            json!({"sub": "u1", "level": 3, "roles": ["a", "b"], "realm": {"roles": ["c"]}, "https://x.y": "z"});
        Caller {
            scopes: ["read", "write"].map(str::to_owned).into(),
            claims: Arc::new(claims.as_object().unwrap().clone()),
            ..Caller::default()
        }
    }

    fn meets(requirement: Value) -> bool {
        let requirement: Requirement = serde_json::from_value(requirement).unwrap();
        assert!(requirement.mistakes().is_empty());
        requirement.met_by(&caller()).is_ok()
    }

    #[test]
    fn scopes_and_claims_are_asked_for() {
        assert!(meets(json!({})));
        assert!(meets(json!({"scopes_all": ["read", "write"], "scopes_any": ["read", "other"]})));
        assert!(!meets(json!({"scopes_all": ["read", "other"]})));
        assert!(!meets(json!({"scopes_any": ["other"]})));
        for (rule, holds) in [
            (json!({"claim": "sub", "equals": "u1"}), true),
            (json!({"claim": "sub", "equals": "u2"}), false),
            (json!({"claim": "level", "equals": "3"}), true),
            (json!({"claim": "roles", "contains": "b"}), true),
            (json!({"claim": "roles", "equals": "b"}), false),
            (json!({"claim": "realm.roles", "contains": "c"}), true),
            (json!({"claim": "realm.none", "contains": "c"}), false),
            (json!({"claim": "https://x.y", "equals": "z"}), true),
            (json!({"claim": "missing", "equals": ""}), false),
        ] {
            assert_eq!(meets(json!({"claims": [rule]})), holds, "{rule}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for wrong in [
            json!({"public": true, "scopes_all": ["a"]}),
            json!({"claims": [{"claim": "a"}]}),
            json!({"claims": [{"claim": "a", "equals": "b", "contains": "c"}]}),
            json!({"claims": [{"equals": "b"}]}),
        ] {
            let requirement: Requirement = serde_json::from_value(wrong).unwrap();
            assert_eq!(requirement.mistakes().len(), 1);
        }
    }
}
