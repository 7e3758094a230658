//! The endpoints that can be asked now, made ready for picking.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connect::balance::gauge::{Gauge, Gauged, WEIGHT_USUAL};
use crate::connect::balance::ring::Ring;

/// Turns of a schedule for each endpoint, at most: finer weights than that are rounded.
const TURNS_PER_ENDPOINT: usize = 32;
/// Most turns of a schedule.
const TURNS_MAX: usize = 4096;
/// Draws of a second endpoint that may hit the first, before its neighbour is taken.
const REDRAWS: u32 = 4;

/// How to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// The less loaded of two drawn at random: latency × calls in flight.
    #[default]
    PeakEwma,
    /// One after the other.
    RoundRobin,
    /// One after the other, as often as their weights say.
    WeightedRoundRobin,
    /// The one of two drawn at random with fewer calls in flight.
    LeastRequest,
    /// By the call's key.
    RingHash,
}

/// The endpoints that can be asked now. Immutable: made anew when endpoints or weights change.
#[derive(Debug)]
pub(crate) struct Table<E> {
    endpoints: Box<[E]>,
    method: Method,
    /// For each endpoint, how much of its draws it keeps (of 2³²), and who gets the rest. Empty where all weigh the
    /// same. After Walker's alias method (1974).
    alias: Box<[(u32, u32)]>,
    /// Endpoints in the order of their turns, for weighted round robin.
    schedule: Box<[u32]>,
    ring: Ring,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self {
            endpoints: Box::default(),
            method: Method::default(),
            alias: Box::default(),
            schedule: Box::default(),
            ring: Ring::default(),
        }
    }
}

impl<E: Gauged> Table<E> {
    /// A table of endpoints, whose weights are those of their gauges now. `name` is an endpoint's on the ring.
    pub(crate) fn new(endpoints: Vec<E>, method: Method, name: impl Fn(&E) -> &str) -> Self {
        let weights: Vec<f32> = endpoints.iter().map(|endpoint| endpoint.gauge().weight().max(0.01)).collect();
        let schedule = if method == Method::WeightedRoundRobin { schedule(&weights) } else { Box::default() };
        let ring = match method {
            Method::RingHash => Ring::new(
                endpoints.iter().zip(&weights).map(|(endpoint, weight)| (name(endpoint), weight / WEIGHT_USUAL)),
            ),
            _ => Ring::default(),
        };
        Self { alias: alias(&weights), schedule, ring, method, endpoints: endpoints.into() }
    }

    #[cfg(test)]
    pub(crate) fn endpoints(&self) -> &[E] {
        &self.endpoints
    }

    /// Picks an endpoint. `turn` counts the calls, `random` decides the draws, `key` is the call's, if it has one.
    /// `None` where there is no endpoint.
    pub(crate) fn pick(&self, turn: &AtomicUsize, random: u64, key: Option<u64>) -> Option<&E> {
        let count = self.endpoints.len();
        if count <= 1 {
            return self.endpoints.first();
        }
        let index = match self.method {
            Method::PeakEwma => self.better_of_two(random, Gauge::is_below),
            Method::LeastRequest => self.better_of_two(random, Gauge::is_shorter),
            Method::RoundRobin => turn.fetch_add(1, Ordering::Relaxed) % count,
            Method::WeightedRoundRobin => {
                let turn = turn.fetch_add(1, Ordering::Relaxed) % self.schedule.len().max(1);
                self.schedule.get(turn).map_or(0, |index| *index as usize)
            }
            Method::RingHash => match key.and_then(|key| self.ring.find(key)) {
                Some(index) => index,
                None => self.draw(upper(random)),
            },
        };
        self.endpoints.get(index)
    }

    /// Picks the less loaded of two drawn, by weight, among those that `is_eligible` lets through. Looks at all of them.
    pub(crate) fn pick_among(&self, random: u64, is_eligible: impl Fn(&E) -> bool) -> Option<&E> {
        let first = self.draw_among(upper(random), |endpoint| is_eligible(endpoint))?;
        let second = self.draw_among(lower(random), |endpoint| !std::ptr::eq(endpoint, first) && is_eligible(endpoint));
        match second {
            Some(second) if second.gauge().is_below(first.gauge()) => Some(second),
            Some(_) | None => Some(first),
        }
    }

