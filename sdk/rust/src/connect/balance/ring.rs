//! Consistent hashing: the same endpoint for the same key, as far as endpoints stay. After Karger et al. (1997).

use super::xxh64::hash;

/// Points of an endpoint of usual weight. More points, evener shares.
const POINTS: f32 = 100.0;
/// Most points of a ring, whatever the weights.
const POINTS_MAX: usize = 64 * 1024;

/// Points around a ring; a key belongs to the first point at or after its hash.
#[derive(Debug, Default)]
pub(super) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    /// A ring of endpoints, each by its name and relative weight, 1 being usual. Its points are hashed from `name_0`,
    /// `name_1` and so on, as those of gRPC and Envoy are.
    pub(super) fn new<'a>(endpoints: impl ExactSizeIterator<Item = (&'a str, f32)>) -> Self {
        let most = (POINTS_MAX / endpoints.len().max(1)).max(1);
        let mut points = Vec::new();
        for (index, (name, weight)) in (0..).zip(endpoints) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a hundred, bounded"
            )]
            let share = ((weight * POINTS).round() as usize).clamp(1, most);
            points.extend((0..share).map(|point| (hash(format!("{name}_{point}").as_bytes()), index)));
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

/// Spreads the bits of a word over all of it. After Stafford's thirteenth variant of MurmurHash3's finalizer.
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
