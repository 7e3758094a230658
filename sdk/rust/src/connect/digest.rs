//! What a set of instances comes to, in eight bytes: how a watcher finds out that it missed something.
//!
//! The digest of a set is the exclusive or of its instances' digests, so that both sides keep it while instances come and
//! go. The contract (`HoldWatchResponse.digest`) says how it is made.

/// 64-bit FNV-1a.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
/// How an absent namespace is written out.
const NAMESPACE_USUAL: &str = "default";

/// What one version of an instance adds to a digest, and takes from it when it goes.
pub fn digest(namespace: &str, service: &str, instance_id: &str, revision: i64) -> u64 {
    let namespace = if namespace == NAMESPACE_USUAL { "" } else { namespace };
    let mut hash = FNV_BASIS;
    let mut feed = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    for part in [namespace, service, instance_id] {
        part.bytes().for_each(&mut feed);
        feed(0);
    }
    revision.to_le_bytes().into_iter().for_each(feed);
    mix(hash)
}

/// The finalizer of MurmurHash3: FNV alone spreads its last bytes so little that two lost changes could cancel out.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn parts_do_not_run_into_each_other_and_the_usual_namespace_is_none() {
        assert_ne!(digest("", "ab", "c", 1), digest("", "a", "bc", 1));
        assert_ne!(digest("", "a", "b", 1), digest("", "a", "b", 2));
        assert_ne!(digest("x", "a", "b", 1), digest("", "a", "b", 1));
        assert_eq!(digest("default", "a", "b", 1), digest("", "a", "b", 1));
    }

    #[test]
    fn the_digest_is_the_one_that_the_contract_describes() {
        // Worked out by another program from the words of the contract, for those who write a client of their own.
        assert_eq!(digest("", "pump", "p-1", 7), 0x2ad5_a431_7b53_12c5);
    }
}
