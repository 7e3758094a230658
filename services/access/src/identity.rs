//! What a certificate stands for. Pure.

use ninefold::caller::{Caller, Names, Role};
use ninefold::tls::Peer;

use crate::config::{Config, Identity};

/// The caller that a certificate stands for, if it stands for one: what the settings say first, then the form
/// `spiffe://DOMAIN/ns/NAMESPACE/svc/SERVICE`, which is an instance of that service.
pub(crate) fn of(peer: &Peer, config: &Config) -> Option<Caller> {
    let names = || peer.uris.iter().chain(peer.names.iter());
    let told = config
        .identities
        .iter()
        .find_map(|identity| names().find(|name| fits(identity, name)).map(|name| (identity, name)));
    if let Some((identity, name)) = told {
        return Some(Caller {
            identity: name.as_str().into(),
            roles: identity.roles.clone().into(),
            services: Names::of(&identity.services),
            namespaces: Names::of(&identity.namespaces),
        });
    }
    peer.uris.iter().find_map(|uri| instance(uri, &config.trust_domain))
}

fn fits(identity: &Identity, name: &str) -> bool {
    match identity.name.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => identity.name == name,
    }
}

fn instance(uri: &str, trust_domain: &str) -> Option<Caller> {
    let mut parts = uri.strip_prefix("spiffe://")?.split('/');
    let domain = parts.next().filter(|domain| !domain.is_empty())?;
    let ("ns", namespace) = (parts.next()?, parts.next()?) else { return None };
    let ("svc", service) = (parts.next()?, parts.next()?) else { return None };
    let is_whole = parts.next().is_none() && !namespace.is_empty() && !service.is_empty();
    // A star is a name like any other here, not all of them.
    let is_plain = namespace != "*" && service != "*";
    if !is_whole || !is_plain || !(trust_domain.is_empty() || domain == trust_domain) {
        return None;
    }
    Some(Caller {
        identity: uri.into(),
        roles: [Role::Instance].into(),
        services: Names::Only([service.to_owned()].into()),
        namespaces: Names::Only([namespace.to_owned()].into()),
    })
}

/// What a certificate says of its owner, for whoever is told that it stands for nobody.
pub(crate) fn shown(peer: &Peer) -> String {
    peer.uris.iter().chain(peer.names.iter()).map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uri: &str) -> Peer {
        Peer { uris: [uri.to_owned()].into(), names: ["ops.test".to_owned()].into() }
    }

    #[test]
    fn an_instance_is_known_by_its_uri() {
        let config = Config { trust_domain: "test".to_owned(), ..Config::default() };
        let caller = of(&peer("spiffe://test/ns/shop/svc/product"), &config).unwrap();
        assert!(caller.may_join("product", "shop") && !caller.may_join("product", "") && !caller.may_join("x", "shop"));
        for strange in [
            "spiffe://other/ns/shop/svc/product",
            "spiffe://test/ns/shop/svc/product/more",
            "spiffe://test/ns/shop/sa/product",
            "spiffe://test/ns/*/svc/product",
            "spiffe://test/ns/shop/svc/*",
            "https://test/ns/shop/svc/product",
        ] {
            assert!(of(&peer(strange), &config).is_none(), "{strange}");
        }
    }

    #[test]
    fn what_the_settings_say_of_a_name_counts_first() {
        let identity = |name: &str| Identity {
            name: name.to_owned(),
            roles: vec![Role::Admin],
            services: Vec::new(),
            namespaces: vec!["*".to_owned()],
        };
        let config = |name| Config { identities: vec![identity(name)], ..Config::default() };
        let uri = "spiffe://test/ns/shop/svc/product";
        assert!(of(&peer(uri), &config("ops.test")).unwrap().has(Role::Admin));
        assert!(of(&peer(uri), &config("spiffe://test/*")).unwrap().has(Role::Admin));
        assert!(!of(&peer(uri), &config("ops")).unwrap().has(Role::Admin));
    }
}
