//! Follows all documents of one environment: what is new since the watcher last looked, each document once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::watch;

use super::{Board, SIGN_OF_LIFE_EVERY};
use crate::error::Error;
use crate::model::{Document, DocumentId};

/// Documents that are new, and whether nothing else is left to be told.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) documents: Vec<Document>,
    pub(crate) is_complete: bool,
}

/// One who follows an environment.
#[derive(Debug)]
pub(crate) struct Follower {
    board: Arc<Board>,
    environment: String,
    pulse: watch::Receiver<u64>,
    /// The revisions that were told.
    told: BTreeMap<DocumentId, i64>,
    is_complete: bool,
}

impl Follower {
    pub(super) fn new(board: Arc<Board>, environment: String) -> Self {
        let mut pulse = board.pulse.subscribe();
        pulse.mark_changed();
        Self { board, environment, pulse, told: BTreeMap::new(), is_complete: false }
    }

    /// What is new, as it comes; nothing, as a sign of life. Ends when the node stops, or after an error.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<News, Error>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |follower| async move {
            let mut follower = follower?;
            match follower.next().await {
                Ok(Some(news)) => Some((Ok(news), Some(follower))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<News>, Error> {
        loop {
            if self.is_complete {
                tokio::select! {
                    () = self.board.stop.asked() => return Ok(None),
                    () = tokio::time::sleep(SIGN_OF_LIFE_EVERY) => {
                        return Ok(Some(News { documents: Vec::new(), is_complete: true }));
                    }
                    changed = self.pulse.changed() => {
                        if changed.is_err() {
                            return Ok(None);
                        }
                    }
                }
            }
            let was_complete = self.is_complete;
            let (documents, is_complete) = self.board.history.newer(&self.environment, &self.told).await?;
            self.told.extend(documents.iter().map(|document| (document.id.clone(), document.revision.number)));
            self.is_complete = is_complete;
            if !documents.is_empty() || !was_complete {
                return Ok(Some(News { documents, is_complete }));
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.board.lock().watchers -= 1;
    }
}
