//! Who can be picked now, and who is preferred.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connect::balance::{Gauged as _, Method, Table};
use crate::connect::endpoint::{Endpoint, Rank, Readiness, Surroundings};
use crate::connect::landscape::State;
use crate::connect::policy::BalancingMethod;

/// Who can be picked now. Made anew when that changes.
#[derive(Debug, Default)]
pub(crate) struct Chart {
    /// Endpoints of the caller's zone; all of them, where zones do not matter.
    near: Table<Arc<Endpoint>>,
    /// Endpoints of other zones.
    far: Table<Arc<Endpoint>>,
    /// How much of the calls stays near, of 2³².
    near_share: u64,
    /// Endpoints that are asked where there is no other.
    last: Table<Arc<Endpoint>>,
    /// Whether too few are left, so that those are asked, too, whose breakers a share of failed calls has opened.
    pub(crate) is_panic: bool,
}

const WHOLE: u64 = 1 << 32;

impl Chart {
    pub(crate) fn new(endpoints: &[Arc<Endpoint>], around: &Surroundings) -> Self {
        let policy = around.policy.now();
        let balancing = &policy.balancing;
        let (mut usable, mut partly, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let serves = |endpoint: &&Arc<Endpoint>| endpoint.instance().state == State::Serving;
        let serving = around.stock.count(endpoints.iter().filter(serves).map(|endpoint| endpoint.is_open()));
        for endpoint in endpoints {
            match endpoint.readiness() {
                Readiness::Ready(Rank::Usual) => usable.push(endpoint.clone()),
                Readiness::Ready(Rank::Last) => last.push(endpoint.clone()),
                Readiness::Partly => partly.push(endpoint.clone()),
                Readiness::Barred | Readiness::Connecting(_) | Readiness::Out => {}
            }
        }
        let is_short = usable.len() as u64 * 100 < u64::from(balancing.panic_percent) * u64::from(serving);
        let is_panic = is_short && !partly.is_empty();
        if is_panic {
            usable.extend(partly);
        }
        around.stock.usable.store(u32::try_from(usable.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        let (near, far, near_share) = if balancing.is_zone_aware && !around.zone.is_empty() {
            zones(usable, endpoints, around, balancing.spill_percent)
        } else {
            (usable, Vec::new(), WHOLE)
        };
        let method = method(balancing.method);
        let table = |endpoints: Vec<_>| Table::new(endpoints, method, |endpoint: &Arc<Endpoint>| &endpoint.authority);
        Self { near: table(near), far: table(far), near_share, last: table(last), is_panic }
    }

    pub(crate) fn pick(&self, turn: &AtomicUsize, random: u64, key: Option<u64>) -> Option<&Arc<Endpoint>> {
        let (first, second) = if self.near_share == WHOLE || (random & (WHOLE - 1)) < self.near_share {
            (&self.near, &self.far)
        } else {
            (&self.far, &self.near)
        };
        // The bits that chose the zone are not to choose the endpoint.
        let random = if self.near_share == WHOLE { random } else { random.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
        first
            .pick(turn, random, key)
            .or_else(|| second.pick(turn, random, key))
            .or_else(|| self.last.pick(turn, random, key))
    }

    pub(crate) fn pick_among(
        &self,
        random: u64,
        is_eligible: impl Fn(&Arc<Endpoint>) -> bool,
    ) -> Option<&Arc<Endpoint>> {
        [&self.near, &self.far, &self.last].into_iter().find_map(|table| table.pick_among(random, &is_eligible))
    }
}

/// Who is near, who is far, and how much stays near: everything while the zone has enough of its usual capacity, and as
/// much as what is left of it can bear below that.
fn zones(
    usable: Vec<Arc<Endpoint>>,
    all: &[Arc<Endpoint>],
    around: &Surroundings,
    spill_percent: u32,
) -> (Vec<Arc<Endpoint>>, Vec<Arc<Endpoint>>, u64) {
    let is_near = |endpoint: &Arc<Endpoint>| *endpoint.instance().zone == *around.zone;
    let serves = |endpoint: &&Arc<Endpoint>| endpoint.instance().state == State::Serving;
    let weight = |endpoint: &Arc<Endpoint>| f64::from(endpoint.gauge().weight());
    let (near, far): (Vec<_>, Vec<_>) = usable.into_iter().partition(is_near);
    let usual: f64 = all.iter().filter(serves).filter(|endpoint| is_near(endpoint)).map(weight).sum();
    let enough = usual * f64::from(spill_percent) / 100.0;
    let there: f64 = near.iter().map(weight).sum();
    if there >= enough || far.is_empty() {
        return if near.is_empty() { (far, near, WHOLE) } else { (near, far, WHOLE) };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of one, of 2³²")]
    let near_share = (there / enough * WHOLE as f64) as u64;
    (near, far, near_share)
}

fn method(method: BalancingMethod) -> Method {
    match method {
        BalancingMethod::PeakEwma => Method::PeakEwma,
        BalancingMethod::RoundRobin => Method::RoundRobin,
        BalancingMethod::WeightedRoundRobin => Method::WeightedRoundRobin,
        BalancingMethod::LeastRequest => Method::LeastRequest,
        BalancingMethod::RingHash => Method::RingHash,
    }
}
