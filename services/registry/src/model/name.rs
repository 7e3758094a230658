//! Names of things, as they may be. Pure.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use ninefold_store::Key;

/// Where everything of the registry lies in the store.
pub(crate) const ALL: &str = "registry/";
/// Where instances lie in the store.
pub(crate) const INSTANCES: &str = "registry/instances/";
/// Where the decisions of operators lie in the store.
pub(crate) const OVERRIDES: &str = "registry/overrides/";
/// Where the reports of callers lie in the store.
pub(crate) const REPORTS: &str = "registry/reports/";
/// Where it lies how far the watchers of each node have got.
pub(crate) const ROLLS: &str = "registry/rolls/";
/// Where it lies who of a service may be suspect by reports.
pub(crate) const ROOMS: &str = "registry/rooms/";
/// Longest name of a service or a namespace, in characters.
pub(crate) const SERVICE_NAME_MAX: usize = 63;
/// Longest id of an instance, in characters.
pub(crate) const INSTANCE_ID_MAX: usize = 128;
/// Where services are that name no other place.
pub(crate) const NAMESPACE_DEFAULT: &str = "default";
/// Says "all namespaces" in listings and watches; no namespace is called so.
pub(crate) const NAMESPACE_ALL: &str = "-";

/// Name of a service: 1 to 63 lowercase letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Takes a text as a name, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        is_name(text).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Name of a namespace: as a service's, save that it is not a hyphen alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Takes a text as a namespace, if it is one. An empty one is the default.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        (is_name(text) && text != NAMESPACE_ALL).then(|| Self(text.into()))
    }

    /// The text, never empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(NAMESPACE_DEFAULT.into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names a service: two of the same name in two namespaces have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Where it is.
    pub namespace: Namespace,
    /// What it is called there.
    pub name: ServiceName,
}

impl ServiceKey {
    /// Takes two texts as a key, if they are one. An empty namespace is the default.
    pub fn parse(namespace: &str, name: &str) -> Option<Self> {
        Some(Self { namespace: Namespace::parse(namespace)?, name: ServiceName::parse(name)? })
    }

    /// Where it lies who of the service may be suspect by reports.
    pub(crate) fn room_path(&self) -> Key {
        Key::new(format!("{ROOMS}{}/{}", self.namespace, self.name))
    }

    /// Comes before all services of a namespace, and is none.
    pub(crate) fn before_all_of(namespace: Namespace) -> Self {
        Self { namespace, name: ServiceName("".into()) }
    }
}

impl fmt::Display for ServiceKey {
    /// The name alone in the default namespace.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.as_str() == NAMESPACE_DEFAULT {
            return self.name.fmt(formatter);
        }
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Id of an instance: 1 to 128 letters, digits, and `.`, `_`, `:`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// Takes a text as an id, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | ':' | '-');
        ((1..=INSTANCE_ID_MAX).contains(&text.len()) && text.chars().all(is_legal)).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    /// Its service.
    pub service: ServiceKey,
    /// Its id within the service.
    pub id: InstanceId,
}

impl InstanceKey {
    /// Takes three texts as a key, if they are one. An empty namespace is the default.
    pub fn parse(namespace: &str, service: &str, id: &str) -> Option<Self> {
        Some(Self { service: ServiceKey::parse(namespace, service)?, id: InstanceId::parse(id)? })
    }

    /// Where the instance lies in the store.
    pub fn path(&self) -> Key {
        Key::new(format!("{INSTANCES}{}", self.tail()))
    }

    /// Where what an operator decided of the instance lies in the store.
    pub(crate) fn override_path(&self) -> Key {
        Key::new(format!("{OVERRIDES}{}", self.tail()))
    }

    /// Where what another instance reports of this one lies in the store.
    pub(crate) fn report_path(&self, reporter: &Self) -> Key {
        Key::new(format!("{REPORTS}{}/{}", self.tail(), reporter.tail()))
    }

