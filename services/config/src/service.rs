//! The contract `ninefold.config.v1.ConfigService`: decode, call, encode.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold::{Caller, fault, page};
use ninefold_proto::ninefold::config::v1::config_service_server::ConfigService;
use ninefold_proto::ninefold::config::v1::{
    AcknowledgeDocumentRequest, AcknowledgeDocumentResponse, DiffRevisionsRequest, DiffRevisionsResponse,
    GetDocumentRequest, GetDocumentResponse, ListAcknowledgementsRequest, ListAcknowledgementsResponse,
    ListDocumentsRequest, ListDocumentsResponse, ListRevisionsRequest, ListRevisionsResponse, PutDocumentRequest,
    PutDocumentResponse, RollbackDocumentRequest, RollbackDocumentResponse, WatchDocumentRequest,
    WatchDocumentResponse, WatchDocumentsRequest, WatchDocumentsResponse,
};
use serde_json::Value;

use crate::acknowledgements::Acknowledgements;
use crate::diff;
use crate::error::Error;
use crate::follow::Board;
use crate::history::History;
use crate::model::{Document, is_name};
use crate::wire;

/// Answers the contract.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) history: Arc<History>,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) board: Arc<Board>,
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn status(error: Error) -> Status {
    match &error {
        // The store's own words are for whoever runs the node; the caller is told what could not be done.
        Error::Store { .. } | Error::Damaged { .. } => {
            tracing::warn!(error = fault::chain(&error), "a call could not be answered");
        }
        Error::Invalid(_)
        | Error::DocumentUnknown(_)
        | Error::RevisionUnknown { .. }
        | Error::RevisionConflict { .. }
        | Error::Contended { .. }
        | Error::PageToken(_)
        | Error::PageSize(_)
        | Error::WatchersFull(_) => {}
    }
    fault::status(&error)
}

fn json(document: &Document) -> Result<Value, Error> {
    serde_json::from_str(&document.revision.content).map_err(|error| {
        let key = wire::revision_key(&document.id, document.revision.number);
        wire::damaged(&key, error.to_string())
    })
}

impl Service {
    async fn put(&self, request: PutDocumentRequest) -> Result<Document, Error> {
        let is_check = request.validate_only;
        let (id, content, write) = wire::put(request)?;
        if is_check {
            return self.history.check(&id, &content, &write).await;
        }
        let document = self.history.put(&id, &content, &write).await?;
        tracing::info!(document = %id, revision = document.revision.number, "a document was written");
        Ok(document)
    }

    async fn roll_back(&self, request: RollbackDocumentRequest) -> Result<Document, Error> {
        let id = wire::known_id(&request.service, &request.environment)?;
        let revision = request.revision;
        let write = wire::rollback(request)?;
        let document = self.history.rollback(&id, revision, &write).await?;
        tracing::info!(document = %id, revision = document.revision.number, "a document was rolled back");
        Ok(document)
    }

    async fn diff(&self, request: DiffRevisionsRequest) -> Result<DiffRevisionsResponse, Error> {
        let id = wire::known_id(&request.service, &request.environment)?;
        let after = self.history.get(&id, request.after).await?;
        let after_number = after.revision.number;
        let before_number = request.before.unwrap_or(after_number - 1);
        // Before the first revision there was nothing.
        let before = match before_number {
            0 => Value::Object(serde_json::Map::new()),
            number => json(&self.history.get(&id, Some(number)).await?)?,
        };
        let changes = diff::changes(&before, &json(&after)?);
        Ok(DiffRevisionsResponse {
            before: before_number,
            after: after_number,
            changes: changes.into_iter().map(wire::change).collect(),
        })
    }

    async fn list(&self, request: ListDocumentsRequest) -> Result<ListDocumentsResponse, Error> {
        let after = wire::after_document(&request.page_token)?;
        let service = Some(request.service.as_str()).filter(|service| !service.is_empty());
        if service.is_some_and(|service| !is_name(service)) {
            return Ok(ListDocumentsResponse::default());
        }
        let page = self.history.documents(service, after.as_ref(), page::size(request.page_size)?).await?;
        Ok(ListDocumentsResponse {
            documents: page.documents.iter().map(wire::document).collect(),
            next_page_token: page.next.as_ref().map(wire::document_token).unwrap_or_default(),
        })
    }

