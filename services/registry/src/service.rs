//! The gRPC face: decode, call, encode.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::lifecycle::Scope;
use ninefold::{Caller, Link, fault};
use ninefold_proto::ninefold::registry::v1 as proto;
use ninefold_store::Revision;
use proto::registry_service_server::RegistryService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::error::Error;
use crate::model::{Event, InstanceKey, Interest, ServiceKey, ServiceName};
use crate::overrides;
use crate::page;
use crate::policy;
use crate::reach;
use crate::session::{self, ANSWERS_MAX, Broken, Hub, Place, take_place};
use crate::table::Summary;
use crate::watch::{self, Acknowledgements, Frame, Pace, Watcher};
use crate::wire::{self, Heard};

/// How long a new watch may take to say what it follows.
const WATCH_OPEN_WITHIN: Duration = Duration::from_secs(5);

/// Answers for the registry.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    hub: Arc<Hub>,
    watchers: Arc<AtomicUsize>,
    /// Owns the sessions.
    scope: Scope,
}

impl Service {
    /// Follows the policies that central config keeps.
    pub(crate) fn follow_policies(&self, config: Link) {
        let view = self.hub.view.clone();
        self.scope.run("registry.follow_policies", |stop| policy::follow(config, view, stop));
    }

    pub(crate) fn new(hub: Arc<Hub>, scope: Scope) -> Self {
        Self { hub, watchers: Arc::default(), scope }
    }

    /// Remembers what somebody saw.
    pub(crate) fn observe(&self, event: Event) {
        self.hub.view.report(event);
    }

