//! Owners of tasks. The one place that spawns.
//!
//! A [`Scope`] owns tasks and smaller scopes. Closing it asks them to stop, youngest first, waits, and after a deadline
//! drops what is left. A task that fails either brings its root down or is logged, as its spawner said.

use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fault;

/// What becomes of the root scope when a task fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The root scope is told, and its owner shuts down.
    Shutdown,
    /// The failure is logged, and life goes on.
    Log,
}

/// A task's view of its scope: whether it is asked to stop.
#[derive(Clone, Debug)]
pub struct Stop(CancellationToken);

impl Stop {
    /// Waits until the task is asked to stop. Cancel safe.
    pub async fn asked(&self) {
        self.0.cancelled().await;
    }

    /// Whether the task is asked to stop.
    pub fn is_asked(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// An owner of tasks. Clones are the same scope.
#[derive(Clone, Debug)]
pub struct Scope(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    children: Mutex<Vec<Scope>>,
    /// Shared by all scopes of one root: the first task that failed.
    failure: watch::Sender<Option<String>>,
}

impl Scope {
    /// Makes a scope that has no owner but its caller.
    pub fn root(name: impl Into<String>) -> Self {
        Self::with_failure(name.into(), watch::Sender::new(None))
    }

    fn with_failure(name: String, failure: watch::Sender<Option<String>>) -> Self {
        Self(Arc::new(Inner {
            name,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
            children: Mutex::new(Vec::new()),
            failure,
        }))
    }

    /// Makes a scope that closes before this one does, and before its elder siblings.
    pub fn child(&self, name: impl Into<String>) -> Self {
        let child = Self::with_failure(name.into(), self.0.failure.clone());
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        // Scopes of connections come and go; those that are closed and empty need not be remembered.
        children.retain(|known| !(known.0.tasks.is_closed() && known.0.tasks.is_empty()));
        children.push(child.clone());
        child
    }

    /// A view for work that no task of this scope does.
    pub fn stop(&self) -> Stop {
        Stop(self.0.stop.clone())
    }

    /// Starts a task. `name` is `role.verb`, for the log.
    ///
    /// The task runs until it returns, panics, or is dropped after the closing deadline. A panic counts as a failure with
    /// [`OnError::Shutdown`]: it is a bug.
    pub fn spawn<F, E>(&self, name: &'static str, on_error: OnError, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let future = task(self.stop());
        let kill = self.0.kill.clone();
        let failure = self.0.failure.clone();
        #[expect(clippy::disallowed_methods, reason = "this is the owner that the lint asks for")]
        let handle = tokio::spawn(async move {
            tokio::select! {
                outcome = future => outcome.map_err(|error| fault::chain(&error)),
                () = kill.cancelled() => Ok(()),
            }
        });
        self.0.tasks.spawn(async move {
            let (text, fatal) = match handle.await {
                Ok(Ok(())) => return,
                Ok(Err(text)) => (text, on_error == OnError::Shutdown),
                Err(panic) => (panic.to_string(), true),
            };
            tracing::error!(task = name, error = %text, "a task failed");
            if fatal {
                failure.send_if_modified(|first| {
                    let is_first = first.is_none();
                    if is_first {
                        *first = Some(format!("{name}: {text}"));
                    }
                    is_first
                });
            }
        });
    }

    /// Starts a task that cannot fail.
    pub fn run<F>(&self, name: &'static str, task: impl FnOnce(Stop) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let future = task(self.stop());
        self.spawn(name, OnError::Shutdown, |_| async move {
            future.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Waits until a task of this root, or of any scope below it, has failed with [`OnError::Shutdown`]; tells what it
    /// said. Cancel safe.
    pub async fn failed(&self) -> String {
        let mut failure = self.0.failure.subscribe();
        let first = failure.wait_for(Option::is_some).await.expect("the sender lives as long as the scope");
        first.clone().expect("waited for")
    }

    /// Asks everything in the scope to stop, the youngest first, and waits for it. What has not ended after `deadline`
    /// (for the whole scope) is dropped; the answer names the scopes in which that happened.
    pub async fn close(&self, deadline: Duration) -> Vec<String> {
        self.close_until(Instant::now() + deadline).await
    }

    async fn close_until(&self, end: Instant) -> Vec<String> {
        let mut late = Vec::new();
        loop {
            let child = self.0.children.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(child) = child else { break };
            late.extend(Box::pin(child.close_until(end)).await);
        }
        self.0.stop.cancel();
        self.0.tasks.close();
        if tokio::time::timeout_at(end, self.0.tasks.wait()).await.is_err() {
            late.push(self.0.name.clone());
            self.0.kill.cancel();
            self.0.tasks.wait().await;
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_youngest_scope_closes_first() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let root = Scope::root("root");
        for name in ["store", "door"] {
            let order = order.clone();
            root.child(name).run("test.wait", |stop| async move {
                stop.asked().await;
                order.lock().unwrap().push(name);
            });
        }
        assert!(root.close(Duration::from_secs(1)).await.is_empty());
        assert_eq!(*order.lock().unwrap(), ["door", "store"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_dropped_and_named() {
        let root = Scope::root("root");
        root.child("deaf").run("test.sleep", |_| std::future::pending());
        assert_eq!(root.close(Duration::from_secs(1)).await, ["deaf"]);
    }

    #[tokio::test]
    async fn a_failure_below_reaches_the_root() {
        let root = Scope::root("root");
        root.child("below").spawn("test.fail", OnError::Shutdown, |_| async { Err(std::fmt::Error) });
        assert!(root.failed().await.starts_with("test.fail: "));
    }
}
