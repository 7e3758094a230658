//! The nouns of access. Pure.

use std::time::{Duration, SystemTime};

use ninefold::caller::{Caller, Names, Role};
use ninefold::fault::Violation;

use crate::secret::Hash;

/// Longest name of a token.
const NAME_CHARS_MAX: usize = 128;
/// Most services, and most namespaces, of one token.
const NAMES_MAX: usize = 64;
/// Longest name of a service or a namespace.
const SERVICE_CHARS_MAX: usize = 63;
/// Shortest life of a token.
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) services: Vec<String>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) hash: Hash,
    pub(crate) created: SystemTime,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) author: String,
}

impl Token {
    /// Whether it is worth something at a moment.
    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Who bears it.
    pub(crate) fn caller(&self) -> Caller {
        Caller {
            identity: format!("token {} ({})", self.name, self.id).into(),
            roles: self.roles.clone().into(),
            services: Names::of(&self.services),
            namespaces: Names::of(&self.namespaces),
        }
    }
}

/// A token that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) services: Vec<String>,
    pub(crate) namespaces: Vec<String>,
    pub(crate) lifetime: Option<Duration>,
}

impl NewToken {
    /// The first token of a node.
    pub(crate) fn administrator(node: &str) -> Self {
        let all = || vec!["*".to_owned()];
        let name = format!("first of {node}");
        Self { name, roles: vec![Role::Admin], services: all(), namespaces: all(), lifetime: None }
    }

    /// The token by which a node asks the other nodes.
    pub(crate) fn of_node(node: &str) -> Self {
        let all = || vec!["*".to_owned()];
        let name = format!("{node} among nodes");
        Self { name, roles: vec![Role::Read, Role::Operator], services: all(), namespaces: all(), lifetime: None }
    }

    /// What no token can be.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = |holds: bool, field: &str, description: &str| {
            if !holds {
                found.push(Violation::new(field, description));
            }
        };
        let chars = self.name.chars().count();
        let is_plain = !self.name.chars().any(char::is_control);
        check((1..=NAME_CHARS_MAX).contains(&chars) && is_plain, "name", "must be 1 to 128 characters of one line");
        check(!self.roles.is_empty(), "roles", "must name at least one role");
        let is_instance = self.roles.contains(&Role::Instance);
        check(
            !is_instance || !self.services.is_empty(),
            "services",
            "must name a service, or * for all: an instance joins as one",
        );
        check(!self.namespaces.is_empty(), "namespaces", "must name a namespace, or * for all");
        for (field, names) in [("services", &self.services), ("namespaces", &self.namespaces)] {
            check(names.len() <= NAMES_MAX, field, "must name at most 64");
            check(names.iter().all(|name| name == "*" || is_name(name)), field, "holds what is no name and not *");
        }
        check(self.lifetime.is_none_or(|life| life >= LIFETIME_MIN), "lifetime", "must be at least 1s");
        found
    }
}

fn is_name(text: &str) -> bool {
    (1..=SERVICE_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-')
}

/// A role as it is written.
pub(crate) const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Instance => "instance",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// Reads [`role_name`].
pub(crate) fn role_of(name: &str) -> Option<Role> {
    [Role::Read, Role::Instance, Role::Operator, Role::Admin].into_iter().find(|role| role_name(*role) == name)
}
