//! The tokens of the landscape: in the store, and in this node's memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use ninefold::Caller;
use ninefold::fault::{self, Fault as _};
use ninefold::lifecycle::{Scope, Stop};
use ninefold_store::{self as store, Compare, Entry, Event, Key, Op, Remembered, Revision, Store, Txn};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::model::{NewToken, Token};
use crate::secret;
use crate::wire::{self, TOKENS, USES};

/// How long the store may take at a start, where something is remembered.
const START_WITHIN: Duration = Duration::from_secs(2);
/// Most entries of one read.
const PAGE_ENTRIES: usize = 1000;
/// First and longest pause before the store is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long a change waits for this node itself to have seen it.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// How often it is written down which tokens were used.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// How much later a use must be than the one that is written down, in seconds.
const NOTE_AFTER_SECONDS: u64 = 60;
/// Most uses written at once; the store takes 100 operations.
const NOTES_MAX: usize = 50;

/// A token that this node knows.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) token: Token,
    pub(crate) caller: Caller,
    /// Cancelled when the token is revoked, or is not the same any more.
    pub(crate) revoked: CancellationToken,
    modified: Revision,
    /// When it was last used here, and what of that is written down. Unix seconds, 0 for never.
    used: AtomicU64,
    noted: AtomicU64,
}

impl Known {
    /// The token as it lies in the store.
    fn entry(&self) -> Entry {
        let (key, value) = (wire::token_key(&self.token.id), wire::write_record(&self.token).into());
        Entry { key, value, created: Revision(0), modified: self.modified, lease: None }
    }
}

type Table = HashMap<String, Arc<Known>>;

/// The tokens of the landscape.
#[derive(Debug)]
pub(crate) struct Tokens {
    store: Arc<dyn Store>,
    max: usize,
    table: RwLock<Table>,
    seen: watch::Sender<Revision>,
}

