//! Asks an authority outside whether a request may pass: Envoy's `ext_authz` v3 over gRPC.
//!
//! The messages are written here by hand, as far as they are used; their numbers are those of
//! `envoy/service/auth/v3/external_auth.proto`.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use ninefold::settings::duration;
use ninefold::tonic::client::Grpc;
use ninefold::tonic::transport::{Channel, Endpoint};
use ninefold::tonic::{Code, Request};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::settings;
use crate::error::Error;
use crate::routes::Route;

/// The method that is asked.
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a refusal's body that are handed on.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Whom the edge asks whether a request may pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Where it answers, such as `http://127.0.0.1:9191`; `https://` beyond this machine unless `plain` is set.
    pub url: String,
    /// Whether it may be asked in clear text beyond this machine.
    #[serde(default)]
    pub plain: bool,
    /// Longest wait for an answer.
    #[serde(default = "timeout", with = "duration")]
    pub timeout: Duration,
    /// Whether requests pass when it does not answer. They are refused otherwise.
    #[serde(default)]
    pub passes_when_away: bool,
    /// Services whose requests it is asked about. All, if there are none.
    #[serde(default)]
    pub services: BTreeSet<String>,
}

const fn timeout() -> Duration {
    Duration::from_millis(500)
}

impl External {
    /// All that is wrong.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let is_plain = self.plain && self.url.starts_with("http://") && self.url.parse::<http::Uri>().is_ok();
        if !is_plain {
            wrong.extend(settings::url(&self.url).err().map(|why| format!("external.url {why}")));
        }
        if self.url.starts_with("https://") {
            wrong.push("external.url: only http:// so far; set plain = true beyond this machine".to_owned());
        }
        if self.timeout.is_zero() {
            wrong.push("external.timeout is zero".to_owned());
        }
        wrong
    }
}

/// What an authority says instead of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body.
    pub body: String,
}

/// Asks. Clones share a connection.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    settings: External,
    channel: Channel,
}

/// What a request is given along.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    set: Vec<(HeaderName, HeaderValue, bool)>,
    removed: Vec<HeaderName>,
}

impl Authority {
    /// Connects when there is something to ask.
    pub(crate) fn new(settings: &External) -> Option<Self> {
        let endpoint = Endpoint::try_from(settings.url.clone()).ok()?;
        let channel = endpoint.connect_timeout(settings.timeout).http2_keep_alive_interval(Duration::from_secs(20));
        Some(Self { settings: settings.clone(), channel: channel.connect_lazy() })
    }

    /// Whether these settings made it.
    pub(crate) fn is_of(&self, settings: &External) -> bool {
        self.settings == *settings
    }

    /// Asks about a request, and changes its head as it is told.
    ///
    /// # Errors
    /// [`Error::Refused`] as the authority says; [`Error::AuthorityAway`] if it says nothing.
    pub(crate) async fn ask(
        &self,
        head: &mut Parts,
        route: &Route,
        caller: Option<&Caller>,
        address: IpAddr,
    ) -> Result<(), Error> {
        if !self.settings.services.is_empty() && !self.settings.services.contains(&*route.service) {
            return Ok(());
        }
        let request = question(head, route, caller, address);
        let asked = tokio::time::timeout(self.settings.timeout, self.check(request)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) if self.settings.passes_when_away => return Ok(()),
            Ok(Err(why)) => return Err(Error::AuthorityAway(why)),
            Err(_) => return Err(Error::AuthorityAway("no answer in time".to_owned())),
        };
        granted(answer)?.dress(head);
        Ok(())
    }

    async fn check(&self, request: CheckRequest) -> Result<CheckResponse, String> {
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        client.ready().await.map_err(|error| error.to_string())?;
        let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
        let answer = client.unary(Request::new(request), PathAndQuery::from_static(METHOD), codec).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| status.message().to_owned())
    }
}

