//! Who is asked outside: an authority that speaks `ext_authz`, and an issuer that is asked what tokens are worth.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ninefold::lifecycle::{OnError, Scope};
use ninefold::serve::{Listener, ServeConfig};
use ninefold::tonic::body::Body;
use ninefold::tonic::server::{Grpc, NamedService};
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Response, Status};
use ninefold_gateway::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic_prost::ProstCodec;

use crate::callers::ask;
use crate::client::reason;
use crate::landscape::Landscape;

// As in envoy/service/auth/v3, as far as it is looked at here.

#[derive(Clone, PartialEq, prost::Message)]
struct Check {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, optional, tag = "4")]
    request: Option<Asked>,
    #[prost(map = "string, string", tag = "10")]
    context_extensions: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Http {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Checked {
    #[prost(message, optional, tag = "1")]
    status: Option<Said>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Allowed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Said>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Optional>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<Optional>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Optional {
    #[prost(message, optional, tag = "1")]
    header: Option<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn pair(key: &str, value: &str) -> Optional {
    Optional { header: Some(Pair { key: key.to_owned(), value: value.to_owned() }) }
}

/// Lets in who says `x-word: friend`, and tells the service so.
#[derive(Clone, Default)]
struct Authority(Arc<Mutex<Vec<Check>>>);

impl NamedService for Authority {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

impl tower::Service<http::Request<Body>> for Authority {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let heard = self.0.clone();
        Box::pin(async move {
            let check = move |request: ninefold::tonic::Request<Check>| {
                let check = request.into_inner();
                let http = check.attributes.clone().unwrap().request.unwrap().http.unwrap();
                heard.lock().unwrap().push(check);
                let answer = if http.headers.get("x-word").is_some_and(|word| word == "friend") {
                    let headers = vec![pair("x-let-in-by", "authority"), pair("host", "elsewhere")];
                    let ok = Allowed { headers, headers_to_remove: vec!["x-word".to_owned()] };
                    Checked { status: Some(Said { code: 0 }), ok: Some(ok), ..Checked::default() }
                } else {
                    let denied = Denied {
                        status: Some(Said { code: 402 }),
                        headers: vec![pair("x-price", "5")],
                        body: "pay first".to_owned(),
                    };
                    Checked { status: Some(Said { code: 7 }), denied: Some(denied), ..Checked::default() }
                };
                std::future::ready(Ok::<_, Status>(Response::new(answer)))
            };
            let codec = ProstCodec::<Checked, Check>::default();
            Ok(Grpc::new(codec).unary(tower::service_fn(check), request).await)
        })
    }
}

async fn serve(authority: Authority, scope: &Scope) -> SocketAddr {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    let routes = Routes::new(authority);
    scope.spawn("test.authority", OnError::Log, |stop| async move {
        ninefold::serve::run(listener, routes, ServeConfig::default(), stop.asked()).await
    });
    address
}

fn asking(url: &str, passes_when_away: bool) -> Config {
    let auth = json!({"external": {"url": url, "timeout": "5s", "passes_when_away": passes_when_away}});
    Config { auth: serde_json::from_value(auth).unwrap(), ..Config::default() }
}

#[tokio::test]
async fn an_authority_decides_and_adds_what_the_service_is_told() {
    let (authority, scope) = (Authority::default(), Scope::root("test"));
    let address = serve(authority.clone(), &scope).await;
    let house = Landscape::talking(asking(&format!("http://{address}"), false)).await;
    let answer = ask(&house, "GET", "/public/r?text=t", "", &[("x-word", "friend")]).await;
    assert_eq!(answer.status, 200);
    let told = house.backend.seen.lock().unwrap().clone();
    assert_eq!(told["x-let-in-by"], "authority");
    assert!(!told.contains_key("x-word") && told["x-forwarded-host"] == "edge.example");
    let asked = authority.0.lock().unwrap()[0].clone().attributes.unwrap();
    let http = asked.request.unwrap().http.unwrap();
    assert_eq!(
        (http.method.as_str(), http.path.as_str(), http.host.as_str()),
        ("GET", "/public/r?text=t", "edge.example")
    );
    assert_eq!(asked.context_extensions["method"], "test.v1.TalkService.Peek");

    let refused = ask(&house, "GET", "/public/r", "", &[("x-word", "foe")]).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-price"), refused.text().as_str()), (402, "5", "pay first"));
    assert!(
        ask(&house, "POST", "/rooms/r1/tell", "{}", &[("x-word", "friend")]).await.status == 401,
        "it does not stand in"
    );
}

#[tokio::test]
async fn an_authority_that_is_away_lets_nobody_in_unless_it_is_said_otherwise() {
    let strict = Landscape::talking(asking("http://127.0.0.1:9", false)).await;
    let answer = ask(&strict, "GET", "/public/r", "", &[]).await;
    assert_eq!((answer.status.as_u16(), reason(&answer).as_str()), (503, "AUTHORITY_AWAY"));
    let lax = Landscape::talking(asking("http://127.0.0.1:9", true)).await;
    assert_eq!(ask(&lax, "GET", "/public/r", "", &[]).await.status, 200);
}

/// An issuer that knows two tokens; counts how often it is asked.
async fn introspecting(asked: Arc<AtomicUsize>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !String::from_utf8_lossy(&head).contains("token_type_hint") {
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).await.unwrap();
                head.extend_from_slice(&piece[..read]);
            }
            asked.fetch_add(1, Ordering::SeqCst);
            let text = String::from_utf8_lossy(&head);
            // "edge" and "s%3Acret" as form text, in base64.
            let is_edge = text.contains("Basic ZWRnZTpzJTNBY3JldA==");
            let body = match () {
                () if !is_edge => json!({"active": false}),
                () if text.contains("token=good%2Ftoken&") => {
                    json!({"active": true, "sub": "ada", "scope": "rooms.write", "tenant": "r1", "aud": "shop"})
                }
                () if text.contains("token=other&") => json!({"active": true, "sub": "ada", "aud": "bank"}),
                () => json!({"active": false}),
            };
            let body = body.to_string();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn an_issuer_is_asked_what_a_token_is_worth_and_its_word_is_kept() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let address = introspecting(asked.clone()).await;
    let introspection = json!({
        "url": format!("http://{address}/introspect"), "client_id": "edge", "client_secret": "s:cret", "audiences": ["shop"],
    });
    let auth = serde_json::from_value(json!({"introspection": introspection})).unwrap();
    let house = Landscape::talking(Config { auth, ..Config::default() }).await;
    let tell = async |token: &str| {
        let bearer = format!("Bearer {token}");
        ask(&house, "POST", "/rooms/r1/tell", "{}", &[("authorization", &bearer)]).await.status.as_u16()
    };
    for _ in 0..5 {
        assert_eq!(tell("good/token").await, 200);
        assert_eq!(tell("unknown").await, 401);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a yes and a no are kept");
    assert_eq!(tell("other").await, 401, "worth something to somebody else");
}
