//! What is told of packages.

use std::sync::Arc;

use ninefold_proto::ninefold::contract::v1 as proto;

use super::{Service, check_report};
use crate::document;
use crate::error::Error;
use crate::export;
use crate::gate::compare::compare;
use crate::ledger::{self, CHANGES, PACKAGES, REVISIONS};
use crate::page;
use crate::schema::Schema;
use crate::shelf::aside;
use crate::steward;

/// Most revisions that documentation shows.
const HISTORY_MAX: usize = 20;
/// Lines around a difference.
const CONTEXT_LINES: usize = 3;
const DAY_SECONDS: u64 = 24 * 3600;

/// A package, one of its revisions, and the schema of the contract that brought it.
struct Found {
    package: proto::Package,
    revision: proto::Revision,
    schema: Arc<Schema>,
}

impl Service {
    pub(super) async fn packages(
        &self,
        request: &proto::ListPackagesRequest,
    ) -> Result<proto::ListPackagesResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = page::read_record(&request.page_token, PACKAGES)?;
        let page = self.gate.ledger.page_of_packages(after, size, |package| {
            (request.owner.is_empty() || request.owner == package.owner)
                && (request.state() == proto::PackageState::Unspecified || request.state() == package.state())
        });
        let page = page.await?;
        Ok(proto::ListPackagesResponse {
            next_page_token: page::record_token(page.rest.as_ref()),
            packages: page.rows.into_iter().map(|package| self.gate.shown(package)).collect(),
        })
    }

    pub(super) async fn package(&self, request: &proto::GetPackageRequest) -> Result<proto::GetPackageResponse, Error> {
        let package = self.gate.ledger.known(&request.package).await?.package;
        let (usage, unused) = (&self.gate.usage, self.gate.config.unused);
        let mut deletable_methods = Vec::new();
        for method in &package.deprecated_methods {
            if usage.is_unused(&package, unused, |called| called == method).await? {
                deletable_methods.push(method.clone());
            }
        }
        let retirable =
            package.state() != proto::PackageState::Retired && usage.is_unused(&package, unused, |_| true).await?;
        let unused_days = u32::try_from(unused.as_secs() / DAY_SECONDS).unwrap_or(u32::MAX);
        Ok(proto::GetPackageResponse {
            package: Some(self.gate.shown(package)),
            deletable_methods,
            retirable,
            unused_days,
        })
    }

    pub(super) async fn revisions(
        &self,
        request: &proto::ListRevisionsRequest,
    ) -> Result<proto::ListRevisionsResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let package = self.gate.ledger.known(&request.package).await?.package;
        let after = page::read_record(&request.page_token, &format!("{REVISIONS}{}/", package.package))?;
        let page = self.gate.ledger.revisions(&package.package, after, size).await?;
        Ok(proto::ListRevisionsResponse {
            next_page_token: page::record_token(page.rest.as_ref()),
            revisions: page.rows,
        })
    }

    pub(super) async fn change(
        &self,
        request: proto::ChangePackageRequest,
    ) -> Result<proto::ChangePackageResponse, Error> {
        let wish = request.change.ok_or(Error::ChangeInvalid)?;
        let decision = steward::decision(request.author, request.reason)?;
        let package = self.gate.change(&request.package, &wish, &decision).await?;
        Ok(proto::ChangePackageResponse { package: Some(package) })
    }

    async fn find(&self, package: &str, number: i64) -> Result<Found, Error> {
        let package = self.gate.ledger.known(package).await?.package;
        let revision = self.gate.ledger.revision(&package, number).await?;
        let schema = self.gate.schema_of(&revision.contract_digest).await?;
        let gone = || Error::RevisionUnknown { package: package.package.clone(), revision: revision.number };
        let schema = schema.ok_or_else(gone)?;
        Ok(Found { package, revision, schema })
    }

    pub(super) async fn diff(
        &self,
        request: &proto::DiffRevisionsRequest,
    ) -> Result<proto::DiffRevisionsResponse, Error> {
        let after = self.find(&request.package, request.after).await?;
        let number = if request.before == 0 { after.revision.number - 1 } else { request.before };
        // Before the first there was nothing, and all of it is new.
        let before = if number == 0 { None } else { Some(self.find(&request.package, number).await?) };
        let number = before.as_ref().map_or(0, |before| before.revision.number);
        let (old, new, name) = (before.map(|before| before.schema), after.schema, request.package.clone());
        let (findings, unified_diff) = aside(bytes::Bytes::new(), move |_| {
            let findings = old.as_ref().map(|old| compare(old, &new, &name, proto::Level::Strict));
            let text = old.as_ref().map_or_else(|| Ok(String::new()), |old| export::text(old, &name));
            let texts = text.and_then(|old| Ok((old, export::text(&new, &name)?)));
            let unified = texts.map(|(old, new)| {
                let diff = similar::TextDiff::from_lines(&old, &new);
                diff.unified_diff().context_radius(CONTEXT_LINES).to_string()
            });
            (findings.unwrap_or_default(), unified.unwrap_or_default())
        })
        .await;
        Ok(proto::DiffRevisionsResponse { before: number, after: after.revision.number, findings, unified_diff })
    }

    pub(super) async fn changes(
        &self,
        request: &proto::ListChangesRequest,
    ) -> Result<proto::ListChangesResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = page::read_record(&request.page_token, CHANGES)?;
        let page = self.gate.ledger.changes(after, size, |change| {
            (request.service.is_empty() || request.service == change.service)
                && (request.package.is_empty() || request.package == change.package)
        });
        let page = page.await?;
        Ok(proto::ListChangesResponse { next_page_token: page::record_token(page.rest.as_ref()), changes: page.rows })
    }

    pub(super) async fn callers(
        &self,
        request: &proto::ListCallersRequest,
    ) -> Result<proto::ListCallersResponse, Error> {
        let package = self.gate.ledger.known(&request.package).await?.package.package;
        let wanted = match request.method.as_str() {
            "" => None,
            full if full.starts_with(&format!("{package}.")) => Some(full.to_owned()),
            short => Some(format!("{package}.{short}")),
        };
        let mut callers = self.gate.usage.callers(&package).await?;
        if let Some(wanted) = wanted {
            callers.retain(|caller| caller.method == wanted);
        }
        Ok(proto::ListCallersResponse { callers })
    }

    pub(super) async fn undeclared(
        &self,
        request: proto::ReportUndeclaredRequest,
    ) -> Result<proto::ReportUndeclaredResponse, Error> {
        check_report(&request.service, request.undeclared.len())?;
        let mut ops = Vec::new();
        for one in request.undeclared.into_iter().take(ledger::OPS_MAX) {
            let side = if one.in_answer { "answers" } else { "requests" };
            let package = one.method.rsplitn(3, '.').nth(2).unwrap_or_default().to_owned();
            let reason = format!("{side} of {} carry {}", one.method, one.place).chars().take(256).collect();
            ops.push(ledger::put_change(proto::Change {
                kind: proto::ChangeKind::UndeclaredSeen.into(),
                package,
                service: request.service.clone(),
                reason,
                ..proto::Change::default()
            }));
        }
        if !ops.is_empty() {
            self.gate.ledger.write(Vec::new(), ops).await?;
        }
        Ok(proto::ReportUndeclaredResponse {})
    }

    pub(super) async fn documentation(
        &self,
        request: &proto::GetDocumentationRequest,
    ) -> Result<proto::GetDocumentationResponse, Error> {
        let Found { package, revision, schema } = self.find(&request.package, request.revision).await?;
        let history = self.gate.ledger.revisions(&package.package, None, HISTORY_MAX).await?.rows;
        let name = package.package.clone();
        let documented = aside(bytes::Bytes::new(), move |_| document::document(&schema, &name)).await;
        Ok(proto::GetDocumentationResponse {
            package: Some(self.gate.shown(package)),
            revision: revision.number,
            history,
            ..documented
        })
    }

    pub(super) async fn export(
        &self,
        request: &proto::ExportPackageRequest,
    ) -> Result<proto::ExportPackageResponse, Error> {
        let Found { package, revision, schema } = self.find(&request.package, request.revision).await?;
        let (name, number, form) = (package.package, revision.number, request.form());
        aside(bytes::Bytes::new(), move |_| export::export(&schema, &name, number, form)).await
    }
}
