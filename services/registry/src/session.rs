//! A session: an instance's hold on its place in the landscape.
//!
//! One task a session hears the instance, keeps its record as it ought to be, and cleans up after it. Every write is
//! fenced by the revision of the write before, so a session that was overtaken changes nothing any more.

mod admission;
mod hub;
mod record;
mod reports;
mod room;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::fault::{self, Fault as _};
use ninefold::lifecycle::Stop;
use ninefold_store::Revision;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub(crate) use admission::Admission;
use hub::Claim;
pub(crate) use hub::{Hub, Place, take_place};
use record::{Record, Standing};
use reports::Reports;

use crate::checks;
use crate::error::Error;
use crate::life::Life;
use crate::model::{Event, EventKind, Instance, Report, State};
use crate::preserve::Verdict;
use crate::watch::Count;

/// Most answers that wait for an instance to read them.
pub(crate) const ANSWERS_MAX: usize = 16;
/// How long a new stream may take to say who it is.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// Beats that may be missed.
const BEATS_MISSED_MAX: u32 = 3;
/// How long an answer waits for this node's own table to show what was written.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether an instance that is kept may go.
const KEPT_LOOK: Duration = Duration::from_secs(1);
/// First and longest pause before a failed write is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What an instance says.
#[derive(Debug)]
pub(crate) enum Said {
    /// Who it is.
    Register(Box<Instance>),
    /// That it lives.
    Beat,
    /// Its new state, and why.
    SetState(State, String),
    /// What it saw of others.
    Report(Vec<Report>),
    /// That it leaves, and why.
    Deregister(String),
}

/// Why nothing more is heard, though nobody left.
#[derive(Debug)]
pub(crate) enum Broken {
    /// What was said makes no sense.
    Fault(Error),
    /// The stream broke; with what the transport says.
    Lost(String),
}

/// What an instance is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is registered.
    Registered { instance: Box<Instance>, beat_interval: Duration, lease: Duration },
    /// Its state is changed.
    StateChanged { instance: Box<Instance> },
    /// An operator wants that it takes no new calls.
    DrainRequested { reason: String },
    /// It may take calls again.
    DrainWithdrawn,
}

pub(crate) type Inbound = BoxStream<'static, Result<Said, Broken>>;
pub(crate) type Outbound = mpsc::Sender<Result<Answer, Error>>;

/// How a session ends.
#[derive(Debug)]
enum End {
    /// The instance left.
    Left(String),
    /// The instance is not heard any more, or not understood.
    Lost { why: String, fault: Option<Error> },
    /// Another session holds the instance.
    Overtaken,
    /// The node stops.
    Stopping,
}

impl End {
    fn fault(error: Error) -> Self {
        Self::Lost { why: format!("session ended: {error}"), fault: Some(error) }
    }
}

/// Holds a session from its first message until its instance is gone, or somebody else's.
pub(crate) async fn hold(hub: Arc<Hub>, place: Place, mut inbound: Inbound, out: Outbound, stop: Stop) {
    let opened = tokio::select! {
        () = stop.asked() => Err(Error::Stopping),
        opened = open(&hub, &mut inbound, &out) => opened,
    };
    let (found, health) = watch::channel(None);
    let (mut session, instance) = match opened {
        Ok((claim, record)) => {
            let instance = record.instance().clone();
            let reports = Reports::new(hub.clone(), instance.key.clone());
            let hold = Hold { hub: hub.clone(), claim, record, life: Life::begin(instance.state) };
            let (heard, drained) = (Instant::now(), None);
            (Session { hold, out, heard, unsettled: None, draining: None, drained, reports, health }, instance)
        }
        Err(error) => {
            tracing::info!(reason = error.reason(), error = %fault::chain(&error), "refused a session");
            // The channel is new and empty; if this does not fit, nobody listens.
            let _ = out.try_send(Err(error));
            return;
        }
    };
    let end = tokio::select! {
        end = session.attend(&mut inbound, &stop) => end,
        never = checks::keep(&instance, &hub.asked, &found) => match never {},
    };
    // What the instance still sends is not read; let the transport know at once.
    drop(inbound);
    session.end(end, &stop).await;
    drop(place);
}

