//! XXH64, after Collet's specification, with seed zero: what gRPC and Envoy hash keys with, so that a key hashes to the
//! same number whoever asks.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;
/// Bytes that are taken in at a time, as four words.
const STRIPE: usize = 32;

/// Hashes a key, the same in every process and in every language.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut stripes = bytes.chunks_exact(STRIPE);
    let mut mixed = if bytes.len() < STRIPE {
        P5
    } else {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, P1.wrapping_neg()];
        for stripe in stripes.by_ref() {
            for (lane, part) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(part));
            }
        }
        let turned =
            lanes.iter().zip([1, 7, 12, 18]).fold(0_u64, |sum, (lane, turn)| sum.wrapping_add(lane.rotate_left(turn)));
        lanes.iter().fold(turned, |sum, lane| (sum ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
    };
    mixed = mixed.wrapping_add(bytes.len() as u64);
    avalanche(rest(mixed, stripes.remainder()))
}

/// What is left behind the last stripe: words, half a word, bytes.
fn rest(mut mixed: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    for part in words.by_ref() {
        mixed = (mixed ^ round(0, word(part))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
    }
    let mut halves = words.remainder().chunks_exact(4);
    for part in halves.by_ref() {
        mixed = (mixed ^ word(part).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
    }
    for byte in halves.remainder() {
        mixed = (mixed ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    mixed
}

/// Up to eight bytes as a number, the lowest first.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn avalanche(word: u64) -> u64 {
    let word = (word ^ word >> 33).wrapping_mul(P2);
    let word = (word ^ word >> 29).wrapping_mul(P3);
    word ^ word >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors_hash_as_they_should() {
        for (text, hashed) in [
            ("", 0xef46_db37_51d8_e999),
            ("a", 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0x44bc_2cf5_ad77_0999),
            ("Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
            ("The quick brown fox jumps over the lazy dog", 0x0b24_2d36_1fda_71bc),
        ] {
            assert_eq!(hash(text.as_bytes()), hashed, "{text:?}");
        }
    }
}
