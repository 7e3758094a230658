//! The way of policies from central config to those who call: follows the documents of the environment "policy", keeps the
//! last good one of each service, and tells of those that cannot be used.

mod own;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ninefold::Link;
use ninefold::lifecycle::Stop;
use ninefold_proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold_proto::ninefold::config::v1::{Document, WatchDocumentsRequest};
use tonic::Status;

pub(crate) use own::with_policy;

use crate::error::Error;
use crate::model::ServiceName;
use crate::view::View;
use crate::wire;

/// Environment of the documents that are policies.
const ENVIRONMENT: &str = "policy";
/// First and longest pause before central config is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Central config gives a sign of life every ten seconds; after this long without one it is asked anew.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// Largest answer that is read: central config keeps its own below four megabytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Follows the policies until asked to stop. While central config is away, those that are known hold.
pub(crate) async fn follow(config: Link, view: Arc<View>, stop: Stop) {
    let mut pause = PAUSE.0;
    let work = async {
        loop {
            let mut has_heard = false;
            if let Err(status) = listen(&config, &view, &mut has_heard).await {
                tracing::debug!(code = ?status.code(), message = status.message(), "central config does not answer");
            }
            pause = if has_heard { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.asked() => {}
    }
}

async fn listen(config: &Link, view: &View, has_heard: &mut bool) -> Result<(), Status> {
    let mut client = ConfigServiceClient::new(config.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let request = WatchDocumentsRequest { environment: ENVIRONMENT.to_owned() };
    let mut answers = client.watch_documents(request).await?.into_inner();
    let mut found = BTreeSet::new();
    let mut is_complete = false;
    loop {
        let Ok(answer) = tokio::time::timeout(SILENT_MAX, answers.message()).await else { return Ok(()) };
        let Some(answer) = answer? else { return Ok(()) };
        *has_heard = true;
        for document in answer.documents {
            if let Some(service) = take(view, &document) {
                found.insert(service);
            }
        }
        if answer.complete && !is_complete {
            is_complete = true;
            view.complete_policies(&found);
        }
    }
}

/// Takes in a document; tells whose it is.
fn take(view: &View, document: &Document) -> Option<ServiceName> {
    let service = ServiceName::parse(&document.service)?;
    match wire::policy::parse(&service, document.revision, &document.content) {
        Ok(policy) => view.set_policy(&service, policy),
        Err(error) => {
            let why = match error {
                Error::PolicyInvalid(found) => {
                    let one = |violation: &ninefold::fault::Violation| {
                        format!("{} {}", violation.field, violation.description)
                    };
                    found.iter().take(3).map(one).collect::<Vec<_>>().join("; ")
                }
                other => other.to_string(),
            };
            tracing::warn!(service = %service, revision = document.revision, why, "a policy cannot be used");
            view.refuse_policy(&service, document.revision, &why);
        }
    }
    Some(service)
}
