//! What the name of a package says. Pure.

/// Packages that everybody may use and nobody owns, because others keep them.
const FOREIGN: &[&str] = &["google", "grpc", "buf.validate", "validate", "opentelemetry", "envoy", "xds", "udpa"];
/// Packages of this platform.
const OURS: &str = "ninefold";

/// Whether a package is built in: not owned, not held. A package without a name is not held either, as nothing can be put
/// beside it.
pub(crate) fn is_built_in(package: &str) -> bool {
    is_foreign(package) || is_in(package, OURS)
}

/// Whether a package is kept by others, or has no name.
pub(crate) fn is_foreign(package: &str) -> bool {
    package.is_empty() || FOREIGN.iter().any(|outer| is_in(package, outer))
}

/// Whether a package says by its last part that it may still change, as `v1alpha1`, `v2beta` and `v1test` do.
pub(crate) fn is_unstable(package: &str) -> bool {
    let last = package.rsplit('.').next().unwrap_or_default();
    let Some(rest) = last.strip_prefix('v') else { return false };
    let word = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    if word.len() == rest.len() {
        return false;
    }
    // v1p1beta1: a patch before the word.
    let word =
        word.strip_prefix('p').map_or(word, |rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    ["alpha", "beta", "test"].iter().any(|known| word.starts_with(known))
}

/// Whether a name is a package, or something in it.
pub(crate) fn is_in(name: &str, package: &str) -> bool {
    name.strip_prefix(package).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_beta_and_test_versions_may_change() {
        for name in ["shop.v1alpha1", "shop.v2beta", "v1test", "shop.v1p1beta1", "shop.v1testsuite"] {
            assert!(is_unstable(name), "{name}");
        }
        for name in ["shop.v1", "shop.v12", "shop", "shop.beta", "shop.valpha", "v1alpha.shop", "shop.v1rc1"] {
            assert!(!is_unstable(name), "{name}");
        }
    }

    #[test]
    fn what_is_built_in_is_nobodys() {
        for name in ["", "google.api", "google", "ninefold.gateway.v1", "buf.validate"] {
            assert!(is_built_in(name), "{name}");
        }
        for name in ["googly.v1", "shop.v1", "buf.shop.v1"] {
            assert!(!is_built_in(name), "{name}");
        }
    }
}
