//! Central configuration in the test's hands: the one document of the edge, and what was said of it.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::tonic::{Request, Response, Status, async_trait};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::landscape::not_here;

/// The document of the edge.
#[derive(Clone)]
pub(crate) struct Documents {
    document: watch::Sender<Option<config::Document>>,
    acknowledged: Arc<Mutex<Vec<config::Acknowledgement>>>,
}

impl Default for Documents {
    fn default() -> Self {
        Self { document: watch::Sender::new(None), acknowledged: Arc::default() }
    }
}

impl Documents {
    /// Writes the document; answers what the edge says of it.
    pub(crate) async fn put(&self, content: &str) -> String {
        let mut revision = 0;
        self.document.send_modify(|document| {
            revision = document.as_ref().map_or(0, |document| document.revision) + 1;
            let content = content.to_owned();
            *document = Some(config::Document { service: "edge".into(), content, revision, ..Default::default() });
        });
        let heard = async {
            loop {
                let said = self.acknowledged.lock().unwrap().iter().find(|said| said.revision == revision).cloned();
                if let Some(said) = said {
                    assert_eq!((said.service.as_str(), said.instance_id.as_str()), ("edge", "node-1"));
                    return said.refusal;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), heard).await.expect("the edge acknowledges")
    }
}

#[async_trait]
impl config::config_service_server::ConfigService for Documents {
    type WatchDocumentStream = BoxStream<'static, Result<config::WatchDocumentResponse, Status>>;
    type WatchDocumentsStream = BoxStream<'static, Result<config::WatchDocumentsResponse, Status>>;

    async fn get_document(
        &self,
        _: Request<config::GetDocumentRequest>,
    ) -> Result<Response<config::GetDocumentResponse>, Status> {
        match self.document.borrow().clone() {
            Some(document) => Ok(Response::new(config::GetDocumentResponse { document: Some(document) })),
            None => Err(Status::not_found("no document")),
        }
    }

    async fn watch_document(
        &self,
        request: Request<config::WatchDocumentRequest>,
    ) -> Result<Response<Self::WatchDocumentStream>, Status> {
        let known = request.into_inner().known_revision;
        let told = WatchStream::new(self.document.subscribe()).filter_map(move |document| async move {
            let document = document.filter(|document| document.revision > known)?;
            Some(Ok(config::WatchDocumentResponse { document: Some(document) }))
        });
        Ok(Response::new(told.boxed()))
    }

    async fn acknowledge_document(
        &self,
        request: Request<config::AcknowledgeDocumentRequest>,
    ) -> Result<Response<config::AcknowledgeDocumentResponse>, Status> {
        self.acknowledged.lock().unwrap().extend(request.into_inner().acknowledgement);
        Ok(Response::new(config::AcknowledgeDocumentResponse {}))
    }

    async fn put_document(
        &self,
        _: Request<config::PutDocumentRequest>,
    ) -> Result<Response<config::PutDocumentResponse>, Status> {
        not_here()
    }

    async fn list_documents(
        &self,
        _: Request<config::ListDocumentsRequest>,
    ) -> Result<Response<config::ListDocumentsResponse>, Status> {
        not_here()
    }

    async fn list_revisions(
        &self,
        _: Request<config::ListRevisionsRequest>,
    ) -> Result<Response<config::ListRevisionsResponse>, Status> {
        not_here()
    }

    async fn diff_revisions(
        &self,
        _: Request<config::DiffRevisionsRequest>,
    ) -> Result<Response<config::DiffRevisionsResponse>, Status> {
        not_here()
    }

    async fn rollback_document(
        &self,
        _: Request<config::RollbackDocumentRequest>,
    ) -> Result<Response<config::RollbackDocumentResponse>, Status> {
        not_here()
    }

    async fn watch_documents(
        &self,
        _: Request<config::WatchDocumentsRequest>,
    ) -> Result<Response<Self::WatchDocumentsStream>, Status> {
        not_here()
    }

    async fn list_acknowledgements(
        &self,
        _: Request<config::ListAcknowledgementsRequest>,
    ) -> Result<Response<config::ListAcknowledgementsResponse>, Status> {
        not_here()
    }
}
