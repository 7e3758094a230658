//! The nouns of control. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Most instances of a workload.
pub(crate) const INSTANCES_MAX: u32 = 64;
/// How long an instance may drain if its workload does not say.
pub(crate) const GRACE_DEFAULT: Duration = Duration::from_secs(10);
/// Longest time that a workload may give its instances to drain.
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(10 * 60);

/// What is run. A change of it replaces the instances one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Program and arguments; at least one.
    pub(crate) command: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) working_directory: Option<PathBuf>,
    /// Whether it registers by itself.
    pub(crate) joins: bool,
}

/// What is to run of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) service: String,
    pub(crate) instances: u32,
    pub(crate) program: Arc<Program>,
    pub(crate) grace: Duration,
    /// From 1; grows with every write.
    pub(crate) revision: i64,
}

/// A workload and the node that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) node: String,
    pub(crate) workload: Workload,
}

/// The slots of one service, by number.
pub(crate) type Slots = BTreeMap<u32, Slot>;

/// A place for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// What runs here, or ran, or is to run next.
    pub(crate) program: Arc<Program>,
    /// The instance that runs, or the last that did. Empty before the first.
    pub(crate) instance_id: String,
    pub(crate) phase: Phase,
    /// Starts after the first in a row, without a healthy time between.
    pub(crate) restarts: u32,
    /// Why it is in that phase.
    pub(crate) reason: String,
    pub(crate) change_time: SystemTime,
}

/// What a slot is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A process runs.
    Up {
        since: Instant,
        /// When it was first seen serving.
        served: Option<Instant>,
        /// Whether the registry, when it last spoke, listed it as serving.
        is_serving: bool,
    },
    /// The process was asked to leave.
    Stopping { then: Then },
    /// The process has ended; what becomes of the slot is not decided yet.
    Ended { then: Then, healthy: Duration },
    /// No process; the next start waits.
    Waiting { until: Instant, until_time: SystemTime, is_crash_loop: bool },
}

/// What becomes of a slot when its process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is started again.
    Restart,
    /// It is no longer needed.
    Forget,
}

impl Slot {
    /// Moves the slot to another phase.
    pub(crate) fn enter(&mut self, phase: Phase, reason: impl Into<String>, now: Now) {
        self.phase = phase;
        self.reason = reason.into();
        self.change_time = now.time;
    }

    /// Whether the slot counts towards what is wanted: it has, or will again have, a process.
    pub(crate) const fn is_kept(&self) -> bool {
        !matches!(self.phase, Phase::Stopping { then: Then::Forget } | Phase::Ended { then: Then::Forget, .. })
    }

    /// Whether the instance takes calls.
    pub(crate) const fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Up { is_serving: true, .. })
    }
}

/// A moment, on the clock that only goes forward and on the one for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) time: SystemTime,
}