async fn open(hub: &Arc<Hub>, inbound: &mut Inbound, out: &Outbound) -> Result<(Claim, Record), Error> {
    let first = tokio::time::timeout(OPEN_WITHIN, inbound.next()).await;
    let mut instance = match first {
        Ok(Some(Ok(Said::Register(instance)))) => *instance,
        Ok(Some(Err(Broken::Fault(fault)))) => return Err(fault),
        Ok(Some(
            Ok(Said::Beat | Said::SetState(..) | Said::Report(_) | Said::Deregister(_)) | Err(Broken::Lost(_)),
        ))
        | Ok(None)
        | Err(_) => return Err(Error::SessionUnopened),
    };
    let key = instance.key.clone();
    let _turn = tokio::select! {
        turn = hub.turn() => turn,
        // Whoever asked waits no longer: nothing was done for it yet.
        () = out.closed() => return Err(Error::SessionUnopened),
    };
    let known = {
        let table = hub.view.table();
        let known = table.get(&key).map(|known| known.written).filter(|_| !table.lapsed().contains(&key));
        let max = hub.config.instances_max;
        if table.get(&key).is_none() && table.count(&key.service) >= max {
            return Err(Error::ServiceFull { service: key.service, max });
        }
        known
    };
    hub.admission.admit(&instance, &hub.view).await?;
    let claim = hub.claim(&key, instance.started)?;
    instance.node.clone_from(&hub.node);
    let mut record = Record::new(hub.clone(), instance, known);
    match record.write(Standing::Newcomer, &claim).await {
        Ok(()) => Ok((claim, record)),
        Err(error) => {
            hub.release(&claim);
            Err(error)
        }
    }
}

/// An open session.
struct Session {
    hold: Hold,
    out: Outbound,
    heard: Instant,
    /// A write that is still to be done.
    unsettled: Option<Unsettled>,
    /// The instance waits for its watchers to have seen that it drains.
    draining: Option<Draining>,
    /// Why an operator wants that it takes no new calls, as it was told.
    drained: Option<String>,
    /// What it reports of others.
    reports: Reports,
    /// Why its health check says that it is not well, if it does.
    health: watch::Receiver<Option<String>>,
}

#[derive(Clone, Copy)]
struct Draining {
    /// The revision that the watchers are to see.
    revision: Revision,
    since: Instant,
    /// Whether the instance waits for that; an operator's drain it is told of at once.
    must_answer: bool,
}

struct Unsettled {
    /// Whether the instance waits for an answer.
    must_answer: bool,
    retry_at: Instant,
    pause: Duration,
}

