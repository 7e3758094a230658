//! The gate: whether a contract may join the landscape.
//!
//! What was accepted once joins at once, so rolling back always works. What is new is compared, package by package, with
//! what was accepted last, with what live instances run, and for packages of messages with all that may still lie in a log.
//! Reading, judging and writing are one step for everybody else: a package's head must be as it was read.

pub(crate) mod compare;
mod refusals;
mod roads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ninefold::Link;
use ninefold::telemetry::Count;
use ninefold_proto::ninefold::contract::v1 as proto;
use ninefold_store::{Compare, Op};

use crate::config::{Config, Strictness};
use crate::error::Error;
use crate::ledger::{self, FINDINGS_MAX, Head, Ledger, OPS_MAX};
use crate::live::{self, Running};
use crate::model::{Contract, Digest};
use crate::names;
use crate::schema::Schema;
use crate::sets::{self, Part, Split};
use crate::shelf::{Shelf, aside};
use crate::usage::Usage;

/// How often a contract is judged anew because somebody else changed the same packages.
const ATTEMPTS_MAX: usize = 16;
/// Most different forms of a package that one contract is compared with.
const FORMS_MAX: usize = 64;
/// Operations that one package's new revision takes, its change included.
const OPS_OF_PACKAGE: usize = 5;

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) registry: Option<Link>,
    /// Contracts by what became of them.
    pub(crate) judged: Count,
}

/// What somebody hands in.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    /// The contract.
    pub(crate) contract: Contract,
    /// Who hands it in; empty to only ask.
    pub(crate) service: String,
    /// Full names of the Protobuf services that it answers; none for all.
    pub(crate) offered: Vec<String>,
    /// The bytes.
    pub(crate) bytes: Bytes,
}

/// Who accepts what the gate refuses, and why.
#[derive(Clone, Debug)]
pub(crate) struct Decision {
    pub(crate) author: String,
    pub(crate) reason: String,
}

/// What the gate says of a contract.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// What is new in it.
    steps: Vec<Step>,
    /// What was found, breaks first.
    pub(crate) findings: Vec<proto::Finding>,
    /// Packages that it calls.
    called: BTreeSet<String>,
}

/// A new revision of a package.
#[derive(Debug)]
struct Step {
    name: String,
    head: Option<Head>,
    part: Part,
    /// Whether it is the copy of a package of messages that somebody else is ahead with.
    is_older_copy: bool,
    /// Whether the package changes hands.
    is_taken_over: bool,
}

impl Judged {
    /// What stands in the way.
    pub(crate) fn breaks(&self) -> Vec<proto::Finding> {
        self.findings.iter().filter(|finding| !finding.warning).cloned().collect()
    }

    /// Packages that would get a revision.
    pub(crate) fn packages(&self) -> Vec<String> {
        self.steps.iter().filter(|step| !step.is_older_copy).map(|step| step.name.clone()).collect()
    }
}

impl Gate {
    /// Lets a contract in, or says why not.
    ///
    /// # Errors
    /// [`Error::Breaks`] with all that it breaks; [`Error::Contended`]; [`Error::RegistryAway`]; [`Error::Full`].
    pub(crate) async fn put(&self, handed: &Handed) -> Result<Vec<proto::Finding>, Error> {
        if self.ledger.is_accepted(&handed.contract.digest, &handed.service).await? {
            return Ok(Vec::new());
        }
        self.shelf.write_bytes(&handed.contract.digest, &handed.bytes).await?;
        for _ in 0..ATTEMPTS_MAX {
            let judged = self.judge(handed).await?;
            let findings = judged.breaks();
            if !findings.is_empty() {
                self.refuse(handed, &judged.findings).await?;
                return Err(Error::Breaks { service: handed.service.clone(), findings });
            }
            if self.commit(handed, &judged, None).await? {
                return Ok(judged.findings);
            }
        }
        Err(Error::Contended(handed.service.clone()))
    }

