//! Which instances of a service may answer a call, by what they say of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::connect::landscape::Instance;

/// Instances with this version and these labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// The version; with `*` at its end, whatever begins so. Empty for any.
    pub version: String,
    /// Labels that the instance has, each with this value.
    pub labels: BTreeMap<String, String>,
}

impl Selector {
    /// Whether an instance is meant.
    pub fn selects(&self, instance: &Instance) -> bool {
        let is_version = match self.version.strip_suffix('*') {
            Some(start) => instance.version.starts_with(start),
            None => self.version.is_empty() || instance.version == self.version,
        };
        is_version && self.labels.iter().all(|(name, value)| instance.labels.get(name) == Some(value))
    }
}

/// A request extension: which instances may answer, by their version and labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// Only these. `None` for all.
    pub only: Option<Arc<Selector>>,
    /// None of these.
    pub except: Arc<[Selector]>,
    /// Whether nobody else answers where none of the subset can. Otherwise all may then.
    pub is_strict: bool,
}

impl Subset {
    /// Whether an instance is in the subset.
    pub fn has(&self, instance: &Instance) -> bool {
        self.only.as_ref().is_none_or(|only| only.selects(instance))
            && !self.except.iter().any(|except| except.selects(instance))
    }
}

#[cfg(test)]
mod tests {
    use ninefold_proto::ninefold::registry::v1 as words;

    use super::*;

    fn instance(version: &str, track: &str) -> Instance {
        let labels = [("track".to_owned(), track.to_owned())].into();
        Instance::from(words::Instance { version: version.to_owned(), labels, ..words::Instance::default() })
    }

    #[test]
    fn versions_are_whole_or_begin_so_and_labels_are_all_there() {
        let select = |version: &str, labels: &[(&str, &str)]| Selector {
            version: version.to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        assert!(select("2.*", &[]).selects(&instance("2.1", "")));
        assert!(!select("2.*", &[]).selects(&instance("1.2.0", "")));
        assert!(!select("2", &[]).selects(&instance("2.1", "")));
        assert!(select("", &[("track", "canary")]).selects(&instance("1", "canary")));
        assert!(!select("1", &[("track", "canary")]).selects(&instance("1", "stable")));
        let subset = Subset { except: [select("2.*", &[])].into(), ..Subset::default() };
        assert!(subset.has(&instance("1", "")) && !subset.has(&instance("2.0", "")));
    }
}
