//! Who may serve: an instance whose contract the gate of the contract role has let in.
//!
//! Asked when an instance registers as serving, and when it becomes so. One that only starts may be registered: it is seen,
//! and gets no calls.

use std::time::{Duration, SystemTime};

use ninefold::Link;
use ninefold_proto::ninefold::contract::v1::CheckContractRequest;
use ninefold_proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use tonic::{Code, Request};

use crate::error::Error;
use crate::model::{Event, EventKind, Instance, State};
use crate::view::View;

/// How long the contract role may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The way to the gate; none where contracts are not kept.
#[derive(Clone, Debug)]
pub(crate) struct Admission(pub(crate) Option<Link>);

impl Admission {
    /// Lets an instance be registered as what it says that it is.
    ///
    /// # Errors
    /// [`Error::ContractUnaccepted`] for one that would serve with a contract that was not accepted for its service;
    /// [`Error::ContractsAway`] when nobody can tell.
    pub(crate) async fn admit(&self, instance: &Instance, view: &View) -> Result<(), Error> {
        let Some(link) = self.0.as_ref().filter(|_| !instance.contract_digest.is_empty()) else { return Ok(()) };
        let (service, digest) = (instance.key.service.name.to_string(), instance.contract_digest.clone());
        let mut request = Request::new(CheckContractRequest { digest: digest.clone(), service: service.clone() });
        request.set_timeout(ANSWER_WITHIN);
        let is_known = match ContractServiceClient::new(link.clone()).check_contract(request).await {
            Ok(answer) => answer.into_inner().known,
            Err(status) if status.code() == Code::Unimplemented => true,
            Err(status) => return Err(Error::ContractsAway(status.message().to_owned())),
        };
        if is_known {
            return Ok(());
        }
        let reason = match instance.state_reason.as_str() {
            "" => format!("the contract {digest} is not accepted for {service}"),
            reason => reason.to_owned(),
        };
        view.report(Event::of(&instance.key, EventKind::ContractRefused, reason, SystemTime::now()));
        if instance.state == State::Starting { Ok(()) } else { Err(Error::ContractUnaccepted { service, digest }) }
    }
}