    /// Lets a contract in whatever it breaks.
    ///
    /// # Errors
    /// [`Error::Contended`]; [`Error::RegistryAway`]; [`Error::Full`].
    pub(crate) async fn force(&self, handed: &Handed, decision: &Decision) -> Result<Vec<proto::Finding>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let judged = self.judge(handed).await?;
            if self.commit(handed, &judged, Some(decision)).await? {
                return Ok(judged.findings);
            }
        }
        Err(Error::Contended(handed.service.clone()))
    }

    /// Says what it thinks of a contract. Changes nothing.
    pub(crate) async fn judge(&self, handed: &Handed) -> Result<Judged, Error> {
        let offered = handed.offered.clone();
        let split = aside(handed.bytes.clone(), move |bytes| sets::split(&bytes, &offered)).await;
        let new = self.schema(&handed.bytes).await?;
        let running = live::running(self.registry.as_ref()).await?;
        let mut judged = Judged { called: split.called.clone(), ..Judged::default() };
        let (mut owners, mut levels) = (BTreeSet::new(), BTreeMap::new());
        for (name, part) in &split.held {
            let head = self.ledger.head(name).await?;
            let level = self.level(name, head.as_ref());
            levels.insert(name.clone(), level);
            let Some(head) = head else {
                let (name, part) = (name.clone(), part.clone());
                judged.steps.push(Step { name, head: None, part, is_older_copy: false, is_taken_over: false });
                continue;
            };
            owners.insert(head.package.owner.clone());
            let mut step = Step {
                name: name.clone(),
                head: Some(head),
                part: part.clone(),
                is_older_copy: false,
                is_taken_over: false,
            };
            let (findings, is_new) = self.judge_package(handed, &mut step, &new, &running, level).await?;
            judged.findings.extend(findings);
            if is_new || step.is_taken_over {
                judged.steps.push(step);
            }
        }
        let service = match (&handed.service, owners.len()) {
            (service, 1) if service.is_empty() => owners.pop_first().unwrap_or_default(),
            (service, _) => service.clone(),
        };
        judged.findings.extend(self.missing(&service, &split).await?);
        if !judged.steps.is_empty() {
            judged.findings.extend(self.conflicts(&service, &split, &new, &running, &levels).await?);
        }
        self.usage.excuse(&mut judged.findings, self.config.unused).await?;
        judged.findings.sort_by_key(|finding| finding.warning);
        Ok(judged)
    }

    /// What is to be said of one package that is known; and whether this is a new revision of it.
    async fn judge_package(
        &self,
        handed: &Handed,
        step: &mut Step,
        new: &Arc<Schema>,
        running: &[Running],
        level: proto::Level,
    ) -> Result<(Vec<proto::Finding>, bool), Error> {
        let Some(head) = step.head.as_ref().map(|head| head.package.clone()) else { return Ok((Vec::new(), true)) };
        let mut findings = Vec::new();
        let is_shared = step.part.protobuf_services.is_empty() && head.protobuf_services.is_empty();
        let is_foreign = !handed.service.is_empty() && head.owner != handed.service;
        if is_foreign && !is_shared {
            match owner_at_work(&head, running) {
                Some(owner) => findings.push(not_yours(&head, &handed.service, owner)),
                None => step.is_taken_over = true,
            }
        }
        let is_known = self.ledger.has_form(&step.name, &step.part.digest).await?;
        if !is_known && head.state() == proto::PackageState::Retired {
            findings.push(retired(&head));
        }
        if level == proto::Level::Off {
            return Ok((Vec::new(), !is_known));
        }
        if !is_known {
            let found = self.against_all(&head, is_shared, new, running, level).await?;
            let breaks = found.iter().any(|finding| !finding.warning);
            if breaks && is_shared && is_foreign && self.is_behind(&head, new).await? {
                step.is_older_copy = true;
            } else {
                findings.extend(found);
            }
        }
        if level == proto::Level::Warn {
            findings.iter_mut().for_each(|finding| finding.warning = true);
        }
        Ok((findings, !is_known))
    }

    /// Compares with every form that somebody may still rely on.
    async fn against_all(
        &self,
        head: &proto::Package,
        is_shared: bool,
        new: &Arc<Schema>,
        running: &[Running],
        level: proto::Level,
    ) -> Result<Vec<proto::Finding>, Error> {
        let mut forms: BTreeMap<String, String> = BTreeMap::new();
        for one in
            running.iter().filter(|one| one.protobuf_services.iter().any(|name| names::is_in(name, &head.package)))
        {
            let label = || format!("what {} of {} runs", one.instance_id, one.service);
            forms.entry(one.digest.clone()).or_insert_with(label);
        }
        if is_shared {
            let since = SystemTime::now() - self.config.retention;
            let revisions = self.ledger.revisions(&head.package, None, FORMS_MAX).await?.rows;
            for one in
                revisions.into_iter().filter(|one| time(one.create_time.as_ref()).is_none_or(|time| time >= since))
            {
                forms.entry(one.contract_digest).or_insert_with(|| format!("revision {}", one.number));
            }
        }
        forms.remove(&head.contract_digest);
        let latest = (head.contract_digest.clone(), format!("revision {}", head.revisions));
        let mut findings: Vec<proto::Finding> = Vec::new();
        for (digest, label) in std::iter::once(latest).chain(forms).take(FORMS_MAX) {
            let Some(old) = self.schema_of(&digest).await? else { continue };
            for mut finding in self.compare(old, new.clone(), &head.package, level).await {
                let is_told = |known: &proto::Finding| known.rule == finding.rule && known.element == finding.element;
                if !findings.iter().any(is_told) {
                    finding.against.clone_from(&label);
                    findings.push(finding);
                }
            }
        }
        Ok(findings)
    }

    async fn compare(
        &self,
        old: Arc<Schema>,
        new: Arc<Schema>,
        package: &str,
        level: proto::Level,
    ) -> Vec<proto::Finding> {
        let package = package.to_owned();
        aside(Bytes::new(), move |_| compare::compare(&old, &new, &package, level)).await
    }

    /// Whether what is handed in is what the latest revision grew from.
    async fn is_behind(&self, head: &proto::Package, new: &Arc<Schema>) -> Result<bool, Error> {
        let Some(latest) = self.schema_of(&head.contract_digest).await? else { return Ok(false) };
        let found = self.compare(new.clone(), latest, &head.package, proto::Level::Runtime).await;
        Ok(found.iter().all(|finding| finding.warning))
    }

    /// Packages that the service owns and does not offer any more.
    async fn missing(&self, service: &str, split: &Split) -> Result<Vec<proto::Finding>, Error> {
        if service.is_empty() {
            return Ok(Vec::new());
        }
        let mut findings = Vec::new();
        for package in self.ledger.packages().await?.into_iter().filter(|package| package.owner == service) {
            let is_gone = !package.protobuf_services.is_empty()
                && package.state() != proto::PackageState::Retired
                && !split.held.contains_key(&package.package);
            let level = package_level(&self.config, &package);
            if is_gone && level != proto::Level::Off {
                findings.push(no_longer_offered(&package, level == proto::Level::Warn));
            }
        }
        Ok(findings)
    }

    /// Writes what is new, in one transaction unless there is too much of it; tells whether nobody else was faster.
    async fn commit(&self, handed: &Handed, judged: &Judged, decision: Option<&Decision>) -> Result<bool, Error> {
        let Handed { contract, service, .. } = handed;
        let new: Vec<&Step> = judged.steps.iter().filter(|step| !step.is_older_copy).collect();
        let mut batches: Vec<(Vec<Compare>, Vec<Op>)> = Vec::new();
        for steps in new.chunks(OPS_MAX / 2 / OPS_OF_PACKAGE) {
            let (mut compares, mut ops) = (Vec::new(), Vec::new());
            for step in steps {
                compares.push(ledger::unchanged(&step.name, step.head.as_ref()));
                ops.extend(self.ops_of_step(handed, step, judged, decision).await?);
            }
            batches.push((compares, ops));
        }
        let (mut compares, mut ops) = batches.pop().unwrap_or_default();
        let (meta_compares, meta_ops) = self.shelf.ops(contract).await?;
        compares.extend(meta_compares);
        ops.extend(meta_ops);
        ops.push(ledger::put_accepted(&contract.digest, service));
        ops.push(Ledger::forget_refused(&contract.digest));
        if let Some(decision) = decision {
            ops.push(ledger::put_change(proto::Change {
                kind: proto::ChangeKind::Overridden.into(),
                service: service.clone(),
                contract_digest: contract.digest.to_string(),
                author: decision.author.clone(),
                reason: decision.reason.clone(),
                findings: judged.findings.clone(),
                ..proto::Change::default()
            }));
        }
        batches.push((compares, ops));
        for (compares, ops) in batches {
            if !self.ledger.write(compares, ops).await? {
                return Ok(false);
            }
        }
        self.usage.declare(service, &judged.called).await?;
        self.judged.add(&[("verdict", if decision.is_some() { "overridden" } else { "accepted" })]);
        let packages = judged.packages();
        tracing::info!(digest = %contract.digest, service, ?packages, "took in a contract");
        Ok(true)
    }

    async fn ops_of_step(
        &self,
        handed: &Handed,
        step: &Step,
        judged: &Judged,
        decision: Option<&Decision>,
    ) -> Result<Vec<Op>, Error> {
        let now = Some(SystemTime::now().into());
        let mut package = match &step.head {
            Some(head) => head.package.clone(),
            None => proto::Package {
                package: step.name.clone(),
                owner: handed.service.clone(),
                state: proto::PackageState::Active.into(),
                create_time: now,
                ..proto::Package::default()
            },
        };
        let mut change = proto::Change {
            kind: proto::ChangeKind::Accepted.into(),
            package: step.name.clone(),
            service: handed.service.clone(),
            contract_digest: handed.contract.digest.to_string(),
            ..proto::Change::default()
        };
        let mut ops = Vec::new();
        if step.is_taken_over {
            let reason = format!("{} has no instances and {} offers it", package.owner, handed.service);
            package.owner.clone_from(&handed.service);
            let kind = proto::ChangeKind::OwnerSet.into();
            ops.push(ledger::put_change(proto::Change { kind, reason, ..change.clone() }));
        }
        package.update_time = now;
        if self.ledger.has_form(&step.name, &step.part.digest).await? {
            ops.push(ledger::put(ledger::package_key(&step.name), &package));
            return Ok(ops);
        }
        package.revisions += 1;
        package.contract_digest = handed.contract.digest.to_string();
        package.package_digest = step.part.digest.to_string();
        package.protobuf_services.clone_from(&step.part.protobuf_services);
        package.deprecated_methods.clone_from(&step.part.deprecated_methods);
        let mut findings: Vec<proto::Finding> =
            judged.findings.iter().filter(|finding| finding.package == step.name).cloned().collect();
        findings.truncate(FINDINGS_MAX);
        let revision = proto::Revision {
            package: step.name.clone(),
            number: package.revisions,
            package_digest: package.package_digest.clone(),
            contract_digest: package.contract_digest.clone(),
            service: handed.service.clone(),
            create_time: now,
            findings: findings.clone(),
            author: decision.map(|decision| decision.author.clone()).unwrap_or_default(),
            reason: decision.map(|decision| decision.reason.clone()).unwrap_or_default(),
        };
        change.reason = format!("revision {}", package.revisions);
        change.findings = findings;
        ops.extend(ledger::put_revision(&package, &revision));
        ops.push(ledger::put_change(change));
        Ok(ops)
    }

    fn level(&self, name: &str, head: Option<&Head>) -> proto::Level {
        match head {
            Some(head) => package_level(&self.config, &head.package),
            None => default_level(&self.config, name),
        }
    }

    /// The schema of bytes that were looked at.
    pub(crate) async fn schema(&self, bytes: &Bytes) -> Result<Arc<Schema>, Error> {
        let parsed = aside(bytes.clone(), |bytes| Schema::parse(bytes, &crate::intake::Limits::default())).await;
        parsed.map(Arc::new).map_err(Error::Malformed)
    }

    /// The schema of a contract that is kept; `None` if it is not, or is from a time that knew less.
    pub(crate) async fn schema_of(&self, digest: &str) -> Result<Option<Arc<Schema>>, Error> {
        let Some(digest) = Digest::parse(digest) else { return Ok(None) };
        let kept = match self.shelf.get(&digest).await {
            Ok(kept) => kept,
            Err(Error::Unknown(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(self.schema(&kept.bytes).await.ok())
    }
}

/// The level that a package is held at.
pub(crate) fn package_level(config: &Config, package: &proto::Package) -> proto::Level {
    if package.level_set { package.level() } else { default_level(config, &package.package) }
}

fn default_level(config: &Config, name: &str) -> proto::Level {
    match config.level {
        Strictness::Off => proto::Level::Off,
        Strictness::Warn => proto::Level::Warn,
        Strictness::Runtime | Strictness::Strict if names::is_unstable(name) => proto::Level::Warn,
        Strictness::Runtime => proto::Level::Runtime,
        Strictness::Strict => proto::Level::Strict,
    }
}

pub(crate) fn time(stamp: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    stamp.and_then(|stamp| SystemTime::try_from(*stamp).ok())
}

/// An instance of a package's owner that answers it.
fn owner_at_work<'a>(package: &proto::Package, running: &'a [Running]) -> Option<&'a Running> {
    running.iter().find(|one| {
        one.service == package.owner && one.protobuf_services.iter().any(|name| names::is_in(name, &package.package))
    })
}

