//! What a program offers, as its gRPC reflection tells: the names of its services, and the descriptors byte for byte.
//!
//! Descriptors are never decoded and written again: options that this process does not know, such as HTTP bindings, would
//! be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Ask;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Told;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tower::ServiceExt as _;

use super::ready;

/// How long the program may take to tell everything.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// Largest contract that is taken, in bytes; the platform takes less.
const CONTRACT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most files of a contract.
const FILES_MAX: usize = 4096;
/// Services of gRPC itself, which are nobody's contract.
const GRPC_OWN: &str = "grpc.";

/// Why the contract could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the program has no gRPC reflection")]
    None(#[source] Status),
    #[error("the program's gRPC reflection failed")]
    Failed(#[source] Status),
    #[error("the program's gRPC reflection does not know {what}: {said}")]
    Unknown { what: String, said: String },
    #[error("a descriptor of the program cannot be read")]
    Malformed(#[source] prost::DecodeError),
    #[error("the program's contract has more than {0}")]
    TooLarge(&'static str),
    #[error("the program's gRPC reflection did not answer within {} s", TELL_WITHIN.as_secs())]
    Slow,
    #[error("the program offers no gRPC service of its own")]
    Empty,
}

/// What a program offers.
#[derive(Clone, Debug)]
pub(super) struct Contract {
    /// Full names of its services.
    pub(super) services: Vec<String>,
    /// Serialized `google.protobuf.FileDescriptorSet` with all dependencies, those first.
    pub(super) set: Bytes,
}

/// Asks the program that listens at an address.
pub(super) async fn read(address: SocketAddr) -> Result<Contract, Error> {
    tokio::time::timeout(TELL_WITHIN, read_at_leisure(address)).await.unwrap_or(Err(Error::Slow))
}

async fn read_at_leisure(address: SocketAddr) -> Result<Contract, Error> {
    let channel = ready::channel(address).await.map_err(Error::Failed)?;
    let (mut talk, names) = match Talk::begin(channel.clone(), Dialect::V1).await {
        Err(status) if status.code() == Code::Unimplemented => {
            Talk::begin(channel, Dialect::V1Alpha).await.map_err(Error::None)?
        }
        begun => begun.map_err(Error::Failed)?,
    };
    let services: Vec<String> = names.into_iter().filter(|name| !name.starts_with(GRPC_OWN)).collect();
    if services.is_empty() {
        return Err(Error::Empty);
    }
    let mut files = Files::default();
    for service in &services {
        files.add(talk.files(Ask::FileContainingSymbol(service.clone()), service).await?)?;
    }
    while let Some(name) = files.missing() {
        files.add(talk.files(Ask::FileByFilename(name.clone()), &name).await?)?;
        if files.missing().as_ref() == Some(&name) {
            return Err(Error::Unknown { what: name, said: "it told of another file".to_owned() });
        }
    }
    Ok(Contract { services, set: files.into_set() })
}

/// The two names of the one protocol: older servers know only the second.
#[derive(Clone, Copy, Debug)]
enum Dialect {
    V1,
    V1Alpha,
}

/// An open conversation.
struct Talk {
    say: mpsc::Sender<ServerReflectionRequest>,
    hear: Streaming<ServerReflectionResponse>,
}

impl Talk {
    /// Opens the conversation with the question for all services; answers their names.
    async fn begin(channel: Channel, dialect: Dialect) -> Result<(Self, Vec<String>), Status> {
        let channel = channel.map_request(move |mut request: http::Request<Body>| {
            if let Dialect::V1Alpha = dialect {
                let uri = request.uri().to_string().replace("/grpc.reflection.v1.", "/grpc.reflection.v1alpha.");
                *request.uri_mut() = uri.parse().expect("a URI with another path is a URI");
            }
            request
        });
        let (say, said) = mpsc::channel(1);
        // Some servers answer nothing, not even headers, before they have heard a question.
        say.try_send(question(Ask::ListServices(String::new()))).expect("the queue is empty");
        let mut client = ServerReflectionClient::new(channel).max_decoding_message_size(CONTRACT_BYTES_MAX);
        let hear = client.server_reflection_info(ReceiverStream::new(said)).await?.into_inner();
        let mut talk = Self { say, hear };
        match talk.hear().await? {
            Told::ListServicesResponse(list) => {
                Ok((talk, list.service.into_iter().map(|service| service.name).collect()))
            }
            Told::ErrorResponse(error) => Err(Status::new(Code::from_i32(error.error_code), error.error_message)),
            _ => Err(Status::internal("it answered another question")),
        }
    }

    async fn hear(&mut self) -> Result<Told, Status> {
        let answer = self.hear.message().await?;
        answer.and_then(|answer| answer.message_response).ok_or_else(|| Status::internal("it hung up"))
    }

    async fn files(&mut self, ask: Ask, what: &str) -> Result<Vec<Vec<u8>>, Error> {
        let hung_up = |_| Error::Failed(Status::internal("it hung up"));
        self.say.send(question(ask)).await.map_err(hung_up)?;
        match self.hear().await.map_err(Error::Failed)? {
            Told::FileDescriptorResponse(files) => Ok(files.file_descriptor_proto),
            Told::ErrorResponse(error) => Err(Error::Unknown { what: what.to_owned(), said: error.error_message }),
            _ => Err(Error::Failed(Status::internal("it answered another question"))),
        }
    }
}

fn question(ask: Ask) -> ServerReflectionRequest {
    ServerReflectionRequest { host: String::new(), message_request: Some(ask) }
}

/// Files by name, as they came.
#[derive(Default)]
struct Files {
    files: BTreeMap<String, File>,
    bytes: usize,
}

struct File {
    raw: Vec<u8>,
    imports: Vec<String>,
}

impl Files {
    fn add(&mut self, raws: Vec<Vec<u8>>) -> Result<(), Error> {
        for raw in raws {
            let FileDescriptorProto { name, dependency, .. } =
                FileDescriptorProto::decode(raw.as_slice()).map_err(Error::Malformed)?;
            self.bytes += raw.len();
            self.files.entry(name.unwrap_or_default()).or_insert(File { raw, imports: dependency });
        }
        if self.bytes > CONTRACT_BYTES_MAX {
            return Err(Error::TooLarge("16 MiB"));
        }
        if self.files.len() > FILES_MAX {
            return Err(Error::TooLarge("4096 files"));
        }
        Ok(())
    }

    /// A file that is imported but was not told of.
    fn missing(&self) -> Option<String> {
        let mut imports = self.files.values().flat_map(|file| &file.imports);
        imports.find(|name| !self.files.contains_key(*name)).cloned()
    }

    /// Frames the files as field 1 of a `google.protobuf.FileDescriptorSet`, each after what it imports.
    fn into_set(self) -> Bytes {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in self.files.keys() {
            // Each file is looked at twice: before its imports, and after them.
            let mut open = vec![(name.as_str(), false)];
            while let Some((name, is_after)) = open.pop() {
                if is_after {
                    order.push(name);
                } else if seen.insert(name) {
                    open.push((name, true));
                    let imports = self.files.get(name).map(|file| file.imports.as_slice()).unwrap_or_default();
                    open.extend(imports.iter().map(|import| (import.as_str(), false)));
                }
            }
        }
        let mut set = BytesMut::with_capacity(self.bytes + 8 * order.len());
        for raw in order.iter().filter_map(|name| self.files.get(*name)).map(|file| &file.raw) {
            set.put_u8(0x0a);
            prost::encoding::encode_varint(raw.len() as u64, &mut set);
            set.put_slice(raw);
        }
        set.freeze()
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;

    use super::*;

    fn file(name: &str, imports: &[&str]) -> Vec<u8> {
        let dependency = imports.iter().map(|import| (*import).to_owned()).collect();
        FileDescriptorProto { name: Some(name.into()), dependency, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn files_come_after_what_they_import_and_byte_for_byte() {
        let mut files = Files::default();
        let mut strange = file("a.proto", &["b.proto", "c.proto"]);
        // A field that nobody knows.
        strange.extend([0xfa, 0x3f, 0x01, 0x07]);
        files.add(vec![strange.clone()]).unwrap();
        assert_eq!(files.missing().as_deref(), Some("b.proto"));
        files.add(vec![file("b.proto", &["c.proto"]), file("c.proto", &[])]).unwrap();
        assert_eq!(files.missing(), None);
        let set = files.into_set();
        assert!(set.ends_with(&strange));
        let names: Vec<_> =
            FileDescriptorSet::decode(set).unwrap().file.into_iter().map(|file| file.name.unwrap()).collect();
        assert_eq!(names, ["c.proto", "b.proto", "a.proto"]);
    }

    #[test]
    fn files_that_import_each_other_do_not_hang_us() {
        let mut files = Files::default();
        files.add(vec![file("a.proto", &["b.proto"]), file("b.proto", &["a.proto"])]).unwrap();
        assert_eq!(FileDescriptorSet::decode(files.into_set()).unwrap().file.len(), 2);
    }
}