fn question(head: &Parts, route: &Route, caller: Option<&Caller>, address: IpAddr) -> CheckRequest {
    let mut headers: HashMap<String, String> = HashMap::new();
    for (name, value) in &head.headers {
        let Ok(value) = value.to_str() else { continue };
        let all = headers.entry(name.as_str().to_owned()).or_default();
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(value);
    }
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let host = headers.get("host").cloned();
    let host = host.or_else(|| head.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let protocol = if head.version < http::Version::HTTP_2 { "HTTP/1.1" } else { "HTTP/2" };
    let context_extensions = HashMap::from([
        ("service".to_owned(), route.service.to_string()),
        ("method".to_owned(), route.method.name.clone()),
        ("route".to_owned(), route.template().to_owned()),
    ]);
    let address = SocketAddress { address: address.to_string(), port_value: 0 };
    let http = HttpRequest {
        id: String::new(),
        method: head.method.to_string(),
        headers,
        path: path.to_owned(),
        host,
        scheme: "http".to_owned(),
        size: -1,
        protocol: protocol.to_owned(),
    };
    let source = Peer {
        address: Some(Address { socket_address: Some(address) }),
        principal: caller.map(Caller::name).unwrap_or_default(),
    };
    let request = AttributeRequest { time: Some(SystemTime::now().into()), http: Some(http) };
    CheckRequest {
        attributes: Some(AttributeContext { source: Some(source), request: Some(request), context_extensions }),
    }
}

/// Reads an answer.
fn granted(answer: CheckResponse) -> Result<Granted, Error> {
    // Without a status it says yes, as protobuf has it; that is how Envoy reads it as well.
    let code = answer.status.map_or(0, |status| status.code);
    let read = |options: Vec<HeaderValueOption>| {
        options.into_iter().filter_map(|option| {
            let header = option.header?;
            let text = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
            let name = HeaderName::from_bytes(header.key.to_ascii_lowercase().as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(&text).ok()?, option.append.is_some_and(|append| append)))
        })
    };
    match (Code::from_i32(code), answer.http_response) {
        (Code::Ok, Some(HttpResponse::Ok(ok))) => {
            let removed = ok.headers_to_remove.iter().filter_map(|name| name.to_ascii_lowercase().parse().ok());
            Ok(Granted { set: read(ok.headers).collect(), removed: removed.collect() })
        }
        (Code::Ok, None) => Ok(Granted::default()),
        (_, Some(HttpResponse::Denied(denied))) => {
            let status = denied.status.map_or(0, |status| status.code);
            let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
            let status = status.filter(|status| !status.is_informational() && !status.is_success());
            let mut body = denied.body;
            body.truncate(body.floor_char_boundary(BODY_BYTES_MAX));
            let headers = read(denied.headers).map(|(name, value, _)| (name, value)).collect();
            Err(Error::Refused(Box::new(Refusal { status: status.unwrap_or(StatusCode::FORBIDDEN), headers, body })))
        }
        (_, Some(HttpResponse::Ok(_)) | None) => {
            let body = String::new();
            Err(Error::Refused(Box::new(Refusal { status: StatusCode::FORBIDDEN, headers: Vec::new(), body })))
        }
    }
}

impl Granted {
    fn dress(self, head: &mut Parts) {
        // What frames a request, or says where it goes, is settled before anybody is asked.
        let is_fixed = |name: &HeaderName| {
            matches!(
                name.as_str(),
                "host" | "content-length" | "transfer-encoding" | "content-type" | "connection" | "te"
            )
        };
        for name in self.removed.into_iter().filter(|name| !is_fixed(name)) {
            head.headers.remove(name);
        }
        for (name, value, appends) in self.set.into_iter().filter(|(name, ..)| !is_fixed(name)) {
            if appends {
                head.headers.append(name, value);
            } else {
                head.headers.insert(name, value);
            }
        }
    }
}

/// An authority, or the one that was there before with the same settings.
pub(crate) fn renewed(before: Option<&Arc<Authority>>, settings: Option<&External>) -> Option<Arc<Authority>> {
    let settings = settings?;
    match before.filter(|before| before.is_of(settings)) {
        Some(before) => Some(before.clone()),
        None => Authority::new(settings).map(Arc::new),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<AttributeRequest>,
    #[prost(map = "string, string", tag = "10")]
    context_extensions: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Peer {
    #[prost(message, optional, tag = "1")]
    address: Option<Address>,
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SocketAddress {
    #[prost(string, tag = "2")]
    address: String,
    #[prost(uint32, tag = "3")]
    port_value: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttributeRequest {
    #[prost(message, optional, tag = "1")]
    time: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpRequest {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "6")]
    scheme: String,
    #[prost(int64, tag = "9")]
    size: i64,
    #[prost(string, tag = "10")]
    protocol: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RpcStatus>,
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    http_response: Option<HttpResponse>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum HttpResponse {
    #[prost(message, tag = "2")]
    Denied(Denied),
    #[prost(message, tag = "3")]
    Ok(Allowed),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<HttpStatus>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderValueOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderValueOption {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(message, optional, tag = "2")]
    append: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}
