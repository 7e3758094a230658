//! What this node last saw of the store, in a file: for a start while the store is away.
//!
//! Reports of callers are not kept: they are hints, and made again.

use std::sync::Arc;
use std::time::Duration;

use ninefold::fault::{self, Fault as _};
use ninefold::lifecycle::Stop;
use ninefold_store::{self as store, Entry, Key, Remembered, Revision, Store};
use tokio::time::Instant;

use crate::error::Error;
use crate::follow;
use crate::model::{Instance, InstanceKey, Override};
use crate::table::{Moment, News};
use crate::view::{Pulse, View};
use crate::wire;

/// How long the store may take at a start, where something is remembered. Later it is read again anyway.
const START_WITHIN: Duration = Duration::from_secs(2);
/// How long changes are gathered before they are written to the file.
const GATHER: Duration = Duration::from_secs(1);
/// Pause between two writes, in times of how long the one before took: a large file does not keep a disk busy.
const PAUSE_TIMES: u32 = 20;

/// What a node begins with.
pub(crate) struct Beginning {
    /// Up to this revision it is right.
    pub(crate) revision: Revision,
    /// What there is.
    pub(crate) read: Vec<News>,
    /// Why it is only remembered, if the store is away.
    pub(crate) away: Option<String>,
}

/// All that is kept of a view, at one moment.
pub(crate) struct Kept {
    pub(crate) revision: Revision,
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) decided: Vec<(InstanceKey, Arc<Override>)>,
}

/// Reads the store, or what is remembered of it while it is away.
///
/// # Errors
/// [`Error::Store`] when the store cannot be read, and nothing is remembered that can.
pub(crate) async fn begin(store: &dyn Store, remembered: Option<&Remembered>) -> Result<Beginning, Error> {
    let failed = |source| Error::Store { doing: "read the instances", source };
    let Some(remembered) = remembered.filter(|remembered| remembered.is_there()) else {
        let (revision, read) = follow::load(store).await.map_err(failed)?;
        return Ok(Beginning { revision, read, away: None });
    };
    let away = match tokio::time::timeout(START_WITHIN, follow::load(store)).await {
        Ok(Ok((revision, read))) => return Ok(Beginning { revision, read, away: None }),
        Ok(Err(error)) if !error.kind().is_passing() => return Err(failed(error)),
        Ok(Err(error)) => error,
        Err(_) => store::Error::Unavailable { what: format!("no answer within {START_WITHIN:?}"), source: None },
    };
    match remembered.read().await {
        Ok(Some(known)) => {
            let read: Vec<News> = known.entries.iter().filter_map(follow::put).collect();
            let why = format!("began with {} entries that are remembered: {away}", read.len());
            tracing::warn!(file = %remembered.path().display(), error = %fault::chain(&away), "the store is away");
            Ok(Beginning { revision: known.revision, read, away: Some(why) })
        }
        Ok(None) => Err(failed(away)),
        Err(error) => {
            let file = remembered.path().display();
            tracing::warn!(%file, %error, "what is remembered cannot be read");
            Err(failed(away))
        }
    }
}

/// Keeps the file as new as the view, some seconds behind it, until asked to stop; then once more. A file that cannot be
/// written is told once, and tried again with the next change.
pub(crate) async fn keep(view: Arc<View>, remembered: Remembered, stop: Stop) {
    let mut pulse = view.pulse();
    let (mut written, mut pause, mut is_failing) = (None, GATHER, false);
    loop {
        let must_end = tokio::select! {
            () = stop.asked() => true,
            is_there = moved(&mut pulse, written) => match is_there {
                true => tokio::select! {
                    () = stop.asked() => true,
                    () = tokio::time::sleep(pause) => false,
                },
                false => return,
            },
        };
        let moment = pulse.borrow_and_update().0;
        if written != Some(moment)
            && let Some(kept) = view.kept()
        {
            let begin = Instant::now();
            match remembered.write(kept.revision, move || entries(&kept)).await {
                Ok(()) => is_failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        let file = remembered.path().display();
                        tracing::warn!(%file, %error, "what is known cannot be remembered");
                    }
                }
            }
            pause = GATHER.max(begin.elapsed() * PAUSE_TIMES);
        }
        written = Some(moment);
        if must_end {
            return;
        }
    }
}

/// Waits until the table is not as it was written any more; tells whether there is a table. Cancel safe.
async fn moved(pulse: &mut Pulse, written: Option<Moment>) -> bool {
    pulse.wait_for(|(moment, _)| written != Some(*moment)).await.is_ok()
}

/// What is kept, as it lies in the store.
fn entries(kept: &Kept) -> Vec<Entry> {
    let entry = |key: Key, value, modified| Entry { key, value, created: Revision(0), modified, lease: None };
    let instance = |one: &Arc<Instance>| entry(one.key.path(), wire::record(one), one.written);
    let instances = kept.instances.iter().map(instance);
    let overrides = kept.decided.iter().map(|(key, decided)| {
        // An instance counts what was decided of it, if that is newer than its own record.
        let known = kept.instances.binary_search_by(|one| one.key.cmp(key)).ok();
        let revision = known.map_or(kept.revision, |at| kept.instances[at].revision);
        entry(key.override_path(), wire::override_record(decided), revision)
    });
    instances.chain(overrides).collect()
}
