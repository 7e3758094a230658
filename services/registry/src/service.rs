//! The gRPC face: decode, call, encode.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::lifecycle::Scope;
use ninefold::{Caller, fault};
use ninefold_proto::ninefold::registry::v1 as proto;
use proto::registry_service_server::RegistryService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::error::Error;
use crate::page;
use crate::reach;
use crate::session::{self, ANSWERS_MAX, Broken, Hub, take_place};
use crate::watch::{self, Pace, Told};
use crate::wire;

/// Answers for the registry.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    hub: Arc<Hub>,
    watchers: Arc<AtomicUsize>,
    /// Owns the sessions.
    scope: Scope,
}

impl Service {
    pub(crate) fn new(hub: Arc<Hub>, scope: Scope) -> Self {
        Self { hub, watchers: Arc::default(), scope }
    }

    fn services(&self, request: &proto::ListServicesRequest) -> Result<proto::ListServicesResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = page::read_services(&request.page_token)?;
        let mut found = self.hub.view.table().services(after.as_ref(), size + 1);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more);
        let next_page_token = last.map(|last| page::services_token(&last.service)).unwrap_or_default();
        Ok(proto::ListServicesResponse { services: found.into_iter().map(wire::to_service).collect(), next_page_token })
    }

    fn instances(&self, request: &proto::ListInstancesRequest) -> Result<proto::ListInstancesResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let service = Some(request.service.as_str()).filter(|service| !service.is_empty());
        let after = page::read_instances(&request.page_token, service)?;
        let mut found = self.hub.view.table().page(service, after.as_ref(), size + 1);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more);
        let next_page_token = last.map(|last| page::instances_token(&last.key)).unwrap_or_default();
        let instances = found.iter().map(|instance| wire::to_instance(instance)).collect();
        Ok(proto::ListInstancesResponse { instances, next_page_token })
    }

    fn instance(&self, request: proto::GetInstanceRequest) -> Result<proto::GetInstanceResponse, Error> {
        let found = self.hub.view.table().get(&request.service, &request.instance_id).cloned();
        let (service, id) = (request.service, request.instance_id);
        let instance = found.ok_or(Error::InstanceUnknown { service, id })?;
        Ok(proto::GetInstanceResponse { instance: Some(wire::to_instance(&instance)) })
    }

    fn events(&self, request: &proto::ListEventsRequest) -> Result<proto::ListEventsResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let before = page::read_events(&request.page_token)?;
        let found = self.hub.view.events().page(before, size, |event| {
            (request.service.is_empty() || request.service == event.service)
                && (request.instance_id.is_empty() || request.instance_id == event.instance)
        });
        let next_page_token = found.rest.map(page::events_token).unwrap_or_default();
        Ok(proto::ListEventsResponse {
            events: found.events.into_iter().map(wire::to_event).collect(),
            next_page_token,
        })
    }

    fn watch(
        &self,
        request: &proto::WatchInstancesRequest,
    ) -> Result<BoxStream<'static, Result<proto::WatchInstancesResponse, Status>>, Error> {
        let config = &self.hub.config;
        let interest = wire::interest(request)?;
        let max = config.watchers_max;
        let place = take_place(&self.watchers, max).ok_or(Error::WatchersFull { max })?;
        let pace = Pace { gather: config.gather, heartbeat: config.heartbeat };
        let told = watch::watch(self.hub.view.clone(), interest, pace, place, self.scope.stop());
        Ok(told
            .map(|told| match told {
                Ok(Told::Snapshot(instances, revision)) => Ok(wire::to_snapshot(&instances, revision)),
                Ok(Told::Delta(changes, revision)) => Ok(wire::to_delta(&changes, revision)),
                Ok(Told::Heartbeat(revision)) => Ok(wire::to_heartbeat(revision)),
                Err(error) => Err(fault::status(&error)),
            })
            .boxed())
    }
}

fn encode<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| fault::status(&error))
}

#[tonic::async_trait]
impl RegistryService for Service {
    type HoldSessionStream = BoxStream<'static, Result<proto::HoldSessionResponse, Status>>;
    type WatchInstancesStream = BoxStream<'static, Result<proto::WatchInstancesResponse, Status>>;

    async fn hold_session(
        &self,
        request: Request<Streaming<proto::HoldSessionRequest>>,
    ) -> Result<Response<Self::HoldSessionStream>, Status> {
        let place = self.hub.place().map_err(|error| fault::status(&error))?;
        let caller = Caller::of(request.extensions());
        let inbound = request.into_inner().map(move |heard| match heard {
            Ok(request) => match reach::joins(&caller, &request) {
                Ok(()) => wire::said(request).map_err(Broken::Fault),
                Err(denied) => Err(Broken::Fault(denied.into())),
            },
            // What the connection's library says of its end tells a reader nothing.
            Err(status) if status.code() == Code::Unknown => Err(Broken::Lost("its connection broke".to_owned())),
            Err(status) => Err(Broken::Lost(format!("{}: {}", status.code(), status.message()))),
        });
        let (out, answers) = mpsc::channel(ANSWERS_MAX);
        let hub = self.hub.clone();
        self.scope.run("registry.session", |stop| session::hold(hub, place, inbound.boxed(), out, stop));
        let answers = ReceiverStream::new(answers)
            .map(|answer| answer.map(wire::to_answer).map_err(|error| fault::status(&error)));
        Ok(Response::new(answers.boxed()))
    }

    async fn list_services(
        &self,
        request: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        encode(self.services(request.get_ref()).map(|answer| reach::services(&caller, answer)))
    }

    async fn list_instances(
        &self,
        request: Request<proto::ListInstancesRequest>,
    ) -> Result<Response<proto::ListInstancesResponse>, Status> {
        let caller = Caller::of(request.extensions());
        encode(self.instances(request.get_ref()).map(|answer| reach::listed(&caller, answer)))
    }

    async fn get_instance(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<Response<proto::GetInstanceResponse>, Status> {
        let caller = Caller::of(request.extensions());
        encode(self.instance(request.into_inner()).and_then(|answer| reach::found(&caller, answer)))
    }

    async fn watch_instances(
        &self,
        request: Request<proto::WatchInstancesRequest>,
    ) -> Result<Response<Self::WatchInstancesStream>, Status> {
        let caller = Caller::of(request.extensions());
        let told = self.watch(request.get_ref());
        encode(told.map(|told| told.map(move |told| told.map(|told| reach::watched(&caller, told))).boxed()))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        encode(self.events(request.get_ref()).map(|answer| reach::events(&caller, answer)))
    }
}
