//! What both backends refuse before they do anything. Pure.

use std::collections::HashSet;

use crate::Error;
use crate::model::{Compare, KEY_BYTES_MAX, Key, Op, TXN_BYTES_MAX, TXN_OPS_MAX, Txn, VALUE_BYTES_MAX};

/// What an operation costs beside its key and its value, roughly, in either backend.
const OP_BYTES: usize = 64;

/// Checks a transaction against the limits of [`crate::model`] and the rule that it changes a key once; tells how many
/// bytes it holds.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::Malformed`] for an empty key, and for a put to a key that another operation changes too.
pub(crate) fn check(txn: &Txn) -> Result<usize, Error> {
    let first = || first_key(txn);
    within("number of operations", first, txn.compares.len() + txn.ops.len(), TXN_OPS_MAX)?;
    let mut bytes = 0;
    for compare in &txn.compares {
        let (Compare::Absent(key) | Compare::Present(key) | Compare::Modified(key, _) | Compare::Created(key, _)) =
            compare;
        bytes += OP_BYTES + key_bytes(key)?;
    }
    for op in &txn.ops {
        bytes += OP_BYTES
            + match op {
                Op::Put { key, value, .. } => {
                    within("value", || key.clone(), value.len(), VALUE_BYTES_MAX)?;
                    key_bytes(key)? + value.len()
                }
                Op::Delete(key) => key_bytes(key)?,
                Op::DeletePrefix(prefix) => prefix_bytes(prefix)?,
            };
    }
    within("transaction", first, bytes, TXN_BYTES_MAX)?;
    each_once(&txn.ops)?;
    Ok(bytes)
}

/// Checks a prefix to read or follow; it may be empty.
///
/// # Errors
/// [`Error::TooLarge`].
pub(crate) fn prefix_bytes(prefix: &Key) -> Result<usize, Error> {
    within("key", || prefix.clone(), prefix.as_str().len(), KEY_BYTES_MAX)?;
    Ok(prefix.as_str().len())
}

/// Checks a key.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::Malformed`] when it is empty.
pub(crate) fn key_bytes(key: &Key) -> Result<usize, Error> {
    if key.as_str().is_empty() {
        return Err(Error::Malformed { key: key.clone(), why: "a key must not be empty" });
    }
    prefix_bytes(key)
}

fn within(what: &'static str, key: impl FnOnce() -> Key, size: usize, max: usize) -> Result<(), Error> {
    if size > max { Err(Error::TooLarge { what, key: key(), size, max }) } else { Ok(()) }
}

/// The key that names a transaction in an error.
fn first_key(txn: &Txn) -> Key {
    let key = txn.ops.first().map(|op| match op {
        Op::Put { key, .. } | Op::Delete(key) | Op::DeletePrefix(key) => key.clone(),
    });
    key.unwrap_or_else(|| Key::new(""))
}

/// A put must be the only change of its key. etcd refuses anything else, so the embedded backend does too.
fn each_once(ops: &[Op]) -> Result<(), Error> {
    let mut put = HashSet::new();
    for op in ops {
        if let Op::Put { key, .. } = op
            && !put.insert(key.as_str())
        {
            return Err(Error::Malformed { key: key.clone(), why: "a transaction puts a key at most once" });
        }
    }
    for op in ops {
        let clash = match op {
            Op::Put { .. } => None,
            Op::Delete(key) => put.contains(key.as_str()).then_some(key),
            Op::DeletePrefix(prefix) => put.iter().any(|key| key.starts_with(prefix.as_str())).then_some(prefix),
        };
        if let Some(key) = clash {
            return Err(Error::Malformed { key: key.clone(), why: "a transaction cannot put and delete one key" });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Op {
        Op::Put { key: Key::new(key), value: "v".into(), lease: None }
    }

    fn ops(ops: Vec<Op>) -> Result<usize, Error> {
        check(&Txn { compares: Vec::new(), ops })
    }

    #[test]
    fn a_key_changes_once() {
        let clash = |list| matches!(ops(list), Err(Error::Malformed { .. }));
        assert!(clash(vec![put("a"), put("a")]));
        assert!(clash(vec![put("a/b"), Op::Delete(Key::new("a/b"))]));
        assert!(clash(vec![Op::DeletePrefix(Key::new("a/")), put("a/b")]));
        assert!(ops(vec![Op::DeletePrefix(Key::new("a/")), put("b"), Op::Delete(Key::new("c"))]).is_ok());
    }

    #[test]
    fn what_is_too_large_is_named() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        assert!(matches!(ops(vec![put(&long)]), Err(Error::TooLarge { what: "key", .. })));
        let big = Op::Put { key: Key::new("a"), value: vec![0; VALUE_BYTES_MAX + 1].into(), lease: None };
        assert!(matches!(ops(vec![big]), Err(Error::TooLarge { what: "value", .. })));
        let half = |key| Op::Put { key: Key::new(key), value: vec![0; TXN_BYTES_MAX / 2].into(), lease: None };
        assert!(matches!(ops(vec![half("a"), half("b")]), Err(Error::TooLarge { what: "transaction", .. })));
        let many = (0..=TXN_OPS_MAX).map(|n| put(&n.to_string())).collect();
        assert!(matches!(ops(many), Err(Error::TooLarge { what: "number of operations", .. })));
    }
}