    async fn acknowledge(&self, request: AcknowledgeDocumentRequest) -> Result<(), Error> {
        let told = wire::acknowledgement(request.acknowledgement, SystemTime::now())?;
        let head = self.history.head(&told.id).await?;
        let head = head.ok_or_else(|| Error::DocumentUnknown(told.id.to_string()))?;
        if !head.holds(told.revision) {
            return Err(Error::RevisionUnknown { id: told.id, revision: told.revision });
        }
        self.acknowledgements.put(&told).await
    }
}

#[async_trait]
impl ConfigService for Service {
    async fn get_document(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Result<Response<GetDocumentResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        caller.reads(&request.service).map_err(|denied| fault::status(&denied))?;
        let id = wire::known_id(&request.service, &request.environment).map_err(status)?;
        let document = self.history.get(&id, request.revision).await.map_err(status)?;
        Ok(Response::new(GetDocumentResponse { document: Some(wire::document(&document)) }))
    }

    async fn put_document(
        &self,
        request: Request<PutDocumentRequest>,
    ) -> Result<Response<PutDocumentResponse>, Status> {
        let document = self.put(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(PutDocumentResponse { document: Some(wire::document(&document)) }))
    }

    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Result<Response<ListDocumentsResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Result<Response<ListRevisionsResponse>, Status> {
        let request = request.into_inner();
        let id = wire::known_id(&request.service, &request.environment).map_err(status)?;
        let from = wire::from_revision(&request.page_token).map_err(status)?;
        let size = page::size(request.page_size).map_err(|error| status(error.into()))?;
        let page = self.history.revisions(&id, from, size).await.map_err(status)?;
        Ok(Response::new(ListRevisionsResponse {
            documents: page.documents.iter().map(wire::document).collect(),
            next_page_token: page.next.map(|next| next.to_string()).unwrap_or_default(),
        }))
    }

    async fn diff_revisions(
        &self,
        request: Request<DiffRevisionsRequest>,
    ) -> Result<Response<DiffRevisionsResponse>, Status> {
        self.diff(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn rollback_document(
        &self,
        request: Request<RollbackDocumentRequest>,
    ) -> Result<Response<RollbackDocumentResponse>, Status> {
        let document = self.roll_back(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(RollbackDocumentResponse { document: Some(wire::document(&document)) }))
    }

    type WatchDocumentStream = BoxStream<'static, Result<WatchDocumentResponse, Status>>;

    async fn watch_document(
        &self,
        request: Request<WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        caller.reads(&request.service).map_err(|denied| fault::status(&denied))?;
        let id = wire::id(&request.service, &request.environment).map_err(status)?;
        let watcher = self.board.watch(id, request.known_revision).map_err(status)?;
        let stream = watcher.stream().map(|told| {
            let told = told.map_err(status)?;
            Ok(WatchDocumentResponse { document: told.map(|document| wire::document(&document)) })
        });
        Ok(Response::new(stream.boxed()))
    }

    type WatchDocumentsStream = BoxStream<'static, Result<WatchDocumentsResponse, Status>>;

    async fn watch_documents(
        &self,
        request: Request<WatchDocumentsRequest>,
    ) -> Result<Response<Self::WatchDocumentsStream>, Status> {
        let environment = wire::environment(&request.into_inner().environment).map_err(status)?;
        let follower = self.board.follow_environment(environment).map_err(status)?;
        let stream = follower.stream().map(|news| {
            let news = news.map_err(status)?;
            let documents = news.documents.iter().map(wire::document).collect();
            Ok(WatchDocumentsResponse { documents, complete: news.is_complete })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn acknowledge_document(
        &self,
        request: Request<AcknowledgeDocumentRequest>,
    ) -> Result<Response<AcknowledgeDocumentResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let service = request.acknowledgement.as_ref().map_or("", |told| told.service.as_str());
        caller.reads(service).map_err(|denied| fault::status(&denied))?;
        self.acknowledge(request).await.map_err(status)?;
        Ok(Response::new(AcknowledgeDocumentResponse {}))
    }

    async fn list_acknowledgements(
        &self,
        request: Request<ListAcknowledgementsRequest>,
    ) -> Result<Response<ListAcknowledgementsResponse>, Status> {
        let request = request.into_inner();
        let id = wire::known_id(&request.service, &request.environment).map_err(status)?;
        let told = self.acknowledgements.list(&id, SystemTime::now()).await.map_err(status)?;
        let acknowledgements = told.into_iter().map(wire::acknowledged).collect();
        Ok(Response::new(ListAcknowledgementsResponse { acknowledgements }))
    }
}
