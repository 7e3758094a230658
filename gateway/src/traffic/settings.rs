//! What may be declared of a service's requests.

use std::collections::BTreeMap;
use std::time::Duration;

use ninefold::connect::Selector;
use serde::{Deserialize, Serialize};

use crate::guard::Requirement;
use crate::limit::{self, Limit};

/// Longest text of a maintenance answer, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Most canaries of one service or method.
const CANARIES_MAX: usize = 16;

/// How requests to one service are steered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    /// Longest time of a call that is no stream, instead of the edge's `deadline`.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What callers must show, instead of what the contract says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirement: Option<Requirement>,
    /// How many requests may come, by names of your own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, Limit>>,
    /// Answers every request instead of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Who gets which requests; the first that applies holds. The instances that they name get no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<Vec<Canary>>,
    /// Who hears of requests besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// How the JSON of REST is read and written, instead of what the contract says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Json>,
    /// What is different for some methods, by name: `GetProduct`, `ProductService.GetProduct`, or the full name.
    pub methods: BTreeMap<String, Method>,
}

/// How requests to some methods are steered. What it leaves out is as the service has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Method {
    /// Longest time of a call that is no stream.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What callers must show, instead of what the contract says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requirement: Option<Requirement>,
    /// How many requests may come, by names of your own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<BTreeMap<String, Limit>>,
    /// Answers every request instead of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Who gets which requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canaries: Option<Vec<Canary>>,
    /// Who hears of requests besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// How the JSON of REST is read and written, instead of what the contract says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Json>,
}

/// How the JSON of REST is read and written. What it leaves out is as the contract says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Json {
    /// Whether answers name fields as the contract does: `page_token` instead of `pageToken`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto_names: Option<bool>,
    /// Whether answers say enums by number instead of by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enum_numbers: Option<bool>,
    /// Whether answers hold fields that have their default, save those whose absence says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<bool>,
    /// Whether answers are indented. Streams never are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pretty: Option<bool>,
    /// What is done about a name in a body that the contract does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_fields: Option<Unknown>,
    /// What is done about a parameter of a query that the contract does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_parameters: Option<Unknown>,
}

/// What is done about what a contract does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// It is refused.
    Refuse,
    /// It is passed over.
    Ignore,
}

/// An answer with status 503.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Maintenance {
    /// What callers are told.
    pub text: String,
    /// When to come again.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// Requests that meet one of these are let through.
    pub except: Vec<Condition>,
}

/// Requests that go to some instances.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The instances.
    pub to: Instances,
    /// Share of the requests that meet all conditions, in percent.
    #[serde(default = "hundred")]
    pub percent: u32,
    /// Conditions, all of which hold.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// What decides who is among the share: who has the same stays on the same side. Absent for chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Source>,
    /// Whether requests fail where none of the instances can answer. Otherwise others do then.
    #[serde(default)]
    pub strict: bool,
}

/// Who hears of requests besides. Answers are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The instances.
    #[serde(default)]
    pub to: Instances,
    /// Another service with the same contract. Absent for the service itself, whose instances `to` must name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Share of the requests, in percent.
    #[serde(default = "hundred")]
    pub percent: u32,
}

/// Instances of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instances {
    /// With this version; with `*` at its end, whatever begins so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// With these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a value of a request stands. One of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A claim of the caller's proven identity.
    Claim(String),
    /// The caller's IP address. The text is ignored.
    Address(String),
}

/// A condition on a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// Name of a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Name of a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// Name of a claim of the caller's proven identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// What it says. Absent where being there is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
}

const fn hundred() -> u32 {
    100
}

impl From<Instances> for Selector {
    fn from(instances: Instances) -> Self {
        Self { version: instances.version, labels: instances.labels }
    }
}

impl Service {
    /// All that is wrong, each with its place.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let whole = Method::default().over(self).mistakes();
        let of_methods = self.methods.iter().flat_map(|(name, method)| {
            method.mistakes().into_iter().map(move |wrong| format!("methods.{name}.{wrong}"))
        });
        whole.into_iter().chain(of_methods).collect()
    }
}

