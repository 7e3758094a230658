//! HTTP requests that two services would both answer, or of which one would take a part from the other.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ninefold_proto::ninefold::contract::v1 as proto;

use super::Gate;
use super::compare::told;
use crate::error::Error;
use crate::intake::Limits;
use crate::live::Running;
use crate::model::Digest;
use crate::rules;
use crate::schema::Schema;
use crate::sets::{self, Split};
use crate::shelf::aside;

/// Most contracts of others that one is compared with.
const CONTRACTS_MAX: usize = 256;
/// Most warnings that a part of the requests leads elsewhere.
const SHADOWS_MAX: usize = 64;

impl Gate {
    /// What of the packages of a contract would answer requests that live instances of other services answer.
    pub(super) async fn conflicts(
        &self,
        service: &str,
        split: &Split,
        new: &Schema,
        running: &[Running],
        levels: &BTreeMap<String, proto::Level>,
    ) -> Result<Vec<proto::Finding>, Error> {
        let mut others: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for one in running.iter().filter(|one| one.service != service) {
            let packages =
                one.protobuf_services.iter().filter_map(|name| name.rsplit_once('.')).map(|(package, _)| package);
            let packages: Vec<&str> = packages.collect();
            owners.extend(packages.iter().map(|package| (*package, one.service.as_str())));
            others
                .entry(&one.digest)
                .or_default()
                .extend(packages.into_iter().filter(|package| !split.held.contains_key(*package)));
        }
        let mut schemas = Vec::new();
        for (digest, packages) in others.into_iter().take(CONTRACTS_MAX).filter(|(_, packages)| !packages.is_empty()) {
            let Some(digest) = Digest::parse(digest) else { continue };
            let bytes = match self.shelf.get(&digest).await {
                Ok(kept) => kept.bytes.clone(),
                Err(Error::Unknown(_)) => continue,
                Err(error) => return Err(error),
            };
            let packages: Vec<String> = packages.into_iter().map(str::to_owned).collect();
            schemas.extend(aside(bytes, move |bytes| offered(&bytes, &packages)).await);
        }
        let mut found = rules::conflicts(new, &schemas);
        found.extend(rules::shadows(new, &schemas).into_iter().take(SHADOWS_MAX));
        let found = found.into_iter().filter_map(|finding| {
            let package = &*new.file(&finding.file)?.package;
            let warning = match *levels.get(package)? {
                proto::Level::Off => return None,
                level => level == proto::Level::Warn || finding.rule == rules::SHADOWED,
            };
            let mut told = proto::Finding { warning, ..told(finding, package) };
            // The method that has the road is named by package, service and name.
            let owner = told.old.rsplitn(3, '.').last().and_then(|package| owners.get(package));
            if let Some(owner) = owner {
                told.message.truncate(told.message.trim_end_matches('.').len());
                told.message.push_str(&format!(" of {owner}."));
            }
            Some(told)
        });
        Ok(found.collect())
    }
}

/// The schemas of some packages alone, without what else their contract holds of other services.
fn offered(bytes: &Bytes, packages: &[String]) -> Vec<Schema> {
    let parse = |package: &String| Schema::parse(sets::closure(bytes, package), &Limits::default()).ok();
    packages.iter().filter_map(parse).collect()
}
