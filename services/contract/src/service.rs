//! The gRPC face: decode, call, encode.

mod packages;

use std::sync::Arc;

use ninefold::{Caller, fault};
use ninefold_proto::ninefold::contract::v1 as proto;
use proto::contract_service_server::ContractService;
use proto::package_service_server::PackageService;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::gate::{Gate, Handed};
use crate::model::{Digest, is_service_name};
use crate::page;
use crate::steward;
use crate::wire;

/// Most entries of one report.
const REPORT_MAX: usize = 1000;
/// Name under which a contract is only looked at.
const NOBODY: &str = "nobody";

/// Answers for contracts.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    gate: Arc<Gate>,
}

impl Service {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { gate }
    }

    async fn check(&self, request: &proto::CheckContractRequest) -> Result<proto::CheckContractResponse, Error> {
        let digest = digest(&request.digest)?;
        let known = if request.service.is_empty() {
            self.gate.shelf.find(&digest).await?.is_some()
        } else {
            self.gate.ledger.is_accepted(&digest, &request.service).await?
        };
        Ok(proto::CheckContractResponse { known })
    }

    async fn put(&self, request: proto::PutContractRequest) -> Result<proto::PutContractResponse, Error> {
        let proto::PutContractRequest { service, descriptor_set, protobuf_services: offered } = request;
        let bytes = descriptor_set.into();
        let contract = self.gate.shelf.look(&service, &bytes).await?;
        let handed = Handed { contract, service, offered, bytes };
        let warnings = self.gate.put(&handed).await?;
        // Of two services with one contract, the first is told.
        let contract = self.gate.shelf.find(&handed.contract.digest).await?.unwrap_or(handed.contract);
        Ok(proto::PutContractResponse { contract: Some(wire::to_contract(&contract)), warnings })
    }

    async fn judge(&self, request: proto::JudgeContractRequest) -> Result<proto::JudgeContractResponse, Error> {
        let proto::JudgeContractRequest { service, descriptor_set, protobuf_services: offered } = request;
        let bytes = descriptor_set.into();
        let name = if service.is_empty() { NOBODY } else { &service };
        let contract = self.gate.shelf.look(name, &bytes).await?;
        let judged = self.gate.judge(&Handed { contract, service, offered, bytes }).await?;
        let (accepted, packages) = (judged.breaks().is_empty(), judged.packages());
        Ok(proto::JudgeContractResponse { accepted, findings: judged.findings, packages })
    }

    async fn accept(&self, request: proto::AcceptContractRequest) -> Result<proto::AcceptContractResponse, Error> {
        let decision = steward::decision(request.author, request.reason)?;
        let (contract, findings) = self.gate.accept(&digest(&request.digest)?, &decision).await?;
        Ok(proto::AcceptContractResponse { contract: Some(wire::to_contract(&contract)), findings })
    }

    async fn get(&self, request: &proto::GetContractRequest) -> Result<proto::GetContractResponse, Error> {
        let kept = self.gate.shelf.get(&digest(&request.digest)?).await?;
        let contract = Some(wire::to_contract(&kept.contract));
        Ok(proto::GetContractResponse { contract, descriptor_set: kept.bytes.to_vec() })
    }

    async fn list(&self, request: &proto::ListContractsRequest) -> Result<proto::ListContractsResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = page::read(&request.page_token)?;
        let page = self.gate.shelf.page(&request.service, after, size).await?;
        Ok(proto::ListContractsResponse {
            contracts: page.contracts.iter().map(wire::to_contract).collect(),
            next_page_token: page.rest.as_ref().map(page::token).unwrap_or_default(),
        })
    }

    fn report_calls(&self, request: &proto::ReportCallsRequest) -> Result<proto::ReportCallsResponse, Error> {
        check_report(&request.service, request.counts.len())?;
        self.gate.usage.count(&request.service, &request.counts);
        Ok(proto::ReportCallsResponse {})
    }
}

fn check_report(service: &str, count: usize) -> Result<(), Error> {
    if !is_service_name(service) {
        return Err(Error::ServiceNameInvalid(service.to_owned()));
    }
    if count > REPORT_MAX {
        return Err(Error::ReportInvalid { count, max: REPORT_MAX });
    }
    Ok(())
}

/// A message in which the caller that the door found out about is named.
fn signed<T>(request: Request<T>, sign: impl Fn(&mut T, &Caller)) -> T {
    let caller = Caller::of(request.extensions());
    let mut message = request.into_inner();
    sign(&mut message, &caller);
    message
}

