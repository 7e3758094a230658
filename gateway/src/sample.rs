//! Looks into some of the messages that pass for fields that the contract does not declare, and tells of them.
//!
//! Off unless the settings name a share. Of a call that is drawn, the first message each way is copied, up to a bound, and
//! read aside; the call itself is neither held up nor changed. Each place is told once.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use ninefold::Link;
use ninefold::lifecycle::{Scope, Stop};
use ninefold::telemetry::Count;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Request, Status};
use ninefold_proto::ninefold::contract::v1::package_service_client::PackageServiceClient;
use ninefold_proto::ninefold::contract::v1::{ReportUndeclaredRequest, Undeclared};
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use tokio::sync::mpsc;

use crate::routes::Route;

/// Largest message that is copied; larger ones are passed over.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most messages that wait to be read; more are passed over.
const WAITING_MAX: usize = 64;
/// Most places that are remembered as told.
const PLACES_MAX: usize = 10_000;
/// How deep messages within messages are looked into.
const DEPTH_MAX: usize = 16;
/// How long the platform may take to hear of them.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Draws calls, and reads what they carry.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    percent: u32,
    seen: mpsc::Sender<Seen>,
}

/// A message that was copied.
#[derive(Debug)]
struct Seen {
    route: Route,
    in_answer: bool,
    message: Bytes,
}

impl Sampler {
    /// Draws `percent` of all calls, and tells the contract role behind `contract` what it finds, in a task of `scope`.
    pub(crate) fn start(percent: u32, contract: Link, scope: &Scope) -> Self {
        let (seen, waiting) = mpsc::channel(WAITING_MAX);
        scope.run("gateway.sample", |stop| read(waiting, contract, stop));
        Self { percent, seen }
    }

    /// The same, that draws another share.
    pub(crate) fn drawing(&self, percent: u32) -> Self {
        Self { percent, seen: self.seen.clone() }
    }

    /// Whether the next call is looked into.
    pub(crate) fn draws(&self) -> bool {
        self.percent > 0 && fastrand::u32(..100) < self.percent
    }

    /// A body whose first message is looked into.
    pub(crate) fn watch(&self, body: Body, route: &Route, in_answer: bool) -> Body {
        let (route, seen) = (route.clone(), self.seen.clone());
        Body::new(Watched { body, copied: Some(BytesMut::new()), route, in_answer, seen })
    }
}

/// A body that is copied until its first message is whole.
struct Watched {
    body: Body,
    copied: Option<BytesMut>,
    route: Route,
    in_answer: bool,
    seen: mpsc::Sender<Seen>,
}

impl Watched {
    fn copy(&mut self, data: &[u8]) {
        let Some(copied) = &mut self.copied else { return };
        if copied.len() + data.len() > MESSAGE_BYTES_MAX + PREFIX {
            self.copied = None;
            return;
        }
        copied.extend_from_slice(data);
        let Some([compressed, length @ ..]) = copied.first_chunk::<PREFIX>() else { return };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if *compressed != 0 || length > MESSAGE_BYTES_MAX {
            self.copied = None;
        } else if copied.len() >= PREFIX + length {
            let message = Bytes::copy_from_slice(&copied[PREFIX..PREFIX + length]);
            // One that finds no place is not missed: it is a sample.
            let _ = self.seen.try_send(Seen { route: self.route.clone(), in_answer: self.in_answer, message });
            self.copied = None;
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.copy(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads what was copied, and tells of what nobody declared.
async fn read(mut waiting: mpsc::Receiver<Seen>, contract: Link, stop: Stop) {
    let mut told: BTreeSet<(String, String, bool)> = BTreeSet::new();
    let mut client = PackageServiceClient::new(contract);
    let count = Count::new("ninefold_gateway_undeclared_total", "Places with fields that no contract declares");
    loop {
        let seen = tokio::select! {
            () = stop.asked() => return,
            seen = waiting.recv() => seen,
        };
        let Some(Seen { route, in_answer, message }) = seen else { return };
        let method = &route.method;
        let descriptor = if in_answer { &method.output } else { &method.input };
        let Ok(message) = DynamicMessage::decode(descriptor.clone(), message) else { continue };
        let mut places = BTreeSet::new();
        undeclared(&message, DEPTH_MAX, &mut places);
        places.retain(|place| told.len() < PLACES_MAX && told.insert((method.name.clone(), place.clone(), in_answer)));
        if places.is_empty() {
            continue;
        }
        let service = route.service.to_string();
        places.iter().for_each(|_| count.add(&[("service", &service)]));
        tracing::warn!(
            service,
            method = method.name,
            ?places,
            in_answer,
            "messages carry what their contract does not declare"
        );
        let entry = |place: &String| Undeclared { method: method.name.clone(), place: place.clone(), in_answer };
        let undeclared = places.iter().map(entry).collect();
        let mut request = Request::new(ReportUndeclaredRequest { service, undeclared });
        request.set_timeout(HEARD_WITHIN);
        if client.report_undeclared(request).await.is_err() {
            // To be told with the next one of its kind.
            places.iter().for_each(|place| _ = told.remove(&(method.name.clone(), place.clone(), in_answer)));
        }
    }
}

/// Finds fields that the contract does not declare.
fn undeclared(message: &DynamicMessage, depth: usize, places: &mut BTreeSet<String>) {
    let numbers = message.unknown_fields().map(prost_reflect::UnknownField::number);
    places.extend(numbers.map(|number| format!("{} field {number}", message.descriptor().full_name())));
    if depth > 0 {
        message.fields().for_each(|(_, value)| within(value, depth - 1, places));
    }
}

fn within(value: &Value, depth: usize, places: &mut BTreeSet<String>) {
    match value {
        Value::Message(message) => undeclared(message, depth, places),
        Value::List(values) => values.iter().for_each(|value| within(value, depth, places)),
        Value::Map(values) => values.values().for_each(|value| within(value, depth, places)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    #[test]
    fn fields_that_nobody_declared_are_found_however_deep() {
        let pool = DescriptorPool::decode(ninefold_proto::DESCRIPTOR_SET).unwrap();
        let descriptor = pool.get_message_by_name("ninefold.registry.v1.GetInstanceResponse").unwrap();
        // instance (1) with addresses (3) that have a field 900, and a field 9 of the outermost.
        let bytes: &[u8] = &[0x0a, 7, 0x1a, 3, 0xa0, 0x38, 1, 0x0a, 0, 0x48, 1];
        let message = DynamicMessage::decode(descriptor, bytes).unwrap();
        let mut places = BTreeSet::new();
        undeclared(&message, DEPTH_MAX, &mut places);
        let wanted = ["ninefold.registry.v1.Address field 900", "ninefold.registry.v1.GetInstanceResponse field 9"];
        assert_eq!(places.into_iter().collect::<Vec<_>>(), wanted);
    }
}
