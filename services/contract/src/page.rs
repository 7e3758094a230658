//! Page tokens: opaque outside, the last key told inside. Pure.

use ninefold_store::Key;

use crate::error::Error;
use crate::model::{Digest, ORDER};

/// Size of a page when none is asked for.
const SIZE_DEFAULT: usize = 100;
/// Largest page.
const SIZE_MAX: usize = 1000;

/// Reads the size of a page that a request asks for. More than the largest is read as the largest.
pub(crate) fn size(asked: i32) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
        Err(_) => Err(Error::PageSizeInvalid(asked)),
    }
}

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
