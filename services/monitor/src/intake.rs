//! The one way into the tier: fair shares first, then masks, then what is written and handed on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ninefold::lifecycle::Scope;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::Error;
use crate::forward::{self, Forward};
use crate::live::Rules;
use crate::mask::{Counts, Masks};
use crate::model::{Line, Measurement, Origin, Span};
use crate::shares::{Account, Shares};
use crate::tier::{Signal, Tier};
use crate::wire::onward;

/// Most services of which is told what they send.
const SENDERS_MAX: usize = 100;
/// When one that has used its share may come back: files are written meanwhile.
const TOO_LOUD_WAIT: Duration = Duration::from_secs(1);

/// The way into the tier.
#[derive(Debug)]
pub(crate) struct Intake {
    tier: Arc<dyn Tier>,
    rules: watch::Sender<Arc<Rules>>,
    masked: Mutex<Counts>,
    shares: Mutex<Shares>,
    started: Instant,
    onward: Option<Forward>,
}

/// What one sender hands in.
type Loads<'a> = HashMap<&'a str, (u64, usize)>;

impl Intake {
    /// Begins with the rules of the settings.
    pub(crate) fn new(tier: Arc<dyn Tier>, config: &Config, scope: &Scope) -> Self {
        Self {
            tier,
            rules: watch::Sender::new(Arc::new(Rules::of(config))),
            masked: Mutex::default(),
            shares: Mutex::new(Shares::new(config.limits.clone())),
            started: Instant::now(),
            onward: Forward::start(config.forward.clone(), scope),
        }
    }

    /// The rules as they are now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.borrow().clone()
    }

    /// Goes on with other rules.
    pub(crate) fn follow(&self, rules: Arc<Rules>) {
        lock(&self.shares).limit(rules.limits.clone());
        self.rules.send_replace(rules);
    }

    /// The way on to a backend, if one is named.
    pub(crate) const fn onward(&self) -> Option<&Forward> {
        self.onward.as_ref()
    }

    /// Counts records that were turned away at the door.
    pub(crate) fn count_refused(&self, signal: Signal, records: u64) {
        self.tier.count_refused(signal, records);
    }

    /// How often rules masked something.
    pub(crate) fn masked(&self) -> Counts {
        lock(&self.masked).clone()
    }

    /// What services have sent, the loudest first.
    pub(crate) fn senders(&self) -> Vec<(String, Account)> {
        lock(&self.shares).told(SENDERS_MAX)
    }

    /// Adds to what was masked.
    pub(crate) fn count_masked(&self, counts: Counts) {
        if counts.is_empty() {
            return;
        }
        let mut masked = lock(&self.masked);
        for (rule, times) in counts {
            *masked.entry(rule).or_default() += times;
        }
    }

    /// Takes lines in.
    ///
    /// # Errors
    /// [`Error::SenderTooLoud`], and those of [`Tier::append_lines`]. Then none of them is kept.
    pub(crate) async fn lines(&self, mut lines: Vec<Line>) -> Result<(), Error> {
        let mut loads = Loads::new();
        lines.iter().for_each(|line| add(&mut loads, &line.origin.service, line.bytes()));
        let asked = self.ask(&loads)?;
        let masks = self.rules();
        self.count_masked(mask_lines(&masks.masks, &mut lines));
        let onward = self.onward.as_ref().map(|forward| (forward, onward::logs(&lines)));
        let outcome = self.tier.append_lines(lines, asked.up_to).await;
        self.settle(asked, outcome)?;
        if let Some((forward, request)) = onward {
            forward.give(forward::Request::Logs(request));
        }
        Ok(())
    }

    /// Takes spans in.
    ///
    /// # Errors
    /// As [`Intake::lines`].
    pub(crate) async fn spans(&self, mut spans: Vec<Span>) -> Result<(), Error> {
        let mut loads = Loads::new();
        spans.iter().for_each(|span| add(&mut loads, &span.origin.service, span.bytes()));
        let asked = self.ask(&loads)?;
        let masks = self.rules();
        self.count_masked(mask_spans(&masks.masks, &mut spans));
        let outcome = self.tier.append_spans(spans, asked.up_to).await;
        self.settle(asked, outcome)
    }

    /// Takes measurements in. Their labels are names of things, and are not masked.
    ///
    /// # Errors
    /// As [`Intake::lines`].
    pub(crate) async fn measurements(&self, measurements: Vec<Measurement>) -> Result<(), Error> {
        let mut loads = Loads::new();
        measurements.iter().for_each(|measured| add(&mut loads, &measured.key.service, measured.bytes()));
        let asked = self.ask(&loads)?;
        let outcome = self.tier.append_measurements(measurements, asked.up_to).await;
        self.settle(asked, outcome)
    }

    /// One that is too loud refuses the whole batch: its sender sends it again, and part of it would then be there twice.
    fn ask(&self, loads: &Loads<'_>) -> Result<Asked, Error> {
        let (room, now) = (self.tier.unfiled_bytes_max(), self.started.elapsed());
        let mut asked = Asked { up_to: room, loudest: String::new(), loads: Vec::with_capacity(loads.len()) };
        let mut shares = lock(&self.shares);
        for (service, (records, bytes)) in loads {
            match shares.ask(service, *records, *bytes, now, room) {
                Ok(up_to) => {
                    if up_to < asked.up_to {
                        (asked.up_to, asked.loudest) = (up_to, (*service).to_owned());
                    }
                    asked.loads.push(((*service).to_owned(), *records, *bytes));
                }
                Err(wait) => {
                    asked.loads.iter().for_each(|(service, records, bytes)| shares.refused(service, *records, *bytes));
                    return Err(Error::SenderTooLoud { service: (*service).to_owned(), wait });
                }
            }
        }
        Ok(asked)
    }

    fn settle(&self, asked: Asked, outcome: Result<(), Error>) -> Result<(), Error> {
        let mut shares = lock(&self.shares);
        for (service, records, bytes) in &asked.loads {
            match outcome {
                Ok(()) => shares.taken(service, *records, *bytes),
                Err(_) => shares.refused(service, *records, *bytes),
            }
        }
        outcome.map_err(|error| match error {
            Error::Overloaded if !asked.loudest.is_empty() => {
                Error::SenderTooLoud { service: asked.loudest, wait: TOO_LOUD_WAIT }
            }
            error => error,
        })
    }
}

