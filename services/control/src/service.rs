//! The contract's door: decode, call, encode.

use std::sync::Arc;

use ninefold::fault;
use ninefold::page;
use ninefold_proto::ninefold::control::v1::control_service_server::ControlService;
use ninefold_proto::ninefold::control::v1::{
    DeleteWorkloadRequest, DeleteWorkloadResponse, GetWorkloadRequest, GetWorkloadResponse, ListDecisionsRequest,
    ListDecisionsResponse, ListWorkloadsRequest, ListWorkloadsResponse, PutWorkloadRequest, PutWorkloadResponse,
    ScaleWorkloadRequest, ScaleWorkloadResponse, WorkloadStatus,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::book::Book;
use crate::error::Error;
use crate::journal::{Journal, Query};
use crate::model::{Wish, Workload};
use crate::status::States;
use crate::wire;

/// Answers for control.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    book: Book,
    journal: Arc<Journal>,
    states: watch::Receiver<States>,
}

impl Service {
    pub(crate) fn new(book: Book, journal: Arc<Journal>, states: watch::Receiver<States>) -> Self {
        Self { book, journal, states }
    }

    async fn put(&self, request: PutWorkloadRequest) -> Result<PutWorkloadResponse, Error> {
        let expected = wire::expected(&request)?;
        let workload = wire::workload(&request.workload.unwrap_or_default())?;
        let written = self.book.write(&workload.service, expected, |_| Ok(workload.clone())).await?;
        Ok(PutWorkloadResponse { workload: Some(wire::workload_message(&written)) })
    }

    async fn scale(&self, request: ScaleWorkloadRequest) -> Result<ScaleWorkloadResponse, Error> {
        wire::scale(&request)?;
        let resized = |held: Option<Workload>| {
            let held = held.ok_or_else(|| Error::Unknown(request.service.clone()))?;
            Ok(Workload { instances: request.instances, ..held })
        };
        let written = self.book.write(&request.service, None, resized).await?;
        Ok(ScaleWorkloadResponse { workload: Some(wire::workload_message(&written)) })
    }

    async fn list(&self, request: ListWorkloadsRequest) -> Result<ListWorkloadsResponse, Error> {
        let after = wire::service_token(&request.page_token)?;
        let (wishes, has_more) = self.book.page(after, page::size(request.page_size)?).await?;
        let last = wishes.last().map(|wish| wish.workload.service.clone());
        let mut statuses = Vec::with_capacity(wishes.len());
        for wish in wishes {
            statuses.push(self.status(wish).await?);
        }
        let next_page_token = last.filter(|_| has_more).unwrap_or_default();
        Ok(ListWorkloadsResponse { statuses, next_page_token })
    }

    async fn status(&self, wish: Wish) -> Result<WorkloadStatus, Error> {
        let service = &wish.workload.service;
        let slots = if wish.node == self.book.node() {
            self.states.borrow().get(service).cloned().unwrap_or_default()
        } else {
            self.book.states(service).await?
        };
        Ok(WorkloadStatus { workload: Some(wire::workload_message(&wish.workload)), slots })
    }

    fn decisions(&self, request: &ListDecisionsRequest) -> Result<ListDecisionsResponse, Error> {
        let query = Query {
            service: &request.service,
            instance_id: &request.instance_id,
            before: wire::number_token(&request.page_token)?,
            limit: page::size(request.page_size)?,
        };
        let (decisions, next) = self.journal.read(query);
        let next_page_token = next.map(|next| next.to_string()).unwrap_or_default();
        Ok(ListDecisionsResponse { decisions, next_page_token })
    }
}

fn answer<T>(outcome: Result<T, Error>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| fault::status(&error))
}

#[tonic::async_trait]
impl ControlService for Service {
    async fn put_workload(
        &self,
        request: Request<PutWorkloadRequest>,
    ) -> Result<Response<PutWorkloadResponse>, Status> {
        answer(self.put(request.into_inner()).await)
    }

    async fn scale_workload(
        &self,
        request: Request<ScaleWorkloadRequest>,
    ) -> Result<Response<ScaleWorkloadResponse>, Status> {
        answer(self.scale(request.into_inner()).await)
    }

    async fn delete_workload(
        &self,
        request: Request<DeleteWorkloadRequest>,
    ) -> Result<Response<DeleteWorkloadResponse>, Status> {
        let deleted = self.book.delete(&request.into_inner().service).await;
        answer(deleted.map(|()| DeleteWorkloadResponse {}))
    }

    async fn get_workload(
        &self,
        request: Request<GetWorkloadRequest>,
    ) -> Result<Response<GetWorkloadResponse>, Status> {
        let found = async {
            let wish = self.book.wish(&request.into_inner().service).await?;
            self.status(wish).await
        };
        answer(found.await.map(|status| GetWorkloadResponse { status: Some(status) }))
    }

    async fn list_workloads(
        &self,
        request: Request<ListWorkloadsRequest>,
    ) -> Result<Response<ListWorkloadsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }

    async fn list_decisions(
        &self,
        request: Request<ListDecisionsRequest>,
    ) -> Result<Response<ListDecisionsResponse>, Status> {
        answer(self.decisions(&request.into_inner()))
    }
}
