//! A package as a file: descriptors, or sources in a tar that every generator takes. Pure.

use std::collections::BTreeSet;

use ninefold_proto::ninefold::contract::v1 as proto;

use crate::error::Error;
use crate::print::{self, Source};
use crate::schema::{File, Schema};
use crate::sets;

/// Size of a block of a tar.
const BLOCK: usize = 512;
/// Longest name that the older form of a tar's header takes.
const NAME_MAX: usize = 100;

/// Makes the file.
///
/// # Errors
/// [`Error::Unprintable`].
pub(crate) fn export(
    schema: &Schema,
    package: &str,
    revision: i64,
    form: proto::ExportForm,
) -> Result<proto::ExportPackageResponse, Error> {
    let file = |ending: &str, media_type: &str, content| proto::ExportPackageResponse {
        file_name: format!("{package}-{revision}.{ending}"),
        media_type: media_type.to_owned(),
        content,
    };
    match form {
        proto::ExportForm::Unspecified | proto::ExportForm::DescriptorSet => {
            let set = sets::closure(schema.bytes(), package);
            Ok(file("binpb", "application/x-protobuf", set))
        }
        proto::ExportForm::ProtoFiles => {
            let sources = print::package(schema, package).map_err(|why| unprintable(package, why))?;
            Ok(file("tar", "application/x-tar", tar(&sources, package)?))
        }
        proto::ExportForm::BufModule => Ok(file("tar", "application/x-tar", module(schema, package)?)),
    }
}

/// Everything that a generator needs: the package, what it imports, and a `buf.yaml`. What Protobuf itself brings is left
/// out, as every compiler has it.
fn module(schema: &Schema, package: &str) -> Result<Vec<u8>, Error> {
    let mut open: Vec<&File> = schema.files().iter().filter(|file| &*file.package == package).collect();
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    while let Some(file) = open.pop() {
        if !file.name.starts_with("google/protobuf/") && reached.insert(&file.name) {
            open.extend(file.imports.iter().filter_map(|import| schema.file(&import.name)));
        }
    }
    let mut sources = vec![Source { name: "buf.yaml".to_owned(), text: "version: v2\n".to_owned() }];
    for name in reached {
        sources.push(print::write_file(schema, name).map_err(|why| unprintable(package, why))?);
    }
    tar(&sources, package)
}

/// The text of a whole package, file after file, to be compared with another.
///
/// # Errors
/// [`Error::Unprintable`].
pub(crate) fn text(schema: &Schema, package: &str) -> Result<String, Error> {
    let sources = print::package(schema, package).map_err(|why| unprintable(package, why))?;
    Ok(sources.iter().map(|source| format!("// {}\n{}\n", source.name, source.text)).collect())
}

fn unprintable(package: &str, why: String) -> Error {
    Error::Unprintable { package: package.to_owned(), why }
}

/// A tar in the form of POSIX 1003.1-1988 (ustar), the same for the same sources.
fn tar(sources: &[Source], package: &str) -> Result<Vec<u8>, Error> {
    let mut tar = Vec::new();
    for source in sources {
        let is_safe =
            !source.name.starts_with('/') && source.name.split('/').all(|part| !part.is_empty() && part != "..");
        let header = header(&source.name, source.text.len()).filter(|_| is_safe);
        tar.extend(header.ok_or_else(|| unprintable(package, format!("{:?} is no name for a file", source.name)))?);
        tar.extend(source.text.as_bytes());
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end it.
    tar.resize(tar.len() + 2 * BLOCK, 0);
    Ok(tar)
}

fn header(name: &str, size: usize) -> Option<[u8; BLOCK]> {
    let (prefix, short) = if name.len() <= NAME_MAX {
        ("", name)
    } else {
        let cut = name.match_indices('/').map(|(at, _)| at).find(|at| name.len() - at - 1 <= NAME_MAX && *at <= 155)?;
        (&name[..cut], &name[cut + 1..])
    };
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, short);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    // The sum is taken with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    put(345, prefix);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Some(header)
}
