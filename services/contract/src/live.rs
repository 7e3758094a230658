//! What runs: the contracts of the instances that are registered.

use std::time::Duration;

use ninefold::Link;
use ninefold_proto::ninefold::registry::v1::registry_service_client::RegistryServiceClient;
use ninefold_proto::ninefold::registry::v1::{InstanceState, ListInstancesRequest};
use tonic::{Code, Request};

use crate::error::Error;

/// Most instances that are looked at.
const INSTANCES_MAX: usize = 20_000;
/// Instances of one page.
const PAGE: i32 = 1000;
/// How long one page may take.
const PAGE_WITHIN: Duration = Duration::from_secs(3);

/// An instance that runs with a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// Its service.
    pub(crate) service: String,
    /// Its id.
    pub(crate) instance_id: String,
    /// Digest of its contract.
    pub(crate) digest: String,
    /// What it answers.
    pub(crate) protobuf_services: Vec<String>,
}

/// All instances that serve and have a contract. None where this landscape has no registry.
///
/// # Errors
/// [`Error::RegistryAway`]: without it nobody knows whom a change would break.
pub(crate) async fn running(registry: Option<&Link>) -> Result<Vec<Running>, Error> {
    let Some(link) = registry else { return Ok(Vec::new()) };
    let mut client = RegistryServiceClient::new(link.clone()).max_decoding_message_size(16 * 1024 * 1024);
    let mut running = Vec::new();
    let mut page_token = String::new();
    loop {
        let mut request = Request::new(ListInstancesRequest {
            service: String::new(),
            page_size: PAGE,
            page_token,
            namespace: "-".to_owned(),
        });
        request.set_timeout(PAGE_WITHIN);
        let answer = match client.list_instances(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => return Ok(Vec::new()),
            Err(status) => return Err(Error::RegistryAway(status.message().to_owned())),
        };
        let serving = answer.instances.into_iter().filter(|one| {
            !one.contract_digest.is_empty() && !matches!(one.state(), InstanceState::Starting | InstanceState::Gone)
        });
        running.extend(serving.map(|one| Running {
            service: one.service,
            instance_id: one.instance_id,
            digest: one.contract_digest,
            protobuf_services: one.protobuf_services,
        }));
        page_token = answer.next_page_token;
        if page_token.is_empty() || running.len() >= INSTANCES_MAX {
            return Ok(running);
        }
    }
}
