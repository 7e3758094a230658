//! What the program printed, on its way to this process's own outputs and to the platform.
//!
//! Taking a line never waits: a program whose output is not read freezes. Where a reader is too slow, the oldest lines
//! go.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ninefold_control::{Line, LineSink, Output};
use tokio::sync::Notify;

/// Most lines that wait for one reader.
const LINES_MAX: usize = 10_000;
/// Most bytes that wait for one reader.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A line that was printed.
#[derive(Clone, Debug)]
pub(super) struct Printed {
    pub(super) output: Output,
    pub(super) time: SystemTime,
    pub(super) text: String,
}

/// Printed lines for two readers that know nothing of each other.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// To be printed again here.
    pub(super) echo: Queue,
    /// To be sent to the platform.
    pub(super) ship: Queue,
}

impl LineSink for Lines {
    fn line(&self, line: Line<'_>) {
        let printed = Printed { output: line.output, time: line.time, text: line.text.to_owned() };
        self.echo.push(printed.clone());
        self.ship.push(printed);
    }
}

/// A bounded queue that drops its oldest.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Printed>,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    pub(super) fn push(&self, printed: Printed) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.bytes += printed.text.len();
            waiting.lines.push_back(printed);
            while waiting.lines.len() > LINES_MAX || waiting.bytes > BYTES_MAX {
                let Some(oldest) = waiting.lines.pop_front() else { break };
                waiting.bytes -= oldest.text.len();
                waiting.dropped += 1;
            }
        }
        self.wake.notify_one();
    }

    /// Takes at most so many lines, and how many were dropped since the last time.
    pub(super) fn take(&self, lines_max: usize) -> (Vec<Printed>, u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = lines_max.min(waiting.lines.len());
        let taken: Vec<_> = waiting.lines.drain(..count).collect();
        waiting.bytes -= taken.iter().map(|printed| printed.text.len()).sum::<usize>();
        (taken, std::mem::take(&mut waiting.dropped))
    }

    /// Waits until lines have come since the last wait. Cancel safe.
    pub(super) async fn filled(&self) {
        self.wake.notified().await;
    }
}
