//! Finds a field that a JSON body gives twice, also once by each of its names.
//!
//! The reflection library lets the last one win. Two readers of one body must not see two values, so it is refused.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use prost_reflect::{Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What the objects at a place are.
#[derive(Clone, Debug)]
pub(super) enum Unique {
    /// Messages of this type.
    Message(MessageDescriptor),
    /// Maps with values that are these.
    Map(Box<Unique>),
    /// Something whose names mean nothing to us.
    Other,
}

#[derive(PartialEq, Eq, Hash)]
enum Name {
    Field(u32),
    Key(String),
}

impl Unique {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Message(message) => Self::Message(message),
            _ => Self::Other,
        }
    }

    fn member(&self, key: &str) -> (Name, Self) {
        let other = || Name::Key(key.to_owned());
        match self {
            Self::Other => (other(), Self::Other),
            Self::Map(values) => (other(), values.as_ref().clone()),
            Self::Message(message) => {
                let field = message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key));
                let Some(field) = field else { return (other(), Self::Other) };
                let below = match field.kind() {
                    Kind::Message(entry) if field.is_map() => {
                        Self::Map(Box::new(Self::of(entry.map_entry_value_field().kind())))
                    }
                    kind => Self::of(kind),
                };
                (Name::Field(field.number()), below)
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let (name, below) = self.member(&key);
            if !seen.insert(name) {
                return Err(A::Error::custom(format_args!("{key:?} is given twice")));
            }
            map.next_value_seed(below)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.clone())?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
