//! Who watches which document, and one watch of the store that serves them all.
//!
//! A watcher is given the newest revision; those between may be left out, so nobody who reads slowly holds back anybody.

mod environment;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use ninefold::fault;
use ninefold::lifecycle::{Scope, Stop};
use ninefold_store::{Event, Revision, Store};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::history::History;
use crate::model::{Document, DocumentId};
use crate::wire;

/// How long a watcher hears nothing before it gets a sign of life.
const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(10);
/// First wait before a watch of the store that broke is tried again; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(5);

type Newest = Option<Arc<Document>>;

/// Who watches what.
#[derive(Debug)]
pub(crate) struct Board {
    store: Arc<dyn Store>,
    history: Arc<History>,
    watched: Mutex<Watched>,
    /// Counts what happens to documents, for those who follow whole environments.
    pulse: watch::Sender<u64>,
    watchers_max: usize,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Watched {
    documents: HashMap<DocumentId, watch::Sender<Newest>>,
    watchers: usize,
}

impl Board {
    /// Starts the watch of the store.
    pub(crate) fn start(store: Arc<dyn Store>, history: Arc<History>, watchers_max: usize, scope: &Scope) -> Arc<Self> {
        let watched = Mutex::default();
        let pulse = watch::Sender::new(0);
        let board = Arc::new(Self { store, history, watched, pulse, watchers_max, stop: scope.stop() });
        let followed = board.clone();
        scope.run("config.follow", |stop| async move {
            tokio::select! {
                () = stop.asked() => {}
                // Dropped between two awaits: what is on the board is whole at each of them.
                never = followed.follow() => match never {},
            }
        });
        board
    }

    async fn follow(&self) -> std::convert::Infallible {
        let mut wait = RETRY_FIRST;
        loop {
            let begun = Instant::now();
            match self.follow_once().await {
                // The store ends a watch whose reader lags or whose history is gone; what is missed is read again.
                Ok(()) => tracing::debug!("the watch of the store ended"),
                Err(error) => tracing::warn!(error = fault::chain(&error), "the store cannot be watched"),
            }
            if begun.elapsed() > RETRY_MAX {
                wait = RETRY_FIRST;
            }
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Tells watchers what changed while nobody looked, then each change as it comes, until the watch ends.
    async fn follow_once(&self) -> Result<(), Error> {
        let watching = |source| Error::Store { what: "watch the documents", source };
        let heads = wire::heads_of(None);
        let Revision(begin) = self.store.range(&heads, None, 1).await.map_err(watching)?.revision;
        // Whoever comes to the board later reads the store after this moment.
        for id in self.watched_now() {
            self.tell_newest(&id).await?;
        }
        self.pulse.send_modify(|count| *count += 1);
        let mut batches = self.store.watch(&heads, Revision(begin)).await.map_err(watching)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(watching)?;
            self.pulse.send_modify(|count| *count += 1);
            for event in batch.events {
                let key = match &event {
                    Event::Put(entry) => &entry.key,
                    Event::Delete { key, .. } => key,
                };
                if let Some(id) = wire::id_of_head(key)
                    && self.is_watched(&id)
                {
                    self.tell_newest(&id).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell_newest(&self, id: &DocumentId) -> Result<(), Error> {
        let Some(document) = self.history.newest(id).await? else { return Ok(()) };
        if let Some(told) = self.lock().documents.get(id) {
            told.send_replace(Some(Arc::new(document)));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        // Every change under the lock is whole.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched_now(&self) -> Vec<DocumentId> {
        self.lock().documents.keys().cloned().collect()
    }

    fn is_watched(&self, id: &DocumentId) -> bool {
        self.lock().documents.contains_key(id)
    }

    /// Watches a document from now on.
    ///
    /// # Errors
    /// [`Error::WatchersFull`].
    pub(crate) fn watch(self: &Arc<Self>, id: DocumentId, known: i64) -> Result<Watcher, Error> {
        let mut watched = self.lock();
        if watched.watchers >= self.watchers_max {
            return Err(Error::WatchersFull(self.watchers_max));
        }
        watched.watchers += 1;
        let told = watched.documents.entry(id.clone()).or_insert_with(|| watch::Sender::new(None)).subscribe();
        Ok(Watcher { board: self.clone(), id, told, known, has_begun: false })
    }
}

impl Board {
    /// Follows all documents of an environment from now on.
    ///
    /// # Errors
    /// [`Error::WatchersFull`].
    pub(crate) fn follow_environment(self: &Arc<Self>, environment: String) -> Result<environment::Follower, Error> {
        {
            let mut watched = self.lock();
            if watched.watchers >= self.watchers_max {
                return Err(Error::WatchersFull(self.watchers_max));
            }
            watched.watchers += 1;
        }
        Ok(environment::Follower::new(self.clone(), environment))
    }
}

/// One who watches a document.
#[derive(Debug)]
pub(crate) struct Watcher {
    board: Arc<Board>,
    id: DocumentId,
    told: watch::Receiver<Newest>,
    /// The revision that the watcher has.
    known: i64,
    has_begun: bool,
}

impl Watcher {
    /// The newest revision if it is not known, then every newer one that is the newest when it is sent; `None` as a sign
    /// of life. The first item comes at once. Ends when the node stops, or after an error.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Newest, Error>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(Some(told)) => Some((Ok(told), Some(watcher))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The outer `None` is the end.
    async fn next(&mut self) -> Result<Option<Newest>, Error> {
        if !self.has_begun {
            self.has_begun = true;
            let newest = self.board.history.newest(&self.id).await?;
            // What the watcher knows may be ahead of a store that was set back; the store is right.
            let news = newest.filter(|document| document.revision.number != self.known);
            if let Some(document) = &news {
                self.known = document.revision.number;
            }
            return Ok(Some(news.map(Arc::new)));
        }
        let sign_of_life = tokio::time::sleep(SIGN_OF_LIFE_EVERY);
        tokio::pin!(sign_of_life);
        loop {
            tokio::select! {
                () = self.board.stop.asked() => return Ok(None),
                () = &mut sign_of_life => return Ok(Some(None)),
                changed = self.told.changed() => {
                    if changed.is_err() {
                        return Ok(None);
                    }
                }
            }
            let told = self.told.borrow_and_update().clone();
            // What is told may be older than what was read at the beginning.
            if let Some(document) = told.filter(|document| document.revision.number > self.known) {
                self.known = document.revision.number;
                return Ok(Some(Some(document)));
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watched = self.board.lock();
        watched.watchers -= 1;
        let is_last = watched.documents.get(&self.id).is_some_and(|told| told.receiver_count() <= 1);
        if is_last {
            watched.documents.remove(&self.id);
        }
    }
}
