//! Tokens as texts: made, taken apart, hashed, compared.
//!
//! A token is `nf_`, twelve letters that name it, `_`, and 64 hex digits: 256 bits from the system's own source. Nobody
//! guesses those, so SHA-256 without salt or stretching keeps them: both are there for secrets that people choose.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How every token begins; scanners for leaked secrets know tokens by it.
const PREFIX: &str = "nf_";
/// How every API key begins.
const KEY_PREFIX: &str = "nfk_";
/// Letters of an id.
const ID_CHARS: usize = 12;
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// SHA-256 of a whole token.
pub(crate) type Hash = [u8; 32];

/// A new token and its id.
pub(crate) fn make() -> io::Result<(String, String)> {
    make_with(PREFIX)
}

/// A new API key and its id.
pub(crate) fn make_key() -> io::Result<(String, String)> {
    make_with(KEY_PREFIX)
}

fn make_with(prefix: &str) -> io::Result<(String, String)> {
    let mut bytes = [0_u8; ID_CHARS + SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let (name, secret) = bytes.split_at(ID_CHARS);
    let id: String = name.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    let mut token = format!("{prefix}{id}_");
    for byte in secret {
        // Writing to a string cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    Ok((id, token))
}

/// The id in a token; `None` for what is no token.
pub(crate) fn id_of(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    (is_id(id) && secret.len() == SECRET_BYTES * 2).then_some(id)
}

/// Whether a text is the id of a token.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|letter| ALPHABET.contains(&letter))
}

/// What is kept of a token.
pub(crate) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Whether a token is the one that was hashed. Takes the same time whatever differs.
pub(crate) fn is_same(token: &str, kept: &Hash) -> bool {
    hash(token).ct_eq(kept).into()
}

/// Writes a token to a new file, or over an old one, that only this user may read.
pub(crate) fn write_file(path: &Path, token: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // A file that was there keeps its mode otherwise.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(format!("{token}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_again_and_no_other_is() {
        let (id, token) = make().unwrap();
        assert_eq!((id_of(&token), token.len()), (Some(id.as_str()), 3 + 12 + 1 + 64));
        assert!(is_same(&token, &hash(&token)));
        let (_, other) = make().unwrap();
        assert!(!is_same(&other, &hash(&token)) && other != token);
        for strange in ["", "nf_", "nf_a_b", &token[3..], &token[..79], &format!("{token}0")] {
            assert_eq!(id_of(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_file_with_a_token_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "older and longer than the new one").unwrap();
        write_file(&path, "nf_x").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nf_x\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