impl Method {
    /// What holds for the method of a service.
    pub(super) fn over(&self, service: &Service) -> Self {
        Self {
            timeout: self.timeout.or(service.timeout),
            requirement: self.requirement.clone().or_else(|| service.requirement.clone()),
            limits: self.limits.clone().or_else(|| service.limits.clone()),
            maintenance: self.maintenance.clone().or_else(|| service.maintenance.clone()),
            canaries: self.canaries.clone().or_else(|| service.canaries.clone()),
            mirror: self.mirror.clone().or_else(|| service.mirror.clone()),
            json: match (self.json, service.json) {
                (Some(own), Some(whole)) => Some(own.over(whole)),
                (own, whole) => own.or(whole),
            },
        }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            wrong.push("timeout is zero".to_owned());
        }
        wrong.extend(self.limits.iter().flat_map(limit::mistakes));
        wrong.extend(self.requirement.iter().flat_map(Requirement::mistakes));
        if let Some(maintenance) = &self.maintenance {
            if maintenance.text.len() > TEXT_BYTES_MAX {
                wrong.push(format!("maintenance.text is longer than {TEXT_BYTES_MAX} bytes"));
            }
            wrong.extend(mistakes_of("maintenance.except", &maintenance.except));
        }
        let canaries = self.canaries.as_deref().unwrap_or_default();
        if canaries.len() > CANARIES_MAX {
            wrong.push(format!("canaries are {}, more than {CANARIES_MAX}", canaries.len()));
        }
        for (number, canary) in canaries.iter().enumerate() {
            let place = format!("canaries[{number}]");
            if canary.to == Instances::default() {
                wrong.push(format!("{place}.to names neither a version nor labels"));
            }
            if canary.percent > 100 {
                wrong.push(format!("{place}.percent is {}, more than 100", canary.percent));
            }
            wrong.extend(mistakes_of(&format!("{place}.when"), &canary.when));
        }
        if let Some(mirror) = &self.mirror {
            if mirror.service.is_none() && mirror.to == Instances::default() {
                wrong.push("mirror names neither a service nor instances: every request would come twice".to_owned());
            }
            if mirror.percent > 100 {
                wrong.push(format!("mirror.percent is {}, more than 100", mirror.percent));
            }
        }
        wrong
    }
}

impl Json {
    /// What holds for a method where its service says something too.
    fn over(self, whole: Self) -> Self {
        Self {
            proto_names: self.proto_names.or(whole.proto_names),
            enum_numbers: self.enum_numbers.or(whole.enum_numbers),
            defaults: self.defaults.or(whole.defaults),
            pretty: self.pretty.or(whole.pretty),
            unknown_fields: self.unknown_fields.or(whole.unknown_fields),
            unknown_parameters: self.unknown_parameters.or(whole.unknown_parameters),
        }
    }
}

fn mistakes_of(place: &str, conditions: &[Condition]) -> Vec<String> {
    let named = |condition: &Condition| {
        [&condition.header, &condition.cookie, &condition.claim].iter().filter(|name| name.is_some()).count()
    };
    let wrong = conditions.iter().enumerate().filter(|(_, condition)| named(condition) != 1);
    wrong.map(|(number, _)| format!("{place}[{number}] names not exactly one of header, cookie, claim")).collect()
}

impl Canary {
    /// What it says, in a sentence.
    pub(super) fn words(&self) -> String {
        let mut words = format!("{}% to {}", self.percent, self.to.words());
        for condition in &self.when {
            let (what, name) = match condition {
                Condition { header: Some(name), .. } => ("header", name.as_str()),
                Condition { cookie: Some(name), .. } => ("cookie", name.as_str()),
                Condition { claim, .. } => ("claim", claim.as_deref().unwrap_or_default()),
            };
            let value = condition.is.as_ref().map_or_else(|| " is there".to_owned(), |value| format!(" is {value:?}"));
            words.push_str(&format!(", when {what} {name:?}{value}"));
        }
        words
    }
}

impl Mirror {
    pub(super) fn words(&self) -> String {
        let service = self.service.as_ref().map_or_else(String::new, |service| format!(" of {service}"));
        format!("{}% heard by {}{service}, answers dropped", self.percent, self.to.words())
    }
}

impl Instances {
    fn words(&self) -> String {
        let mut parts = Vec::new();
        if !self.version.is_empty() {
            parts.push(format!("version {}", self.version));
        }
        parts.extend(self.labels.iter().map(|(name, value)| format!("{name}={value}")));
        if parts.is_empty() { "any instance".to_owned() } else { parts.join(" ") }
    }
}

/// A duration that may be absent.
mod optional_duration {
    use std::time::Duration;

    use ninefold::settings::duration;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_str(&duration::format(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| duration::parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
