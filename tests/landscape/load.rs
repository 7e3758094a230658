//! A steady load on the edge, and what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::http;

/// Readers at a time.
const READERS: usize = 4;
/// Time between the requests of one reader.
const EVERY: Duration = Duration::from_millis(20);
/// Failures that are remembered in words.
const WORDS_MAX: usize = 5;

/// What became of the requests so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with status 200.
    pub good: AtomicU64,
    /// Those of them that lacked a part.
    pub degraded: AtomicU64,
    /// All others, with what was wrong with the first of them.
    pub failed: AtomicU64,
    words: Mutex<Vec<String>>,
}

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    /// One for each request.
    Fresh,
    /// One for as long as the server keeps it.
    Kept,
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to read a path again and again, with four readers.
    pub fn on(edge: &str, path: &'static str) -> Self {
        Self::by(Connections::Fresh, edge, path)
    }

    /// As [`on`](Self::on), on connections that are kept as long as the server says nothing else.
    pub fn kept_on(edge: &str, path: &'static str) -> Self {
        Self::by(Connections::Kept, edge, path)
    }

    fn by(connections: Connections, edge: &str, path: &'static str) -> Self {
        let tally = Arc::new(Tally::default());
        let stop = Arc::new(AtomicBool::new(false));
        let reader = |_| {
            let (tally, stop, edge) = (tally.clone(), stop.clone(), edge.to_owned());
            #[expect(clippy::disallowed_methods, reason = "the load owns its readers and waits for them")]
            tokio::spawn(async move {
                let mut kept = http::Kept::new(&edge);
                while !stop.load(Ordering::Relaxed) {
                    let answer = match connections {
                        Connections::Fresh => http::request(&edge, "GET", path, &[], None).await,
                        Connections::Kept => kept.get(path).await,
                    };
                    tally.take(answer).await;
                    tokio::time::sleep(EVERY).await;
                }
            })
        };
        let readers = (0..READERS).map(reader).collect();
        Self { tally, stop, readers }
    }

    /// The tally so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Ends the load; answers good, degraded and failed, and what was wrong with the first failures.
    ///
    /// # Panics
    /// When a reader did.
    pub async fn stop(self) -> (u64, u64, u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for reader in self.readers {
            reader.await.expect("readers do not panic");
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let words = self.tally.words.lock().await.clone();
        (of(&self.tally.good), of(&self.tally.degraded), of(&self.tally.failed), words)
    }
}

impl Tally {
    async fn take(&self, outcome: anyhow::Result<http::Answer>) {
        let failure = match outcome {
            Ok(answer) if answer.status == 200 => {
                self.good.fetch_add(1, Ordering::Relaxed);
                if answer.json().is_ok_and(|body| body["degraded"].as_array().is_some_and(|parts| !parts.is_empty())) {
                    self.degraded.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            Ok(answer) => format!("{}: {}", answer.status, answer.text()),
            Err(error) => format!("{error:#}"),
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut words = self.words.lock().await;
        if words.len() < WORDS_MAX {
            words.push(failure);
        }
    }
}
