//! Rules about files. Pure.

use super::draft::{Draft, Pair, line};
use crate::schema::{File, Schema};

/// How an option of a file is told.
type Told = fn(&Schema, &File) -> String;

/// Files that are gone.
pub(super) fn deleted(pair: &Pair<'_>) -> Vec<Draft> {
    let gone = pair.old.files().iter().enumerate().filter(|(_, old)| pair.new_file(&old.name).is_none());
    let drafts = gone.map(|(index, old)| {
        Draft::new(&*old.name, format!("Previously present file {:?} was deleted.", old.name))
            .was_in(index)
            .changed(&*old.name, "")
            .fix(format!("keep the file {}, or move what is in it only with its importers", old.name))
    });
    drafts.collect()
}

fn same(pair: &Pair<'_>, what: &str, path: &[i32], told: Told) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (old_index, old, new_index, new) in pair.files() {
        let (was, is) = (told(pair.old, old), told(pair.new, new));
        if was != is {
            drafts.push(
                Draft::new(&*new.name, format!("File {what} changed from {was:?} to {is:?}."))
                    .at(new_index, line(pair.new, new_index, path, &[]))
                    .was_in(old_index)
                    .fix(if was.is_empty() {
                        format!("take {what} out again")
                    } else {
                        format!("set {what} to {was:?} again")
                    })
                    .changed(was, is),
            );
        }
    }
    drafts
}

fn same_option(pair: &Pair<'_>, name: &str, number: i32, told: Told) -> Vec<Draft> {
    same(pair, &format!("option {name:?}"), &[8, number], told)
}

fn flag(schema: &Schema, file: &File, number: u64) -> String {
    schema.file_options(file).flag(number).unwrap_or(false).to_string()
}

fn text(schema: &Schema, file: &File, number: u64) -> String {
    schema.file_options(file).text(number).unwrap_or_default().to_owned()
}

pub(super) fn syntax(pair: &Pair<'_>) -> Vec<Draft> {
    same(pair, "syntax", &[12], |_, file| file.syntax().to_owned())
}

pub(super) fn package(pair: &Pair<'_>) -> Vec<Draft> {
    same(pair, "package", &[2], |_, file| file.package.to_string())
}

pub(super) fn cc_enable_arenas(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "cc_enable_arenas", 31, |schema, file| {
        schema.file_options(file).flag(31).unwrap_or(true).to_string()
    })
}

pub(super) fn cc_generic_services(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "cc_generic_services", 16, |schema, file| flag(schema, file, 16))
}

pub(super) fn csharp_namespace(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "csharp_namespace", 37, |schema, file| text(schema, file, 37))
}

pub(super) fn go_package(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "go_package", 11, |schema, file| text(schema, file, 11))
}

pub(super) fn java_generic_services(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "java_generic_services", 17, |schema, file| flag(schema, file, 17))
}

pub(super) fn java_multiple_files(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "java_multiple_files", 10, |schema, file| flag(schema, file, 10))
}

pub(super) fn java_outer_classname(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "java_outer_classname", 8, |schema, file| text(schema, file, 8))
}

pub(super) fn java_package(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "java_package", 1, |schema, file| text(schema, file, 1))
}

pub(super) fn objc_class_prefix(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "objc_class_prefix", 36, |schema, file| text(schema, file, 36))
}

pub(super) fn optimize_for(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "optimize_for", 9, |schema, file| {
        match schema.file_options(file).number(9) {
            Some(2) => "CODE_SIZE",
            Some(3) => "LITE_RUNTIME",
            Some(_) | None => "SPEED",
        }
        .to_owned()
    })
}

pub(super) fn php_class_prefix(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "php_class_prefix", 40, |schema, file| text(schema, file, 40))
}

pub(super) fn php_metadata_namespace(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "php_metadata_namespace", 44, |schema, file| text(schema, file, 44))
}

pub(super) fn php_namespace(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "php_namespace", 41, |schema, file| text(schema, file, 41))
}

pub(super) fn py_generic_services(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "py_generic_services", 18, |schema, file| flag(schema, file, 18))
}

pub(super) fn ruby_package(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "ruby_package", 45, |schema, file| text(schema, file, 45))
}

pub(super) fn swift_prefix(pair: &Pair<'_>) -> Vec<Draft> {
    same_option(pair, "swift_prefix", 39, |schema, file| text(schema, file, 39))
}
