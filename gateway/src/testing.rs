//! Compiles contracts for tests.

use std::path::{Path, PathBuf};

use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

struct Source(String);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            "source.proto" => File::from_source(name, &self.0),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn compiled(first: impl FileResolver + 'static, file: &str) -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(first);
    resolver.add(IncludeFileResolver::new(here("../proto")));
    resolver.add(IncludeFileResolver::new(here("../proto/vendor")));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// The raw descriptor set of a file below `tests/proto`, as a service would hand it in.
pub(crate) fn contract(file: &str) -> Vec<u8> {
    compiled(IncludeFileResolver::new(here("tests/proto")), file)
}

/// The raw descriptor set of a source text.
pub(crate) fn compile(source: &str) -> Vec<u8> {
    compiled(Source(source.to_owned()), "source.proto")
}
