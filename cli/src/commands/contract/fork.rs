//! `contract fork`: a new version of a package beside the old one.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::exit::Failure;
use crate::output::{self, Format};

/// A file that is to be written.
struct Copy {
    path: PathBuf,
    text: String,
}

/// Copies the files of a package, and renames what carries its name.
pub(super) fn fork(from: &str, to: &str, folder: &Path, dry_run: bool, format: Format) -> Result<(), Failure> {
    if from == to || !is_package(from) || !is_package(to) {
        return Err(Failure::Usage(format!("{from:?} and {to:?} must be two names of packages, such as catalog.v1")));
    }
    let files = ninefold_build::files_below(folder).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut copies = Vec::new();
    for file in files {
        let path = folder.join(&file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", path.display())))?;
        if package(&text) == Some(from) {
            let target = folder.join(renamed_path(&file, from, to));
            if target.exists() {
                return Err(Failure::Failed(format!("{} is there already", target.display())));
            }
            copies.push(Copy { path: target, text: renamed(&text, from, to) });
        }
    }
    if copies.is_empty() {
        return Err(Failure::NotFound(format!("no file below {} is of the package {from}", folder.display())));
    }
    let names: Vec<String> = copies.iter().map(|copy| copy.path.display().to_string()).collect();
    if !dry_run {
        copies.iter().try_for_each(write)?;
    }
    let value = json!({"from": from, "to": to, "files": names, "written": !dry_run});
    output::print(format, &value, || names.join("\n"))
}

fn write(copy: &Copy) -> Result<(), Failure> {
    let wrong = |error: std::io::Error| Failure::Failed(format!("cannot write {}: {error}", copy.path.display()));
    if let Some(folder) = copy.path.parent() {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    std::fs::write(&copy.path, &copy.text).map_err(wrong)
}

fn is_package(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    name.split('.').all(is_word)
}

/// The package that a source says it is of.
fn package(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| line.starts_with("package "))?;
    line.strip_prefix("package ")?.split(';').next().map(str::trim)
}

/// Where a copy lies: in the folder of its package, if the old one did; else beside it under a name of its own.
fn renamed_path(file: &Path, from: &str, to: &str) -> PathBuf {
    let (old, new) = (from.replace('.', "/"), to.replace('.', "/"));
    let text = file.to_string_lossy();
    match text.strip_prefix(&format!("{old}/")) {
        Some(rest) => PathBuf::from(format!("{new}/{rest}")),
        None => {
            let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            file.with_file_name(format!("{stem}_{}.proto", version(to)))
        }
    }
}

/// The last part of a package.
fn version(package: &str) -> &str {
    package.rsplit('.').next().unwrap_or(package)
}

/// A source with the new name wherever the old one stood: in the package, in full names, in imports of its own files, in
/// the version of HTTP routes, and in options that carry it.
fn renamed(text: &str, from: &str, to: &str) -> String {
    let (old_path, new_path) = (from.replace('.', "/"), to.replace('.', "/"));
    let (old, new) = (version(from), version(to));
    let text = replace_whole(text, from, to, |letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.');
    let text = replace_whole(&text, &old_path, &new_path, |letter| letter.is_ascii_alphanumeric() || letter == '_');
    let lines = text.split_inclusive('\n').map(|line| {
        let is_route = ["get:", "put:", "post:", "delete:", "patch:", "path:"].iter().any(|verb| line.contains(verb));
        if is_route { line.replace(&format!("\"/{old}/"), &format!("\"/{new}/")) } else { line.to_owned() }
    });
    lines.collect()
}

/// Replaces a text where it stands by itself: not within a longer word, and for a name not behind a longer one.
fn replace_whole(text: &str, old: &str, new: &str, is_part: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(old) {
        let (before, behind) = (&rest[..at], &rest[at + old.len()..]);
        let is_free = |letter: Option<char>| letter.is_none_or(|letter| !is_part(letter));
        // A leading dot is of a full name, and a dot behind leads to what is in the package.
        let last = before.chars().next_back().or_else(|| out.chars().next_back());
        let before_free = is_free(last) || (last == Some('.') && is_free(before.chars().rev().nth(1)));
        let next = behind.chars().next();
        let after_free = is_free(next) || next == Some('.');
        out.push_str(before);
        out.push_str(if before_free && after_free { new } else { old });
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_renames_package_imports_names_and_routes() {
        let text = "syntax = \"proto3\";\npackage shop.catalog.v1;\nimport \"shop/catalog/v1/item.proto\";\nimport \
                    \"shop/catalog/v10/item.proto\";\noption go_package = \"x/shop/catalog/v1\";\n// Of shop.catalog.v1, not my.shop.catalog.v1 or shop.catalog.v11.\nservice S {\n  rpc \
                    Get(shop.catalog.v1.A) returns (.shop.catalog.v1.B) {\n    option (google.api.http) = {get: \
                    \"/v1/items/{id}\"};\n  }\n}\n";
        let forked = renamed(text, "shop.catalog.v1", "shop.catalog.v2");
        for wanted in [
            "package shop.catalog.v2;",
            "\"shop/catalog/v2/item.proto\"",
            "\"shop/catalog/v10/item.proto\"",
            "\"x/shop/catalog/v2\"",
            "not my.shop.catalog.v1 or shop.catalog.v11",
            "Get(shop.catalog.v2.A) returns (.shop.catalog.v2.B)",
            "get: \"/v2/items/{id}\"",
        ] {
            assert!(forked.contains(wanted), "{wanted}\n{forked}");
        }
        let path = renamed_path(Path::new("shop/catalog/v1/item.proto"), "shop.catalog.v1", "shop.catalog.v2");
        assert_eq!(path, Path::new("shop/catalog/v2/item.proto"));
        assert_eq!(renamed_path(Path::new("item.proto"), "item.v1", "item.v2"), Path::new("item_v2.proto"));
    }
}
