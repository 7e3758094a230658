//! Who asks: what a door found out about the caller of a request.

use std::sync::Arc;

use http::Extensions;

use crate::fault::{Fault, Kind};

/// The namespace of services that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Who asks, and on whose behalf it may speak. A request extension, set by the door that let the request in.
///
/// A request without one did not come through a door: it is a role's of the same process, and may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name for people, such as `token deploy (k3x9q2m8w1ab)` or a URI of a certificate. No secret.
    pub identity: Arc<str>,
    /// What the caller may do.
    pub roles: Arc<[Role]>,
    /// Services that it may join as, and whose documents it may read as an instance.
    pub services: Names,
    /// Namespaces that it may see and join.
    pub namespaces: Names,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// See everything, change nothing.
    Read,
    /// Be an instance of the named services: join, report, read what an instance needs.
    Instance,
    /// Run the landscape: what `Read` and `Instance` may, and change settings, policies and numbers of instances.
    Operator,
    /// Everything, tokens and commands to run included.
    Admin,
}

/// A set of names, or all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// Every name.
    All,
    /// These.
    Only(Arc<[String]>),
}

impl Names {
    /// Takes a list, in which `*` stands for all.
    pub fn of(names: &[String]) -> Self {
        if names.iter().any(|name| name == "*") { Self::All } else { Self::Only(names.into()) }
    }

    /// Whether a name is in the set.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|one| one == name),
        }
    }

    /// Whether every name is.
    pub const fn are_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// As a list, in which `*` stands for all.
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            Self::All => vec!["*".to_owned()],
            Self::Only(names) => names.to_vec(),
        }
    }
}

impl Caller {
    /// A caller who may do everything: where nobody is asked who they are.
    pub fn anybody() -> Self {
        Self { identity: "anybody".into(), roles: [Role::Admin].into(), services: Names::All, namespaces: Names::All }
    }

    /// The caller of a request; everything is allowed where there is none.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self { identity: "platform".into(), ..Self::anybody() })
    }

    /// Whether the caller has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the caller may join as an instance of `service` in `namespace`; empty is read as `default`.
    pub fn may_join(&self, service: &str, namespace: &str) -> bool {
        self.may_see(namespace) && self.may_hand_in(service)
    }

    /// Whether the caller may see what is in `namespace`; empty is read as `default`.
    pub fn may_see(&self, namespace: &str) -> bool {
        self.namespaces.has(if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace })
    }

    /// Whether the caller may read what `service` alone is to know, such as its documents. Those are of no namespace, so
    /// whoever may not see all of them reads as an instance does.
    pub fn may_read(&self, service: &str) -> bool {
        self.is_more_than_instance() && self.namespaces.are_all() || self.services.has(service)
    }

    /// As [`may_join`](Self::may_join), as an error where not.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn joins(&self, service: &str, namespace: &str) -> Result<(), Denied> {
        if self.may_join(service, namespace) {
            return Ok(());
        }
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        Err(self.denied(format!("join as {service} in the namespace {namespace}")))
    }

    /// As [`may_read`](Self::may_read), as an error where not.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn reads(&self, service: &str) -> Result<(), Denied> {
        if self.may_read(service) {
            return Ok(());
        }
        Err(self.denied(format!("read what is {service}'s")))
    }

    /// Whether the caller may hand in what belongs to `service` in all namespaces, such as its contract.
    pub fn may_hand_in(&self, service: &str) -> bool {
        self.has(Role::Admin) || self.has(Role::Operator) || self.has(Role::Instance) && self.services.has(service)
    }

    /// That the caller may not do something, as an error.
    pub fn denied(&self, what: String) -> Denied {
        Denied { identity: self.identity.clone(), what }
    }

    /// Whether the caller is more than instances of some services.
    fn is_more_than_instance(&self) -> bool {
        [Role::Read, Role::Operator, Role::Admin].into_iter().any(|role| self.has(role))
    }
}

/// A caller asks for what is not its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{identity} may not {what}")]
pub struct Denied {
    /// Who asks.
    pub identity: Arc<str>,
    /// For what.
    pub what: String,
}

impl Fault for Denied {
    fn kind(&self) -> Kind {
        Kind::Denied
    }

    fn reason(&self) -> &'static str {
        "SERVICE_DENIED"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(services: &[&str], namespaces: &[&str]) -> Caller {
        let names = |names: &[&str]| Names::of(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        Caller {
            identity: "test".into(),
            roles: [Role::Instance].into(),
            services: names(services),
            namespaces: names(namespaces),
        }
    }

    #[test]
    fn an_instance_joins_as_its_own_services_in_its_own_namespaces() {
        let caller = instance(&["product"], &["default"]);
        assert!(caller.may_join("product", "") && caller.may_join("product", "default"));
        assert!(!caller.may_join("review", "") && !caller.may_join("product", "other"));
        assert!(instance(&["*"], &["*"]).may_join("review", "other"));
        assert!(!instance(&[], &["*"]).may_join("review", ""));
    }

    #[test]
    fn a_reader_joins_as_nothing() {
        let reader = Caller { roles: [Role::Read].into(), ..instance(&["*"], &["*"]) };
        assert!(!reader.may_join("product", "") && reader.may_read("product"));
        let limited = Caller { services: Names::of(&[]), namespaces: Names::of(&["a".to_owned()]), ..reader };
        assert_eq!(limited.reads("product").unwrap_err().to_string(), "test may not read what is product's");
    }
}
