//! The command line's view of the platform: one link, and pages gathered into lists.

use std::future::Future;
use std::time::Duration;

use ninefold::connect::deadline;
use ninefold::tonic::{Request, Response, Status};
use ninefold::{Credentials, Link};
use ninefold_proto::ninefold::access::v1::access_service_client::AccessServiceClient;
use ninefold_proto::ninefold::access::v1::key_service_client::KeyServiceClient;
use ninefold_proto::ninefold::access::v1::{WhoAmIRequest, WhoAmIResponse};
use ninefold_proto::ninefold::alert::v1::alert_service_client::AlertServiceClient;
use ninefold_proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold_proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use ninefold_proto::ninefold::contract::v1::package_service_client::PackageServiceClient;
use ninefold_proto::ninefold::contract::v1::{Change, ListChangesRequest};
use ninefold_proto::ninefold::control::v1::control_service_client::ControlServiceClient;
use ninefold_proto::ninefold::control::v1::{Decision, ListDecisionsRequest, ListWorkloadsRequest, WorkloadStatus};
use ninefold_proto::ninefold::dialect::v1::dialect_service_client::DialectServiceClient;
use ninefold_proto::ninefold::gateway::v1::gateway_service_client::GatewayServiceClient;
use ninefold_proto::ninefold::gateway::v1::{ListRoutesRequest, Refusal, Route};
use ninefold_proto::ninefold::monitor::v1::metric_service_client::MetricServiceClient;
use ninefold_proto::ninefold::monitor::v1::monitor_service_client::MonitorServiceClient;
use ninefold_proto::ninefold::monitor::v1::sql_service_client::SqlServiceClient;
use ninefold_proto::ninefold::monitor::v1::{ListUsageRequest, Usage};
use ninefold_proto::ninefold::registry::v1::registry_service_client::RegistryServiceClient;
use ninefold_proto::ninefold::registry::v1::{
    Event, Instance, ListEventsRequest, ListInstancesRequest, ListServicesRequest, Service, Staleness,
};
use tokio::time::Instant;

use crate::exit::Failure;
use crate::output;

/// Largest answer that is taken: a contract of 8 MiB and some.
const ANSWER_BYTES_MAX: usize = 12 * 1024 * 1024;
/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a search through telemetry may take: longer than the monitor takes for one, and for one before it, so that it
/// is the monitor who says that it is too slow.
const SEARCH_DEADLINE: Duration = Duration::from_secs(25);
/// How much longer than its deadline an answer is waited for: it may say more than that time is up.
const GRACE: Duration = Duration::from_secs(1);
/// Rows of one page.
const PAGE: i32 = 1000;
/// Most rows that a listing gathers.
const ROWS_MAX: usize = 10_000;

/// A way to ask the platform.
#[derive(Clone, Debug)]
pub(crate) struct Platform {
    link: Link,
    endpoint: String,
    credentials: Credentials,
    /// The namespace that is asked about; empty for the default.
    namespace: String,
}

impl Platform {
    /// Names the platform at `endpoint`: one or more URLs, separated by commas. Nothing is sent yet.
    pub(crate) fn at(endpoint: &str) -> Result<Self, Failure> {
        let credentials = Credentials::from_env().map_err(|error| Failure::Usage(error.to_string()))?;
        Self::reached(endpoint, credentials)
    }

    /// Names a service's instance, which is asked in the same way but is not to see who we are to the platform.
    pub(crate) fn instance_at(address: &str) -> Result<Self, Failure> {
        Self::reached(&format!("http://{address}"), Credentials::default())
    }

