//! Keeps what was refused: for people to see, and to accept.

use ninefold_proto::ninefold::contract::v1 as proto;

use super::{Decision, Gate, Handed, time};
use crate::error::Error;
use crate::ledger::{self, FINDINGS_MAX, Ledger, Refused};
use crate::model::{Contract, Digest};

impl Gate {
    /// Notes a refusal, once for each contract: who is refused asks again.
    pub(super) async fn refuse(&self, handed: &Handed, findings: &[proto::Finding]) -> Result<(), Error> {
        let Handed { contract, service, offered, .. } = handed;
        self.judged.add(&[("verdict", "refused")]);
        let mut findings = findings.to_vec();
        findings.truncate(FINDINGS_MAX);
        let known = self.ledger.refused(&contract.digest).await?.and_then(|refused| refused.change);
        if known.is_some_and(|change| change.service == *service && change.findings == findings) {
            return Ok(());
        }
        let breaks = findings.iter().filter(|finding| !finding.warning).count();
        let first = findings.first().cloned().unwrap_or_default();
        let change = proto::Change {
            time: Some(std::time::SystemTime::now().into()),
            kind: proto::ChangeKind::Refused.into(),
            service: service.clone(),
            contract_digest: contract.digest.to_string(),
            reason: format!("{breaks} breaks, first {} {}: {}", first.rule, first.element, first.message),
            package: first.package,
            findings,
            ..proto::Change::default()
        };
        let size = u64::try_from(contract.size).unwrap_or(u64::MAX);
        let refused = Refused { change: Some(change.clone()), protobuf_services: offered.clone(), size };
        let ops = vec![Ledger::put_refused(&contract.digest, &refused), ledger::put_change(change)];
        self.ledger.write(Vec::new(), ops).await?;
        tracing::warn!(service, digest = %contract.digest, breaks, rule = first.rule, element = first.element, "refused a contract");
        self.forget_oldest().await
    }

    /// Accepts what was refused.
    ///
    /// # Errors
    /// [`Error::Unknown`] if it was not, or is forgotten; as [`Gate::force`].
    pub(crate) async fn accept(
        &self,
        digest: &Digest,
        decision: &Decision,
    ) -> Result<(Contract, Vec<proto::Finding>), Error> {
        let unknown = || Error::Unknown(digest.clone());
        let refused = self.ledger.refused(digest).await?.ok_or_else(unknown)?;
        let service = refused.change.ok_or_else(unknown)?.service;
        let bytes = self.shelf.read_bytes(digest, usize::try_from(refused.size).unwrap_or_default()).await?;
        let contract = self.shelf.look(&service, &bytes).await?;
        let handed = Handed { contract: contract.clone(), service, offered: refused.protobuf_services, bytes };
        let findings = self.force(&handed, decision).await?;
        tracing::warn!(service = handed.service, %digest, author = decision.author, reason = decision.reason, "accepted a contract against the gate");
        Ok((contract, findings))
    }

    /// Forgets the oldest refused contracts beyond the limit.
    async fn forget_oldest(&self) -> Result<(), Error> {
        let mut all: Vec<proto::Change> =
            self.ledger.all_refused().await?.into_iter().filter_map(|one| one.change).collect();
        all.sort_by_key(|change| std::cmp::Reverse(time(change.time.as_ref())));
        for digest in
            all.iter().skip(self.config.refused_max).filter_map(|change| Digest::parse(&change.contract_digest))
        {
            self.ledger.write(Vec::new(), vec![Ledger::forget_refused(&digest)]).await?;
            self.shelf.forget_bytes(&digest).await?;
        }
        Ok(())
    }
}