/// Who decides: whom the door knows, and where nobody is asked who they are, who they say.
fn author(caller: &Caller, said: &str) -> String {
    match &*caller.identity {
        "anybody" | "platform" => said.to_owned(),
        known => known.to_owned(),
    }
}

fn digest(text: &str) -> Result<Digest, Error> {
    Digest::parse(text).ok_or_else(|| Error::DigestInvalid(text.to_owned()))
}

fn encode<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| fault::status(&error))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ContractService for Service {
    async fn check_contract(
        &self,
        request: Request<proto::CheckContractRequest>,
    ) -> Answer<proto::CheckContractResponse> {
        encode(self.check(request.get_ref()).await)
    }

    async fn put_contract(&self, request: Request<proto::PutContractRequest>) -> Answer<proto::PutContractResponse> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        // A contract is of no namespace: whoever keeps the service anywhere may hand it in.
        if !caller.may_hand_in(&request.service) {
            return Err(fault::status(&caller.denied(format!("hand in a contract of {}", request.service))));
        }
        encode(self.put(request).await)
    }

    async fn get_contract(&self, request: Request<proto::GetContractRequest>) -> Answer<proto::GetContractResponse> {
        encode(self.get(request.get_ref()).await)
    }

    async fn list_contracts(
        &self,
        request: Request<proto::ListContractsRequest>,
    ) -> Answer<proto::ListContractsResponse> {
        encode(self.list(request.get_ref()).await)
    }
}

#[tonic::async_trait]
impl PackageService for Service {
    async fn judge_contract(
        &self,
        request: Request<proto::JudgeContractRequest>,
    ) -> Answer<proto::JudgeContractResponse> {
        encode(self.judge(request.into_inner()).await)
    }

    async fn accept_contract(
        &self,
        request: Request<proto::AcceptContractRequest>,
    ) -> Answer<proto::AcceptContractResponse> {
        let request = signed(request, |message, caller| message.author = author(caller, &message.author));
        encode(self.accept(request).await)
    }

    async fn list_packages(&self, request: Request<proto::ListPackagesRequest>) -> Answer<proto::ListPackagesResponse> {
        encode(self.packages(request.get_ref()).await)
    }

    async fn get_package(&self, request: Request<proto::GetPackageRequest>) -> Answer<proto::GetPackageResponse> {
        encode(self.package(request.get_ref()).await)
    }

    async fn list_revisions(
        &self,
        request: Request<proto::ListRevisionsRequest>,
    ) -> Answer<proto::ListRevisionsResponse> {
        encode(self.revisions(request.get_ref()).await)
    }

    async fn change_package(
        &self,
        request: Request<proto::ChangePackageRequest>,
    ) -> Answer<proto::ChangePackageResponse> {
        let request = signed(request, |message, caller| message.author = author(caller, &message.author));
        encode(self.change(request).await)
    }

    async fn diff_revisions(
        &self,
        request: Request<proto::DiffRevisionsRequest>,
    ) -> Answer<proto::DiffRevisionsResponse> {
        encode(self.diff(request.get_ref()).await)
    }

    async fn list_changes(&self, request: Request<proto::ListChangesRequest>) -> Answer<proto::ListChangesResponse> {
        encode(self.changes(request.get_ref()).await)
    }

    async fn list_callers(&self, request: Request<proto::ListCallersRequest>) -> Answer<proto::ListCallersResponse> {
        encode(self.callers(request.get_ref()).await)
    }

    async fn report_calls(&self, request: Request<proto::ReportCallsRequest>) -> Answer<proto::ReportCallsResponse> {
        encode(Self::report_calls(self, request.get_ref()))
    }

    async fn report_undeclared(
        &self,
        request: Request<proto::ReportUndeclaredRequest>,
    ) -> Answer<proto::ReportUndeclaredResponse> {
        encode(self.undeclared(request.into_inner()).await)
    }

    async fn get_documentation(
        &self,
        request: Request<proto::GetDocumentationRequest>,
    ) -> Answer<proto::GetDocumentationResponse> {
        encode(self.documentation(request.get_ref()).await)
    }

    async fn export_package(
        &self,
        request: Request<proto::ExportPackageRequest>,
    ) -> Answer<proto::ExportPackageResponse> {
        encode(self.export(request.get_ref()).await)
    }
}
