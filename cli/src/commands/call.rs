//! `ninefold call`: call a method by its contract, with JSON in and out.

mod codec;
mod symbols;

use std::io::Read as _;
use std::time::Duration;

use ninefold::Link;
use ninefold::tonic::client::Grpc;
use ninefold::tonic::metadata::{KeyAndValueRef, MetadataKey, MetadataMap, MetadataValue};
use ninefold::tonic::{Request, Status};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;

use crate::args::CallArgs;
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format};
use codec::Raw;
use symbols::{Catalog, Target};

/// Largest request that is read.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest wait for an answer that is no stream, unless another is asked for.
const DEADLINE: Duration = Duration::from_secs(10);

/// Does what `args.what` says: `list`, `describe`, or a call.
pub(crate) async fn call(platform: &Platform, args: CallArgs, format: Format) -> Result<(), Failure> {
    let catalog = Catalog::of(platform).await?;
    match (args.what.as_str(), &args.symbol) {
        ("list", _) => catalog.print(format),
        ("describe", Some(symbol)) => catalog.describe(platform, symbol, format).await,
        ("describe", None) => Err(Failure::Usage("describe what? `ninefold call list` names what there is".to_owned())),
        (what, Some(more)) => Err(Failure::Usage(format!(
            "{more:?} is one argument too many: the request of {what} goes behind -d, such as -d '{{}}'"
        ))),
        _ => {
            let (target, method) = catalog.method(platform, &args.what, args.service.as_deref()).await?;
            let link = target.link(platform)?;
            let call = Call::read(&args, &method)?;
            if let Target::Instance(instance) = &target {
                output::talk(format!("calling {} at {}", instance.instance_id, crate::commands::ps::address(instance)));
            }
            invoke(link, &method, call, format).await
        }
    }
}

/// What is sent. Read before anything is, so that a mistake in it is told first.
struct Call {
    requests: Vec<Vec<u8>>,
    metadata: MetadataMap,
    deadline: Option<Duration>,
}

impl Call {
    fn read(args: &CallArgs, method: &MethodDescriptor) -> Result<Self, Failure> {
        let mut metadata = MetadataMap::new();
        for header in &args.headers {
            add(&mut metadata, header)?;
        }
        // A stream may go on for as long as it likes.
        let usual = (!method.is_server_streaming()).then_some(DEADLINE);
        Ok(Self { requests: requests(method, &args.data)?, metadata, deadline: args.deadline.or(usual) })
    }
}

async fn invoke(link: Link, method: &MethodDescriptor, call: Call, format: Format) -> Result<(), Failure> {
    let mut request = Request::new(tokio_stream::iter(call.requests));
    *request.metadata_mut() = call.metadata;
    if let Some(deadline) = call.deadline {
        request.set_timeout(deadline);
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = path.parse().map_err(|_| Failure::Usage(format!("{path:?} is no path")))?;

    let refused = |status: Status| Failure::Call(Box::new(status));
    let exchange = async {
        let mut grpc = Grpc::new(link);
        grpc.ready().await.map_err(|error| Failure::Failed(error.to_string()))?;
        let answer = grpc.streaming(request, path, Raw).await.map_err(refused)?;
        for pair in answer.metadata().iter() {
            if let KeyAndValueRef::Ascii(key, value) = pair
                && key.as_str() == "x-trace-id"
            {
                output::talk(format!("trace {}", value.to_str().unwrap_or("?")));
            }
        }
        let mut stream = answer.into_inner();
        while let Some(bytes) = stream.message().await.map_err(refused)? {
            show(method, &bytes, format)?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = exchange => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn show(method: &MethodDescriptor, bytes: &[u8], format: Format) -> Result<(), Failure> {
    let wrong =
        |error: &dyn std::error::Error| Failure::Failed(format!("the answer does not fit its contract: {error}"));
    let message = DynamicMessage::decode(method.output(), bytes).map_err(|error| wrong(&error))?;
    let options = SerializeOptions::new().skip_default_fields(false).stringify_64_bit_integers(true);
    let is_line = format == Format::Json && method.is_server_streaming();
    if is_line || format == Format::Yaml {
        let value = message.serialize_with_options(serde_json::value::Serializer, &options);
        let value = value.map_err(|error| wrong(&error))?;
        return if is_line { output::row(value) } else { output::next(format, &value, String::new) };
    }
    // Written on the spot, so that fields stand in the order of the contract.
    let mut text = serde_json::Serializer::pretty(Vec::new());
    message.serialize_with_options(&mut text, &options).map_err(|error| wrong(&error))?;
    output::row(String::from_utf8_lossy(&text.into_inner()))
}

/// The requests in `data`, encoded.
fn requests(method: &MethodDescriptor, data: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let text = match data.strip_prefix('@') {
        None => data.to_owned(),
        Some("-") => limited(std::io::stdin())?,
        Some(path) => limited(
            std::fs::File::open(path).map_err(|error| Failure::Failed(format!("cannot read {path}: {error}")))?,
        )?,
    };
    let mut requests = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let value = value.map_err(|error| Failure::Usage(format!("the request is not JSON: {error}")))?;
        let message = DynamicMessage::deserialize(method.input(), value)
            .map_err(|error| Failure::Usage(format!("the request is not a {}: {error}", method.input().full_name())))?;
        requests.push(message.encode_to_vec());
    }
    if !method.is_client_streaming() && requests.len() != 1 {
        return Err(Failure::Usage(format!("{} takes one request, not {}", method.full_name(), requests.len())));
    }
    Ok(requests)
}

fn limited(source: impl std::io::Read) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::Failed(format!("cannot read the request: {error}")))?;
    Ok(text)
}

fn add(metadata: &mut MetadataMap, header: &str) -> Result<(), Failure> {
    let wrong = || Failure::Usage(format!("{header:?} is not NAME: VALUE"));
    let (name, value) = header.split_once(':').ok_or_else(wrong)?;
    let name: MetadataKey<_> = name.trim().to_lowercase().parse().map_err(|_| wrong())?;
    let value: MetadataValue<_> = value.trim().parse().map_err(|_| wrong())?;
    metadata.append(name, value);
    Ok(())
}
