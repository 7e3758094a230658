//! Takes a descriptor set apart into the packages that are in it. Pure.
//!
//! A service hands in one set with everything that it was built from. The packages whose services it answers are what it
//! promises; those whose services it does not answer are what it calls. Packages of messages belong to whoever reaches them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use sha2::{Digest as _, Sha256};

use crate::model::Digest;
use crate::names;

/// Field of `google.protobuf.FileDescriptorProto` that holds comments and lines.
const SOURCE_INFO: u32 = 9;

/// A descriptor set whose files stay the bytes they are.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RawSet {
    /// The files.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) files: Vec<Bytes>,
}

/// What a set has of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Digest of its files, by name, without comments.
    pub(crate) digest: Digest,
    /// Full names of its services, sorted.
    pub(crate) protobuf_services: Vec<String>,
    /// Full names of its deprecated methods, sorted.
    pub(crate) deprecated_methods: Vec<String>,
}

/// A set, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    /// What its service promises.
    pub(crate) held: BTreeMap<String, Part>,
    /// Packages that its service was built to call.
    pub(crate) called: BTreeSet<String>,
}

struct File {
    name: String,
    package: String,
    imports: Vec<String>,
    services: Vec<String>,
    deprecated: Vec<String>,
    /// Its bytes without source info.
    bare: Vec<u8>,
}

/// Takes a set apart that was looked at before. `offered` are the full names of the services that its service answers;
/// none stands for all that are in it.
pub(crate) fn split(bytes: &Bytes, offered: &[String]) -> Split {
    let files = files(bytes);
    let offers = |file: &File| file.services.iter().any(|name| offered.is_empty() || offered.contains(name));
    let offering: BTreeSet<&str> = files.iter().filter(|file| offers(file)).map(|file| file.package.as_str()).collect();
    let calls = |file: &File| !file.services.is_empty() && !offering.contains(file.package.as_str());
    let promised = reach(&files, |file| offering.contains(file.package.as_str()));
    let called = reach(&files, calls);
    let mut split = Split::default();
    let mut held: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
    for (place, file) in files.iter().enumerate().filter(|(_, file)| !names::is_built_in(&file.package)) {
        if calls(file) {
            split.called.insert(file.package.clone());
        } else if promised.contains(&place) || !called.contains(&place) {
            held.entry(&file.package).or_default();
        }
    }
    // A package that is called is not held for a file without services in it.
    held.retain(|package, _| !split.called.contains(*package));
    for file in &files {
        if let Some(files) = held.get_mut(file.package.as_str()) {
            files.push(file);
        }
    }
    split.held = held.into_iter().map(|(package, files)| (package.to_owned(), part(&files))).collect();
    split
}

/// The files of some packages and all that they import, as a set of raw files in the order they came.
pub(crate) fn closure(bytes: &Bytes, package: &str) -> Vec<u8> {
    let raws = RawSet::decode(bytes.clone()).unwrap_or_default();
    let files = files(bytes);
    let reached = reach(&files, |file| file.package == package);
    let kept = raws.files.into_iter().enumerate().filter(|(place, _)| reached.contains(place)).map(|(_, raw)| raw);
    RawSet { files: kept.collect() }.encode_to_vec()
}

