//! Compiles a service's contracts in its build script.
//!
//! `fn main() -> Result<(), Box<dyn std::error::Error>> { ninefold_build::compile("proto") }` is a whole `build.rs`: every
//! `.proto` file below the folder becomes Rust (prost messages, tonic clients and servers) and part of one raw descriptor
//! set. No `protoc` is needed. The descriptor set keeps options and source info, so that the platform can route REST calls
//! and show comments; it is handed on as bytes, because decoding and encoding it again would lose the options.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

/// Files that a contract may import without having them in its folder.
const BUILT_IN: &[(&str, &str)] = &[
    ("google/api/annotations.proto", include_str!("../../../proto/vendor/google/api/annotations.proto")),
    ("google/api/http.proto", include_str!("../../../proto/vendor/google/api/http.proto")),
    ("google/api/httpbody.proto", include_str!("../../../proto/vendor/google/api/httpbody.proto")),
    ("google/api/field_behavior.proto", include_str!("../../../proto/vendor/google/api/field_behavior.proto")),
    ("google/rpc/code.proto", include_str!("../../../proto/vendor/google/rpc/code.proto")),
    ("google/rpc/status.proto", include_str!("../../../proto/vendor/google/rpc/status.proto")),
    ("google/rpc/error_details.proto", include_str!("../../../proto/vendor/google/rpc/error_details.proto")),
    ("ninefold/access/v1/options.proto", include_str!("../../../proto/ninefold/access/v1/options.proto")),
    ("ninefold/gateway/v1/options.proto", include_str!("../../../proto/ninefold/gateway/v1/options.proto")),
];

/// Compiles every `.proto` file below `folder`, save those below a folder named `vendor`.
///
/// Writes one Rust file a package and `descriptor_set.binpb` to `OUT_DIR`, for `ninefold::include_proto!`.
///
/// # Errors
/// When a file cannot be read or does not compile; the text names file, line and column.
pub fn compile(folder: impl AsRef<Path>) -> Result<(), Box<dyn Error>> {
    let folder = folder.as_ref();
    compile_files(folder, &files_below(folder)?)
}

/// Compiles the named files, whose paths are relative to `folder`, and what they import.
///
/// # Errors
/// As [`compile`].
pub fn compile_files(folder: impl AsRef<Path>, files: &[impl AsRef<Path>]) -> Result<(), Box<dyn Error>> {
    let folder = folder.as_ref();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: call this from a build script")?);
    #[expect(clippy::print_stdout, reason = "build scripts talk to cargo through stdout")]
    {
        println!("cargo::rerun-if-changed={}", folder.display());
    }

    let raw = descriptor_set(&[folder], files)?;
    std::fs::write(out.join("descriptor_set.binpb"), &raw)?;

    let set = prost_types::FileDescriptorSet::decode(raw.as_slice())?;
    tonic_prost_build::configure().out_dir(&out).compile_fds(set)?;
    Ok(())
}

/// Compiles files, whose paths are relative to one of `folders`, and what they import, into one serialized
/// `google.protobuf.FileDescriptorSet` with options and source info. Files of Google's and of this platform that contracts
/// import need not be in the folders.
///
/// # Errors
/// As [`compile`].
pub fn descriptor_set(folders: &[impl AsRef<Path>], files: &[impl AsRef<Path>]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut resolver = ChainFileResolver::new();
    for folder in folders {
        resolver.add(IncludeFileResolver::new(folder.as_ref().to_owned()));
    }
    resolver.add(BuiltIn);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        compiler.open_file(file).map_err(|error| told(&error, file.as_ref()))?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// What is wrong with a file. The compiler leaves the place out where a file ends too early.
fn told(error: &protox::Error, file: &Path) -> String {
    let text = format!("{error:?}");
    let name = error.file().map_or_else(|| file.display().to_string(), ToOwned::to_owned);
    if text.contains(&name) { text } else { format!("{name}: {text}") }
}

/// Paths of all `.proto` files below `folder`, save those below a folder named `vendor`, relative to it, sorted.
///
/// # Errors
/// When the folder cannot be read, or has none, or one whose name is not UTF-8.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = std::fs::read_dir(&next).map_err(|error| format!("{}: {error}", next.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "vendor") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "proto") {
                let file = path.strip_prefix(folder)?.to_owned();
                if file.to_str().is_none() {
                    return Err(format!(
                        "{}: its name is not UTF-8, so that nothing can import it: rename it",
                        path.display()
                    )
                    .into());
                }
                files.push(file);
            }
        }
    }
    if files.is_empty() {
        return Err(format!("{}: no .proto file below this folder", folder.display()).into());
    }
    files.sort();
    Ok(files)
}

struct BuiltIn;

impl FileResolver for BuiltIn {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match BUILT_IN.iter().find(|(path, _)| *path == name) {
            Some((_, source)) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}
