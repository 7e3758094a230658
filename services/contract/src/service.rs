//! The gRPC face: decode, call, encode.

use std::sync::Arc;

use ninefold::{Caller, fault};
use ninefold_proto::ninefold::contract::v1 as proto;
use proto::contract_service_server::ContractService;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::model::Digest;
use crate::page;
use crate::shelf::Shelf;
use crate::wire;

/// Answers for contracts.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    shelf: Arc<Shelf>,
}

impl Service {
    pub(crate) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf }
    }

    async fn check(&self, request: &proto::CheckContractRequest) -> Result<proto::CheckContractResponse, Error> {
        let known = self.shelf.find(&digest(&request.digest)?).await?.is_some();
        Ok(proto::CheckContractResponse { known })
    }

    async fn put(&self, request: proto::PutContractRequest) -> Result<proto::PutContractResponse, Error> {
        let contract = self.shelf.put(request.service, request.descriptor_set.into()).await?;
        Ok(proto::PutContractResponse { contract: Some(wire::to_contract(&contract)) })
    }

    async fn get(&self, request: &proto::GetContractRequest) -> Result<proto::GetContractResponse, Error> {
        let kept = self.shelf.get(&digest(&request.digest)?).await?;
        let contract = Some(wire::to_contract(&kept.contract));
        Ok(proto::GetContractResponse { contract, descriptor_set: kept.bytes.to_vec() })
    }

    async fn list(&self, request: &proto::ListContractsRequest) -> Result<proto::ListContractsResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = page::read(&request.page_token)?;
        let page = self.shelf.page(&request.service, after, size).await?;
        Ok(proto::ListContractsResponse {
            contracts: page.contracts.iter().map(wire::to_contract).collect(),
            next_page_token: page.rest.as_ref().map(page::token).unwrap_or_default(),
        })
    }
}

fn digest(text: &str) -> Result<Digest, Error> {
    Digest::parse(text).ok_or_else(|| Error::DigestInvalid(text.to_owned()))
}

fn encode<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| fault::status(&error))
}

#[tonic::async_trait]
impl ContractService for Service {
    async fn check_contract(
        &self,
        request: Request<proto::CheckContractRequest>,
    ) -> Result<Response<proto::CheckContractResponse>, Status> {
        encode(self.check(request.get_ref()).await)
    }

    async fn put_contract(
        &self,
        request: Request<proto::PutContractRequest>,
    ) -> Result<Response<proto::PutContractResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        // A contract is of no namespace: whoever keeps the service anywhere may hand it in.
        if !caller.may_hand_in(&request.service) {
            return Err(fault::status(&caller.denied(format!("hand in a contract of {}", request.service))));
        }
        encode(self.put(request).await)
    }

    async fn get_contract(
        &self,
        request: Request<proto::GetContractRequest>,
    ) -> Result<Response<proto::GetContractResponse>, Status> {
        encode(self.get(request.get_ref()).await)
    }

    async fn list_contracts(
        &self,
        request: Request<proto::ListContractsRequest>,
    ) -> Result<Response<proto::ListContractsResponse>, Status> {
        encode(self.list(request.get_ref()).await)
    }
}