    fn reached(endpoint: &str, credentials: Credentials) -> Result<Self, Failure> {
        let uris = endpoint
            .split(',')
            .map(|part| {
                part.trim().parse::<http::Uri>().ok().filter(|uri| uri.host().is_some() && uri.scheme().is_some())
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Failure::Usage(format!("{endpoint:?} is not a URL such as http://127.0.0.1:9900")))?;
        if uris.iter().any(|uri| !matches!(uri.scheme_str(), Some("http" | "https"))) {
            return Err(Failure::Usage(format!("{endpoint}: only http:// and https:// are spoken with the platform")));
        }
        let link = ninefold::connect::platform_as(&uris, &credentials);
        Ok(Self { link, endpoint: endpoint.to_owned(), credentials, namespace: String::new() })
    }

    /// A platform in this process.
    pub(crate) fn here(link: Link, endpoint: String) -> Self {
        Self { link, endpoint, credentials: Credentials::default(), namespace: String::new() }
    }

    /// The same platform, asked about one namespace.
    pub(crate) fn within(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// The namespace that is asked about; empty for the default, `-` for all.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where the platform is.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same platform, asked with the token in a file.
    pub(crate) fn with_token_in(&self, path: &std::path::Path) -> Result<Self, Failure> {
        Self::reached(&self.endpoint, self.credentials.with_token_in(path.to_owned()))
    }

    /// Who we are to the platform.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The link itself.
    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }

    pub(crate) fn registry(&self) -> RegistryServiceClient<Link> {
        RegistryServiceClient::new(self.link())
    }

    pub(crate) fn access(&self) -> AccessServiceClient<Link> {
        AccessServiceClient::new(self.link())
    }

    pub(crate) fn keys(&self) -> KeyServiceClient<Link> {
        KeyServiceClient::new(self.link())
    }

    pub(crate) fn contracts(&self) -> ContractServiceClient<Link> {
        ContractServiceClient::new(self.link()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn packages(&self) -> PackageServiceClient<Link> {
        PackageServiceClient::new(self.link())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn config(&self) -> ConfigServiceClient<Link> {
        ConfigServiceClient::new(self.link())
    }

    pub(crate) fn monitor(&self) -> MonitorServiceClient<Link> {
        MonitorServiceClient::new(self.link()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn metrics(&self) -> MetricServiceClient<Link> {
        MetricServiceClient::new(self.link()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn sql(&self) -> SqlServiceClient<Link> {
        SqlServiceClient::new(self.link()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn alerts(&self) -> AlertServiceClient<Link> {
        AlertServiceClient::new(self.link())
    }

    pub(crate) fn control(&self) -> ControlServiceClient<Link> {
        ControlServiceClient::new(self.link())
    }

    pub(crate) fn gateway(&self) -> GatewayServiceClient<Link> {
        GatewayServiceClient::new(self.link())
    }

    pub(crate) fn dialect(&self) -> DialectServiceClient<Link> {
        DialectServiceClient::new(self.link())
    }

    /// Waits for an answer within the deadline; turns a status into the command's failure.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        self.ask_within(DEADLINE, call).await
    }

    /// As [`Self::ask`], for a search through telemetry. A node that asks others answers without those that do not answer in
    /// time.
    pub(crate) async fn search<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        self.search_within(SEARCH_DEADLINE, call).await
    }

    /// As [`Self::search`], for what may take longer. Not for streams, which would end then.
    pub(crate) async fn search_within<T>(
        &self,
        wait: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        // Told to the platform, too; without a word of ours it is five seconds.
        let call = deadline::scope(Instant::now() + wait, call);
        self.ask_within(wait + GRACE, call).await
    }

    async fn ask_within<T>(
        &self,
        wait: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(wait, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Failure::of_status(&self.endpoint, &status)),
            Err(_) => {
                let why = format!("no answer in {} s", wait.as_secs());
                Err(Failure::Unreachable { endpoint: self.endpoint.clone(), why })
            }
        }
    }

    /// Gathers all pages of a listing, at most 10,000 rows.
    pub(crate) async fn gather<T, F>(&self, mut page: impl FnMut(String) -> F) -> Result<Vec<T>, Failure>
    where
        F: Future<Output = Result<(Vec<T>, String), Status>>,
    {
        let mut rows = Vec::new();
        let mut token = String::new();
        loop {
            let call = page(std::mem::take(&mut token));
            let (more, next) = self.ask(async { call.await.map(Response::new) }).await?;
            rows.extend(more);
            if next.is_empty() || rows.len() >= ROWS_MAX {
                return Ok(rows);
            }
            token = next;
        }
    }
}

// The listings that more than one command reads.
impl Platform {
    /// Who we are to the platform, as it sees it.
    pub(crate) async fn whoami(&self) -> Result<WhoAmIResponse, Failure> {
        self.ask(self.access().who_am_i(WhoAmIRequest {})).await
    }

    /// All instances of a service, or of all services if it is empty.
    pub(crate) async fn instances(&self, service: &str) -> Result<Vec<Instance>, Failure> {
        let client = self.registry();
        self.gather(|page_token| {
            let (mut client, service, namespace) = (client.clone(), service.to_owned(), self.namespace.clone());
            async move {
                let request = ListInstancesRequest { service, page_size: PAGE, page_token, namespace };
                let answer = client.list_instances(request).await?.into_inner();
                Ok((answer.instances, answer.next_page_token))
            }
        })
        .await
    }

    /// Why what the node answers may be old, if it may.
    pub(crate) async fn staleness(&self) -> Result<Option<Staleness>, Failure> {
        let request = ListServicesRequest { page_size: 1, ..ListServicesRequest::default() };
        Ok(self.ask(self.registry().list_services(request)).await?.stale)
    }

    /// Services with what the answering node knows of their watchers.
    pub(crate) async fn services(&self) -> Result<Vec<Service>, Failure> {
        let client = self.registry();
        self.gather(|page_token| {
            let (mut client, namespace) = (client.clone(), self.namespace.clone());
            async move {
                let request = ListServicesRequest { page_size: PAGE, page_token, namespace };
                let answer = client.list_services(request).await?.into_inner();
                Ok((answer.services, answer.next_page_token))
            }
        })
        .await
    }

    /// What happened to a service, or to one instance of it, newest first.
    pub(crate) async fn events(&self, service: &str, instance_id: &str) -> Result<Vec<Event>, Failure> {
        let client = self.registry();
        self.gather(|page_token| {
            let mut client = client.clone();
            let (service, instance_id) = (service.to_owned(), instance_id.to_owned());
            let namespace = self.namespace.clone();
            async move {
                let request = ListEventsRequest { service, instance_id, page_size: PAGE, page_token, namespace };
                let answer = client.list_events(request).await?.into_inner();
                Ok((answer.events, answer.next_page_token))
            }
        })
        .await
    }

    /// What the control loop did about a service, newest first.
    pub(crate) async fn decisions(&self, service: &str, instance_id: &str) -> Result<Vec<Decision>, Failure> {
        let client = self.control();
        self.gather(|page_token| {
            let mut client = client.clone();
            let (service, instance_id) = (service.to_owned(), instance_id.to_owned());
            async move {
                let request = ListDecisionsRequest { service, instance_id, page_size: PAGE, page_token };
                let answer = client.list_decisions(request).await?.into_inner();
                Ok((answer.decisions, answer.next_page_token))
            }
        })
        .await
    }

    /// What was accepted, refused and changed of contracts, newest first.
    pub(crate) async fn changes(&self, service: &str, package: &str) -> Result<Vec<Change>, Failure> {
        let client = self.packages();
        self.gather(|page_token| {
            let mut client = client.clone();
            let (service, package) = (service.to_owned(), package.to_owned());
            async move {
                let request = ListChangesRequest { service, package, page_size: PAGE, page_token };
                let answer = client.list_changes(request).await?.into_inner();
                Ok((answer.changes, answer.next_page_token))
            }
        })
        .await
    }

    /// All workloads and what is there of them.
    pub(crate) async fn workloads(&self) -> Result<Vec<WorkloadStatus>, Failure> {
        let client = self.control();
        self.gather(|page_token| {
            let mut client = client.clone();
            async move {
                let request = ListWorkloadsRequest { page_size: PAGE, page_token };
                let answer = client.list_workloads(request).await?.into_inner();
                Ok((answer.statuses, answer.next_page_token))
            }
        })
        .await
    }

    /// What instances use of their machines.
    pub(crate) async fn usage(&self, service: &str) -> Result<Vec<Usage>, Failure> {
        let mut client = self.monitor();
        let request = ListUsageRequest { service: service.to_owned() };
        let answer = self.search(client.list_usage(request)).await?;
        output::missing(&answer.missing_nodes);
        Ok(answer.usage)
    }

    /// All routes of the edge.
    pub(crate) async fn routes(&self, service: &str) -> Result<Vec<Route>, Failure> {
        let client = self.gateway();
        self.gather(|page_token| {
            let (mut client, service) = (client.clone(), service.to_owned());
            async move {
                let answer =
                    client.list_routes(ListRoutesRequest { service, page_size: PAGE, page_token }).await?.into_inner();
                Ok((answer.routes, answer.next_page_token))
            }
        })
        .await
    }

    /// Contracts, or parts of them, that gave the edge no route.
    pub(crate) async fn refusals(&self) -> Result<Vec<Refusal>, Failure> {
        let request = ListRoutesRequest { page_size: 1, ..ListRoutesRequest::default() };
        Ok(self.ask(self.gateway().list_routes(request)).await?.refusals)
    }
}

/// A request with the command line's deadline, for calls that are awaited in parts.
pub(crate) fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}
