//! What the word of a breaker says: see [`Breaker`](super::Breaker).

use super::{Force, Phase};

pub(super) fn phase(word: u64) -> Phase {
    match word & 3 {
        0 => Phase::Closed,
        1 => Phase::Open,
        _ => Phase::HalfOpen,
    }
}

pub(super) fn force(word: u64) -> Force {
    match word >> 2 & 3 {
        0 => Force::None,
        1 => Force::Open,
        _ => Force::Closed,
    }
}

pub(super) fn generation(word: u64) -> u32 {
    u32::try_from(word >> 32).expect("the upper half of a word")
}
