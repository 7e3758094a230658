//! What the official conformance runner of Protobuf talks to: turns its messages into JSON and back, as the edge does.
//!
//! `tests/conformance.rs` starts the runner with this program. By hand: `conformance_test_runner target/debug/examples/conformance`
//! with `CONFORMANCE_PROTOS` naming the folder of the runner's `google/protobuf/test_messages_proto3.proto`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{Read as _, Write as _};

use ninefold::fault::Fault as _;
use ninefold_gateway::Codec;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

/// The types that the runner sends; those of editions it sends only when it is asked to.
const FILES: [&str; 2] = ["google/protobuf/test_messages_proto2.proto", "google/protobuf/test_messages_proto3.proto"];

/// What the runner says.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(oneof = "Payload", tags = "1, 2")]
    payload: Option<Payload>,
    #[prost(int32, tag = "3")]
    wanted: i32,
    #[prost(string, tag = "4")]
    message: String,
    #[prost(int32, tag = "5")]
    category: i32,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Payload {
    #[prost(bytes = "vec", tag = "1")]
    Wire(Vec<u8>),
    #[prost(string, tag = "2")]
    Json(String),
}

/// `WireFormat.PROTOBUF`.
const WIRE: i32 = 1;
/// `WireFormat.JSON`.
const JSON: i32 = 2;
/// `TestCategory.JSON_IGNORE_UNKNOWN_PARSING_TEST`.
const IGNORE_UNKNOWN: i32 = 3;

/// What it is answered.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(oneof = "Outcome", tags = "1, 6, 3, 4, 5")]
    outcome: Option<Outcome>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Outcome {
    #[prost(string, tag = "1")]
    NotParsed(String),
    #[prost(string, tag = "6")]
    NotWritten(String),
    #[prost(bytes = "vec", tag = "3")]
    Wire(Vec<u8>),
    #[prost(string, tag = "4")]
    Json(String),
    #[prost(string, tag = "5")]
    Skipped(String),
}

fn contract(folder: &std::path::Path) -> Result<Vec<u8>, protox::Error> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_files(FILES)?;
    Ok(compiler.encode_file_descriptor_set())
}

/// The contract of the messages, and what was made of it.
struct Types {
    contract: Vec<u8>,
    pool: DescriptorPool,
    codecs: HashMap<String, Codec>,
}

impl Types {
    fn answer(&mut self, request: Request) -> Outcome {
        if request.category == IGNORE_UNKNOWN {
            return Outcome::Skipped("fields that the contract does not declare are refused here".to_owned());
        }
        let Some(descriptor) = self.pool.get_message_by_name(&request.message) else {
            return Outcome::Skipped(format!("no message is named {}", request.message));
        };
        let codec = match self.codecs.entry(request.message) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match Codec::new(&self.contract, place.key()) {
                Ok(codec) => place.insert(codec),
                Err(error) => return Outcome::Skipped(error.to_string()),
            },
        };
        let wire = match (request.payload, request.wanted) {
            (Some(Payload::Wire(_)), WIRE) => return Outcome::Skipped("messages pass as they are here".to_owned()),
            (Some(Payload::Wire(wire)), JSON) => wire,
            (Some(Payload::Json(text)), WIRE | JSON) => {
                let mut wire = Vec::new();
                if let Err(error) = codec.read(text.as_bytes(), &mut wire) {
                    return Outcome::NotParsed(format!("{error}: {:?}", error.violations()));
                }
                if request.wanted == WIRE {
                    return Outcome::Wire(wire);
                }
                wire
            }
            _ => return Outcome::Skipped("only JSON and the wire are spoken here".to_owned()),
        };
        let mut text = Vec::new();
        match codec.write(&wire, &mut text) {
            Ok(()) => Outcome::Json(String::from_utf8_lossy(&text).into_owned()),
            // A message is read while it is written, and whichever went wrong is told alike; the runner wants to know.
            Err(error) if DynamicMessage::decode(descriptor, wire.as_slice()).is_ok() => {
                Outcome::NotWritten(format!("{error}: {:?}", error.violations()))
            }
            Err(error) => Outcome::NotParsed(format!("{error}: {:?}", error.violations())),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::var_os("CONFORMANCE_PROTOS").ok_or("CONFORMANCE_PROTOS is not set")?;
    let contract = contract(folder.as_ref())?;
    let pool = DescriptorPool::decode(contract.as_slice())?;
    let mut types = Types { contract, pool, codecs: HashMap::new() };
    let (mut words, mut answers) = (std::io::stdin().lock(), std::io::stdout().lock());
    loop {
        let mut length = [0; 4];
        match words.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut bytes = vec![0; usize::try_from(u32::from_le_bytes(length))?];
        words.read_exact(&mut bytes)?;
        let outcome = Some(types.answer(Request::decode(bytes.as_slice())?));
        let bytes = Response { outcome }.encode_to_vec();
        answers.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
        answers.write_all(&bytes)?;
        answers.flush()?;
    }
}