    fn services(&self, request: &proto::ListServicesRequest) -> Result<proto::ListServicesResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let reach = wire::reach(&request.namespace)?;
        let after = page::read_services(&request.page_token)?;
        let mut found = self.hub.view.table().services(reach.as_ref(), after.as_ref(), size + 1);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more);
        let next_page_token = last.map(|last| page::services_token(&last.service)).unwrap_or_default();
        let services = found.into_iter().map(|summary| self.service(summary)).collect();
        Ok(proto::ListServicesResponse { services, next_page_token, stale: self.stale() })
    }

    /// Why what is answered may be old, if it may.
    fn stale(&self) -> Option<proto::Staleness> {
        let revision = self.hub.view.table().revision();
        self.hub.view.stale().map(|stale| wire::to_staleness(stale, revision))
    }

    /// A service with what is known of its watchers, and whether its silent instances are kept.
    fn service(&self, summary: Summary) -> proto::Service {
        let (view, key) = (&self.hub.view, summary.service.clone());
        let count = view.acknowledged(Some(&key), view.changed_at(Some(&key)));
        wire::to_service(summary, (count.at, count.of), self.hub.judge(&key))
    }

    fn instances(&self, request: &proto::ListInstancesRequest) -> Result<proto::ListInstancesResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let reach = wire::reach(&request.namespace)?;
        let service = Some(request.service.as_str()).filter(|service| !service.is_empty());
        let after = page::read_instances(&request.page_token, service)?;
        let name = match service {
            None => None,
            Some(text) => match ServiceName::parse(text) {
                Some(name) => Some(name),
                // What no service can be called has no instances.
                None => return Ok(proto::ListInstancesResponse::default()),
            },
        };
        let mut found = self.hub.view.table().page(reach.as_ref(), name.as_ref(), after.as_ref(), size + 1);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more);
        let next_page_token = last.map(|last| page::instances_token(&last.key)).unwrap_or_default();
        let instances = found.iter().map(|instance| wire::to_instance(instance)).collect();
        Ok(proto::ListInstancesResponse { instances, next_page_token, stale: self.stale() })
    }

    fn instance(&self, request: proto::GetInstanceRequest) -> Result<proto::GetInstanceResponse, Error> {
        let key = key(&request.namespace, request.service, request.instance_id)?;
        let found = self.hub.view.table().get(&key).cloned();
        let instance = found.ok_or_else(|| Error::unknown(&key))?;
        Ok(proto::GetInstanceResponse { instance: Some(wire::to_instance(&instance)) })
    }

    async fn set_override(&self, request: proto::SetOverrideRequest) -> Result<proto::SetOverrideResponse, Error> {
        let key = key(&request.namespace, request.service, request.instance_id)?;
        let decided = wire::parse_override(request.r#override, SystemTime::now())?;
        let instance = overrides::set(&self.hub, key, decided).await?;
        Ok(proto::SetOverrideResponse { instance: instance.as_deref().map(wire::to_instance) })
    }

    async fn clear_override(
        &self,
        request: proto::ClearOverrideRequest,
    ) -> Result<proto::ClearOverrideResponse, Error> {
        let key = key(&request.namespace, request.service, request.instance_id)?;
        let instance = overrides::clear(&self.hub, key).await?;
        Ok(proto::ClearOverrideResponse { instance: instance.as_deref().map(wire::to_instance) })
    }

    fn events(&self, request: &proto::ListEventsRequest) -> Result<proto::ListEventsResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let reach = wire::reach(&request.namespace)?;
        let before = page::read_events(&request.page_token)?;
        let found = self.hub.view.events().page(before, size, |event| {
            reach.as_ref().is_none_or(|namespace| namespace.as_str() == event.namespace)
                && (request.service.is_empty() || request.service == event.service)
                && (request.instance_id.is_empty() || request.instance_id == event.instance)
        });
        let next_page_token = found.rest.map(page::events_token).unwrap_or_default();
        Ok(proto::ListEventsResponse {
            events: found.events.into_iter().map(wire::to_event).collect(),
            next_page_token,
        })
    }

    fn watchers(&self, request: &proto::ListWatchersRequest) -> Result<proto::ListWatchersResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = page::read_watchers(&request.page_token)?;
        let Some(service) = wanted(&request.namespace, &request.service) else {
            return Ok(proto::ListWatchersResponse::default());
        };
        let mut found = self.hub.view.watchers().page(service.as_ref(), after, size + 1);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more);
        let next_page_token = last.map(|last| page::watchers_token(last.id)).unwrap_or_default();
        let watchers = found.into_iter().map(|seat| wire::to_watcher(seat, &self.hub.node)).collect();
        let revision = self.hub.view.changed_at(service.as_ref());
        let count = self.hub.view.acknowledged(service.as_ref(), revision);
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let (acknowledging, acknowledged) = (number(count.of), number(count.at));
        Ok(proto::ListWatchersResponse { watchers, next_page_token, revision: revision.0, acknowledging, acknowledged })
    }

    /// Follows, for one who says nothing.
    pub(crate) fn watch(&self, caller: Caller, request: &proto::WatchInstancesRequest) -> Result<Frames, Status> {
        let place = self.watch_place();
        let opened = place.and_then(|place| Ok((place, wire::interest(&request.namespace, &request.services)?)));
        let (place, interest) = opened.map_err(|error| fault::status(&error))?;
        Ok(self.follow(place, Opened { caller, interest, who: String::new(), resumes: None, acknowledgements: None }))
    }

    /// Follows, for one who acknowledges.
    pub(crate) async fn held_watch(
        &self,
        caller: Caller,
        mut said: Streaming<proto::HoldWatchRequest>,
    ) -> Result<Frames, Status> {
        let place = self.watch_place().map_err(|error| fault::status(&error))?;
        let first = tokio::time::timeout(WATCH_OPEN_WITHIN, said.message()).await;
        let first = match first {
            Ok(Ok(Some(first))) => wire::heard(first),
            Ok(Ok(None) | Err(_)) | Err(_) => Err(Error::WatchUnopened),
        };
        let (interest, who, resumes) = match first {
            Ok(Heard::Open(interest, who, resumes)) => (interest, who, resumes),
            Ok(Heard::Acknowledged(_) | Heard::Nothing) => return Err(fault::status(&Error::WatchUnopened)),
            Err(error) => return Err(fault::status(&error)),
        };
        let heard = said.filter_map(|said| async move {
            match wire::heard(said.ok()?) {
                Ok(Heard::Acknowledged(revision)) => Some(revision),
                Ok(Heard::Open(..) | Heard::Nothing) | Err(_) => None,
            }
        });
        // Who says no more still listens.
        let acknowledgements = heard.chain(futures_util::stream::pending()).boxed();
        Ok(self.follow(place, Opened { caller, interest, who, resumes, acknowledgements: Some(acknowledgements) }))
    }

    fn checked_policy(&self, request: &proto::CheckPolicyRequest) -> Result<proto::CheckPolicyResponse, Error> {
        let service = ServiceName::parse(&request.service).ok_or_else(wire::policy::no_service)?;
        let revision = self.hub.view.policy(service.as_str()).map_or(0, |policy| policy.revision);
        let policy = wire::policy::read(&service, revision, &request.content)?;
        let effective = wire::policy::effective(&policy);
        Ok(proto::CheckPolicyResponse { policy: Some(policy), effective: Some(effective) })
    }

    fn policy(&self, request: &proto::GetPolicyRequest) -> Result<proto::GetPolicyResponse, Error> {
        let found = self.hub.view.policy(&request.service);
        let (refused_revision, refusal) = self.hub.view.refusal(&request.service).unwrap_or_default();
        if found.is_none() && refused_revision == 0 {
            return Err(Error::PolicyUnknown(request.service.chars().take(64).collect()));
        }
        let policy = found.map(|found| wire::policy::to_policy(&found)).unwrap_or_default();
        let effective = Some(wire::policy::effective(&policy));
        Ok(proto::GetPolicyResponse { policy: Some(policy), effective, refused_revision, refusal })
    }

    fn watch_place(&self) -> Result<Place, Error> {
        let max = self.hub.config.watchers_max;
        take_place(&self.watchers, max).ok_or(Error::WatchersFull { max })
    }

    fn follow(&self, place: Place, opened: Opened) -> Frames {
        let config = &self.hub.config;
        let Opened { caller, interest, who, resumes, acknowledgements } = opened;
        let watcher = Watcher {
            view: self.hub.view.clone(),
            enrolled: self.hub.view.watchers().enrol(who, interest, acknowledgements.is_some()),
            pace: Pace { gather: config.gather, heartbeat: config.heartbeat },
            resumes,
            acknowledgements: acknowledgements.unwrap_or_else(|| futures_util::stream::pending().boxed()),
            stop: self.scope.stop(),
            _place: place,
        };
        let frames = watch::watch(watcher);
        frames
            .map(move |told| told.map(|frame| reach::watched(&caller, frame)).map_err(|error| fault::status(&error)))
            .boxed()
    }
}

