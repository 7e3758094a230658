//! What a caller reaches of the landscape: it joins as its own services, and sees its own namespaces.

use ninefold::Caller;
use ninefold::caller::Denied;
use ninefold_proto::ninefold::registry::v1 as proto;
use prost::Message as _;
use proto::hold_session_request::Message as Said;
use proto::hold_watch_response::Message as Told;

use crate::error::Error;
use crate::watch::Frame;
use crate::wire;

/// Whether a caller may say this on a session: a registration is for whom its credentials name, the rest is said by an
/// instance that is registered.
pub(crate) fn joins(caller: &Caller, request: &proto::HoldSessionRequest) -> Result<(), Denied> {
    match &request.message {
        Some(Said::Register(proto::Register { instance: Some(instance) })) => {
            caller.joins(&instance.service, &instance.namespace)
        }
        Some(Said::Register(_) | Said::Beat(_) | Said::SetState(_) | Said::ReportEvents(_) | Said::Deregister(_))
        | None => Ok(()),
    }
}

/// Keeps the instances that a caller may see.
pub(crate) fn instances(caller: &Caller, instances: &mut Vec<proto::Instance>) {
    instances.retain(|instance| caller.may_see(&instance.namespace));
}

/// Keeps what a caller may see of a message of a watch. One in which nothing is left tells that the stream is alive, and
/// up to which revision it is right. Who does not see everything is told no digest: that is one of everything.
pub(crate) fn watched(caller: &Caller, frame: Frame) -> Frame {
    if caller.namespaces.are_all() {
        return frame;
    }
    let whole: proto::HoldWatchResponse = wire::from_frame(&frame, true);
    let message = match whole.message {
        Some(Told::Snapshot(mut snapshot)) => {
            instances(caller, &mut snapshot.instances);
            snapshot.encode_to_vec()
        }
        Some(Told::Delta(mut delta)) => {
            instances(caller, &mut delta.upserts);
            delta.removes.retain(|gone| caller.may_see(&gone.namespace));
            delta.encode_to_vec()
        }
        Some(Told::Heartbeat(_)) | None => Vec::new(),
    };
    Frame { parts: vec![message.into()], digest: None, ..frame }
}

/// Keeps what a caller may see of a page of instances, which may become shorter by it.
pub(crate) fn listed(caller: &Caller, mut page: proto::ListInstancesResponse) -> proto::ListInstancesResponse {
    instances(caller, &mut page.instances);
    page
}

/// An instance that a caller may see; one that it may not is not there.
pub(crate) fn found(caller: &Caller, answer: proto::GetInstanceResponse) -> Result<proto::GetInstanceResponse, Error> {
    match answer.instance {
        Some(instance) if !caller.may_see(&instance.namespace) => {
            Err(Error::InstanceUnknown { service: instance.service, id: instance.instance_id })
        }
        instance => Ok(proto::GetInstanceResponse { instance }),
    }
}

/// Whether an operator may decide something of an instance: one that it may not see is not there.
pub(crate) fn decides(caller: &Caller, namespace: &str, service: &str, id: &str) -> Result<(), Error> {
    if caller.may_see(namespace) {
        return Ok(());
    }
    Err(Error::InstanceUnknown { service: service.to_owned(), id: id.to_owned() })
}

/// Keeps what a caller may see of a page of services.
pub(crate) fn services(caller: &Caller, mut page: proto::ListServicesResponse) -> proto::ListServicesResponse {
    page.services.retain(|service| caller.may_see(&service.namespace));
    page
}

/// Keeps what a caller may see of a page of events.
pub(crate) fn events(caller: &Caller, mut page: proto::ListEventsResponse) -> proto::ListEventsResponse {
    page.events.retain(|event| caller.may_see(&event.namespace));
    page
}

#[cfg(test)]
mod tests {
    use ninefold::caller::{Names, Role};

    use super::*;

    fn caller(role: Role, namespace: &str) -> Caller {
        Caller {
            identity: "test".into(),
            roles: [role].into(),
            services: Names::Only(["product".to_owned()].into()),
            namespaces: Names::Only([namespace.to_owned()].into()),
        }
    }

    fn instance(service: &str, namespace: &str) -> proto::Instance {
        proto::Instance { service: service.to_owned(), namespace: namespace.to_owned(), ..proto::Instance::default() }
    }

    #[test]
    fn an_instance_registers_as_what_its_caller_may_join_as() {
        let says = |service, namespace| {
            let register = proto::Register { instance: Some(instance(service, namespace)) };
            let request = proto::HoldSessionRequest { message: Some(Said::Register(register)) };
            joins(&caller(Role::Instance, "default"), &request).is_ok()
        };
        assert!(says("product", "") && says("product", "default"));
        assert!(!says("review", "") && !says("product", "other"));
    }

    #[test]
    fn a_caller_sees_its_own_namespaces_alone() {
        let reader = caller(Role::Read, "shop");
        let page = proto::ListInstancesResponse {
            instances: vec![instance("a", "shop"), instance("b", ""), instance("c", "other")],
            next_page_token: "more".to_owned(),
            stale: None,
        };
        let seen = listed(&reader, page);
        assert_eq!((seen.instances.len(), seen.next_page_token.as_str()), (1, "more"));

        let answer = proto::GetInstanceResponse { instance: Some(instance("b", "")) };
        assert!(matches!(found(&reader, answer), Err(Error::InstanceUnknown { .. })));

        let delta = proto::Delta { upserts: vec![instance("b", ""), instance("a", "shop")], ..proto::Delta::default() };
        let frame = Frame {
            kind: Frame::DELTA,
            parts: vec![delta.encode_to_vec().into()],
            revision: ninefold_store::Revision(7),
            digest: Some(1),
            is_authoritative: true,
            all_policies: false,
            watch_id: String::new(),
        };
        let told: proto::HoldWatchResponse = wire::from_frame(&watched(&reader, frame), true);
        let Some(Told::Delta(seen)) = told.message else { panic!("a delta stays one") };
        assert_eq!((seen.upserts, told.revision), (vec![instance("a", "shop")], 7));
        assert_eq!(told.digest, None, "it would be one of instances that are not seen");
    }
}
