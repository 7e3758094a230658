//! The table of all rules. Pure.

use super::draft::{Draft, Pair};
use super::{Category, Rule, enums, fields, files, http, kinds, messages, ours, packages, rpcs, validate};

const EVERY: &[Category] = &[Category::File, Category::Package, Category::WireJson, Category::Wire];
const READABLE: &[Category] = &[Category::File, Category::Package, Category::WireJson];
const GENERATED: &[Category] = &[Category::File, Category::Package];
const FILE: &[Category] = &[Category::File];
const PACKAGE: &[Category] = &[Category::Package];
const WIRE_JSON: &[Category] = &[Category::WireJson];
const WRITTEN: &[Category] = &[Category::WireJson, Category::Wire];
const WIRE: &[Category] = &[Category::Wire];
/// Rules that buf does not have.
const OURS: &[Category] = &[];

/// What a break of a rule harms.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// A running peer, or a stored message.
    Runtime,
    /// Generated code of every language.
    Strict,
    /// Generated code of some language, or only where things are found.
    Code,
}

const RUNTIME: Harm = Harm::Runtime;
const STRICT: Harm = Harm::Strict;
const CODE: Harm = Harm::Code;

const fn rule(
    name: &'static str,
    about: &'static str,
    categories: &'static [Category],
    harm: Harm,
    find: fn(&Pair<'_>) -> Vec<Draft>,
) -> Rule {
    let (is_runtime, is_strict) = match harm {
        Harm::Runtime => (true, true),
        Harm::Strict => (false, true),
        Harm::Code => (false, false),
    };
    Rule { name, about, categories, is_runtime, is_strict, find }
}

#[rustfmt::skip]
pub(super) static RULES: &[Rule] = &[
    rule("EXTENSION_NO_DELETE", "an extension stays in its file", FILE, CODE, packages::extension_from_file),
    rule("SERVICE_NO_DELETE", "a service stays in its file", FILE, CODE, packages::service_from_file),
    rule("ENUM_NO_DELETE", "an enum stays in its file", FILE, CODE, packages::enum_from_file),
    rule("FILE_NO_DELETE", "a file stays where it is", FILE, CODE, files::deleted),
    rule("MESSAGE_NO_DELETE", "a message stays in its file", FILE, CODE, packages::message_from_file),
    rule("ENUM_SAME_TYPE", "an open enum stays open, a closed one closed", GENERATED, RUNTIME, enums::same_type),
    rule("FIELD_SAME_CARDINALITY", "a field stays as often, and tells as well that it is absent", GENERATED, STRICT, fields::same_cardinality),
    rule("FIELD_SAME_CPP_STRING_TYPE", "a text stays the same type in C++", GENERATED, CODE, fields::same_cpp_string_type),
    rule("FIELD_SAME_JAVA_UTF8_VALIDATION", "Java goes on checking a text for UTF-8, or not", GENERATED, CODE, fields::same_java_utf8_validation),
    rule("FIELD_SAME_JSTYPE", "a wide number stays the same type in JavaScript", GENERATED, CODE, fields::same_jstype),
    rule("FIELD_SAME_UTF8_VALIDATION", "a text is checked for UTF-8 as before", GENERATED, RUNTIME, fields::same_utf8_validation),
    rule("FILE_SAME_CC_ENABLE_ARENAS", "a file keeps its option cc_enable_arenas", GENERATED, CODE, files::cc_enable_arenas),
    rule("FILE_SAME_CC_GENERIC_SERVICES", "a file keeps its option cc_generic_services", GENERATED, CODE, files::cc_generic_services),
    rule("FILE_SAME_CSHARP_NAMESPACE", "a file keeps its option csharp_namespace", GENERATED, CODE, files::csharp_namespace),
    rule("FILE_SAME_GO_PACKAGE", "a file keeps its option go_package", GENERATED, CODE, files::go_package),
    rule("FILE_SAME_JAVA_GENERIC_SERVICES", "a file keeps its option java_generic_services", GENERATED, CODE, files::java_generic_services),
    rule("FILE_SAME_JAVA_MULTIPLE_FILES", "a file keeps its option java_multiple_files", GENERATED, CODE, files::java_multiple_files),
    rule("FILE_SAME_JAVA_OUTER_CLASSNAME", "a file keeps its option java_outer_classname", GENERATED, CODE, files::java_outer_classname),
    rule("FILE_SAME_JAVA_PACKAGE", "a file keeps its option java_package", GENERATED, CODE, files::java_package),
    rule("FILE_SAME_OBJC_CLASS_PREFIX", "a file keeps its option objc_class_prefix", GENERATED, CODE, files::objc_class_prefix),
    rule("FILE_SAME_OPTIMIZE_FOR", "a file keeps its option optimize_for", GENERATED, CODE, files::optimize_for),
    rule("FILE_SAME_PHP_CLASS_PREFIX", "a file keeps its option php_class_prefix", GENERATED, CODE, files::php_class_prefix),
    rule("FILE_SAME_PHP_METADATA_NAMESPACE", "a file keeps its option php_metadata_namespace", GENERATED, CODE, files::php_metadata_namespace),
    rule("FILE_SAME_PHP_NAMESPACE", "a file keeps its option php_namespace", GENERATED, CODE, files::php_namespace),
    rule("FILE_SAME_PY_GENERIC_SERVICES", "a file keeps its option py_generic_services", GENERATED, CODE, files::py_generic_services),
    rule("FILE_SAME_RUBY_PACKAGE", "a file keeps its option ruby_package", GENERATED, CODE, files::ruby_package),
    rule("FILE_SAME_SWIFT_PREFIX", "a file keeps its option swift_prefix", GENERATED, CODE, files::swift_prefix),
    rule("RPC_NO_DELETE", "an RPC stays in its service", GENERATED, RUNTIME, rpcs::no_delete),
    rule("ENUM_VALUE_NO_DELETE", "a value stays in its enum", GENERATED, STRICT, enums::value_no_delete),
    rule("EXTENSION_MESSAGE_NO_DELETE", "numbers stay open to extensions", GENERATED, RUNTIME, messages::extension_range_no_delete),
    rule("FIELD_NO_DELETE", "a field stays in its message", GENERATED, STRICT, messages::field_no_delete),
    rule("FIELD_SAME_TYPE", "a field holds the same type", GENERATED, STRICT, kinds::same),
    rule("FILE_SAME_SYNTAX", "a file keeps its syntax", GENERATED, STRICT, files::syntax),
    rule("MESSAGE_NO_REMOVE_STANDARD_DESCRIPTOR_ACCESSOR", "a message keeps its accessor to its descriptor", GENERATED, CODE, messages::no_remove_standard_descriptor_accessor),
    rule("ONEOF_NO_DELETE", "a oneof stays in its message", GENERATED, STRICT, messages::oneof_no_delete),
    rule("ENUM_SAME_JSON_FORMAT", "an enum that works as JSON goes on to", READABLE, RUNTIME, enums::same_json_format),
    rule("ENUM_VALUE_SAME_NAME", "a number of an enum keeps its names", READABLE, RUNTIME, enums::value_same_name),
    rule("FIELD_SAME_JSON_NAME", "a field keeps its name in JSON", READABLE, RUNTIME, fields::same_json_name),
    rule("FIELD_SAME_NAME", "a field keeps its name", READABLE, RUNTIME, fields::same_name),
    rule("MESSAGE_SAME_JSON_FORMAT", "a message that works as JSON goes on to", READABLE, RUNTIME, messages::same_json_format),
    rule("FIELD_SAME_DEFAULT", "a field keeps its default value", EVERY, RUNTIME, fields::same_default),
    rule("FIELD_SAME_ONEOF", "a field stays in its oneof, or out of any", EVERY, RUNTIME, fields::same_oneof),
    rule("FILE_SAME_PACKAGE", "a file stays in its package", EVERY, RUNTIME, files::package),
    rule("MESSAGE_SAME_REQUIRED_FIELDS", "no required field comes or goes", EVERY, RUNTIME, messages::same_required_fields),
    rule("RESERVED_ENUM_NO_DELETE", "what an enum has reserved stays reserved", EVERY, RUNTIME, enums::reserved_no_delete),
    rule("RESERVED_MESSAGE_NO_DELETE", "what a message has reserved stays reserved", EVERY, RUNTIME, messages::reserved_no_delete),
    rule("RPC_SAME_CLIENT_STREAMING", "an RPC takes one request, or many, as before", EVERY, RUNTIME, rpcs::same_client_streaming),
    rule("RPC_SAME_IDEMPOTENCY_LEVEL", "an RPC stays as safe to repeat", EVERY, RUNTIME, rpcs::same_idempotency_level),
    rule("RPC_SAME_REQUEST_TYPE", "an RPC keeps its request", EVERY, RUNTIME, rpcs::same_request_type),
    rule("RPC_SAME_RESPONSE_TYPE", "an RPC keeps its response", EVERY, RUNTIME, rpcs::same_response_type),
    rule("RPC_SAME_SERVER_STREAMING", "an RPC gives one response, or many, as before", EVERY, RUNTIME, rpcs::same_server_streaming),
    rule("PACKAGE_ENUM_NO_DELETE", "an enum stays in its package", PACKAGE, RUNTIME, packages::enum_from_package),
    rule("PACKAGE_EXTENSION_NO_DELETE", "an extension stays in its package", PACKAGE, RUNTIME, packages::extension_from_package),
    rule("PACKAGE_MESSAGE_NO_DELETE", "a message stays in its package", PACKAGE, RUNTIME, packages::message_from_package),
    rule("PACKAGE_NO_DELETE", "a package stays", PACKAGE, RUNTIME, packages::deleted),
    rule("PACKAGE_SERVICE_NO_DELETE", "a service stays in its package", PACKAGE, RUNTIME, packages::service_from_package),
    rule("ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED", "a value that goes leaves its name reserved", WIRE_JSON, RUNTIME, enums::value_no_delete_unless_name_reserved),
    rule("FIELD_NO_DELETE_UNLESS_NAME_RESERVED", "a field that goes leaves its name reserved", WIRE_JSON, RUNTIME, messages::field_no_delete_unless_name_reserved),
    rule("FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY", "a field's bytes and JSON are read as often as before", WIRE_JSON, RUNTIME, fields::wire_json_cardinality),
    rule("FIELD_WIRE_JSON_COMPATIBLE_TYPE", "a field's bytes and JSON are read as the same type", WIRE_JSON, RUNTIME, kinds::wire_json_compatible),
    rule("ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", "a value that goes leaves its number reserved", WRITTEN, RUNTIME, enums::value_no_delete_unless_number_reserved),
    rule("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "a field that goes leaves its number reserved", WRITTEN, RUNTIME, messages::field_no_delete_unless_number_reserved),
    rule("FIELD_WIRE_COMPATIBLE_CARDINALITY", "a field's bytes are read as often as before", WIRE, CODE, fields::wire_cardinality),
    rule("FIELD_WIRE_COMPATIBLE_TYPE", "a field's bytes are read as the same type", WIRE, CODE, kinds::wire_compatible),
    rule("HTTP_BINDING_NO_DELETE", "an RPC stays reachable by HTTP", OURS, RUNTIME, http::no_delete),
    rule("HTTP_BINDING_SAME_VERB", "an RPC is reached by the same HTTP verb", OURS, RUNTIME, http::same_verb),
    rule("HTTP_BINDING_SAME_PATH", "an RPC is reached under the same HTTP path", OURS, RUNTIME, http::same_path),
    rule("HTTP_BINDING_SAME_BODY", "the HTTP body holds the same part of a message", OURS, RUNTIME, http::same_body),
    rule("HTTP_PATH_CONFLICT", "an HTTP request leads to one RPC", OURS, RUNTIME, http::conflicts_within),
    rule("VALIDATE_NO_TIGHTEN", "what was valid to send stays valid", OURS, RUNTIME, validate::tightened),
    rule("VALIDATE_NO_LOOSEN", "what readers could rely on stays true", OURS, RUNTIME, validate::loosened),
    rule("FIELD_BEHAVIOR_NO_NEW_REQUIRED", "no field of a request becomes required by its behaviour", OURS, RUNTIME, ours::no_new_required),
    rule("RPC_DEPRECATED_BEFORE_DELETE", "an RPC is deprecated before it goes", OURS, RUNTIME, ours::deprecated_before_delete),
    rule("MESSAGE_TYPE_URL_NO_DELETE", "a message that is known by its type URL stays", OURS, RUNTIME, ours::type_url_no_delete),
];
