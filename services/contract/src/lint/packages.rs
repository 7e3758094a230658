//! Rules about files, folders, imports and packages. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::Slip;
use super::case::lower_snake;
use crate::rules::stability;
use crate::schema::{File, Schema};

fn folder(file: &File) -> &str {
    file.name.rsplit_once('/').map_or(".", |(folder, _)| folder)
}

/// Files that are no imports, with their places.
fn files(schema: &Schema) -> impl Iterator<Item = (usize, &File)> {
    schema.files().iter().enumerate().filter(|(_, file)| !file.is_import)
}

fn package_slip(schema: &Schema, index: usize, message: String) -> Slip {
    let file = schema.file_at(index);
    Slip::new(&*file.name, index, vec![2], message)
}

fn joined<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(",")
}

pub(super) fn directory_same_package(schema: &Schema) -> Vec<Slip> {
    let mut folders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files(schema) {
        folders.entry(folder(file)).or_default().push(index);
    }
    let mut slips = Vec::new();
    for (folder, members) in folders {
        let mut packages: BTreeSet<&str> = members.iter().map(|index| &*schema.file_at(*index).package).collect();
        if packages.len() < 2 {
            continue;
        }
        let has_bare = packages.remove("");
        let many = if packages.len() > 1 { "Multiple packages" } else { "Package" };
        let bare = if has_bare { " and file with no package" } else { "" };
        let message = format!("{many} {:?}{bare} detected within directory {folder:?}.", joined(packages));
        let slip = |index| package_slip(schema, index, message.clone()).fix("give each package a folder of its own");
        slips.extend(members.into_iter().map(slip));
    }
    slips
}

pub(super) fn same_directory(schema: &Schema) -> Vec<Slip> {
    let mut slips = Vec::new();
    for (package, members) in packages(schema) {
        let folders: BTreeSet<&str> = members.iter().map(|index| folder(schema.file_at(*index))).collect();
        if folders.len() > 1 {
            let message = format!("Multiple directories {:?} contain files with package {package:?}.", joined(folders));
            let slip = |index| package_slip(schema, index, message.clone()).fix("move its files into one folder");
            slips.extend(members.into_iter().map(slip));
        }
    }
    slips
}

/// The files of each package; those without one are as if they had one in common.
fn packages(schema: &Schema) -> BTreeMap<&str, Vec<usize>> {
    let mut packages: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, file) in files(schema) {
        packages.entry(&file.package).or_default().push(index);
    }
    packages
}

fn same_option(schema: &Schema, name: &str, number: i32, told: impl Fn(&File) -> String) -> Vec<Slip> {
    let mut slips = Vec::new();
    for (package, members) in packages(schema) {
        let mut values: BTreeSet<String> = members.iter().map(|index| told(schema.file_at(*index))).collect();
        if values.len() < 2 {
            continue;
        }
        let has_none = values.remove("");
        let all = joined(values.iter().map(String::as_str));
        let message = if has_none {
            format!(
                "Files in package {package:?} have both values {all:?} and no value for option {name:?} and all values must \
                 be equal."
            )
        } else {
            format!(
                "Files in package {package:?} have multiple values {all:?} for option {name:?} and all values must be equal."
            )
        };
        slips.extend(members.into_iter().map(|index| {
            let file = schema.file_at(index);
            let at = vec![8, number];
            Slip::new(&*file.name, index, at, message.clone())
                .fix(format!("set {name} alike in all files of {package}"))
        }));
    }
    slips
}

fn same_text(schema: &Schema, name: &str, number: i32) -> Vec<Slip> {
    let field = u64::try_from(number).unwrap_or_default();
    same_option(schema, name, number, |file| schema.file_options(file).text(field).unwrap_or_default().to_owned())
}

pub(super) fn same_csharp_namespace(schema: &Schema) -> Vec<Slip> {
    same_text(schema, "csharp_namespace", 37)
}

pub(super) fn same_go_package(schema: &Schema) -> Vec<Slip> {
    same_text(schema, "go_package", 11)
}

pub(super) fn same_java_multiple_files(schema: &Schema) -> Vec<Slip> {
    same_option(schema, "java_multiple_files", 10, |file| {
        schema.file_options(file).flag(10).map(|flag| flag.to_string()).unwrap_or_default()
    })
}

pub(super) fn same_java_package(schema: &Schema) -> Vec<Slip> {
    same_text(schema, "java_package", 1)
}

pub(super) fn same_php_namespace(schema: &Schema) -> Vec<Slip> {
    same_text(schema, "php_namespace", 41)
}

pub(super) fn same_ruby_package(schema: &Schema) -> Vec<Slip> {
    same_text(schema, "ruby_package", 45)
}

pub(super) fn same_swift_prefix(schema: &Schema) -> Vec<Slip> {
    same_text(schema, "swift_prefix", 39)
}

pub(super) fn defined(schema: &Schema) -> Vec<Slip> {
    let bare = files(schema).filter(|(_, file)| file.package.is_empty());
    let slips = bare.map(|(index, file)| {
        Slip::new(&*file.name, index, Vec::new(), "Files must have a package defined.").fix("add a package")
    });
    slips.collect()
}

