//! When a breaker opens, and for how long.

use std::time::Duration;

/// When a breaker opens, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How far back calls are counted.
    pub window: Duration,
    /// Calls within the window below which shares say nothing.
    pub calls_min: u32,
    /// Share of failed calls within the window, in percent, that opens it. Zero for never.
    pub failure_percent: u32,
    /// Failures in a row that open it. Zero for never.
    pub failures_in_a_row: u32,
    /// A call that is not answered (a stream: begun to be answered) within this is slow. `None`: slow is what takes five
    /// times as long as at the other endpoints, and at least half a second; methods are not judged for it.
    pub slow_call: Option<Duration>,
    /// Slow calls with no quick one among them that open it. Zero for never, and then slow calls are judged only where
    /// [`slow_call`](Self::slow_call) says what they are.
    pub slow_calls_in_a_row: u32,
    /// Share of slow calls within the window, in percent, that opens it.
    pub slow_percent: u32,
    /// How long it stays open at first. Doubles with every opening in a row. When every breaker of a service is open, a
    /// trial call goes through after this while, however often they have opened: waiting longer would spare no other
    /// instance, and keep away the callers of one that is back.
    pub wait_min: Duration,
    /// How long it stays open at most.
    pub wait_max: Duration,
    /// Trial calls at one time while half open, and successes that close it.
    pub trials: u32,
    /// Most endpoints, in percent of a service's, that may be open because of slow calls or of a share of failures. One is
    /// always left.
    pub ejection_percent_max: u32,
    /// Whether it never opens.
    pub is_disabled: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            calls_min: 20,
            failure_percent: 50,
            failures_in_a_row: 5,
            slow_call: None,
            slow_calls_in_a_row: 3,
            slow_percent: 80,
            wait_min: Duration::from_secs(1),
            wait_max: Duration::from_secs(60),
            trials: 3,
            ejection_percent_max: 50,
            is_disabled: false,
        }
    }
}