impl Tokens {
    /// Reads all tokens, or what is remembered of them while the store is away, and follows the store from then on.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        remembered: Option<Remembered>,
        max: usize,
        scope: &Scope,
    ) -> Result<Arc<Self>, Error> {
        let tokens = Arc::new(Self { store, max, table: RwLock::default(), seen: watch::Sender::new(Revision(0)) });
        tokens.begin(remembered.as_ref()).await.map_err(|source| Error::Store { doing: "read the tokens", source })?;
        if let Some(remembered) = remembered {
            let kept = tokens.clone();
            scope.run("access.remember", |stop| async move { kept.remember(remembered, stop).await });
        }
        let following = tokens.clone();
        scope.run("access.follow", |stop| async move { following.follow(stop).await });
        let noting = tokens.clone();
        scope.run("access.note_uses", |stop| async move { noting.note_uses(stop).await });
        Ok(tokens)
    }

    /// The token that a text is, if it is worth something now.
    pub(crate) fn find(&self, text: &str, now: SystemTime) -> Option<Arc<Known>> {
        let id = secret::id_of(text)?;
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()?;
        // Both are looked at, whatever the first tells.
        let (is_same, is_valid) = (secret::is_same(text, &known.token.hash), known.token.is_valid_at(now));
        if !(is_same && is_valid) {
            return None;
        }
        known.used.store(unix(now), Ordering::Relaxed);
        Some(known)
    }

    /// Makes a token; answers what is kept of it, and itself.
    pub(crate) async fn create(&self, new: NewToken, author: String) -> Result<(Token, String), Error> {
        let now = SystemTime::now();
        let living = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            table.values().filter(|known| known.token.is_valid_at(now)).count()
        };
        if living >= self.max {
            return Err(Error::TokensFull { max: self.max });
        }
        let (id, text) = secret::make().map_err(Error::Random)?;
        let token = Token {
            id,
            name: new.name,
            roles: new.roles,
            services: new.services,
            namespaces: new.namespaces,
            hash: secret::hash(&text),
            created: now,
            expires: new.lifetime.and_then(|life| now.checked_add(life)),
            author,
        };
        let key = wire::token_key(&token.id);
        let mut ops = vec![Op::Put { key: key.clone(), value: wire::write_record(&token).into(), lease: None }];
        // What has expired is forgotten on the way, or it would add up.
        ops.extend(
            self.expired(now).iter().flat_map(|id| [Op::Delete(wire::token_key(id)), Op::Delete(wire::use_key(id))]),
        );
        let txn = Txn { compares: vec![Compare::Absent(key)], ops };
        let outcome = self.store.txn(txn).await;
        let outcome = outcome.map_err(|source| Error::Store { doing: "write the token", source })?;
        self.reached(outcome.revision).await;
        tracing::info!(token = token.id, name = token.name, author = token.author, "made a token");
        Ok((token, text))
    }

    /// Revokes a token.
    pub(crate) async fn revoke(&self, id: &str, author: &str) -> Result<Token, Error> {
        let unknown = || Error::TokenUnknown(id.to_owned());
        if !secret::is_id(id) {
            return Err(unknown());
        }
        let key = wire::token_key(id);
        let found = self.store.get(&key).await.map_err(|source| Error::Store { doing: "read the token", source })?;
        let token = found.as_ref().and_then(wire::read_record).ok_or_else(unknown)?;
        let txn = Txn {
            compares: vec![Compare::Present(key.clone())],
            ops: vec![Op::Delete(key), Op::Delete(wire::use_key(id))],
        };
        let outcome = self.store.txn(txn).await;
        let outcome = outcome.map_err(|source| Error::Store { doing: "revoke the token", source })?;
        self.reached(outcome.revision).await;
        tracing::info!(token = token.id, name = token.name, author, "revoked a token");
        Ok(token)
    }

    /// Tokens by id after one, at most `limit`, each with when it was last used.
    pub(crate) async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<(Token, Option<u64>)>, Error> {
        let reading = |source| Error::Store { doing: "read the tokens", source };
        let after_use = after.map(wire::use_key);
        let after = after.map(wire::token_key);
        let found = self.store.range(&Key::new(TOKENS), after.as_ref(), limit).await.map_err(reading)?;
        let uses = self.store.range(&Key::new(USES), after_use.as_ref(), limit).await.map_err(reading)?;
        let noted: HashMap<&str, u64> = uses
            .entries
            .iter()
            .filter_map(|entry| Some((wire::id_in(&entry.key, USES)?, wire::read_use(&entry.value)?)))
            .collect();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let used = |id: &str| {
            let here = table.get(id).map(|known| known.used.load(Ordering::Relaxed)).filter(|used| *used > 0);
            here.max(noted.get(id).copied())
        };
        let tokens = found.entries.iter().filter_map(wire::read_record);
        Ok(tokens
            .map(|token| {
                let used = used(&token.id);
                (token, used)
            })
            .collect())
    }

    fn expired(&self, now: SystemTime) -> Vec<String> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let expired = table.values().filter(|known| !known.token.is_valid_at(now));
        expired.take(NOTES_MAX / 2).map(|known| known.token.id.clone()).collect()
    }

    /// Waits until this node knows what was written at a revision.
    async fn reached(&self, revision: Revision) {
        let mut seen = self.seen.subscribe();
        let _ = tokio::time::timeout(SEEN_WITHIN, seen.wait_for(|seen| *seen >= revision)).await;
    }

    /// Reads the tokens from the store, or from the file while the store is away.
    async fn begin(&self, remembered: Option<&Remembered>) -> Result<(), store::Error> {
        let Some(remembered) = remembered.filter(|remembered| remembered.is_there()) else {
            return self.load().await.map(drop);
        };
        let away = match tokio::time::timeout(START_WITHIN, self.load()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if !error.kind().is_passing() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => store::Error::Unavailable { what: format!("no answer within {START_WITHIN:?}"), source: None },
        };
        match remembered.read().await {
            Ok(Some(known)) => {
                tracing::warn!(error = %fault::chain(&away), tokens = known.entries.len(), "began with remembered tokens");
                let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
                known.entries.iter().for_each(|entry| put(&mut table, entry));
                Ok(())
            }
            Ok(None) => Err(away),
            Err(error) => {
                let file = remembered.path().display();
                tracing::warn!(%file, %error, "what is remembered cannot be read");
                Err(away)
            }
        }
    }

    /// Keeps the file as new as the tokens, until asked to stop. A file that cannot be written is tried again with the
    /// next change.
    async fn remember(&self, remembered: Remembered, stop: Stop) {
        let mut seen = self.seen.subscribe();
        // What was read from the file itself has no revision.
        let mut written = Revision(0);
        loop {
            let revision = tokio::select! {
                () = stop.asked() => return,
                moved = seen.wait_for(|seen| *seen != written) => match moved {
                    Ok(revision) => *revision,
                    Err(_) => return,
                },
            };
            let entries: Vec<Entry> = {
                let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
                table.values().map(|known| known.entry()).collect()
            };
            if let Err(error) = remembered.write(revision, || entries).await {
                tracing::warn!(file = %remembered.path().display(), %error, "the tokens cannot be remembered");
            }
            written = revision;
        }
    }

    async fn load(&self) -> Result<Revision, store::Error> {
        let prefix = Key::new(TOKENS);
        let mut page = self.store.range(&prefix, None, PAGE_ENTRIES).await?;
        // Later pages may be newer than the first; what the watch then tells again changes nothing.
        let revision = page.revision;
        let mut found = Vec::new();
        loop {
            found.append(&mut page.entries);
            let Some(last) = found.last().filter(|_| page.more) else { break };
            let last = last.key.clone();
            page = self.store.range(&prefix, Some(&last), PAGE_ENTRIES).await?;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.retain(|id, known| {
            let is_there = found.iter().any(|entry| wire::id_in(&entry.key, TOKENS) == Some(id));
            if !is_there {
                known.revoked.cancel();
            }
            is_there
        });
        found.iter().for_each(|entry| put(&mut table, entry));
        drop(table);
        self.seen.send_replace(revision);
        Ok(revision)
    }

    /// Follows the store. While it is away, what is known stays: nobody can be revoked then, either.
    async fn follow(&self, stop: Stop) {
        let mut pause = PAUSE.0;
        let mut is_away = false;
        while !stop.is_asked() {
            let round = async {
                let revision = self.load().await?;
                let mut batches = self.store.watch(&Key::new(TOKENS), revision).await?;
                while let Some(batch) = batches.next().await {
                    let batch = batch?;
                    let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
                    batch.events.iter().for_each(|event| apply(&mut table, event));
                    drop(table);
                    self.seen.send_replace(batch.revision);
                }
                Ok::<(), store::Error>(())
            };
            let outcome = tokio::select! {
                () = stop.asked() => return,
                outcome = round => outcome,
            };
            match outcome {
                Ok(()) => (pause, is_away) = (PAUSE.0, false),
                Err(error) => {
                    // Told once, however often it is tried.
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(error = %fault::chain(&error), "lost the store; the last known tokens stay");
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Writes down, now and then, which tokens were used.
    async fn note_uses(&self, stop: Stop) {
        let mut tick = tokio::time::interval(NOTE_EVERY);
        loop {
            tokio::select! {
                () = stop.asked() => return,
                _ = tick.tick() => {}
            }
            let due: Vec<Arc<Known>> = {
                let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
                let due = table.values().filter(|known| {
                    let (used, noted) = (known.used.load(Ordering::Relaxed), known.noted.load(Ordering::Relaxed));
                    used > noted.saturating_add(if noted == 0 { 0 } else { NOTE_AFTER_SECONDS })
                });
                due.take(NOTES_MAX).cloned().collect()
            };
            if due.is_empty() {
                continue;
            }
            let mut txn = Txn::default();
            for known in &due {
                let used = known.used.load(Ordering::Relaxed);
                known.noted.store(used, Ordering::Relaxed);
                let key = wire::use_key(&known.token.id);
                txn.ops.push(Op::Put { key, value: wire::write_use(used).into(), lease: None });
            }
            // A note that is lost is made up for by the next use.
            if let Err(error) = self.store.txn(txn).await {
                tracing::debug!(error = %fault::chain(&error), "could not note which tokens were used");
            }
        }
    }
}

fn apply(table: &mut Table, event: &Event) {
    match event {
        Event::Put(entry) => put(table, entry),
        Event::Delete { key, .. } => {
            if let Some(gone) = wire::id_in(key, TOKENS).and_then(|id| table.remove(id)) {
                gone.revoked.cancel();
            }
        }
    }
}

fn put(table: &mut Table, entry: &Entry) {
    let Some(token) = wire::read_record(entry) else {
        tracing::warn!(key = %entry.key, "skipped a record that is no token");
        return;
    };
    if table.get(&token.id).is_some_and(|known| known.modified >= entry.modified) {
        return;
    }
    let known = Known {
        caller: token.caller(),
        revoked: CancellationToken::new(),
        modified: entry.modified,
        used: AtomicU64::new(0),
        noted: AtomicU64::new(0),
        token,
    };
    if let Some(before) = table.insert(known.token.id.clone(), Arc::new(known)) {
        before.revoked.cancel();
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