impl Session {
    async fn attend(&mut self, inbound: &mut Inbound, stop: &Stop) -> End {
        let config = &self.hold.hub.config;
        let (silence_max, beat_interval, lease) =
            (config.beat_interval * BEATS_MISSED_MAX, config.beat_interval, config.lease);
        self.hold.hub.view.reached(self.hold.record.revision(), SEEN_WITHIN).await;
        let instance = Box::new(self.hold.record.instance().clone());
        tracing::info!(instance = %instance.key, "registered");
        if let Err(end) = self.answer(Answer::Registered { instance, beat_interval, lease }) {
            return end;
        }
        if let Err(end) = self.pass_on() {
            return end;
        }
        // One that came back to an operator's decision: its watchers have known it for long.
        self.draining = None;
        loop {
            let retry_at = self.unsettled.as_ref().map(|unsettled| unsettled.retry_at);
            let report_end = self.reports.next_end();
            let done = tokio::select! {
                // What was said counts before what was not: a slow write of ours must not look like a silence of theirs.
                biased;
                () = stop.asked() => return End::Stopping,
                () = self.hold.claim.passed_on() => return End::Overtaken,
                said = inbound.next() => self.hear(said).await,
                () = self.hold.claim.woken() => self.look().await,
                () = at(retry_at) => self.settle().await,
                seen = seen(&self.hold, self.draining) => self.drained(seen),
                _ = self.health.changed() => {
                    let unwell = self.health.borrow_and_update().clone();
                    self.hold.life.examine(unwell);
                    self.restate(false).await
                }
                () = at(report_end) => {
                    self.reports.expire().await;
                    Ok(())
                }
                () = self.out.closed() => {
                    Err(End::Lost { why: "session lost: the instance closed it".to_owned(), fault: None })
                }
                () = tokio::time::sleep_until(self.heard + silence_max) => {
                    Err(End::fault(Error::SessionSilent(silence_max)))
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn hear(&mut self, said: Option<Result<Said, Broken>>) -> Result<(), End> {
        self.heard = Instant::now();
        match said {
            Some(Ok(Said::Beat)) => Ok(()),
            Some(Ok(Said::SetState(state, reason))) => {
                if state == State::Serving {
                    let serving = Instance { state, ..self.hold.record.instance().clone() };
                    self.hold.hub.admission.admit(&serving, &self.hold.hub.view).await.map_err(End::fault)?;
                }
                self.hold.life.say(state, reason);
                self.draining = None;
                self.restate(true).await
            }
            Some(Ok(Said::Report(reports))) => {
                self.reports.take(&reports).await;
                reports.into_iter().for_each(|report| self.report(report));
                Ok(())
            }
            Some(Ok(Said::Deregister(reason))) => Err(End::Left(reason)),
            Some(Ok(Said::Register(_))) => Err(End::fault(Error::SessionReopened)),
            Some(Err(Broken::Fault(error))) => Err(End::fault(error)),
            Some(Err(Broken::Lost(why))) => Err(End::Lost { why: format!("session lost: {why}"), fault: None }),
            None => Err(End::Lost { why: "session lost: it ended without a word".to_owned(), fault: None }),
        }
    }

    fn report(&self, report: Report) {
        let own = &self.hold.record.instance().key.service.namespace;
        self.hold.hub.view.report(Event {
            time: SystemTime::now(),
            namespace: if report.namespace.is_empty() { own.to_string() } else { report.namespace },
            service: report.service,
            instance: report.instance,
            kind: report.kind,
            reason: report.reason,
            observer: self.hold.record.instance().key.id.to_string(),
        });
    }

    /// Writes the state in which the instance is now; answers then, if it waits for that.
    async fn restate(&mut self, must_answer: bool) -> Result<(), End> {
        let has_changed = self.hold.restate();
        if has_changed || must_answer {
            self.unsettle(must_answer);
            return self.settle().await;
        }
        Ok(())
    }

    fn unsettle(&mut self, must_answer: bool) {
        let must_answer = must_answer || self.unsettled.as_ref().is_some_and(|unsettled| unsettled.must_answer);
        self.unsettled = Some(Unsettled { must_answer, retry_at: Instant::now(), pause: PAUSE.0 });
    }

    /// The watchers have seen that the instance drains, or were waited for long enough: it may stop taking calls.
    fn drained(&mut self, seen: Count) -> Result<(), End> {
        let Some(draining) = self.draining.take() else { return Ok(()) };
        let waited = draining.since.elapsed().as_millis();
        let reason =
            format!("{} of {} watchers at revision {} after {waited} ms", seen.at, seen.of, draining.revision.0);
        let key = &self.hold.record.instance().key;
        self.hold.hub.view.report(Event::of(key, EventKind::DrainSeen, reason, SystemTime::now()));
        if !draining.must_answer {
            return Ok(());
        }
        self.answer(Answer::StateChanged { instance: Box::new(self.hold.record.instance().clone()) })
    }

    /// Tells the instance what an operator wants of it: that it takes no new calls, or that it may again. An event tells when
    /// its watchers have seen it.
    fn pass_on(&mut self) -> Result<(), End> {
        let (wanted, revision) = {
            let table = self.hold.hub.view.table();
            let Some(known) = table.get(self.hold.claim.key()) else { return Ok(()) };
            let drain = known.decided.as_deref().filter(|decided| decided.drain);
            (drain.map(|decided| decided.why("drained")), known.revision)
        };
        if wanted.is_some() == self.drained.is_some() {
            return Ok(());
        }
        self.drained.clone_from(&wanted);
        match wanted {
            Some(reason) => {
                let since = Instant::now();
                self.draining.get_or_insert(Draining { revision, since, must_answer: false });
                self.answer(Answer::DrainRequested { reason })
            }
            None => {
                self.draining = self.draining.filter(|draining| draining.must_answer);
                self.answer(Answer::DrainWithdrawn)
            }
        }
    }

    /// Looks what the table tells of the instance: others write there too, leases run out, and callers report.
    async fn look(&mut self) -> Result<(), End> {
        self.pass_on()?;
        let (hub, key) = (self.hold.hub.clone(), self.hold.claim.key().clone());
        let was_reported = !self.hold.record.instance().reported.is_empty();
        let mut reported = hub.suspicion(&key);
        if !reported.is_empty() && !was_reported && !room::take(&hub, &key).await {
            hub.clear(&key);
            reported.clear();
        }
        if self.hold.record.set_reported(reported) {
            self.unsettle(false);
            if was_reported {
                self.settle().await?;
                room::give(&hub, &key).await;
            }
        }
        match self.hold.record.compare_with_view() {
            record::Seen::AsWritten => self.settle().await,
            record::Seen::Overtaken => Err(End::Overtaken),
            // Written over what was written: that finds out, and is rare.
            record::Seen::Unseen => {
                self.unsettle(false);
                self.settle().await
            }
            record::Seen::Missing => {
                tracing::warn!(instance = %self.hold.claim.key(), "a live instance lost its record; writing it again");
                if self.unsettled.is_none() {
                    self.unsettle(false);
                }
                self.settle().await
            }
        }
    }

    /// Writes what is unsettled, and answers; a store that is away is tried again later.
    async fn settle(&mut self) -> Result<(), End> {
        let Some(unsettled) = &mut self.unsettled else { return Ok(()) };
        match self.hold.record.write(Standing::Holder, &self.hold.claim).await {
            Ok(()) => {
                let must_answer = unsettled.must_answer;
                self.unsettled = None;
                if must_answer {
                    let revision = self.hold.record.revision();
                    self.hold.hub.view.reached(revision, SEEN_WITHIN).await;
                    if self.hold.record.instance().state == State::Draining {
                        // Answered when the watchers have seen it.
                        self.draining = Some(Draining { revision, since: Instant::now(), must_answer: true });
                        return Ok(());
                    }
                    self.answer(Answer::StateChanged { instance: Box::new(self.hold.record.instance().clone()) })?;
                }
                Ok(())
            }
            Err(Error::InstanceTaken(_)) => Err(End::Overtaken),
            Err(error) if error.kind().is_passing() => {
                tracing::warn!(instance = %self.hold.claim.key(), error = %fault::chain(&error), "will write again");
                unsettled.retry_at = Instant::now() + jittered(unsettled.pause);
                unsettled.pause = (unsettled.pause * 2).min(PAUSE.1);
                Ok(())
            }
            Err(error) => Err(End::fault(error)),
        }
    }

    fn answer(&self, answer: Answer) -> Result<(), End> {
        match self.out.try_send(Ok(answer)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(End::fault(Error::SessionUnread)),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Err(End::Lost { why: "session lost: the instance closed it".to_owned(), fault: None })
            }
        }
    }

    async fn end(self, end: End, stop: &Stop) {
        let Self { mut hold, out, mut reports, .. } = self;
        if !matches!(end, End::Stopping) {
            reports.withdraw().await;
        }
        let key = hold.claim.key().clone();
        // If an error does not fit, the instance does not read, and learns from the end of the stream.
        match end {
            End::Stopping => {
                // The instance lives and finds another node, or this one after its restart; the lease covers the while.
                let _ = out.try_send(Err(Error::Stopping));
                return;
            }
            End::Overtaken => {
                tracing::info!(instance = %key, "another session holds the instance now");
                let _ = out.try_send(Err(Error::InstanceTaken(key)));
            }
            End::Left(reason) => {
                hold.remove(reason, stop).await;
                tracing::info!(instance = %key, "deregistered");
                // Only now does the stream end, well: the instance knows that it is gone.
                drop(out);
            }
            End::Lost { why, fault } => {
                tracing::info!(instance = %key, reason = %why, "lost a session");
                if let Some(fault) = fault {
                    let _ = out.try_send(Err(fault));
                }
                drop(out);
                hold.mourn(why, stop).await;
            }
        }
        hold.hub.release(&hold.claim);
    }
}

/// Waits until all watchers have seen that an instance drains, at most as long as the settings say; for ever if it does
/// not drain. Cancel safe.
async fn seen(hold: &Hold, draining: Option<Draining>) -> Count {
    let Some(draining) = draining else { return std::future::pending().await };
    let within = hold.hub.config.drain_notice.saturating_sub(draining.since.elapsed());
    hold.hub.view.until_acknowledged(&hold.claim.key().service, draining.revision, within).await
}

/// What a session leaves behind, to be cleaned up.
struct Hold {
    hub: Arc<Hub>,
    claim: Claim,
    record: Record,
    life: Life,
}

impl Hold {
    /// Takes the state in which the instance is now into its record; tells whether it was another.
    fn restate(&mut self) -> bool {
        let (state, reason) = self.life.standing();
        let before = self.record.instance();
        let has_changed = (before.state, before.state_reason.as_str()) != (state, reason);
        let reason = reason.to_owned();
        self.record.set(state, reason, SystemTime::now());
        has_changed
    }

    /// Makes the instance suspect, gives it its grace time to come back, and removes it.
    async fn mourn(&mut self, why: String, stop: &Stop) {
        let mut end = Instant::now() + self.hub.config.grace;
        self.hub.lose(&self.claim);
        self.life.lose(why.clone());
        self.restate();
        if !self.write_until_done(stop).await {
            return;
        }
        self.hub.view.reached(self.record.revision(), SEEN_WITHIN).await;
        let mut is_kept = false;
        loop {
            tokio::select! {
                () = stop.asked() => return,
                () = self.claim.passed_on() => return,
                () = tokio::time::sleep_until(end) => {}
            }
            match self.hub.judge(&self.claim.key().service) {
                Verdict::Remove => break,
                Verdict::Keep { .. } => {
                    end = Instant::now() + jittered(KEPT_LOOK);
                    if !std::mem::replace(&mut is_kept, true) {
                        self.life.lose(format!("kept, because too many fell silent at once; {why}"));
                        self.restate();
                        if !self.write_until_done(stop).await {
                            return;
                        }
                    }
                }
            }
        }
        self.remove(why, stop).await;
    }

    /// Takes the instance out of the landscape: first a record that tells why, then nothing.
    async fn remove(&mut self, reason: String, stop: &Stop) {
        self.life.leave(reason);
        self.restate();
        if self.write_until_done(stop).await {
            self.hub.view.reached(self.record.revision(), SEEN_WITHIN).await;
            self.record.erase().await;
        }
    }

    /// Writes the record, again and again if the store is away: the lease is shared and does not end with this session.
    /// Tells whether it was done; if not, the instance is somebody else's now, or the node stops.
    async fn write_until_done(&mut self, stop: &Stop) -> bool {
        let mut pause = PAUSE.0;
        loop {
            if !self.claim.is_valid() {
                return false;
            }
            match self.record.write(Standing::Heir, &self.claim).await {
                Ok(()) => return true,
                Err(error) if error.kind().is_passing() => {
                    tracing::warn!(instance = %self.claim.key(), error = %fault::chain(&error), "will write again");
                }
                Err(Error::InstanceTaken(_) | Error::InstanceUnknown { .. }) => return false,
                Err(error) => {
                    tracing::error!(instance = %self.claim.key(), error = %fault::chain(&error), "could not clean up");
                    return false;
                }
            }
            tokio::select! {
                () = stop.asked() => return false,
                () = self.claim.passed_on() => return false,
                () = tokio::time::sleep(jittered(pause)) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Spreads sessions that fail together over time: 0.5 to 1 times the pause.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