fn not_yours(package: &proto::Package, service: &str, owner: &Running) -> proto::Finding {
    let name = &package.package;
    proto::Finding {
        rule: "PACKAGE_SAME_OWNER".to_owned(),
        element: name.clone(),
        old: package.owner.clone(),
        new: service.to_owned(),
        message: format!("{name} is owned by {}, whose instance {} answers it", package.owner, owner.instance_id),
        fix: format!("take another package, or give it away: ninefold contract own {name} {service} --reason ..."),
        package: name.clone(),
        ..proto::Finding::default()
    }
}

fn retired(package: &proto::Package) -> proto::Finding {
    let name = &package.package;
    proto::Finding {
        rule: "PACKAGE_RETIRED".to_owned(),
        element: name.clone(),
        old: "retired".to_owned(),
        new: "offered in a new revision".to_owned(),
        message: format!("{name} is retired"),
        fix: format!("leave it out, or take it back: ninefold contract restore {name} --reason ..."),
        package: name.clone(),
        ..proto::Finding::default()
    }
}

fn no_longer_offered(package: &proto::Package, warning: bool) -> proto::Finding {
    let (name, owner) = (&package.package, &package.owner);
    proto::Finding {
        rule: "PACKAGE_NO_DELETE".to_owned(),
        element: name.clone(),
        old: format!("offered by {owner}"),
        new: "not offered".to_owned(),
        message: format!("{owner} no longer offers {name}"),
        fix: format!("answer it beside the new one, or retire it first: ninefold contract retire {name} --reason ..."),
        package: name.clone(),
        against: format!("revision {}", package.revisions),
        warning,
        ..proto::Finding::default()
    }
}