    fn tail(&self) -> String {
        format!("{}/{}/{}", self.service.namespace, self.service.name, self.id)
    }

    fn from_tail(tail: &str) -> Option<Self> {
        let mut parts = tail.split('/');
        // An empty part is no namespace in a path, though it is read as one elsewhere.
        let namespace = parts.next().filter(|namespace| !namespace.is_empty())?;
        let key = Self::parse(namespace, parts.next()?, parts.next()?)?;
        parts.next().is_none().then_some(key)
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.service, self.id)
    }
}

/// What a key of the store is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An instance.
    Instance(InstanceKey),
    /// What an operator decided of an instance.
    Override(InstanceKey),
    /// What an instance reports of another.
    Report {
        /// Of whom.
        of: InstanceKey,
        /// By whom.
        by: InstanceKey,
    },
    /// How far the watchers of this node have got.
    Roll(String),
    /// Who of a service may be suspect by reports. Read where that is decided, and nowhere else.
    Room,
}

impl Place {
    /// Reads a key of the store.
    pub(crate) fn of(path: &Key) -> Option<Self> {
        let path = path.as_str();
        if let Some(tail) = path.strip_prefix(INSTANCES) {
            return InstanceKey::from_tail(tail).map(Self::Instance);
        }
        if let Some(tail) = path.strip_prefix(OVERRIDES) {
            return InstanceKey::from_tail(tail).map(Self::Override);
        }
        if let Some(node) = path.strip_prefix(ROLLS) {
            return Some(Self::Roll(node.to_owned()));
        }
        if path.starts_with(ROOMS) {
            return Some(Self::Room);
        }
        let tail = path.strip_prefix(REPORTS)?;
        let (middle, _) = tail.match_indices('/').nth(2)?;
        let (of, by) = tail.split_at(middle);
        Some(Self::Report { of: InstanceKey::from_tail(of)?, by: InstanceKey::from_tail(by.get(1..)?)? })
    }
}

fn is_name(text: &str) -> bool {
    let is_legal = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    (1..=SERVICE_NAME_MAX).contains(&text.len()) && text.chars().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_lowercase_letters_digits_and_hyphens() {
        for good in ["a", "product-composite", "x1", &"a".repeat(63)] {
            assert_eq!(ServiceName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "a_b", "a/b", "a.b", "ä", " a", &"a".repeat(64)] {
            assert_eq!(ServiceName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_empty_namespace_is_the_default_and_a_hyphen_is_none() {
        assert_eq!(Namespace::parse(""), Some(Namespace::default()));
        assert_eq!(Namespace::parse("default"), Some(Namespace::default()));
        assert_eq!(Namespace::parse("-"), None);
        let key = |namespace| ServiceKey::parse(namespace, "pump").unwrap().to_string();
        assert_eq!((key("").as_str(), key("eu").as_str()), ("pump", "eu/pump"));
    }

    #[test]
    fn a_key_is_read_back_from_its_path() {
        let key = InstanceKey::parse("eu", "pump", "10.0.0.1:80-a_B").unwrap();
        let by = InstanceKey::parse("", "valve", "v-1").unwrap();
        assert_eq!(key.path().as_str(), "registry/instances/eu/pump/10.0.0.1:80-a_B");
        assert_eq!(Place::of(&key.path()), Some(Place::Instance(key.clone())));
        assert_eq!(Place::of(&key.override_path()), Some(Place::Override(key.clone())));
        assert_eq!(Place::of(&key.report_path(&by)), Some(Place::Report { of: key, by }));
        for bad in [
            "registry/instances/pump/a",
            "registry/instances/eu/pump/",
            "registry/instances//pump/a",
            "registry/instances/eu/pump/a/b",
            "registry/reports/eu/pump/a/b",
            "other/x/y/z",
        ] {
            assert_eq!(Place::of(&Key::new(bad)), None, "{bad}");
        }
    }
}
