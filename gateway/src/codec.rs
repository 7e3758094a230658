//! The messages of one type as JSON and on the wire, outside of any route.

use std::sync::Arc;

use bytes::Bytes;
use ninefold::fault::Violation;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::contract;
use crate::error::Error;
use crate::transcode::direct::{Builder, Plan};
use crate::transcode::notation::Notation;
use crate::transcode::{json, read_whole};

/// Turns JSON into the messages of one type and back, as the edge does it: by the Protobuf mapping, unknown fields and
/// doubled ones refused.
#[derive(Clone, Debug)]
pub struct Codec {
    descriptor: MessageDescriptor,
    plan: Option<Plan>,
}

impl Codec {
    /// Finds a type by its full name in raw descriptor bytes.
    ///
    /// # Errors
    /// [`Error::RequestInvalid`] with what is wrong with the bytes or the name.
    pub fn new(descriptor_set: &[u8], message: &str) -> Result<Self, Error> {
        let wrong = |field: &str, why: String| Error::RequestInvalid(vec![Violation::new(field, why)]);
        let pool = contract::pool(descriptor_set).map_err(|why| wrong("descriptor_set", why))?;
        let descriptor = pool.get_message_by_name(message);
        let descriptor = descriptor.ok_or_else(|| wrong("message", format!("no message is named {message:?}")))?;
        let mut tables = Builder::default();
        tables.add(&descriptor);
        let plan = Plan::new(&Arc::new(tables.finish()), descriptor.full_name());
        Ok(Self { descriptor, plan })
    }

    /// Makes the message that a JSON text says, and appends it to `out`, which is left as it was after an error.
    ///
    /// # Errors
    /// [`Error::RequestInvalid`] with the place and what is wrong there.
    pub fn read(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let before = out.len();
        if let Some(plan) = &self.plan {
            if plan.read(text, &[], out).is_ok() {
                return Ok(());
            }
            out.truncate(before);
        }
        let message = read_whole(&self.descriptor, text)?;
        message.encode(out).expect("there is room for every message");
        Ok(())
    }

    /// Makes the JSON text of a message, and appends it to `out`, which is left as it was after an error.
    ///
    /// # Errors
    /// [`Error::RequestInvalid`] if the bytes are no message of the type, or one that has no JSON form.
    pub fn write(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let before = out.len();
        if let Some(plan) = &self.plan {
            if plan.write(message, out).is_ok() {
                return Ok(());
            }
            out.truncate(before);
        }
        let wrong = |why: String| Error::RequestInvalid(vec![Violation::new("", why)]);
        let message = DynamicMessage::decode(self.descriptor.clone(), Bytes::copy_from_slice(message));
        let message = message.map_err(|error| wrong(error.to_string()))?;
        out.extend(json(&message, Notation::default()).map_err(|error| wrong(error.to_string()))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ninefold::fault::Fault as _;

    use super::Codec;
    use crate::testing;

    #[test]
    fn a_message_goes_both_ways_and_a_mistake_is_named() {
        let codec = Codec::new(&testing::contract("test/v1/everything.proto"), "test.v1.Everything").unwrap();
        let mut wire = Vec::new();
        for text in
            [r#"{"id":"7","inner":{"size":3}}"#, r#"{"any":{"@type":"type.googleapis.com/test.v1.Inner","size":1}}"#]
        {
            wire.clear();
            codec.read(text.as_bytes(), &mut wire).unwrap();
            let mut back = Vec::new();
            codec.write(&wire, &mut back).unwrap();
            assert_eq!(String::from_utf8(back).unwrap(), text);
        }
        wire.clear();
        let error = codec.read(br#"{"inner":{"size":"many"}}"#, &mut wire).unwrap_err();
        assert_eq!(error.violations()[0].field, "inner.size");
        assert!(wire.is_empty());
        assert!(codec.write(b"\xff", &mut wire).is_err());
        assert!(Codec::new(b"", "test.v1.Everything").is_err());
    }
}
