//! Page tokens: opaque outside, the last key told inside. Pure.

use ninefold_store::Key;

use crate::error::Error;
use crate::model::{Digest, ORDER};

/// Where the list goes on.
pub(crate) fn token(last: &Key) -> String {
    last.as_str().strip_prefix(ORDER).unwrap_or_default().to_owned()
}

/// Reads [`token`].
pub(crate) fn read(token: &str) -> Result<Option<Key>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let (rank, digest) = token.split_once('-').ok_or(Error::PageTokenInvalid)?;
    let is_rank = rank.len() == 20 && rank.bytes().all(|digit| digit.is_ascii_digit());
    if is_rank && Digest::parse(digest).is_some() {
        return Ok(Some(Key::new(format!("{ORDER}{token}"))));
    }
    Err(Error::PageTokenInvalid)
}
