//! Services that speak plain HTTP, by prefix: what passes, what does not, and that one of two may die.

#[cfg(test)]
mod inside;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ninefold::proto::ninefold::gateway::v1::{ListRoutesRequest, MatchRouteRequest, RouteProtocol};
use ninefold::proto::ninefold::registry::v1 as registry;
use ninefold::tls::ServerTls;
use ninefold_gateway::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Connection, ask, raw, reason, request};
use crate::landscape::Landscape;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// An instance, and what it has seen.
#[derive(Clone, Default)]
struct Site {
    id: String,
    asked: Arc<AtomicU32>,
    /// Bytes of bodies that it has read.
    read: Arc<AtomicU64>,
    /// Bytes that it could give to the connection.
    given: Arc<AtomicU64>,
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Site {
    async fn join(house: &Landscape, id: &str) -> Self {
        Self::join_as(house, id, false, None, "").await
    }

    async fn join_as(house: &Landscape, id: &str, is_h2c: bool, tls: Option<ServerTls>, version: &str) -> Self {
        let asks_for_tls = tls.is_some();
        let site = Self { id: id.to_owned(), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = site.clone();
        house.scope("site").run("test.site", move |stop| async move {
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stop.asked() => return,
                };
                let (site, tls) = (own.clone(), tls.clone());
                #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let site = site.clone();
                        async move { site.answer(request).await }
                    });
                    let http1 = hyper::server::conn::http1::Builder::new();
                    if is_h2c {
                        let http2 = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                        _ = http2.serve_connection(TokioIo::new(stream), answer).await;
                    } else if let Some(tls) = tls {
                        let Ok((stream, _)) = tls.accept(stream).await else { return };
                        _ = http1.serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
                    } else {
                        _ = http1.serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
                    }
                });
            }
        });
        house.register(registry::Instance {
            service: "blog".to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![registry::Address { host: "127.0.0.1".to_owned(), port: port.into() }],
            labels: if is_h2c { [("http".to_owned(), "h2c".to_owned())].into() } else { Default::default() },
            protocol: registry::Protocol::Http.into(),
            version: version.to_owned(),
            tls: asks_for_tls,
            state: registry::InstanceState::Serving.into(),
            ..registry::Instance::default()
        });
        site
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        if let Some(status) = path.strip_prefix("/status/") {
            return Ok(Response::builder().status(status).body(whole("as asked")).unwrap());
        }
        match path.as_str() {
            "/never" => std::future::pending().await,
            "/old" => Ok(Response::builder().version(Version::HTTP_10).body(whole("as ever")).unwrap()),
            "/dies" => Err(std::io::Error::other("as asked")),
            "/breaks" => {
                let parts = futures_util::stream::iter([Ok(Bytes::from_static(b"half")), Err("as asked")]);
                let parts = parts.then(|part| async move {
                    if part.is_err() {
                        // Time for the head to leave, not a thing that the test waits for.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    part.map(Frame::data).map_err(std::io::Error::other)
                });
                Ok(Response::new(StreamBody::new(parts).boxed_unsync()))
            }
            "/pauses" => {
                let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"data: 1\n\n")))]);
                Ok(Response::new(StreamBody::new(first.chain(futures_util::stream::pending())).boxed_unsync()))
            }
            "/flood" => {
                let given = self.given.clone();
                let piece = Bytes::from(vec![b'x'; 64 << 10]);
                let all = futures_util::stream::repeat_with(move || {
                    given.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    Ok(Frame::data(piece.clone()))
                });
                Ok(Response::new(StreamBody::new(all).boxed_unsync()))
            }
            "/talk" => {
                let upgrade = hyper::upgrade::on(&mut request);
                #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
                tokio::spawn(async move {
                    let mut socket = TokioIo::new(upgrade.await.unwrap());
                    let mut buffer = [0; 64];
                    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                        socket.write_all(&buffer[..read].to_ascii_uppercase()).await.unwrap();
                    }
                });
                let answer = Response::builder().status(101).header("connection", "upgrade");
                let answer = answer.header("upgrade", "websocket").header("sec-websocket-accept", "x");
                Ok(answer.body(whole("")).unwrap())
            }
            _ => Ok(self.echo(request).await),
        }
    }

    async fn echo(self, request: Request<Incoming>) -> Response<Body> {
        let (head, mut body) = request.into_parts();
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            bytes += length;
            self.read.fetch_add(length as u64, Ordering::Relaxed);
        }
        let headers: serde_json::Map<String, Value> = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()))
            .collect();
        let target = head.uri.path_and_query().unwrap().to_string();
        let host = head.uri.host();
        let told = json!({"id": self.id, "verb": head.method.as_str(), "target": target, "headers": headers,
            "bytes": bytes, "authority": host, "version": format!("{:?}", head.version)});
        Response::builder()
            .header("content-type", "application/json")
            .header("set-cookie", "a=1")
            .header("x-ninefold-secret", "inside")
            .header("grpc-status", "13")
            .header("keep-alive", "timeout=5")
            .body(whole(told.to_string()))
            .unwrap()
    }
}

