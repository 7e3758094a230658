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

/// Longest token that is looked at: a key of the store.
const TOKEN_BYTES_MAX: usize = 512;

/// Where a list of records goes on: the last key, as it is. It is checked when it comes back.
pub(crate) fn record_token(rest: Option<&Key>) -> String {
    rest.map(|key| key.as_str().to_owned()).unwrap_or_default()
}

/// Reads [`record_token`], which must lie below `prefix`.
pub(crate) fn read_record(token: &str, prefix: &str) -> Result<Option<Key>, Error> {
    match token {
        "" => Ok(None),
        _ if token.len() <= TOKEN_BYTES_MAX && token.starts_with(prefix) => Ok(Some(Key::new(token))),
        _ => Err(Error::PageTokenInvalid),
    }
}
