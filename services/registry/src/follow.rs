//! Follows the store, so that the table of every node tells the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold_store::{self as store, Entry, Event, Key, Revision, Store};

use crate::model::{ALL, Place};
use crate::roll::Roll;
use crate::table::{News, Step};
use crate::view::View;
use crate::wire;

/// Most entries of one read; keeps an answer of the store below a few megabytes.
const PAGE_ENTRIES: usize = 1000;
/// First and longest pause before the store is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the table has taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken<'a> {
    /// What the store told, revision by revision.
    News(&'a [Step]),
    /// A whole reading: what came and went unseen before it is not among the steps.
    Reading(&'a [Step]),
}

/// How often the store is asked whether it is there, and how long it has to answer.
const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// Reads all that the registry keeps, and the revision after which a watch misses nothing.
///
/// # Errors
/// Those of [`Store::range`].
pub(crate) async fn load(store: &dyn Store) -> Result<(Revision, Vec<News>), store::Error> {
    let prefix = Key::new(ALL);
    let mut page = store.range(&prefix, None, PAGE_ENTRIES).await?;
    // Later pages may be newer than the first; what the watch then tells again changes nothing.
    let revision = page.revision;
    let mut read = Vec::new();
    loop {
        read.extend(page.entries.iter().filter_map(put));
        let Some(last) = page.entries.last().filter(|_| page.more) else { return Ok((revision, read)) };
        let last = last.key.clone();
        page = store.range(&prefix, Some(&last), PAGE_ENTRIES).await?;
    }
}

/// What an entry tells.
pub(crate) fn put(entry: &Entry) -> Option<News> {
    let news = match Place::of(&entry.key) {
        Some(Place::Instance(key)) => {
            let instance = wire::read_record(&entry.value, entry.modified);
            // A record under another's key would be in the table twice.
            let instance = instance.filter(|instance| instance.key == key);
            instance.map(|instance| News::Written(Arc::new(instance)))
        }
        Some(Place::Override(key)) => {
            wire::read_override(&entry.value).map(|decided| News::Decided(key, Some(Arc::new(decided)), entry.modified))
        }
        Some(Place::Report { of, by }) => Some(News::Reported { of, by, stands: true }),
        Some(Place::Roll(node)) => Roll::read(&entry.value).map(|roll| News::Rolled(node, Some(Arc::new(roll)))),
        Some(Place::Room) => return None,
        None => None,
    };
    if news.is_none() {
        tracing::warn!(key = %entry.key, "skipped a record that no registry wrote");
    }
    news
}

/// Asks the store now and then whether it is there, until asked to stop: a watch on a store that is away is silent, as one
/// on which nothing happens is. While it is away, nobody is told that what is not known is not there.
pub(crate) async fn probe(store: Arc<dyn Store>, view: Arc<View>, stop: Stop) {
    let prefix = Key::new(ALL);
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
        let asked = tokio::time::timeout(PROBE_WITHIN, store.range(&prefix, None, 0)).await;
        match asked {
            Ok(Ok(_)) => view.set_stale(false, "the store answers again"),
            Ok(Err(error)) => view.set_stale(true, &format!("the last known instances stay: {error}")),
            Err(_) => view.set_stale(true, "the last known instances stay: the store does not answer"),
        }
    }
}

/// Follows the store until asked to stop; `told` hears what was taken in after the table has it. While the store is away the
/// table stays as it was. `must_reload` where it is only remembered so far.
pub(crate) async fn follow(
    store: Arc<dyn Store>,
    view: Arc<View>,
    told: impl Fn(Taken<'_>),
    mut must_reload: bool,
    stop: Stop,
) {
    let mut pause = PAUSE.0;
    let mut is_away = must_reload;
    while !stop.is_asked() {
        let outcome = tokio::select! {
            () = stop.asked() => return,
            outcome = round(store.as_ref(), &view, &told, must_reload) => outcome,
        };
        let progressed = outcome.progressed;
        match outcome.error {
            Some(error @ (store::Error::Compacted { .. } | store::Error::Lagged { .. })) => {
                tracing::info!(reason = %error, "reading the instances again");
                must_reload = true;
            }
            Some(error) => {
                // Told once, however often it is tried.
                if progressed || !is_away {
                    tracing::warn!(error = %fault::chain(&error), "lost the store; the last known instances stay");
                }
                is_away = true;
                must_reload = outcome.must_reload;
            }
            None => must_reload = false,
        }
        pause = if progressed { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Round {
    error: Option<store::Error>,
    must_reload: bool,
    progressed: bool,
}

async fn round(store: &dyn Store, view: &View, told: &impl Fn(Taken<'_>), reload: bool) -> Round {
    let mut progressed = false;
    if reload {
        match load(store).await {
            Ok((revision, read)) => told(Taken::Reading(&view.replace(revision, read))),
            Err(error) => return Round { error: Some(error), must_reload: true, progressed },
        }
    }
    let after = view.table().revision();
    let mut batches = match store.watch(&Key::new(ALL), after).await {
        Ok(batches) => batches,
        Err(error) => return Round { error: Some(error), must_reload: false, progressed },
    };
    while let Some(batch) = batches.next().await {
        match batch {
            Ok(batch) => {
                progressed = true;
                told(Taken::News(&view.apply(batch.revision, batch.events.iter().filter_map(news).collect())));
            }
            Err(error) => return Round { error: Some(error), must_reload: false, progressed },
        }
    }
    Round { error: None, must_reload: false, progressed }
}

fn news(event: &Event) -> Option<News> {
    match event {
        Event::Put(entry) => put(entry),
        Event::Delete { key, revision } => Some(match Place::of(key)? {
            Place::Instance(key) => News::Erased(key, *revision),
            Place::Override(key) => News::Decided(key, None, *revision),
            Place::Report { of, by } => News::Reported { of, by, stands: false },
            Place::Roll(node) => News::Rolled(node, None),
            Place::Room => return None,
        }),
    }
}