/// An edge that gives `/blog` to `blog`, whose own paths begin at `/`.
fn config(more: &Value) -> Config {
    let mut config = json!({"http": [{"prefix": "/blog", "service": "blog", "replace": "/"}]});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

async fn start(more: Value) -> (Landscape, Site) {
    let house = Landscape::start_with(config(&more)).await;
    let site = Site::join(&house, "one").await;
    (house, site)
}

#[tokio::test]
async fn a_request_below_a_prefix_goes_to_its_service_as_it_is_and_the_answer_comes_back_so() {
    let (house, _) = start(json!({})).await;
    let mut asked = request("PUT", "/blog/posts/a%2fb/?q=1&q=%20", r#"{"title": "x"}"#);
    for (name, value) in [
        ("cookie", "session=7"),
        ("x-ninefold-identity", "admin"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("connection", "x-of-this-connection"),
        ("x-of-this-connection", "1"),
        ("te", "trailers"),
        ("x_underscored", "1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = Connection::open(house.edge).await.ask(asked).await;
    assert_eq!(answer.status, 200, "{}", answer.text_lossy());
    let told = answer.json();
    assert_eq!((told["verb"].as_str(), told["target"].as_str()), (Some("PUT"), Some("/posts/a%2Fb/?q=1&q=%20")));
    assert_eq!((told["bytes"].as_u64(), told["version"].as_str()), (Some(14), Some("HTTP/1.1")));
    let headers = told["headers"].as_object().unwrap();
    for (name, value) in [
        ("host", "edge.example"),
        ("cookie", "session=7"),
        ("content-type", "application/json"),
        ("content-length", "14"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "edge.example"),
        ("forwarded", "for=127.0.0.1;proto=http;host=\"edge.example\""),
    ] {
        assert_eq!(headers.get(name).and_then(Value::as_str), Some(value), "{name}");
    }
    let trace = headers["traceparent"].as_str().unwrap();
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{trace}");
    for name in ["x-ninefold-identity", "x-of-this-connection", "te", "x_underscored", "grpc-timeout", "connection"] {
        assert!(!headers.contains_key(name), "{name} came in");
    }
    assert_eq!((answer.header("set-cookie"), answer.header("content-type")), ("a=1", "application/json"));
    for name in ["x-ninefold-secret", "grpc-status", "keep-alive"] {
        assert!(!answer.headers.contains_key(name), "{name} came out");
    }
    assert_eq!(answer.header("x-trace-id"), "0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test]
async fn contracts_go_before_prefixes_and_what_is_below_none_is_unknown() {
    let (house, site) = start(json!({})).await;
    let prefixes = json!({"http": [
        {"prefix": "/", "service": "nobody"},
        {"prefix": "/v1", "service": "blog"},
        {"prefix": "/v1/only", "service": "blog", "verbs": ["POST"]},
    ]});
    house.documents.put(&prefixes.to_string()).await;
    house.until_routed("GET", "/v1/else").await;
    assert_eq!(ask(house.edge, "GET", "/v1/documents/shop/test", "").await.status, 200);
    assert_eq!(ask(house.edge, "DELETE", "/v1/documents/shop/test", "").await.status, 405, "the path is a contract's");
    assert_eq!(site.asked.load(Ordering::Relaxed), 0);
    assert_eq!(ask(house.edge, "GET", "/v1/else", "").await.json()["target"], "/v1/else");
    let refused = ask(house.edge, "GET", "/v1/only/x", "").await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "POST"));
    assert_eq!(ask(house.edge, "TRACE", "/v1/else", "").await.status, 405);
    assert_eq!(ask(house.edge, "GET", "/v10", "").await.status, 503, "a prefix is whole segments");
    assert_eq!(ask(house.edge, "GET", "/docs", "").await.header("content-type"), "text/html; charset=utf-8");
    for evil in ["/v1/../secret", "/v1/%2e%2e/secret", "/v1/..%2fsecret"] {
        assert!(raw(house.edge, &format!("GET {evil} HTTP/1.1\r\nHost: a\r\n\r\n")).await.starts_with("HTTP/1.1 400"));
    }
    assert_eq!(site.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_a_plain_service_says_of_itself_is_what_its_caller_hears() {
    let (house, site) = start(json!({"deadline": "3s"})).await;
    for status in [204, 301, 404, 500, 503] {
        assert_eq!(ask(house.edge, "POST", &format!("/blog/status/{status}"), "x").await.status.as_u16(), status);
    }
    assert_eq!(site.asked.load(Ordering::Relaxed), 5, "a POST is not repeated");
    let head = ask(house.edge, "HEAD", "/blog/x", "").await;
    assert!(head.body.is_empty() && head.header("content-length").parse::<u32>().unwrap() > 100);
    let late = ask(house.edge, "GET", "/blog/never", "").await;
    assert_eq!((late.status.as_u16(), reason(&late).as_str()), (504, "CALL_DEADLINE"));
    let dead = ask(house.edge, "POST", "/blog/dies", "x").await;
    assert_eq!((dead.status.as_u16(), reason(&dead).as_str()), (503, "CONNECTION_LOST"));
    assert_eq!(ask(house.edge, "GET", "/blog/x", "").await.status, 200);
    house.leave("one");
    let gone = async { while ask(house.edge, "GET", "/blog/x", "").await.status != StatusCode::SERVICE_UNAVAILABLE {} };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("nobody is left");
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_pauses_for_ever_is_not_taken_for_whole() {
    let (house, _) =
        start(json!({"http": [{"prefix": "/", "service": "blog", "idle": "300ms"}], "openapi": false})).await;
    house.gateway.until_known().await;
    for path in ["/breaks", "/pauses"] {
        let mut stream = TcpStream::connect(house.edge).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        let _ = read.unwrap_or_else(|_| panic!("{path}: the connection is closed"));
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_streamed_and_broken_off_without_blame_for_the_service() {
    let (house, site) = start(json!({"http": [
        {"prefix": "/blog", "service": "blog", "replace": "/", "body_bytes_max": 100_000},
    ], "body_timeout": "2s"}))
    .await;
    let large = ask(house.edge, "POST", "/blog/x", &"x".repeat(100_001)).await;
    assert_eq!((large.status.as_u16(), reason(&large).as_str()), (413, "BODY_TOO_LARGE"));
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000));
    let chunked =
        format!("POST /blog/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n");
    assert!(raw(house.edge, &chunked).await.starts_with("HTTP/1.1 413"));
    // A body without a length goes on in chunks.
    let answer =
        raw(house.edge, &chunked.replacen(&chunk, "", 1).replace("Host: a", "Host: a\r\nConnection: close")).await;
    assert!(answer.contains("\"bytes\":60000") && answer.contains("\"transfer-encoding\":\"chunked\""), "{answer}");
    for _ in 0..20 {
        let mut stream = TcpStream::connect(house.edge).await.unwrap();
        let before = site.read.load(Ordering::Relaxed);
        stream.write_all(b"POST /blog/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nhalf").await.unwrap();
        let arrived = async {
            while site.read.load(Ordering::Relaxed) < before + 4 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), arrived).await.expect("what is there of a body goes on at once");
    }
    let late = raw(house.edge, "POST /blog/x HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nhalf").await;
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    assert_eq!(ask(house.edge, "POST", "/blog/x", "x").await.status, 200, "the service is not blamed for its callers");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_service_up_and_little_of_the_edge() {
    let (house, site) = start(json!({})).await;
    let mut stream = TcpStream::connect(house.edge).await.unwrap();
    stream.write_all(b"GET /blog/flood HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let quiet = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let given = site.given.load(Ordering::Relaxed);
            if given > 0 && given == before {
                return given;
            }
            before = given;
        }
    };
    let given = tokio::time::timeout(Duration::from_secs(30), quiet).await.expect("the service is held up");
    assert!(given < 32 << 20, "{given} bytes are under way");
    assert_eq!(ask(house.edge, "GET", "/blog/x", "").await.status, 200);
}

#[tokio::test]
async fn a_service_of_http_1_0_does_not_end_its_callers_connection() {
    let (house, _) = start(json!({})).await;
    let ask = "GET /blog/old HTTP/1.1\r\nHost: a\r\n\r\n";
    let both = raw(house.edge, &format!("{ask}{}", ask.replace("Host: a", "Host: a\r\nConnection: close"))).await;
    assert_eq!(both.matches("HTTP/1.1 200 OK").count(), 2, "{both}");
    assert_eq!(both.matches("as ever").count(), 2, "{both}");
}

#[tokio::test]
async fn one_of_two_may_die_and_come_back_without_a_failed_request() {
    let (house, one) = start(json!({})).await;
    let two = Site::join(&house, "two").await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(ask(house.edge, "GET", "/blog/x", "").await.json()["id"].as_str().unwrap().to_owned());
    }
    // A third whose address nobody answers, which the registry still takes for alive.
    house.register(registry::Instance {
        service: "blog".to_owned(),
        instance_id: "dead".to_owned(),
        addresses: vec![registry::Address { host: "127.0.0.1".to_owned(), port: free_port().await.into() }],
        protocol: registry::Protocol::Http.into(),
        state: registry::InstanceState::Serving.into(),
        ..registry::Instance::default()
    });
    for number in 0..50 {
        let (verb, path) = if number % 2 == 0 { ("GET", "/blog/x") } else { ("DELETE", "/blog/y") };
        assert_eq!(ask(house.edge, verb, path, "").await.status, 200);
    }
    // Repeated elsewhere, as a GET may be; and each answer of two that cannot is still an answer.
    let before = one.asked.load(Ordering::Relaxed) + two.asked.load(Ordering::Relaxed);
    assert_eq!(ask(house.edge, "GET", "/blog/status/503", "").await.status, 503);
    assert!(one.asked.load(Ordering::Relaxed) + two.asked.load(Ordering::Relaxed) > before + 1);
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn an_instance_may_speak_http2_if_it_says_so() {
    let house = Landscape::start_with(config(&json!({}))).await;
    Site::join_as(&house, "two", true, None, "").await;
    let told = ask(house.edge, "GET", "/blog/x", "").await.json();
    assert_eq!((told["version"].as_str(), told["authority"].as_str()), (Some("HTTP/2.0"), Some("edge.example")));
}

#[tokio::test]
async fn a_socket_is_passed_through() {
    let (house, _) = start(json!({})).await;
    let mut stream = TcpStream::connect(house.edge).await.unwrap();
    let asked = "GET /blog/talk HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        let mut buffer = [0; 512];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("sec-websocket-accept: x"), "{answer}");
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"HELLO");
    drop(stream);
    let told = async {
        while !house.told.lock().unwrap().iter().any(|entry| entry.body.contains("/blog/** 101")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the access log tells of it");
}

#[tokio::test]
async fn who_gets_in_and_how_much_holds_for_plain_services_too() {
    let (house, site) = start(json!({"traffic": {"blog": {
        "methods": {
            "POST": {"requirement": {}},
            "DELETE": {"maintenance": {"text": "not today"}},
            "PUT": {"limits": {"few": {"requests": 1, "per": "1m", "by": "address"}}},
        },
        "canaries": [{"to": {"version": "2"}, "when": [{"header": "x-beta"}], "strict": true}],
    }}}))
    .await;
    let refused = ask(house.edge, "POST", "/blog/x", "x").await;
    assert_eq!((refused.status.as_u16(), reason(&refused).as_str()), (401, "CALLER_UNKNOWN"));
    let held = ask(house.edge, "DELETE", "/blog/x", "").await;
    assert_eq!((held.status.as_u16(), reason(&held).as_str()), (503, "MAINTENANCE"));
    assert_eq!(ask(house.edge, "PUT", "/blog/x", "x").await.status, 200);
    let limited = ask(house.edge, "PUT", "/blog/x", "x").await;
    assert_eq!((limited.status.as_u16(), reason(&limited).as_str()), (429, "RATE_LIMITED"));
    assert_eq!(site.asked.load(Ordering::Relaxed), 1);
    let mut beta = request("GET", "/blog/x", "");
    beta.headers_mut().insert("x-beta", "1".parse().unwrap());
    assert_eq!(Connection::open(house.edge).await.ask(beta).await.status, 503, "no instance of version 2");
    assert_eq!(ask(house.edge, "GET", "/blog/x", "").await.status, 200);
}

#[tokio::test]
async fn a_prefix_comes_and_goes_with_settings_and_is_listed_and_explained() {
    let house = Landscape::start().await;
    Site::join(&house, "one").await;
    assert_eq!(ask(house.edge, "GET", "/blog/x", "").await.status, 404);
    house.documents.put(r#"{"http": [{"prefix": "/blog", "service": "blog", "replace": "/"}]}"#).await;
    house.until_routed("GET", "/blog/x").await;
    assert_eq!(ask(house.edge, "GET", "/blog/x", "").await.status, 200);
    let mut client = house.routes_client();
    let asked = ListRoutesRequest { service: "blog".to_owned(), ..Default::default() };
    let listed = client.list_routes(asked).await.unwrap().into_inner().routes;
    let words = |route: &ninefold::proto::ninefold::gateway::v1::Route| (route.template.clone(), route.protocol());
    assert_eq!(listed.iter().map(words).collect::<Vec<_>>(), [("/blog/**".to_owned(), RouteProtocol::Http)]);
    let asked = MatchRouteRequest { verb: "GET".into(), path: "/blog/x?y".into(), explain: true, ..Default::default() };
    let explained = client.match_route(asked).await.unwrap().into_inner();
    assert_eq!(explained.route.unwrap().service, "blog");
    assert_eq!(explained.request, "GET /x?y");
    assert_eq!(explained.candidates.iter().filter(|one| one.chosen).count(), 1, "{:?}", explained.candidates);
    house.documents.put("{}").await;
    house.until("GET", "/blog/x", false).await;
    assert_eq!(ask(house.edge, "GET", "/blog/x", "").await.status, 404);
}
