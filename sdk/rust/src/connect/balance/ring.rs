//! Consistent hashing: the same endpoint for the same key, as far as endpoints stay. After Karger et al. (1997).

use std::hash::Hasher;

/// Points of an endpoint of usual weight. More points, evener shares.
const POINTS: f32 = 100.0;
/// Most points of a ring, whatever the weights.
const POINTS_MAX: usize = 64 * 1024;

/// Points around a ring; a key belongs to the first point at or after its hash.
#[derive(Debug, Default)]
pub(super) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    /// A ring of endpoints, each by its key and relative weight, 1 being usual.
    pub(super) fn new(endpoints: impl ExactSizeIterator<Item = (u64, f32)>) -> Self {
        let most = (POINTS_MAX / endpoints.len().max(1)).max(1);
        let mut points = Vec::new();
        for (index, (key, weight)) in (0..).zip(endpoints) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a hundred, bounded"
            )]
            let share = ((weight * POINTS).round() as usize).clamp(1, most);
            points.extend((0..share).map(|point| (mix(key ^ mix(point as u64 + 1)), index)));
        }
        points.sort_unstable();
        Self(points.into())
    }

    /// Where a key belongs. `None` on an empty ring.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let at = self.0.partition_point(|(point, _)| *point < key);
        let (_, index) = self.0.get(at).or_else(|| self.0.first())?;
        usize::try_from(*index).ok()
    }
}

/// Hashes a key, the same in every process: FNV-1a, and a mixer behind it, for keys are often alike.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    fnv.write(bytes);
    mix(fnv.finish())
}

/// Spreads the bits of a word over all of it. After Stafford's thirteenth variant of MurmurHash3's finalizer.
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
