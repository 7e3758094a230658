//! What the targets share: the contract that bodies and queries are read by, compiled from the tests' own.

use std::path::Path;

use protox::Compiler;
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

/// The raw descriptor set of `test.v1.EverythingService`.
///
/// # Panics
/// If it does not compile.
pub fn contract() -> Vec<u8> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolver = ChainFileResolver::new();
    for folder in ["../tests/proto", "../../proto", "../../proto/vendor"] {
        resolver.add(IncludeFileResolver::new(here.join(folder)));
    }
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("test/v1/everything.proto").expect("it compiles");
    compiler.encode_file_descriptor_set()
}