    fn draw_among(&self, bits: u32, is_eligible: impl Fn(&E) -> bool) -> Option<&E> {
        let eligible = || self.endpoints.iter().filter(|endpoint| is_eligible(endpoint));
        let total: f64 = eligible().map(|endpoint| f64::from(endpoint.gauge().weight())).sum();
        let mut point = f64::from(bits) / f64::from(u32::MAX) * total;
        let mut last = None;
        for endpoint in eligible() {
            last = Some(endpoint);
            point -= f64::from(endpoint.gauge().weight());
            if point < 0.0 {
                break;
            }
        }
        last
    }

    /// The better of two that are drawn by weight. After Mitzenmacher, "The Power of Two Choices" (2001).
    fn better_of_two(&self, random: u64, is_better: impl Fn(&Gauge, &Gauge) -> bool) -> usize {
        let first = self.draw(upper(random));
        let second = self.draw_besides(first, lower(random));
        match (self.endpoints.get(first), self.endpoints.get(second)) {
            (Some(one), Some(other)) if is_better(other.gauge(), one.gauge()) => second,
            _ => first,
        }
    }

    /// An endpoint, by weight.
    fn draw(&self, bits: u32) -> usize {
        let product = u64::from(bits) * self.endpoints.len() as u64;
        let (index, rest) = (upper(product), lower(product));
        match self.alias.get(index as usize) {
            Some((kept, other)) if rest >= *kept => *other as usize,
            Some(_) | None => index as usize,
        }
    }

    /// Another endpoint, by weight.
    fn draw_besides(&self, first: usize, bits: u32) -> usize {
        let count = self.endpoints.len();
        if count == 2 {
            return 1 - first;
        }
        if self.alias.is_empty() {
            let step = upper(u64::from(bits) * (count as u64 - 1)) as usize + 1;
            return if first + step >= count { first + step - count } else { first + step };
        }
        let mut bits = bits;
        for _ in 0..REDRAWS {
            let drawn = self.draw(bits);
            if drawn != first {
                return drawn;
            }
            bits = bits.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        }
        if first + 1 == count { 0 } else { first + 1 }
    }
}

fn upper(word: u64) -> u32 {
    u32::try_from(word >> 32).expect("the upper half of a word")
}

fn lower(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).expect("the lower half of a word")
}

fn alias(weights: &[f32]) -> Box<[(u32, u32)]> {
    let Some(first) = weights.first() else { return Box::default() };
    if weights.iter().all(|weight| (weight - first).abs() <= first * 0.01) {
        return Box::default();
    }
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    let count = weights.len() as f64;
    let mut scaled: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) * count / total).collect();
    let mut table: Vec<(u32, u32)> = (0..).take(weights.len()).map(|index| (u32::MAX, index)).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|index| scaled[*index] < 1.0);
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one, below 2³²")]
        let kept = (scaled[poor] * f64::from(u32::MAX)) as u32;
        table[poor] = (kept, table[rich].1);
        scaled[rich] -= 1.0 - scaled[poor];
        if scaled[rich] < 1.0 {
            large.pop();
            small.push(rich);
        }
    }
    table.into()
}

/// Turns spread as evenly as weights allow: the next is whose turn is due first.
fn schedule(weights: &[f32]) -> Box<[u32]> {
    let total: f32 = weights.iter().sum();
    let least = weights.iter().copied().fold(f32::INFINITY, f32::min);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number, bounded")]
    let exact = (total / least).round() as usize;
    let turns = exact.clamp(weights.len(), (weights.len() * TURNS_PER_ENDPOINT).min(TURNS_MAX).max(weights.len()));
    let mut due: Vec<f32> = weights.iter().map(|weight| 0.5 / weight).collect();
    let next = |due: &mut Vec<f32>| {
        let (index, _) = due.iter().enumerate().min_by(|one, other| one.1.total_cmp(other.1))?;
        due[index] += 1.0 / weights[index];
        u32::try_from(index).ok()
    };
    (0..turns).map_while(|_| next(&mut due)).collect()
}
