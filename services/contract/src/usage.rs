//! Who uses what: which packages services were built with, and which methods they call how often.
//!
//! Reports are gathered in memory and written now and then, so that a busy landscape does not write for each of them. What
//! was not written when a node dies is lost; the next calls are counted again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold_proto::ninefold::contract::v1 as proto;
use ninefold_store::{Compare, Key, Op};
use prost::Message as _;

use crate::error::Error;
use crate::gate::time;
use crate::ledger::{self, Ledger, OPS_MAX};
use crate::names;

const CALLS: &str = "contract/call/";
const CONSUMERS: &str = "contract/consumer/";
/// How often gathered counts are written.
const WRITE_EVERY: Duration = Duration::from_secs(15);
/// Most counts that are gathered between two writes; those of more methods are dropped.
const GATHERED_MAX: usize = 20_000;
/// Most callers of one answer.
const CALLERS_MAX: usize = 10_000;
/// Rule whose findings are excused for methods that were deprecated and that nobody calls.
const DELETED: &str = "RPC_NO_DELETE";
/// Rule that speaks against it.
const UNANNOUNCED: &str = "RPC_DEPRECATED_BEFORE_DELETE";

/// A caller and a method of a package.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Pair {
    package: String,
    caller: String,
    method: String,
}

impl Pair {
    fn key(&self) -> Key {
        Key::new(format!("{CALLS}{}/{}/{}", self.package, self.caller, self.method))
    }
}

#[derive(Clone, Copy, Debug)]
struct Count {
    calls: i64,
    first: SystemTime,
    last: SystemTime,
}

/// Who uses what.
#[derive(Debug)]
pub(crate) struct Usage {
    ledger: Ledger,
    gathered: Mutex<HashMap<Pair, Count>>,
}

/// The package of a method's full name.
fn package_of(method: &str) -> Option<&str> {
    let (service, _) = method.rsplit_once('.')?;
    service.rsplit_once('.').map(|(package, _)| package)
}

fn consumer_key(service: &str, package: &str) -> Key {
    Key::new(format!("{CONSUMERS}{service}/{package}"))
}

