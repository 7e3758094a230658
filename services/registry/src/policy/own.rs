//! Tells an instance the policy of its own service on its session: behind the registration, and whenever it changes.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, Stream};
use ninefold_proto::ninefold::registry::v1 as proto;
use proto::hold_session_response::Message as Answered;
use tonic::Status;

use crate::model::{Policy, ServiceName};
use crate::view::View;
use crate::watch::Listening;
use crate::wire;

type Answer = Result<proto::HoldSessionResponse, Status>;

struct Own {
    view: Arc<View>,
    service: ServiceName,
    changed: Listening,
    told: Option<Policy>,
}

/// Adds the policy of the instance's own service to the answers of its session. Ends when the answers do.
pub(crate) fn with_policy(
    view: Arc<View>,
    answers: impl Stream<Item = Answer> + Send + 'static,
) -> BoxStream<'static, Answer> {
    stream::unfold((Box::pin(answers), None::<Own>), move |(mut answers, own)| {
        let view = view.clone();
        async move {
            let Some(mut own) = own else {
                let answer = answers.next().await?;
                let own = answer.as_ref().ok().and_then(registered).map(|service| {
                    let changed = view.watchers().listen(&service);
                    Own { view, service, changed, told: None }
                });
                return Some((answer, (answers, own)));
            };
            let answer = tokio::select! {
                biased;
                answer = answers.next() => answer?,
                policy = own.next() => Ok(policy),
            };
            Some((answer, (answers, Some(own))))
        }
    })
    .boxed()
}

/// The service of an instance that was just registered.
fn registered(answer: &proto::HoldSessionResponse) -> Option<ServiceName> {
    match &answer.message {
        Some(Answered::Registered(registered)) => ServiceName::parse(&registered.instance.as_ref()?.service),
        Some(
            Answered::StateChanged(_) | Answered::DrainRequested(_) | Answered::DrainWithdrawn(_) | Answered::Policy(_),
        )
        | None => None,
    }
}

impl Own {
    /// Waits until the policy is another than was told. Cancel safe.
    async fn next(&mut self) -> proto::HoldSessionResponse {
        loop {
            let policy = self.view.policy(self.service.as_str());
            if policy != self.told {
                let none = proto::Policy { service: self.service.to_string(), ..proto::Policy::default() };
                let words = policy.as_ref().map_or(none, wire::policy::to_policy);
                self.told = policy;
                return proto::HoldSessionResponse { message: Some(Answered::Policy(words)) };
            }
            self.changed.woken().await;
        }
    }
}