type Frames = BoxStream<'static, Result<Frame, Status>>;

/// How a watch was opened.
struct Opened {
    /// Who asked.
    caller: Caller,
    interest: Interest,
    who: String,
    resumes: Option<Revision>,
    /// `None` for one who does not acknowledge.
    acknowledgements: Option<Acknowledgements>,
}

/// The service that a list is asked for, if any is named; `None` for a name that none can have.
fn wanted(namespace: &str, service: &str) -> Option<Option<ServiceKey>> {
    if service.is_empty() { Some(None) } else { ServiceKey::parse(namespace, service).map(Some) }
}

/// Reads a key that somebody asks about; what no instance can be called is unknown.
fn key(namespace: &str, service: String, id: String) -> Result<InstanceKey, Error> {
    InstanceKey::parse(namespace, &service, &id).ok_or(Error::InstanceUnknown { service, id })
}

fn encode<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| fault::status(&error))
}

#[tonic::async_trait]
impl RegistryService for Service {
    type HoldSessionStream = BoxStream<'static, Result<proto::HoldSessionResponse, Status>>;
    type WatchInstancesStream = BoxStream<'static, Result<proto::WatchInstancesResponse, Status>>;
    type HoldWatchStream = BoxStream<'static, Result<proto::HoldWatchResponse, Status>>;

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
        Ok(Response::new(policy::with_policy(self.hub.view.clone(), answers)))
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
        // The door answers with frames; this is for whoever calls without a door.
        let caller = Caller::of(request.extensions());
        let frames = self.watch(caller, request.get_ref())?;
        Ok(Response::new(frames.map(|frame| Ok(wire::from_frame(&frame?, false))).boxed()))
    }

    async fn hold_watch(
        &self,
        request: Request<Streaming<proto::HoldWatchRequest>>,
    ) -> Result<Response<Self::HoldWatchStream>, Status> {
        let caller = Caller::of(request.extensions());
        let frames = self.held_watch(caller, request.into_inner()).await?;
        Ok(Response::new(frames.map(|frame| Ok(wire::from_frame(&frame?, true))).boxed()))
    }

    async fn list_watchers(
        &self,
        request: Request<proto::ListWatchersRequest>,
    ) -> Result<Response<proto::ListWatchersResponse>, Status> {
        encode(self.watchers(request.get_ref()))
    }

    async fn check_policy(
        &self,
        request: Request<proto::CheckPolicyRequest>,
    ) -> Result<Response<proto::CheckPolicyResponse>, Status> {
        encode(self.checked_policy(request.get_ref()))
    }

    async fn get_policy(
        &self,
        request: Request<proto::GetPolicyRequest>,
    ) -> Result<Response<proto::GetPolicyResponse>, Status> {
        encode(self.policy(request.get_ref()))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let caller = Caller::of(request.extensions());
        encode(self.events(request.get_ref()).map(|answer| reach::events(&caller, answer)))
    }

    async fn set_override(
        &self,
        request: Request<proto::SetOverrideRequest>,
    ) -> Result<Response<proto::SetOverrideResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        if let Err(error) = reach::decides(&caller, &request.namespace, &request.service, &request.instance_id) {
            return encode(Err(error));
        }
        encode(self.set_override(request).await)
    }

    async fn clear_override(
        &self,
        request: Request<proto::ClearOverrideRequest>,
    ) -> Result<Response<proto::ClearOverrideResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        if let Err(error) = reach::decides(&caller, &request.namespace, &request.service, &request.instance_id) {
            return encode(Err(error));
        }
        encode(self.clear_override(request).await)
    }
}