impl Usage {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger, gathered: Mutex::default() }
    }

    fn gathered(&self) -> MutexGuard<'_, HashMap<Pair, Count>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts calls of a service.
    pub(crate) fn count(&self, caller: &str, counts: &[proto::CallCount]) {
        let now = SystemTime::now();
        let mut gathered = self.gathered();
        for count in counts.iter().filter(|count| count.calls > 0) {
            let Some(package) = package_of(&count.method).filter(|package| !names::is_built_in(package)) else {
                continue;
            };
            let pair = Pair { package: package.to_owned(), caller: caller.to_owned(), method: count.method.clone() };
            if gathered.len() >= GATHERED_MAX && !gathered.contains_key(&pair) {
                continue;
            }
            let known = gathered.entry(pair).or_insert(Count { calls: 0, first: now, last: now });
            known.calls = known.calls.saturating_add(count.calls);
            known.last = now;
        }
    }

    /// Writes now and then, and once more at the end.
    pub(crate) async fn keep(self: Arc<Self>, stop: Stop) {
        let mut tick = tokio::time::interval(WRITE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_last = tokio::select! {
                () = stop.asked() => true,
                _ = tick.tick() => false,
            };
            if let Err(error) = self.write().await {
                tracing::warn!(error = %fault::chain(&error), "could not write who calls what");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes what was gathered. What others wrote meanwhile is added to at the next time.
    pub(crate) async fn write(&self) -> Result<(), Error> {
        let mut pairs: Vec<(Pair, Count)> = self.gathered().drain().collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        for some in pairs.chunks(OPS_MAX / 2) {
            if !self.add(some).await.inspect_err(|_| self.gather_again(some))? {
                self.gather_again(some);
            }
        }
        Ok(())
    }

    fn gather_again(&self, pairs: &[(Pair, Count)]) {
        let mut gathered = self.gathered();
        for (pair, count) in pairs {
            let known = gathered.entry(pair.clone()).or_insert(Count { calls: 0, ..*count });
            known.calls = known.calls.saturating_add(count.calls);
            known.first = known.first.min(count.first);
        }
    }

    async fn add(&self, pairs: &[(Pair, Count)]) -> Result<bool, Error> {
        let (mut compares, mut ops) = (Vec::new(), Vec::new());
        for (pair, count) in pairs {
            let key = pair.key();
            let entry = self.ledger.store.get(&key).await;
            let entry = entry.map_err(|source| Error::Store { doing: "read who calls what", source })?;
            compares.push(match &entry {
                Some(entry) => Compare::Modified(key.clone(), entry.modified),
                None => Compare::Absent(key.clone()),
            });
            let known = entry.and_then(|entry| proto::Caller::decode(entry.value).ok());
            ops.push(ledger::put(key, &sum(known, pair, count)));
        }
        self.ledger.write(compares, ops).await
    }

    /// Notes which packages a service was built to call.
    pub(crate) async fn declare(&self, service: &str, packages: &BTreeSet<String>) -> Result<(), Error> {
        let known: Vec<proto::Caller> = self.ledger.all(&Key::new(format!("{CONSUMERS}{service}/"))).await?;
        let now = Some(SystemTime::now().into());
        let mut ops = Vec::new();
        for gone in known.iter().filter(|known| !packages.contains(&known.package)) {
            ops.push(Op::Delete(consumer_key(service, &gone.package)));
        }
        for package in packages.iter().filter(|package| !known.iter().any(|known| known.package == **package)) {
            let (service, package) = (service.to_owned(), package.clone());
            let key = consumer_key(&service, &package);
            let caller =
                proto::Caller { service, package, declared: true, first_time: now, ..proto::Caller::default() };
            ops.push(ledger::put(key, &caller));
        }
        for ops in ops.chunks(OPS_MAX) {
            self.ledger.write(Vec::new(), ops.to_vec()).await?;
        }
        Ok(())
    }

    /// Who uses a package: who was built with it and has not called it yet, then who calls it, by service and method.
    pub(crate) async fn callers(&self, package: &str) -> Result<Vec<proto::Caller>, Error> {
        let consumers: Vec<proto::Caller> = self.ledger.all(&Key::new(CONSUMERS)).await?;
        let consumers: Vec<proto::Caller> = consumers.into_iter().filter(|one| one.package == package).collect();
        let written: Vec<proto::Caller> = self.ledger.all(&Key::new(format!("{CALLS}{package}/"))).await?;
        let mut calls: BTreeMap<(String, String), proto::Caller> =
            written.into_iter().map(|one| ((one.service.clone(), one.method.clone()), one)).collect();
        for (pair, count) in self.gathered().iter().filter(|(pair, _)| pair.package == package) {
            let place = (pair.caller.clone(), pair.method.clone());
            let known = calls.remove(&place);
            calls.insert(place, sum(known, pair, count));
        }
        for (place, caller) in &mut calls {
            caller.declared = consumers.iter().any(|one| one.service == place.0);
        }
        let silent = consumers.into_iter().filter(|one| !calls.keys().any(|(service, _)| *service == one.service));
        let mut callers: Vec<proto::Caller> = silent.chain(calls.clone().into_values()).collect();
        callers.sort_by(|one, other| (&one.service, &one.method).cmp(&(&other.service, &other.method)));
        callers.truncate(CALLERS_MAX);
        Ok(callers)
    }

    /// Whether nobody has called what `is_meant` for a while. A package that is younger than that is not known to be unused.
    pub(crate) async fn is_unused(
        &self,
        package: &proto::Package,
        unused: Duration,
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<bool, Error> {
        let since = SystemTime::now() - unused;
        if time(package.create_time.as_ref()).is_none_or(|made| made > since) {
            return Ok(false);
        }
        let callers = self.callers(&package.package).await?;
        Ok(callers
            .iter()
            .filter(|caller| caller.calls > 0 && is_meant(&caller.method))
            .all(|caller| time(caller.last_time.as_ref()).is_none_or(|last| last < since)))
    }

    /// Turns findings of deleted methods into warnings where the method was deprecated and nobody calls it.
    pub(crate) async fn excuse(&self, findings: &mut [proto::Finding], unused: Duration) -> Result<(), Error> {
        let unannounced: BTreeSet<String> =
            findings.iter().filter(|one| one.rule == UNANNOUNCED).map(|one| one.element.clone()).collect();
        for finding in findings.iter_mut().filter(|one| one.rule == DELETED && !unannounced.contains(&one.element)) {
            let Some(head) = self.ledger.head(&finding.package).await? else { continue };
            let is_deprecated = head.package.deprecated_methods.contains(&finding.element);
            if is_deprecated && self.is_unused(&head.package, unused, |method| method == finding.element).await? {
                finding.warning = true;
                finding.message.truncate(finding.message.trim_end_matches('.').len());
                finding.message.push_str("; it was deprecated, and nobody has called it for long enough");
            }
        }
        Ok(())
    }
}

fn sum(known: Option<proto::Caller>, pair: &Pair, count: &Count) -> proto::Caller {
    let mut caller = known.unwrap_or_else(|| proto::Caller {
        service: pair.caller.clone(),
        package: pair.package.clone(),
        method: pair.method.clone(),
        first_time: Some(count.first.into()),
        ..proto::Caller::default()
    });
    caller.calls = caller.calls.saturating_add(count.calls);
    caller.last_time = Some(count.last.into());
    caller
}