/// What a batch asked for.
struct Asked {
    /// Up to where it may fill the room.
    up_to: usize,
    /// Whose share that is, where it is not all.
    loudest: String,
    /// What each sender hands in.
    loads: Vec<(String, u64, usize)>,
}

fn add<'a>(loads: &mut Loads<'a>, service: &'a str, bytes: usize) {
    let load = loads.entry(service).or_default();
    load.0 += 1;
    load.1 += bytes;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole between statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mask_lines(masks: &Masks, lines: &mut [Line]) -> Counts {
    let (mut counts, mut origins) = (Counts::new(), Origins::default());
    if masks.are_none() {
        return counts;
    }
    for line in lines {
        masks.text(&mut line.body, &mut counts);
        masks.attributes(&mut line.attributes, &mut counts);
        line.origin = origins.masked(masks, &line.origin, &mut counts);
    }
    counts
}

fn mask_spans(masks: &Masks, spans: &mut [Span]) -> Counts {
    let (mut counts, mut origins) = (Counts::new(), Origins::default());
    if masks.are_none() {
        return counts;
    }
    for span in spans {
        masks.text(&mut span.name, &mut counts);
        masks.text(&mut span.status_message, &mut counts);
        masks.attributes(&mut span.attributes, &mut counts);
        span.origin = origins.masked(masks, &span.origin, &mut counts);
    }
    counts
}

/// Senders of a batch, each masked once.
#[derive(Default)]
struct Origins(Vec<(Arc<Origin>, Arc<Origin>)>);

impl Origins {
    fn masked(&mut self, masks: &Masks, origin: &Arc<Origin>, counts: &mut Counts) -> Arc<Origin> {
        // Records of a batch come sender by sender.
        if let Some((_, masked)) = self.0.last().filter(|(known, _)| Arc::ptr_eq(known, origin)) {
            return masked.clone();
        }
        let mut attributes = origin.attributes.clone();
        masks.attributes(&mut attributes, counts);
        let masked = if attributes == origin.attributes {
            origin.clone()
        } else {
            Arc::new(Origin { attributes, ..Origin::clone(origin) })
        };
        self.0.push((origin.clone(), masked.clone()));
        masked
    }
}
