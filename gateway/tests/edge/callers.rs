//! Who gets in: tokens and what they must say, whatever protocol is spoken.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ninefold::fault;
use ninefold::tonic::client::Grpc;
use ninefold::tonic::transport::Endpoint;
use ninefold::tonic::{Code, Status};
use ninefold_gateway::{Auth, Config, Issuer};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic_prost::ProstCodec;

use crate::client::{Answer, Connection, request};
use crate::landscape::Landscape;
use crate::talk::Line;

/// An issuer's key.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    kid: &'static str,
}

impl Signer {
    pub(crate) fn new(kid: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(), kid }
    }

    pub(crate) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig", "alg": "EdDSA"})
    }

    /// A token of `issuer` for the shop, with these claims over the usual ones.
    pub(crate) fn token(&self, issuer: &str, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({"iss": issuer, "aud": "shop", "sub": "ada", "exp": now + 300});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "EdDSA", "kid": self.kid})), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes())))
    }
}

pub(crate) const ISSUER: &str = "https://id.example";

/// Settings that believe one signer.
pub(crate) fn believing(signer: &Signer) -> Config {
    let jwks = json!({"keys": [signer.jwk()]}).to_string();
    let auth = Auth { issuers: vec![Issuer::with_keys(ISSUER, "shop", jwks)], ..Auth::default() };
    Config { auth, ..Config::default() }
}

/// Asks with headers.
pub(crate) async fn ask(house: &Landscape, verb: &str, target: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
    let mut asked = request(verb, target, body);
    for (name, value) in headers {
        asked.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    Connection::open(house.edge).await.ask(asked).await
}

async fn tell(house: &Landscape, room: &str, token: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let headers = if token.is_empty() { &[][..] } else { &headers[..] };
    let answer = ask(house, "POST", &format!("/rooms/{room}/tell"), r#"{"text": "x"}"#, headers).await;
    (answer.status.as_u16(), answer.header("www-authenticate").to_owned())
}

/// Calls by gRPC.
async fn call(house: &Landscape, method: &str, room: &str, token: &str) -> Result<(), Status> {
    let channel = Endpoint::try_from(format!("http://{}", house.edge)).unwrap().connect().await.unwrap();
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    let line = Line { room: room.to_owned(), text: "x".to_owned() };
    let mut asked = ninefold::tonic::Request::new(line);
    if !token.is_empty() {
        asked.metadata_mut().insert("authorization", format!("bearer {token}").parse().unwrap());
    }
    let path = http::uri::PathAndQuery::try_from(format!("/test.v1.TalkService/{method}")).unwrap();
    client.unary(asked, path, ProstCodec::<Line, Line>::default()).await.map(|_| ())
}

/// Calls by gRPC-Web; gives the gRPC status.
async fn call_from_a_page(house: &Landscape, room: &str, token: &str) -> String {
    let message = prost::Message::encode_to_vec(&Line { room: room.to_owned(), text: "x".to_owned() });
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let asked = Request::post("/test.v1.TalkService/Tell")
        .header("host", "edge.example")
        .header("content-type", "application/grpc-web+proto")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from([&[0][..], &length, &message].concat())))
        .unwrap();
    let answer = Connection::open(house.edge).await.ask(asked).await;
    match answer.header("grpc-status") {
        "" => answer.text_lossy().split_once("grpc-status:").unwrap().1.trim_start()[..1].to_owned(),
        status => status.to_owned(),
    }
}

