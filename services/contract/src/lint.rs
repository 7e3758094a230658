//! The style that contracts keep: the rules of buf's category `STANDARD`, under its names. Pure.

mod case;
mod names;
mod packages;
mod protovalidate;

use std::collections::BTreeSet;

use crate::rules::Finding;
use crate::schema::Schema;

/// One rule of style.
#[derive(Debug)]
pub struct Rule {
    /// Its name in capitals.
    pub name: &'static str,
    /// What it asks for, as a sentence fragment.
    pub about: &'static str,
    find: fn(&Schema) -> Vec<Slip>,
}

/// A place that does not keep a rule.
struct Slip {
    element: String,
    file: usize,
    /// Where in its file it is; empty for the file itself.
    path: Vec<i32>,
    /// How many steps of the path must be met; all of them, if it is no option.
    least: usize,
    message: String,
    fix: String,
}

impl Slip {
    fn new(element: impl Into<String>, file: usize, path: Vec<i32>, message: impl Into<String>) -> Self {
        let least = path.len();
        Self { element: element.into(), file, path, least, message: message.into(), fix: String::new() }
    }

    /// Says that it is an option, of whose path this many steps must be met: it may be written as a part, or as a whole.
    fn near(mut self, least: usize) -> Self {
        self.least = least;
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

const fn rule(name: &'static str, about: &'static str, find: fn(&Schema) -> Vec<Slip>) -> Rule {
    Rule { name, about, find }
}

#[rustfmt::skip]
static RULES: &[Rule] = &[
    rule("DIRECTORY_SAME_PACKAGE", "a folder has one package", packages::directory_same_package),
    rule("ENUM_FIRST_VALUE_ZERO", "the first value of an enum is zero", names::enum_first_value_zero),
    rule("ENUM_NO_ALLOW_ALIAS", "a number of an enum has one name", names::enum_no_allow_alias),
    rule("ENUM_PASCAL_CASE", "an enum is named LikeThis", names::enum_pascal_case),
    rule("ENUM_VALUE_PREFIX", "a value begins with its enum's name", names::enum_value_prefix),
    rule("ENUM_VALUE_UPPER_SNAKE_CASE", "a value is named LIKE_THIS", names::enum_value_upper_snake_case),
    rule("ENUM_ZERO_VALUE_SUFFIX", "the value zero ends in _UNSPECIFIED", names::enum_zero_value_suffix),
    rule("FIELD_LOWER_SNAKE_CASE", "a field is named like_this", names::field_lower_snake_case),
    rule("FIELD_NOT_REQUIRED", "no field is required", names::field_not_required),
    rule("FILE_LOWER_SNAKE_CASE", "a file is named like_this.proto", names::file_lower_snake_case),
    rule("IMPORT_NO_PUBLIC", "no import is public", packages::import_no_public),
    rule("IMPORT_USED", "what is imported is used", packages::import_used),
    rule("MESSAGE_PASCAL_CASE", "a message is named LikeThis", names::message_pascal_case),
    rule("ONEOF_LOWER_SNAKE_CASE", "a oneof is named like_this", names::oneof_lower_snake_case),
    rule("PACKAGE_DEFINED", "a file has a package", packages::defined),
    rule("PACKAGE_DIRECTORY_MATCH", "a package a.b lies in the folder a/b", packages::directory_match),
    rule("PACKAGE_LOWER_SNAKE_CASE", "a package is named like_this.v1", packages::lower_snake_case),
    rule("PACKAGE_NO_IMPORT_CYCLE", "packages do not import each other in a circle", packages::no_import_cycle),
    rule("PACKAGE_SAME_CSHARP_NAMESPACE", "a package has one csharp_namespace", packages::same_csharp_namespace),
    rule("PACKAGE_SAME_DIRECTORY", "a package lies in one folder", packages::same_directory),
    rule("PACKAGE_SAME_GO_PACKAGE", "a package has one go_package", packages::same_go_package),
    rule("PACKAGE_SAME_JAVA_MULTIPLE_FILES", "a package has one java_multiple_files", packages::same_java_multiple_files),
    rule("PACKAGE_SAME_JAVA_PACKAGE", "a package has one java_package", packages::same_java_package),
    rule("PACKAGE_SAME_PHP_NAMESPACE", "a package has one php_namespace", packages::same_php_namespace),
    rule("PACKAGE_SAME_RUBY_PACKAGE", "a package has one ruby_package", packages::same_ruby_package),
    rule("PACKAGE_SAME_SWIFT_PREFIX", "a package has one swift_prefix", packages::same_swift_prefix),
    rule("PACKAGE_VERSION_SUFFIX", "a package ends in a version", packages::version_suffix),
    rule("PROTOVALIDATE", "rules of validation fit what they are about", protovalidate::fits),
    rule("RPC_PASCAL_CASE", "an RPC is named LikeThis", names::rpc_pascal_case),
    rule("RPC_REQUEST_RESPONSE_UNIQUE", "an RPC has its request and response to itself", names::rpc_request_response_unique),
    rule("RPC_REQUEST_STANDARD_NAME", "the request of Get is GetRequest", names::rpc_request_standard_name),
    rule("RPC_RESPONSE_STANDARD_NAME", "the response of Get is GetResponse", names::rpc_response_standard_name),
    rule("SERVICE_PASCAL_CASE", "a service is named LikeThis", names::service_pascal_case),
    rule("SERVICE_SUFFIX", "a service ends in Service", names::service_suffix),
    rule("SYNTAX_SPECIFIED", "a file says its syntax", packages::syntax_specified),
];

/// All rules of style.
pub fn all() -> &'static [Rule] {
    RULES
}

/// Looks at the style of a schema. With `packages`, only of their files; what was compiled as an import is never looked at.
/// Findings come sorted by file, line and rule.
pub fn lint(schema: &Schema, packages: Option<&BTreeSet<String>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in all() {
        for slip in (rule.find)(schema) {
            let file = schema.file_at(slip.file);
            let is_left_out = packages.is_some_and(|packages| !packages.contains(&*file.package));
            if file.is_import || is_left_out || is_excused(schema, &slip, rule.name) {
                continue;
            }
            findings.push(Finding {
                file: file.name.to_string(),
                line: line(schema, &slip).unwrap_or(1),
                rule: rule.name,
                element: slip.element,
                old: String::new(),
                new: String::new(),
                message: slip.message,
                fix: slip.fix,
            });
        }
    }
    findings.sort();
    // buf tells the same once, however often it is found.
    findings.dedup();
    findings
}

fn line(schema: &Schema, slip: &Slip) -> Option<u32> {
    match slip.path.len() {
        0 => None,
        steps if steps == slip.least => schema.line(slip.file, &slip.path),
        _ => schema.line_near(slip.file, &slip.path, slip.least),
    }
}

/// Whether a comment before the place, or before what it is in, says `buf:lint:ignore` and the name of the rule.
fn is_excused(schema: &Schema, slip: &Slip, rule: &str) -> bool {
    (1..=slip.path.len()).filter_map(|steps| slip.path.get(..steps)).any(|path| {
        // After buf: what follows the name does not matter.
        let excuse =
            |line: &str| line.trim().strip_prefix("buf:lint:ignore ").is_some_and(|named| named.starts_with(rule));
        schema.comments(slip.file, path).leading.lines().any(excuse)
    })
}
