//! A watch on etcd that outlives its connection: it goes on after the last revision it gave, wherever it finds a member.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use ninefold::lifecycle::Stop;
use tokio::time::{Instant, timeout};

use super::MESSAGE_BYTES_MAX;
use super::members::{Members, Pauses};
use super::wire::Folder;
use crate::Error;
use crate::model::{Batch, Key, Revision};

/// Time for a member to begin a watch.
const BEGIN_DEADLINE: Duration = Duration::from_secs(5);
/// A watch that is silent for so long asks its member for a sign of life;
const ASK_AFTER: Duration = Duration::from_secs(5);
/// and after so long without one, begins anew elsewhere.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// One watch.
pub(super) struct Follower {
    members: Arc<Members>,
    folder: Folder,
    prefix: Key,
    at: Revision,
    connected: Option<Connected>,
    pauses: Pauses,
    stop: Stop,
}

struct Connected {
    member: usize,
    stream: WatchStream,
    heard: Instant,
}

/// What came of waiting once.
enum Turn {
    News(Batch),
    Nothing,
    Lost,
    Failed(Error),
}

impl Follower {
    pub(super) fn new(members: Arc<Members>, folder: Folder, prefix: Key, after: Revision, stop: Stop) -> Self {
        Self { members, folder, prefix, at: after, connected: None, pauses: Pauses::default(), stop }
    }

    /// Waits for the next changes; the state for those that follow is none after an error.
    pub(super) async fn next(mut self) -> (Result<Batch, Error>, Option<Self>) {
        let stop = self.stop.clone();
        loop {
            let turn = tokio::select! {
                biased;
                () = stop.asked() => return (Err(Error::Closed), None),
                turn = self.turn() => turn,
            };
            match turn {
                Turn::News(batch) => return (Ok(batch), Some(self)),
                Turn::Nothing => {}
                Turn::Lost => {
                    if let Some(connected) = self.connected.take() {
                        self.members.leave(connected.member);
                    }
                    tokio::select! {
                        () = stop.asked() => {}
                        () = tokio::time::sleep(self.pauses.next()) => {}
                    }
                }
                Turn::Failed(error) => return (Err(error), None),
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        if self.connected.is_none() {
            match self.connect().await {
                Some(connected) => self.connected = Some(connected),
                None => return Turn::Lost,
            }
        }
        let Some(connected) = &mut self.connected else { return Turn::Lost };
        match timeout(ASK_AFTER, connected.stream.message()).await {
            Ok(Ok(Some(response))) => {
                connected.heard = Instant::now();
                self.heard(&response)
            }
            Ok(Ok(None) | Err(_)) => Turn::Lost,
            Err(_) if connected.heard.elapsed() >= SILENT_MAX => Turn::Lost,
            Err(_) => match timeout(ASK_AFTER, connected.stream.request_progress()).await {
                Ok(Ok(())) => Turn::Nothing,
                Ok(Err(_)) | Err(_) => Turn::Lost,
            },
        }
    }

    async fn connect(&self) -> Option<Connected> {
        let (member, client) = self.members.current();
        let mut watches = client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
        let options = WatchOptions::new()
            .with_range(self.folder.end(&self.prefix))
            // 0 would mean now.
            .with_start_revision(self.at.0.saturating_add(1).max(1))
            .with_progress_notify();
        let begin = watches.watch(self.folder.path(&self.prefix), Some(options));
        match timeout(BEGIN_DEADLINE, begin).await {
            Ok(Ok(stream)) => Some(Connected { member, stream, heard: Instant::now() }),
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "a watch on etcd could not begin");
                self.members.leave(member);
                None
            }
            Err(_) => {
                self.members.leave(member);
                None
            }
        }
    }

    fn heard(&mut self, response: &WatchResponse) -> Turn {
        if response.canceled() {
            return if response.compact_revision() > self.at.0 {
                Turn::Failed(Error::Compacted { after: self.at })
            } else {
                tracing::debug!(reason = response.cancel_reason(), "etcd ended a watch");
                Turn::Lost
            };
        }
        self.pauses = Pauses::default();
        // A revision in a message without events is not taken as a place to go on from: etcd up to 3.4.24 and 3.5.7 could
        // tell one that was ahead of events still to come.
        let events: Result<Vec<_>, _> = response.events().iter().map(|event| self.folder.event(event)).collect();
        match events {
            Ok(events) => match events.last() {
                Some(last) => {
                    self.at = last.revision();
                    Turn::News(Batch { revision: self.at, events })
                }
                None => Turn::Nothing,
            },
            Err(damage) => Turn::Failed(damage),
        }
    }
}