#[tokio::test]
async fn what_a_contract_asks_of_callers_holds_for_every_protocol() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let all = signer.token(ISSUER, &json!({"scope": "rooms.write other", "tenant": "r1"}));
    let weak = signer.token(ISSUER, &json!({"scope": "other", "tenant": "r1"}));

    assert_eq!(tell(&house, "r1", &all).await.0, 200);
    assert_eq!(tell(&house, "r1", "").await, (401, "Bearer realm=\"edge\"".to_owned()));
    let (status, challenge) = tell(&house, "r1", &weak).await;
    assert_eq!(status, 403);
    assert!(challenge.contains("insufficient_scope") && challenge.contains("scope=\"rooms.write\""), "{challenge}");
    assert_eq!(tell(&house, "r2", &all).await.0, 403, "another's room");
    let (status, challenge) = tell(&house, "r1", &Signer::new("one").token(ISSUER, &json!({}))).await;
    assert_eq!(status, 401);
    assert!(challenge.contains("invalid_token"), "{challenge}");

    assert!(call(&house, "Tell", "r1", &all).await.is_ok());
    for (room, token, code, reason) in [
        ("r1", "", Code::Unauthenticated, "CALLER_UNKNOWN"),
        ("r1", "nonsense", Code::Unauthenticated, "CALLER_UNKNOWN"),
        ("r1", weak.as_str(), Code::PermissionDenied, "CALLER_DENIED"),
        ("r2", all.as_str(), Code::PermissionDenied, "CALLER_DENIED"),
    ] {
        let refused = call(&house, "Tell", room, token).await.unwrap_err();
        assert_eq!((refused.code(), fault::reason(&refused).as_deref()), (code, Some(reason)), "{room}");
        assert!(refused.metadata().contains_key("www-authenticate"));
    }
    assert_eq!(call_from_a_page(&house, "r1", &all).await, "0");
    assert_eq!(call_from_a_page(&house, "r2", &all).await, "7");
    assert_eq!(call_from_a_page(&house, "r1", &weak).await, "7");

    for (room, token, status, code) in [
        ("r1", all.as_str(), 200, ""),
        ("r1", "", 401, "unauthenticated"),
        ("r1", weak.as_str(), 403, "permission_denied"),
        ("r2", all.as_str(), 403, "permission_denied"),
    ] {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        let line = json!({"room": room, "text": "x"}).to_string();
        let answer = ask(&house, "POST", "/test.v1.TalkService/Tell", &line, headers).await;
        assert_eq!(answer.status, status, "{room}: {answer:?}");
        assert!(code.is_empty() || answer.json()["code"] == code);
        assert_eq!(answer.header("www-authenticate").is_empty(), code.is_empty());
    }

    // Streams ask too, though not of each message.
    let bearer = format!("Bearer {weak}");
    let answer = ask(&house, "POST", "/rooms/r1/chat", "[]", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_room_is_the_same_however_a_request_spells_it() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let bearer = format!("Bearer {}", signer.token(ISSUER, &json!({"scope": "rooms.write", "tenant": "r 1"})));
    let headers = [("authorization", bearer.as_str())];
    for (verb, target, body, status) in [
        ("POST", "/rooms/r%201/tell", r#"{"text": "x"}"#, 200),
        ("POST", "/rooms/%72%201/tell", r#"{"text": "x"}"#, 200),
        ("GET", "/tell?room=r%201", "", 200),
        ("GET", "/tell?room=r2", "", 403),
        ("GET", "/tell", "", 403),
        ("POST", "/rooms/r2/tell", r#"{"text": "x"}"#, 403),
        ("POST", "/rooms/r%201/tell", r#"{"text": "x", "room": "r2"}"#, 400),
        ("POST", "/rooms/r2/tell?room=r%201", r#"{"text": "x"}"#, 400),
    ] {
        let answer = ask(&house, verb, target, body, &headers).await;
        assert_eq!(answer.status, status, "{verb} {target} {body}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_call_with_a_second_message_behind_the_first_is_refused() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let frame = |room: &str| {
        let message = prost::Message::encode_to_vec(&Line { room: room.to_owned(), text: "x".to_owned() });
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
    };
    let asked = Request::post("/test.v1.TalkService/Tell")
        .header("host", "edge.example")
        .header("content-type", "application/grpc-web+proto")
        .header(
            "authorization",
            format!("Bearer {}", signer.token(ISSUER, &json!({"scope": "rooms.write", "tenant": "r1"}))),
        )
        .body(Full::new(Bytes::from([frame("r1"), frame("r2")].concat())))
        .unwrap();
    let answer = Connection::open(house.edge).await.ask(asked).await;
    assert_eq!(answer.header("grpc-status"), "3", "{}", answer.text_lossy());
}

#[tokio::test]
async fn settings_ask_otherwise_than_the_contract_and_change_while_it_works() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let say = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        ask(&house, "POST", "/rooms/r/say", r#"{"text": "x"}"#, headers).await.status.as_u16()
    };
    let plain = signer.token(ISSUER, &json!({}));
    let staff = signer.token(ISSUER, &json!({"groups": ["staff"]}));
    assert_eq!((say("").await, say(&plain).await), (200, 200));
    let asks = r#"{"auth": {"required": true}, "traffic": {"talker": {"methods": {
        "Say": {"requirement": {"claims": [{"claim": "groups", "contains": "staff"}]}},
        "Tell": {"requirement": {"public": true}}}}}}"#;
    assert_eq!(house.documents.put(asks).await, "");
    assert_eq!((say("").await, say(&plain).await, say(&staff).await), (401, 403, 200));
    assert_eq!(tell(&house, "r9", "").await.0, 200, "the settings go before the contract");
    assert_eq!(tell(&house, "r9", "broken").await.0, 200, "what is for anybody is so with a token that is none, too");
    let get = async |target: &str| ask(&house, "GET", target, "", &[]).await.status.as_u16();
    assert_eq!((get("/public/r").await, get("/files/x").await), (200, 401), "all others must be known now");
    let wrong =
        house.documents.put(r#"{"auth": {"issuers": [{"issuer": "http://far.example", "audiences": []}]}}"#).await;
    assert!(wrong.contains("beyond this machine") && wrong.contains("audiences"), "{wrong}");
    assert_eq!(say(&staff).await, 200, "the last good state holds");
}

#[tokio::test]
async fn a_caller_is_told_of_and_its_token_stays_at_the_edge() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let bearer = format!("Bearer {}", signer.token(ISSUER, &json!({"scope": "rooms.write", "tenant": "r1"})));
    let answer = ask(&house, "POST", "/rooms/r1/tell", "{}", &[("authorization", &bearer)]).await;
    assert_eq!(answer.status, 200);
    assert!(!house.backend.seen.lock().unwrap().contains_key("authorization"));
    let told = house.told.lock().unwrap().iter().any(|entry| format!("{:?}", entry.values).contains("jwt:ada"));
    assert!(told, "the access log names the caller");
    // Without an issuer the header is between the caller and the service.
    assert_eq!(house.documents.put(r#"{"auth": {"issuers": []}}"#).await, "");
    assert_eq!(ask(&house, "GET", "/public/r1", "", &[("authorization", &bearer)]).await.status, 200);
    assert!(house.backend.seen.lock().unwrap().contains_key("authorization"));
    assert_eq!(tell(&house, "r1", "any").await.0, 401, "what must be known cannot be, so nobody gets in");
}

/// An issuer's server on this machine; counts how often keys were asked for.
struct IssuerServer {
    address: SocketAddr,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
}

impl IssuerServer {
    async fn start(keys: Value) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, keys: Arc::new(Mutex::new(keys)), asked: Arc::default() };
        let (keys, asked) = (server.keys.clone(), server.asked.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap();
                let is_discovery =
                    String::from_utf8_lossy(&head[..read]).contains("/.well-known/openid-configuration ");
                let body = if is_discovery {
                    json!({"issuer": format!("http://{address}"), "jwks_uri": format!("http://{address}/keys")})
                } else {
                    asked.fetch_add(1, Ordering::SeqCst);
                    keys.lock().unwrap().clone()
                };
                let body = body.to_string();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        server
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[tokio::test]
async fn keys_are_discovered_and_a_new_key_is_found_without_a_restart_but_not_asked_for_at_will() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let server = IssuerServer::start(json!({"keys": [old.jwk()]})).await;
    let issuer = server.issuer();
    let auth = json!({"issuers": [{"issuer": issuer, "audiences": ["shop"]}]});
    let config = Config { auth: serde_json::from_value(auth).unwrap(), ..Config::default() };
    let house = Landscape::talking(config).await;
    let may = json!({"scope": "rooms.write", "tenant": "r1"});
    assert_eq!(tell(&house, "r1", &old.token(&issuer, &may)).await.0, 200);
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
    // Strangers make keys up; the issuer does not hear of each.
    for _ in 0..20 {
        assert_eq!(tell(&house, "r1", &Signer::new("made-up").token(&issuer, &may)).await.0, 401);
    }
    assert!(server.asked.load(Ordering::SeqCst) <= 3, "{}", server.asked.load(Ordering::SeqCst));
    *server.keys.lock().unwrap() = json!({"keys": [old.jwk(), new.jwk()]});
    let found = async {
        while tell(&house, "r1", &new.token(&issuer, &may)).await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(40), found).await.expect("the new key is found");
    assert_eq!(tell(&house, "r1", &old.token(&issuer, &may)).await.0, 200);
}

#[tokio::test]
async fn without_an_issuers_keys_nobody_is_believed_and_nobody_is_called_a_liar() {
    let auth = json!({"issuers": [{"issuer": "http://127.0.0.1:9", "audiences": ["shop"]}]});
    let config = Config { auth: serde_json::from_value(auth).unwrap(), ..Config::default() };
    let house = Landscape::talking(config).await;
    let signer = Signer::new("one");
    let token = signer.token("http://127.0.0.1:9", &json!({"scope": "rooms.write", "tenant": "r1"}));
    assert_eq!(tell(&house, "r1", &token).await.0, 503);
    assert_eq!(tell(&house, "r1", "").await.0, 401);
}