fn part(files: &[&File]) -> Part {
    let sorted = |names: &dyn Fn(&File) -> Vec<String>| {
        let all: BTreeSet<String> = files.iter().flat_map(|file| names(file)).collect();
        all.into_iter().collect()
    };
    let mut hash = Sha256::new();
    let by_name: BTreeMap<&str, &[u8]> = files.iter().map(|file| (file.name.as_str(), file.bare.as_slice())).collect();
    for bare in by_name.values() {
        hash.update(u64::try_from(bare.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bare);
    }
    Part {
        digest: Digest::of_hash(&hash.finalize()),
        protobuf_services: sorted(&|file| file.services.clone()),
        deprecated_methods: sorted(&|file| file.deprecated.clone()),
    }
}

fn files(bytes: &Bytes) -> Vec<File> {
    let raws = RawSet::decode(bytes.clone()).unwrap_or_default();
    raws.files.iter().filter_map(file).collect()
}

fn file(raw: &Bytes) -> Option<File> {
    let file = prost_types::FileDescriptorProto::decode(raw.clone()).ok()?;
    let package = file.package().to_owned();
    let full = |name: &str| if package.is_empty() { name.to_owned() } else { format!("{package}.{name}") };
    let mut deprecated = Vec::new();
    for service in &file.service {
        let methods =
            service.method.iter().filter(|method| method.options.as_ref().is_some_and(|options| options.deprecated()));
        deprecated.extend(methods.map(|method| format!("{}.{}", full(service.name()), method.name())));
    }
    let services = file.service.iter().map(|service| full(service.name())).collect();
    let imports = file.dependency.clone();
    Some(File { name: file.name().to_owned(), package, imports, services, deprecated, bare: without_source_info(raw) })
}

/// A file's bytes without comments and lines. All else stays as it is, extensions of options too.
fn without_source_info(raw: &Bytes) -> Vec<u8> {
    let mut bare = Vec::with_capacity(raw.len());
    let mut rest = raw.clone();
    while rest.has_remaining() {
        let begin = raw.len() - rest.remaining();
        let Ok((number, wire_type)) = decode_key(&mut rest) else { break };
        if skip_field(wire_type, number, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
        if number != SOURCE_INFO {
            bare.extend_from_slice(&raw[begin..raw.len() - rest.remaining()]);
        }
    }
    bare
}

/// Places of the files that `is_root` says yes to, and of all that they import.
fn reach(files: &[File], is_root: impl Fn(&File) -> bool) -> BTreeSet<usize> {
    let places: HashMap<&str, usize> =
        files.iter().enumerate().map(|(place, file)| (file.name.as_str(), place)).collect();
    let mut open: Vec<usize> = (0..files.len()).filter(|place| is_root(&files[*place])).collect();
    let mut reached = BTreeSet::new();
    while let Some(place) = open.pop() {
        if reached.insert(place) {
            open.extend(files[place].imports.iter().filter_map(|import| places.get(import.as_str()).copied()));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use prost_types::{FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto, SourceCodeInfo};

    use super::*;

    fn file(package: &str, imports: &[&str], service: Option<&str>) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(format!("{package}.proto")),
            package: Some(package.to_owned()),
            dependency: imports.iter().map(|name| format!("{name}.proto")).collect(),
            service: service
                .map(|name| ServiceDescriptorProto { name: Some(name.to_owned()), ..Default::default() })
                .into_iter()
                .collect(),
            ..Default::default()
        }
    }

    fn set(files: Vec<FileDescriptorProto>) -> Bytes {
        FileDescriptorSet { file: files }.encode_to_vec().into()
    }

    fn names(split: &Split) -> (Vec<&str>, Vec<&str>) {
        (split.held.keys().map(String::as_str).collect(), split.called.iter().map(String::as_str).collect())
    }

    #[test]
    fn what_a_service_answers_is_held_and_what_it_does_not_is_called() {
        let bytes = set(vec![
            file("google.api", &[], None),
            file("common.v1", &["google.api"], None),
            file("money.v1", &[], None),
            file("events.v1", &[], None),
            file("review.v1", &["common.v1", "money.v1"], Some("ReviewService")),
            file("composite.v1", &["common.v1"], Some("CompositeService")),
        ]);
        let offered = ["composite.v1.CompositeService".to_owned()];
        let split = split(&bytes, &offered);
        assert_eq!(names(&split), (vec!["common.v1", "composite.v1", "events.v1"], vec!["review.v1"]));
        let all = super::split(&bytes, &[]);
        assert_eq!(names(&all), (vec!["common.v1", "composite.v1", "events.v1", "money.v1", "review.v1"], vec![]));
    }

    #[test]
    fn comments_and_the_order_of_files_do_not_make_another_package() {
        let mut one = file("shop.v1", &[], Some("Shop"));
        let mut two = FileDescriptorProto { name: Some("b.proto".to_owned()), ..file("shop.v1", &[], None) };
        let before = split(&set(vec![one.clone(), two.clone()]), &[]);
        one.source_code_info = Some(SourceCodeInfo::default());
        let after = split(&set(vec![two.clone(), one.clone()]), &[]);
        assert_eq!(before, after);
        two.dependency.push("shop.v1.proto".to_owned());
        assert_ne!(before, split(&set(vec![two, one]), &[]));
    }
}
