//! Time that stands still while sockets go on, and passes when the test says so.

use std::sync::mpsc;
use std::time::Duration;

/// A test that waits for what never comes fails after this, in real time: time goes on by itself then.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time passes in steps, so that tasks and sockets keep up with it.
const STEP: Duration = Duration::from_millis(50);
/// How often the sockets are looked at after each step, and how long it takes in real time at least: what a busy machine does
/// outside of the runtime keeps up, too.
const LOOKS: u32 = 40;
const REAL: Duration = Duration::from_millis(1);

/// Holds the time of a runtime of one thread. It goes on when this is dropped.
pub(crate) struct Held(mpsc::Sender<()>);

impl Held {
    /// Tokio lets paused time run on whenever nothing is to be done, and sockets that will answer are nothing to it; but
    /// not while a thread of the runtime's blocks.
    pub(crate) fn hold() -> Self {
        let (gone, told) = mpsc::channel();
        tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE));
        tokio::time::pause();
        Self(gone)
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(STEP);
            tokio::time::advance(step).await;
            #[expect(clippy::disallowed_methods, reason = "held time cannot be waited for")]
            std::thread::sleep(REAL);
            for _ in 0..LOOKS {
                tokio::task::yield_now().await;
            }
            left -= step;
        }
    }

    /// Lets time pass until something is so, for ten minutes at the most.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let mut steps = 0;
        while !is_so().await {
            steps += 1;
            assert!(steps < 12_000, "{what} comes about");
            self.pass(STEP).await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fails where the thread has lost its patience.
        let _ = self.0.send(());
        tokio::time::resume();
    }
}
