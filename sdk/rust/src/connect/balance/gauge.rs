//! What is known of one endpoint's load, in atomics that every call reads and writes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Latencies below this, in seconds, are all as good: their differences are noise of the machine, not load.
const LATENCY_FLOOR: f32 = 0.01;
/// Latencies that differ by less than this factor are as good, too: one hiccup must not silence an instance.
const LATENCY_FACTOR: f32 = 2.0;
/// Over how many seconds a latency is forgotten. Short, for landscapes of few calls: an endpoint that was slow once is
/// asked again within seconds, and at many calls a second the average is over many all the same.
const DECAY: f32 = 3.0;
/// The weight that means "as much as any other".
pub(super) const WEIGHT_USUAL: f32 = 100.0;

/// The load of one endpoint. A cache line pair of its own: neighbours are written by other calls.
///
/// Its latency follows peaks at once and forgets them over seconds, after Finagle's peak EWMA. [`Gauge::refresh`] is
/// called a few times a second, so that picking needs neither a clock nor an exponential.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Gauge {
    /// Seconds as `f32` in the upper half, the millisecond they were taken at in the lower. Zero: never answered.
    latency: AtomicU64,
    /// The same, decayed to about now.
    latency_now: AtomicU32,
    in_flight: AtomicU32,
    /// Relative share of calls, as `f32`; 100 is usual.
    weight: AtomicU32,
    /// What a call in flight counts, as `f32`: 100 by weight. Kept, because a pick has no time to divide.
    call_cost: AtomicU32,
}

/// Whatever has a gauge.
pub(crate) trait Gauged {
    fn gauge(&self) -> &Gauge;
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            latency: AtomicU64::new(0),
            latency_now: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            weight: AtomicU32::new(WEIGHT_USUAL.to_bits()),
            call_cost: AtomicU32::new(1.0_f32.to_bits()),
        }
    }
}

impl Gauge {
    /// A call begins.
    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is over.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Calls not yet over.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Relative share of calls; 100 is usual.
    pub(crate) fn weight(&self) -> f32 {
        f32::from_bits(self.weight.load(Ordering::Relaxed))
    }

    /// Tells whether that is another weight than before, by more than a hundredth.
    pub(crate) fn set_weight(&self, weight: f32) -> bool {
        let last = self.weight();
        let is_other = (last - weight).abs() > last * 0.01;
        if is_other {
            self.weight.store(weight.to_bits(), Ordering::Relaxed);
            let call_cost = WEIGHT_USUAL / weight.max(f32::MIN_POSITIVE);
            self.call_cost.store(call_cost.to_bits(), Ordering::Relaxed);
        }
        is_other
    }

    /// Takes how long an answer took.
    pub(crate) fn observe(&self, now: Duration, took: Duration) {
        let (took, at) = (took.as_secs_f32().max(f32::MIN_POSITIVE), milliseconds(now));
        let mut seen = self.latency.load(Ordering::Relaxed);
        loop {
            let (last, then) = unpack(seen);
            let seconds = if took >= last {
                took
            } else {
                let kept = kept(at, then);
                last * kept + took * (1.0 - kept)
            };
            let next = u64::from(seconds.to_bits()) << 32 | u64::from(at);
            match self.latency.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return self.latency_now.store(seconds.to_bits(), Ordering::Relaxed),
                Err(other) => seen = other,
            }
        }
    }

    /// Forgets how long answers took.
    pub(crate) fn forget(&self) {
        self.latency.store(0, Ordering::Relaxed);
        self.latency_now.store(0, Ordering::Relaxed);
    }

    /// Lets time pass: an endpoint that is not asked is forgiven.
    pub(crate) fn refresh(&self, now: Duration) {
        let (last, then) = unpack(self.latency.load(Ordering::Relaxed));
        if last > 0.0 {
            let seconds = (last * kept(milliseconds(now), then)).max(f32::MIN_POSITIVE);
            self.latency_now.store(seconds.to_bits(), Ordering::Relaxed);
        }
    }

    /// How long an answer takes, after the last ones. `None` if none has come.
    pub(crate) fn latency(&self) -> Option<Duration> {
        let seconds = self.seconds();
        (seconds > 0.0).then(|| Duration::try_from_secs_f32(seconds).unwrap_or(Duration::MAX))
    }

    /// Seconds to reckon with; zero if it never answered.
    fn seconds(&self) -> f32 {
        f32::from_bits(self.latency_now.load(Ordering::Relaxed))
    }

    /// Whether one more call here costs less than there.
    ///
    /// The cost is latency × (in flight / weight + 1): in flight by weight, so that under load shares follow weights;
    /// but an idle endpoint costs its latency alone, so that the draw decides between idle ones, by weight, and a light
    /// endpoint gets its few calls too. Where one has never answered, latency says nothing about the other.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        let (mine, others) = (self.seconds(), other.seconds());
        let (mine, others) = if mine == 0.0 || others == 0.0 {
            (1.0, 1.0)
        } else {
            let (mine, others) = (mine.max(LATENCY_FLOOR), others.max(LATENCY_FLOOR));
            let is_alike = mine < others * LATENCY_FACTOR && others < mine * LATENCY_FACTOR;
            if is_alike { (1.0, 1.0) } else { (mine, others) }
        };
        mine * self.queue() < others * other.queue()
    }

    /// Whether fewer calls are under way here than there, by weight.
    pub(super) fn is_shorter(&self, other: &Self) -> bool {
        self.queue() < other.queue()
    }

    fn queue(&self) -> f32 {
        let in_flight = self.in_flight() as f32;
        in_flight * f32::from_bits(self.call_cost.load(Ordering::Relaxed)) + 1.0
    }
}

/// Comes round every 49 days; an endpoint that was not asked for so long is judged wrongly until it is.
fn milliseconds(now: Duration) -> u32 {
    let milliseconds = now.as_secs().wrapping_mul(1000).wrapping_add(u64::from(now.subsec_millis()));
    u32::try_from(milliseconds & u64::from(u32::MAX)).expect("the lower half of a word")
}

fn unpack(word: u64) -> (f32, u32) {
    let halves = |word: u64| u32::try_from(word & u64::from(u32::MAX)).expect("half of a word");
    (f32::from_bits(halves(word >> 32)), halves(word))
}

/// How much of a latency taken `then` is left.
fn kept(now: u32, then: u32) -> f32 {
    let seconds = now.wrapping_sub(then) as f32 / 1000.0;
    (-seconds / DECAY).exp()
}
