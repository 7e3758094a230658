//! What is printed is compiled again, and must be what it was.

use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use super::*;
use crate::intake::Limits;
use crate::rules::{RuleSet, check};
use crate::sets;

/// What was printed, for a compiler to read.
struct Printed(Vec<Source>);

impl FileResolver for Printed {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|source| source.name == name) {
            Some(source) => File::from_source(name, &source.text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn compile(resolver: impl FileResolver + 'static, names: &[String]) -> Schema {
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for name in names {
        compiler.open_file(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
    Schema::parse(compiler.encode_file_descriptor_set(), &Limits::default()).unwrap()
}

/// Prints every file of a schema that is not Protobuf's own, compiles it again, and compares.
fn comes_back(schema: &Schema) {
    let own = schema.files().iter().filter(|file| !file.name.starts_with("google/protobuf/"));
    let names: Vec<String> = own.map(|file| file.name.to_string()).collect();
    let sources: Vec<Source> = names.iter().map(|name| write_file(schema, name).unwrap()).collect();
    let all: String = sources.iter().map(|source| source.text.as_str()).collect();
    let mut resolver = ChainFileResolver::new();
    resolver.add(Printed(sources));
    resolver.add(GoogleFileResolver::new());
    let again = compile(resolver, &names);
    let rules = RuleSet::named(["FILE", "strict"]).unwrap();
    for (old, new) in [(schema, &again), (&again, schema)] {
        let found = check(old, new, &rules);
        assert!(found.is_empty(), "{found:#?}\n{all}");
    }
    for file in &names {
        let package = &schema.file(file).unwrap().package;
        let digest =
            |schema: &Schema| sets::split(schema.bytes(), &[]).held.get(&**package).map(|part| part.digest.clone());
        assert_eq!(digest(schema), digest(&again), "{package} is the same, bit for bit\n{all}");
    }
}

#[test]
fn our_own_contracts_come_back_with_options_and_comments() {
    let schema = Schema::parse(ninefold_proto::DESCRIPTOR_SET, &Limits::default()).unwrap();
    comes_back(&schema);
    let source = write_file(&schema, "ninefold/registry/v1/registry_service.proto").unwrap();
    for text in [
        "// Keeps who is alive, and where.\nservice RegistryService {",
        "get: \"/v1/services/{service}/instances\"",
        "import \"google/api/annotations.proto\";",
        "  // Name of the service. Empty for all.\n  string service = 1;",
    ] {
        assert!(source.text.contains(text), "{text}\n{}", source.text);
    }
}

#[test]
fn everything_that_a_contract_can_say_comes_back() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos");
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder));
    resolver.add(GoogleFileResolver::new());
    let schema = compile(resolver, &["rich/v1/rich.proto".to_owned(), "rich/v2/old.proto".to_owned()]);
    comes_back(&schema);
}
