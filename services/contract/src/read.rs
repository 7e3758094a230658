//! Reads the Protobuf wire format, without allocating, and without trust. Pure.

/// Most groups within groups; they occur in options of long ago only.
const GROUPS_MAX: usize = 32;
/// Largest field number.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// One field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number.
    Varint(u64),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
    /// A fixed number of 32 bits.
    Fixed32(u32),
    /// A fixed number of 64 bits.
    Fixed64(u64),
    /// A group, which no field that is looked at is.
    Group,
}

/// Reads the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// What is wrong with the bytes.
pub(crate) type Broken = &'static str;

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The number and value of the next field; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Broken> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        let value = match kind {
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            4 => return Err("ends a group that it did not begin"),
            _ => self.value(kind)?,
        };
        Ok(Some((number, value)))
    }

    fn tag(&mut self) -> Result<(u64, u64), Broken> {
        let tag = self.varint()?;
        let (number, kind) = (tag >> 3, tag & 7);
        if (1..=NUMBER_MAX).contains(&number) { Ok((number, kind)) } else { Err("has a field number out of range") }
    }

    fn value(&mut self, kind: u64) -> Result<Value<'a>, Broken> {
        match kind {
            0 => self.varint().map(Value::Varint),
            1 => Ok(Value::Fixed64(u64::from_le_bytes(self.array()?))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "is cut off")?;
                self.take(length).map(Value::Bytes)
            }
            5 => Ok(Value::Fixed32(u32::from_le_bytes(self.array()?))),
            _ => Err("has a wire type that does not exist"),
        }
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Broken> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("is cut off")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("is cut off")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or("is cut off")?;
            self.rest = rest;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("has a number of more than 64 bits")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn skip_group(&mut self, number: u64) -> Result<(), Broken> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, kind) = self.tag()?;
            match kind {
                3 if open.len() >= GROUPS_MAX => return Err("has too many groups within groups"),
                3 => open.push(number),
                4 if number == innermost => _ = open.pop(),
                4 => return Err("ends a group that it did not begin"),
                _ => _ = self.value(kind)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, Broken> {
        let mut reader = Reader::new(bytes);
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn fields_are_read_and_groups_skipped() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1b, 0x08, 1, 0x23, 0x24, 0x1c, 0x2d, 1, 2, 3, 4];
        let read = all(&bytes).unwrap();
        assert_eq!(
            read,
            [(1, Value::Varint(150)), (2, Value::Bytes(b"hi")), (3, Value::Group), (5, Value::Fixed32(0x0403_0201))]
        );
    }

    #[test]
    fn what_is_broken_is_told() {
        for (bytes, what) in [
            (&[0x08][..], "is cut off"),
            (&[0x12, 5, 1], "is cut off"),
            (&[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "is cut off"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], "has a number of more than 64 bits"),
            (&[0x00, 1], "has a field number out of range"),
            (&[0x0e], "has a wire type that does not exist"),
            (&[0x0c], "ends a group that it did not begin"),
            (&[0x0b, 0x14], "ends a group that it did not begin"),
            (&[0x0b], "is cut off"),
            (&[0x0b; 100], "has too many groups within groups"),
        ] {
            assert_eq!(all(bytes), Err(what), "{bytes:?}");
        }
    }
}
