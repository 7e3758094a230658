//! What the edge tells of itself by reflection: the contracts of exposed services, without their methods that are not.
//! Pure.
//!
//! A description is never wider than the door: services and methods that are not exposed are cut out of their files, and
//! files that nothing exposed needs are not there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor, ReflectMessage as _, Value};

use crate::routes::Routes;

/// Describes what is exposed.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Exposed Protobuf services, each with the file that it is in.
    services: BTreeMap<String, FileDescriptor>,
    /// Full names of exposed methods.
    methods: HashSet<String>,
}

impl Catalog {
    /// Describes routes.
    pub(crate) fn new(routes: &Routes) -> Self {
        let mut catalog = Self::default();
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        for method in routes.methods() {
            let pool = method.input.parent_pool();
            if let Some(service) = pool.get_service_by_name(&method.protobuf_service) {
                catalog.methods.insert(method.name.clone());
                // Of several versions the largest describes most of what is there.
                let size = sizes.entry(&method.protobuf_service).or_default();
                if service.methods().len() > *size {
                    *size = service.methods().len();
                    catalog.services.insert(method.protobuf_service.clone(), service.parent_file());
                }
            }
        }
        catalog
    }

    /// Full names of the exposed Protobuf services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// Whether a Protobuf service is exposed.
    pub(crate) fn has(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// The file that defines a name, and all that it needs, serialized.
    pub(crate) fn files_of_symbol(&self, symbol: &str) -> Option<Vec<Vec<u8>>> {
        let symbol = symbol.trim_start_matches('.');
        let parent = symbol.rsplit_once('.').map_or("", |(parent, _)| parent);
        let of_service = self.services.get(symbol);
        let of_method = self.services.get(parent).filter(|_| self.methods.contains(symbol));
        if let Some(file) = of_service.or(of_method) {
            return Some(self.told(file));
        }
        // A field or a value is looked for by what it is in.
        self.find(|pool| {
            file_of_type(pool, symbol).or_else(|| file_of_type(pool, parent)).or_else(|| {
                let extension = pool.get_extension_by_name(symbol)?;
                Some(extension.parent_file())
            })
        })
    }

    /// A file, and all that it needs, serialized.
    pub(crate) fn files_of_name(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        self.find(|pool| pool.get_file_by_name(name))
    }

    /// The file that defines an extension, and all that it needs, serialized.
    pub(crate) fn files_of_extension(&self, of: &str, number: u32) -> Option<Vec<Vec<u8>>> {
        self.find(|pool| {
            let extension = pool.get_message_by_name(of)?.get_extension(number)?;
            Some(extension.parent_file())
        })
    }

    /// The numbers of all known extensions of a message. `None` if the message is not known.
    pub(crate) fn extensions_of(&self, message: &str) -> Option<BTreeSet<u32>> {
        let mut numbers = None;
        for file in self.services.values() {
            if let Some(message) = file.parent_pool().get_message_by_name(message) {
                let numbers: &mut BTreeSet<u32> = numbers.get_or_insert_default();
                numbers.extend(message.extensions().map(|extension| extension.number()));
            }
        }
        numbers
    }

    /// The first file that `look` finds in a contract, among those that something exposed needs.
    fn find(&self, look: impl Fn(&DescriptorPool) -> Option<FileDescriptor>) -> Option<Vec<Vec<u8>>> {
        self.services.values().find_map(|exposed| {
            let file = look(exposed.parent_pool())?;
            closure(exposed).iter().any(|needed| needed.name() == file.name()).then(|| self.told(&file))
        })
    }

    fn told(&self, file: &FileDescriptor) -> Vec<Vec<u8>> {
        closure(file).iter().map(|file| self.cut(file)).collect()
    }

    /// A file without what is not exposed. Options stay, also those that we do not know.
    fn cut(&self, file: &FileDescriptor) -> Vec<u8> {
        let raw = file.encode_to_vec();
        let is_whole = file.services().all(|service| {
            self.has(service.full_name()) && service.methods().all(|method| self.methods.contains(method.full_name()))
        });
        let descriptor = file.file_descriptor_proto().descriptor();
        let Some(mut proto) = (!is_whole).then(|| DynamicMessage::decode(descriptor, raw.as_slice()).ok()).flatten()
        else {
            return raw;
        };
        // Comments are kept by place, and the places change.
        proto.clear_field_by_name("source_code_info");
        let package = file.package_name().to_owned();
        if let Some(services) = proto.get_field_by_name_mut("service").and_then(Value::as_list_mut) {
            services.retain_mut(|service| {
                let Some(service) = service.as_message_mut() else { return false };
                let full_name = full_name(&package, &name_of(service));
                if let Some(methods) = service.get_field_by_name_mut("method").and_then(Value::as_list_mut) {
                    methods.retain(|method| {
                        let name = method.as_message().map(name_of).unwrap_or_default();
                        self.methods.contains(&format!("{full_name}.{name}"))
                    });
                }
                self.has(&full_name)
            });
        }
        proto.encode_to_vec()
    }
}

fn file_of_type(pool: &DescriptorPool, name: &str) -> Option<FileDescriptor> {
    let message = pool.get_message_by_name(name).map(|message| message.parent_file());
    message.or_else(|| pool.get_enum_by_name(name).map(|kind| kind.parent_file()))
}

fn full_name(package: &str, name: &str) -> String {
    if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") }
}

fn name_of(message: &DynamicMessage) -> String {
    message.get_field_by_name("name").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A file and all that it imports, directly or not, itself first.
fn closure(file: &FileDescriptor) -> Vec<FileDescriptor> {
    let mut files = vec![file.clone()];
    let mut seen: HashSet<String> = HashSet::from([file.name().to_owned()]);
    let mut at = 0;
    while let Some(next) = files.get(at).cloned() {
        files.extend(next.dependencies().filter(|file| seen.insert(file.name().to_owned())));
        at += 1;
    }
    files
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::routes::Kept;
    use crate::{contract, testing};

    fn catalog() -> Catalog {
        let kept = Kept {
            service: "everything".into(),
            digest: "sha256:1".into(),
            protobuf_services: Arc::new(BTreeSet::from(["test.v1.EverythingService".to_owned()])),
            contract: Ok(Arc::new(contract::read(&testing::contract("test/v1/everything.proto")).unwrap())),
            created: SystemTime::UNIX_EPOCH,
            is_live: true,
        };
        Catalog::new(&Routes::build(&[kept], &Routes::default()))
    }

    #[test]
    fn a_description_has_what_is_exposed_and_nothing_else() {
        let catalog = catalog();
        assert_eq!(catalog.services().collect::<Vec<_>>(), ["test.v1.EverythingService"]);
        let files = catalog.files_of_symbol("test.v1.EverythingService").unwrap();
        let mut pool = DescriptorPool::new();
        let set = prost_types::FileDescriptorSet {
            file: files.iter().map(|file| prost_types::FileDescriptorProto::decode(file.as_slice()).unwrap()).collect(),
        };
        pool.add_file_descriptor_set(set).expect("the description is complete");
        let service = pool.get_service_by_name("test.v1.EverythingService").unwrap();
        let names: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
        assert!(names.contains(&"Get".to_owned()) && names.contains(&"Public".to_owned()));
        assert!(!names.contains(&"Internal".to_owned()) && !names.contains(&"Plain".to_owned()));
    }

    #[test]
    fn options_survive_the_cut() {
        let files = catalog().files_of_symbol("test.v1.EverythingService.Get").unwrap();
        assert!(files[0].windows(9).any(|bytes| bytes == b"/get/{id}"), "the binding is there");
        assert!(!files[0].windows(9).any(|bytes| bytes == b"/internal"), "that of an internal method is not");
    }

    #[test]
    fn names_of_all_kinds_are_found_and_strangers_are_not() {
        let catalog = catalog();
        for name in
            ["test.v1.Everything", ".test.v1.Kind", "test.v1.Everything.id", "google.api.http", "google.protobuf.Any"]
        {
            assert!(catalog.files_of_symbol(name).is_some(), "{name}");
        }
        assert!(catalog.files_of_name("google/api/http.proto").is_some());
        assert!(catalog.files_of_extension("google.protobuf.MethodOptions", 72_295_728).is_some());
        assert!(catalog.extensions_of("google.protobuf.MethodOptions").unwrap().contains(&72_295_728));
        for name in ["", "test.v1", "test.v1.EverythingService.Internal", "test.v1.Nothing"] {
            assert!(catalog.files_of_symbol(name).is_none(), "{name}");
        }
    }
}