pub(super) fn directory_match(schema: &Schema) -> Vec<Slip> {
    let slips = files(schema).filter(|(_, file)| !file.package.is_empty()).filter_map(|(index, file)| {
        let (wanted, found) = (file.package.replace('.', "/"), folder(file));
        let message = format!(
            "Files with package {:?} must be within a directory \"{wanted}\" relative to root but were in directory \
             \"{found}\".",
            file.package
        );
        (wanted != found).then(|| package_slip(schema, index, message).fix(format!("move it to {wanted}")))
    });
    slips.collect()
}

pub(super) fn lower_snake_case(schema: &Schema) -> Vec<Slip> {
    let slips = files(schema).filter(|(_, file)| !file.package.is_empty()).filter_map(|(index, file)| {
        let wanted = file.package.split('.').map(lower_snake).collect::<Vec<_>>().join(".");
        let message = format!("Package name {:?} should be lower_snake.case, such as {wanted:?}.", file.package);
        (*file.package != *wanted).then(|| package_slip(schema, index, message).fix(format!("name it {wanted}")))
    });
    slips.collect()
}

pub(super) fn version_suffix(schema: &Schema) -> Vec<Slip> {
    let bare = files(schema).filter(|(_, file)| !file.package.is_empty() && stability(&file.package).is_none());
    let slips = bare.map(|(index, file)| {
        let message = format!(
            "Package name {:?} should be suffixed with a correctly formed version, such as \"{}.v1\".",
            file.package, file.package
        );
        package_slip(schema, index, message).fix(format!("name it {}.v1", file.package))
    });
    slips.collect()
}

pub(super) fn syntax_specified(schema: &Schema) -> Vec<Slip> {
    const MESSAGE: &str =
        "Files must have a syntax explicitly specified. If no syntax is specified, the file defaults to \"proto2\".";
    let silent = files(schema).filter(|(_, file)| !file.has_syntax);
    silent
        .map(|(index, file)| Slip::new(&*file.name, index, Vec::new(), MESSAGE).fix("say which syntax it is"))
        .collect()
}

fn import_slip(schema: &Schema, index: usize, import: usize, message: String) -> Slip {
    let step = i32::try_from(import).unwrap_or(i32::MAX);
    Slip::new(&*schema.file_at(index).name, index, vec![3, step], message)
}

pub(super) fn import_no_public(schema: &Schema) -> Vec<Slip> {
    let mut slips = Vec::new();
    for (index, file) in files(schema) {
        for (place, import) in file.imports.iter().enumerate().filter(|(_, import)| import.is_public) {
            let message = format!("Import {:?} must not be public.", import.name);
            slips.push(import_slip(schema, index, place, message).fix("import it where it is used"));
        }
    }
    slips
}

pub(super) fn import_used(schema: &Schema) -> Vec<Slip> {
    let mut slips = Vec::new();
    for (index, file) in files(schema) {
        for (place, import) in file.imports.iter().enumerate().filter(|(_, import)| import.is_unused) {
            let message = format!("Import {:?} is unused.", import.name);
            slips.push(import_slip(schema, index, place, message).fix("take the import out"));
        }
    }
    slips
}

/// Which packages a package imports, and where.
type Imports<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<(usize, usize)>>>;

pub(super) fn no_import_cycle(schema: &Schema) -> Vec<Slip> {
    let package_of: BTreeMap<&str, &str> = schema.files().iter().map(|file| (&*file.name, &*file.package)).collect();
    let mut imports = Imports::new();
    for (index, file) in schema.files().iter().enumerate().filter(|(_, file)| !file.package.is_empty()) {
        for (place, import) in file.imports.iter().enumerate() {
            let Some(target) = package_of.get(&*import.name).filter(|target| !target.is_empty()) else { continue };
            if **target != *file.package {
                imports.entry(&file.package).or_default().entry(target).or_default().push((index, place));
            }
        }
    }
    let mut slips = Vec::new();
    for (package, targets) in &imports {
        for (target, places) in targets {
            let Some(cycle) = cycle(package, target, &imports) else { continue };
            for (index, place) in places {
                let message = format!("Package import cycle: {}", cycle.join(" -> "));
                slips
                    .push(import_slip(schema, *index, *place, message).fix("move what both need into a third package"));
            }
        }
    }
    slips
}

/// The shortest way from a package by one that it imports back to itself.
fn cycle<'a>(package: &'a str, target: &'a str, imports: &Imports<'a>) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::from([(target, package)]);
    let mut next = std::collections::VecDeque::from([target]);
    while let Some(here) = next.pop_front() {
        for there in imports.get(here).into_iter().flat_map(|targets| targets.keys()) {
            if *there == package {
                let mut way = vec![package, here];
                let mut step = here;
                while let Some(before) = came_from.get(step).filter(|_| step != target) {
                    way.push(before);
                    step = before;
                }
                way.push(package);
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(there) {
                came_from.insert(there, here);
                next.push_back(there);
            }
        }
    }
    None
}
