//! The gRPC face: decode, call, encode.

use std::sync::Arc;

use ninefold::{Caller, fault, page};
use ninefold_proto::ninefold::access::v1 as proto;
use proto::access_service_server::AccessService;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::secret;
use crate::tokens::Tokens;
use crate::wire;

/// Answers for access.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) tokens: Arc<Tokens>,
    /// Whether callers have to say who they are.
    pub(crate) is_asked: bool,
}

impl Service {
    async fn list(&self, request: &proto::ListTokensRequest) -> Result<proto::ListTokensResponse, Error> {
        let size = page::size(request.page_size)?;
        let after = Some(request.page_token.as_str()).filter(|token| !token.is_empty());
        if after.is_some_and(|after| !secret::is_id(after)) {
            return Err(Error::PageTokenInvalid);
        }
        let mut found = self.tokens.page(after, size + 1).await?;
        let has_more = found.len() > size;
        found.truncate(size);
        let next_page_token = found.last().filter(|_| has_more).map(|(last, _)| last.id.clone()).unwrap_or_default();
        let tokens = found.iter().map(|(token, used)| wire::to_token(token, *used)).collect();
        Ok(proto::ListTokensResponse { tokens, next_page_token })
    }
}

fn encode<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| fault::status(&error))
}

#[tonic::async_trait]
impl AccessService for Service {
    async fn create_token(
        &self,
        request: Request<proto::CreateTokenRequest>,
    ) -> Result<Response<proto::CreateTokenResponse>, Status> {
        let author = Caller::of(request.extensions()).identity.to_string();
        let created = async {
            let (token, secret) = self.tokens.create(wire::new_token(request.into_inner())?, author).await?;
            Ok(proto::CreateTokenResponse { token: Some(wire::to_token(&token, None)), secret })
        };
        encode(created.await)
    }

    async fn list_tokens(
        &self,
        request: Request<proto::ListTokensRequest>,
    ) -> Result<Response<proto::ListTokensResponse>, Status> {
        encode(self.list(request.get_ref()).await)
    }

    async fn revoke_token(
        &self,
        request: Request<proto::RevokeTokenRequest>,
    ) -> Result<Response<proto::RevokeTokenResponse>, Status> {
        let author = Caller::of(request.extensions()).identity;
        let revoked = self.tokens.revoke(&request.get_ref().id, &author).await;
        encode(revoked.map(|token| proto::RevokeTokenResponse { token: Some(wire::to_token(&token, None)) }))
    }

    async fn who_am_i(
        &self,
        request: Request<proto::WhoAmIRequest>,
    ) -> Result<Response<proto::WhoAmIResponse>, Status> {
        Ok(Response::new(wire::to_who(&Caller::of(request.extensions()), self.is_asked)))
    }
}
