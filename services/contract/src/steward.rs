//! Changes how packages are held: deprecated, retired, restored, more or less strictly, by another owner.

use std::time::SystemTime;

use ninefold_proto::ninefold::contract::v1 as proto;
use proto::change_package_request::Change as Wish;

use crate::error::Error;
use crate::gate::{Decision, Gate, package_level};
use crate::ledger;
use crate::model::is_service_name;

/// How often a change is tried again when others were faster.
const ATTEMPTS_MAX: usize = 16;

/// Takes who decides and why, both of which must be said.
///
/// # Errors
/// [`Error::ReasonMissing`].
pub(crate) fn decision(author: String, reason: String) -> Result<Decision, Error> {
    if author.trim().is_empty() {
        return Err(Error::ReasonMissing("author"));
    }
    if reason.trim().is_empty() {
        return Err(Error::ReasonMissing("reason"));
    }
    Ok(Decision { author, reason })
}

impl Gate {
    /// Changes a package.
    ///
    /// # Errors
    /// [`Error::PackageUnknown`]; [`Error::InUse`]; [`Error::ServiceNameInvalid`]; [`Error::Contended`].
    pub(crate) async fn change(&self, name: &str, wish: &Wish, decision: &Decision) -> Result<proto::Package, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let head = self.ledger.known(name).await?;
            let mut package = head.package.clone();
            let (kind, what) = self.apply(&mut package, wish).await?;
            package.update_time = Some(SystemTime::now().into());
            let change = proto::Change {
                kind: kind.into(),
                package: name.to_owned(),
                service: package.owner.clone(),
                author: decision.author.clone(),
                reason: if what.is_empty() { decision.reason.clone() } else { format!("{what}: {}", decision.reason) },
                ..proto::Change::default()
            };
            let ops = vec![ledger::put(ledger::package_key(name), &package), ledger::put_change(change)];
            if self.ledger.write(vec![ledger::unchanged(name, Some(&head))], ops).await? {
                tracing::info!(
                    package = name,
                    change = kind.as_str_name(),
                    author = decision.author,
                    "changed a package"
                );
                return Ok(self.shown(package));
            }
        }
        Err(Error::Contended(name.to_owned()))
    }

    async fn apply(&self, package: &mut proto::Package, wish: &Wish) -> Result<(proto::ChangeKind, String), Error> {
        Ok(match wish {
            Wish::Deprecate(wish) => {
                package.set_state(proto::PackageState::Deprecated);
                package.sunset_time = wish.sunset_time;
                let until = wish.sunset_time.map(|time| format!("until {time}")).unwrap_or_default();
                (proto::ChangeKind::Deprecated, until)
            }
            Wish::Retire(wish) => {
                if !wish.force {
                    self.check_unused(package).await?;
                }
                package.set_state(proto::PackageState::Retired);
                (proto::ChangeKind::Retired, if wish.force { "forced".to_owned() } else { String::new() })
            }
            Wish::Restore(_) => {
                package.set_state(proto::PackageState::Active);
                package.sunset_time = None;
                (proto::ChangeKind::Restored, String::new())
            }
            Wish::Level(level) => {
                let level = proto::Level::try_from(*level).map_err(|_| Error::ChangeInvalid)?;
                package.level_set = level != proto::Level::Unspecified;
                package.set_level(level);
                let name = level.as_str_name().trim_start_matches("LEVEL_").to_lowercase();
                (proto::ChangeKind::LevelSet, if package.level_set { name } else { "default".to_owned() })
            }
            Wish::Owner(owner) => {
                if !is_service_name(owner) {
                    return Err(Error::ServiceNameInvalid(owner.clone()));
                }
                package.owner.clone_from(owner);
                (proto::ChangeKind::OwnerSet, format!("to {owner}"))
            }
        })
    }

    async fn check_unused(&self, package: &proto::Package) -> Result<(), Error> {
        let since = SystemTime::now() - self.config.unused;
        let callers = self.usage.callers(&package.package).await?;
        let late = callers.iter().filter(|caller| {
            caller.calls > 0 && crate::gate::time(caller.last_time.as_ref()).is_some_and(|last| last >= since)
        });
        let late: Vec<String> = late.map(|caller| format!("{} ({})", caller.service, caller.method)).take(5).collect();
        if late.is_empty() {
            return Ok(());
        }
        Err(Error::InUse { package: package.package.clone(), callers: late.join(", ") })
    }

    /// A package as it is told: with the level that holds.
    pub(crate) fn shown(&self, mut package: proto::Package) -> proto::Package {
        let level = package_level(&self.config, &package);
        package.set_level(level);
        package
    }
}
