//! Which methods may be repeated because their contract says so: `option idempotency_level`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;

/// Paths of methods that contracts declare idempotent, or free of side effects. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared(Arc<ArcSwap<BTreeSet<String>>>);

impl Declared {
    /// Takes what a serialized `google.protobuf.FileDescriptorSet` declares. One that is damaged declares nothing.
    pub(crate) fn add(&self, descriptor_set: &[u8]) {
        let Ok(set) = FileDescriptorSet::decode(descriptor_set) else { return };
        let paths: Vec<String> = set.file.iter().flat_map(paths).collect();
        if !paths.is_empty() {
            self.0.rcu(|known| known.iter().cloned().chain(paths.iter().cloned()).collect::<BTreeSet<_>>());
        }
    }

    /// Whether a contract declares that the method at `path` ("/package.Service/Method") may be repeated.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.load().contains(path)
    }
}

fn paths(file: &prost_types::FileDescriptorProto) -> impl Iterator<Item = String> {
    let package = if file.package().is_empty() { String::new() } else { format!("{}.", file.package()) };
    file.service.iter().flat_map(move |service| {
        let prefix = format!("/{package}{}/", service.name());
        let declared = service.method.iter().filter(|method| {
            method
                .options
                .as_ref()
                .is_some_and(|options| options.idempotency_level() != IdempotencyLevel::IdempotencyUnknown)
        });
        declared.map(move |method| format!("{prefix}{}", method.name()))
    })
}

#[cfg(test)]
mod tests {
    use prost_types::{FileDescriptorProto, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto};

    use super::*;

    #[test]
    fn what_a_contract_declares_may_be_repeated() {
        let method = |name: &str, level: Option<IdempotencyLevel>| MethodDescriptorProto {
            name: Some(name.to_owned()),
            options: level
                .map(|level| MethodOptions { idempotency_level: Some(level.into()), ..MethodOptions::default() }),
            ..MethodDescriptorProto::default()
        };
        let service = ServiceDescriptorProto {
            name: Some("Pump".to_owned()),
            method: vec![method("Set", Some(IdempotencyLevel::Idempotent)), method("Add", None)],
            ..ServiceDescriptorProto::default()
        };
        let file =
            FileDescriptorProto { package: Some("a.v1".to_owned()), service: vec![service], ..Default::default() };
        let declared = Declared::default();
        declared.add(b"no descriptor set");
        declared.add(&FileDescriptorSet { file: vec![file] }.encode_to_vec());
        assert!(declared.has("/a.v1.Pump/Set") && !declared.has("/a.v1.Pump/Add"));
    }
}
