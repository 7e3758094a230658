//! The nouns of the contract store. Pure.

use std::fmt;
use std::time::{Duration, SystemTime};

use ninefold_store::Key;
use sha2::{Digest as _, Sha256};

/// Where the descriptions of contracts lie.
pub(crate) const META: &str = "contract/meta/";
/// Where the order of contracts lies, newest first.
pub(crate) const ORDER: &str = "contract/order/";
/// Where the bytes of contracts lie.
const CHUNKS: &str = "contract/chunk/";
/// Largest piece of a contract under one key.
pub(crate) const CHUNK_BYTES: usize = 512 * 1024;
/// Longest name of a service, in characters.
const SERVICE_NAME_MAX: usize = 63;

/// The name of a contract: what its raw bytes hash to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Hashes raw bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_hash(&Sha256::digest(bytes))
    }

    /// Names what has this hash.
    pub(crate) fn of_hash(hash: &[u8]) -> Self {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }

    /// Takes a text as a digest, if it is one: `sha256:` and 64 lowercase hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let is_legal = hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        is_legal.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the contract's description lies.
    pub(crate) fn meta(&self) -> Key {
        Key::new(format!("{META}{}", self.0))
    }

    /// Where the contract's bytes lie.
    pub(crate) fn chunks(&self) -> Key {
        Key::new(format!("{CHUNKS}{}/", self.0))
    }

    /// Where one piece of them lies.
    pub(crate) fn chunk(&self, number: usize) -> Key {
        Key::new(format!("{CHUNKS}{}/{number:05}", self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A contract, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contract {
    /// Its name.
    pub(crate) digest: Digest,
    /// Service that handed it in first.
    pub(crate) service: String,
    /// When it was first handed in.
    pub(crate) created: SystemTime,
    /// Size of its raw bytes.
    pub(crate) size: usize,
    /// What it promises.
    pub(crate) promise: Promise,
}

impl Contract {
    /// Its place in the order of contracts: the store sorts upwards, people ask for the newest first.
    pub(crate) fn order(&self) -> Key {
        let age = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let rank = u64::MAX - u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Key::new(format!("{ORDER}{rank:020}-{}", self.digest))
    }
}

/// What a descriptor set promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Packages with services in it, sorted.
    pub(crate) packages: Vec<String>,
    /// Full names of the services in it, sorted.
    pub(crate) protobuf_services: Vec<String>,
    /// Newest syntax or edition among its files.
    pub(crate) edition: String,
}

/// Whether a text is the name of a service.
pub(crate) fn is_service_name(text: &str) -> bool {
    let is_legal = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    (1..=SERVICE_NAME_MAX).contains(&text.len()) && text.chars().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_a_hash_in_lowercase() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.as_str(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Digest::parse(digest.as_str()), Some(digest.clone()));
        let upper = digest.as_str().to_uppercase();
        for bad in ["", "sha256:", &upper, &digest.as_str()[..70], "md5:ba7816bf", &format!("{digest}0")] {
            assert_eq!(Digest::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn newer_contracts_sort_first() {
        let at = |seconds| Contract {
            digest: Digest::of(b""),
            service: String::new(),
            created: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            size: 0,
            promise: Promise::default(),
        };
        assert!(at(1_800_000_001).order() < at(1_800_000_000).order());
    }
}
