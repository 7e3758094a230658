//! API keys, certificates, limits, and what services are told of a caller.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::Link;
use ninefold::edge::{HEADER, Verifier};
use ninefold::proto::ninefold::access::v1 as access;
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold_gateway::Config;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::callers::{ISSUER, Signer, ask, believing};
use crate::client::reason;
use crate::landscape::{Landscape, not_here};
use crate::limits::Redis;

/// The platform's keys, and those of edges, in the test's hands.
#[derive(Clone, Default)]
pub(crate) struct Access {
    keys: Arc<watch::Sender<Vec<access::KeyRecord>>>,
    signers: Arc<Mutex<Vec<access::Jwk>>>,
}

impl Access {
    pub(crate) fn link(&self) -> Link {
        let mut routes = Routes::builder();
        routes.add_service(access::key_service_server::KeyServiceServer::new(self.clone()));
        routes.add_service(access::signer_service_server::SignerServiceServer::new(self.clone()));
        Link::from(routes.routes())
    }

    /// Makes a key; answers it.
    fn put(&self, id: &str, change: impl FnOnce(&mut access::Key)) -> String {
        let text = format!("nfk_{id}_{}", "5a".repeat(32));
        let mut key = access::Key { id: id.to_owned(), ..Default::default() };
        change(&mut key);
        let sha256 = ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref().to_vec();
        self.keys.send_modify(|keys| keys.push(access::KeyRecord { key: Some(key), sha256 }));
        text
    }

    fn revoke(&self, id: &str) {
        self.keys.send_modify(|keys| keys.retain(|record| record.key.as_ref().is_none_or(|key| key.id != id)));
    }
}

#[async_trait]
impl access::key_service_server::KeyService for Access {
    type WatchKeysStream = BoxStream<'static, Result<access::WatchKeysResponse, Status>>;

    async fn create_key(
        &self,
        _: Request<access::CreateKeyRequest>,
    ) -> Result<Response<access::CreateKeyResponse>, Status> {
        not_here()
    }

    async fn list_keys(
        &self,
        _: Request<access::ListKeysRequest>,
    ) -> Result<Response<access::ListKeysResponse>, Status> {
        not_here()
    }

    async fn revoke_key(
        &self,
        _: Request<access::RevokeKeyRequest>,
    ) -> Result<Response<access::RevokeKeyResponse>, Status> {
        not_here()
    }

    async fn watch_keys(
        &self,
        _: Request<access::WatchKeysRequest>,
    ) -> Result<Response<Self::WatchKeysStream>, Status> {
        let mut known: Vec<access::KeyRecord> = Vec::new();
        let told = WatchStream::new(self.keys.subscribe()).map(move |keys| {
            let id = |record: &access::KeyRecord| record.key.clone().unwrap_or_default().id;
            let gone = known.iter().filter(|old| !keys.iter().any(|new| id(new) == id(old))).map(id).collect();
            known.clone_from(&keys);
            Ok(access::WatchKeysResponse { keys, revoked: gone, complete: true })
        });
        Ok(Response::new(told.boxed()))
    }
}

#[async_trait]
impl access::signer_service_server::SignerService for Access {
    async fn put_signer(
        &self,
        request: Request<access::PutSignerRequest>,
    ) -> Result<Response<access::PutSignerResponse>, Status> {
        self.signers.lock().unwrap().extend(request.into_inner().key);
        Ok(Response::new(access::PutSignerResponse {}))
    }

    async fn list_signers(
        &self,
        _: Request<access::ListSignersRequest>,
    ) -> Result<Response<access::ListSignersResponse>, Status> {
        Ok(Response::new(access::ListSignersResponse { keys: self.signers.lock().unwrap().clone() }))
    }
}

/// The status of saying a line in a room that asks for a scope and for its own room.
async fn tell(house: &Landscape, headers: &[(&str, &str)]) -> u16 {
    ask(house, "POST", "/rooms/r1/tell", r#"{"text": "x"}"#, headers).await.status.as_u16()
}

async fn until(house: &Landscape, headers: &[(&str, &str)], status: u16) {
    let seen = async {
        while tell(house, headers).await != status {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap_or_else(|_| panic!("never {status}"));
}

fn may_write(key: &mut access::Key) {
    key.scopes.push("rooms.write".to_owned());
    key.claims.insert("tenant".to_owned(), "r1".to_owned());
}

#[tokio::test]
async fn a_key_opens_the_door_until_it_is_revoked_or_ends() {
    let house = Landscape::talking(Config::default()).await;
    let key = house.access.put("abcdefgh2345", may_write);
    until(&house, &[("x-api-key", &key)], 200).await;
    let bearer = format!("Bearer {key}");
    assert_eq!(tell(&house, &[("authorization", &bearer)]).await, 200);
    assert!(!house.backend.seen.lock().unwrap().contains_key("authorization"), "a key stays at the edge");
    assert_eq!(tell(&house, &[("authorization", &bearer), ("x-api-key", &key)]).await, 401, "one thing is shown");
    let forged = format!("{}00", &key[..key.len() - 2]);
    for wrong in [forged.as_str(), "nfk_", "nfk_abcdefgh2345", "nfk_abcdefgh2345_"] {
        assert_eq!(tell(&house, &[("x-api-key", wrong)]).await, 401, "{wrong}");
    }
    let weak = house.access.put("weakweak2345", |_| {});
    until(&house, &[("x-api-key", &weak)], 403).await;
    let past = house.access.put("pastpast2345", |key| {
        may_write(key);
        key.expire_time = Some((SystemTime::now() - Duration::from_secs(1)).into());
    });
    assert_eq!(tell(&house, &[("x-api-key", &past)]).await, 401);
    house.access.revoke("abcdefgh2345");
    until(&house, &[("x-api-key", &key)], 401).await;
    // What is no key of ours is between the caller and the service.
    assert_eq!(ask(&house, "GET", "/public/r", "", &[("x-api-key", "theirs")]).await.status, 200);
    assert_eq!(house.backend.seen.lock().unwrap()["x-api-key"], "theirs");
}

#[tokio::test]
async fn services_are_told_who_calls_so_that_they_can_know_it_is_true() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let bearer = format!("Bearer {}", signer.token(ISSUER, &json!({"scope": "rooms.write other", "tenant": "r1"})));
    let headers = [("authorization", bearer.as_str()), (HEADER, "forged"), ("x-ninefold-anything", "forged")];
    assert_eq!(tell(&house, &headers).await, 200);
    let told = house.backend.seen.lock().unwrap().clone();
    assert_eq!(told.get_all(HEADER).iter().count(), 1);
    assert!(!told.contains_key("x-ninefold-anything"));
    let caller = Verifier::new(house.access.link(), "talker").caller(&told).await.unwrap().expect("somebody");
    assert_eq!((caller.subject.as_str(), caller.proof.as_str(), caller.issuer.as_str()), ("ada", "jwt", ISSUER));
    assert!(caller.has_scope("rooms.write") && !caller.has_scope("rooms"));
    assert_eq!(caller.claims["tenant"], "r1");

    // For another service it is nothing, and neither is another edge's word.
    assert!(Verifier::new(house.access.link(), "other").caller(&told).await.is_err());
    assert!(Verifier::new(Access::default().link(), "talker").caller(&told).await.is_err());
    let mut tampered = told.clone();
    let value = told[HEADER].to_str().unwrap();
    let (signed, signature) = value.rsplit_once('.').unwrap();
    tampered.insert(HEADER, format!("{}A.{signature}", &signed[..signed.len() - 1]).parse().unwrap());
    assert!(Verifier::new(house.access.link(), "talker").caller(&tampered).await.is_err());

    // Nobody is nobody, whatever they say.
    assert_eq!(ask(&house, "GET", "/public/r", "", &[(HEADER, value)]).await.status, 200);
    let told = house.backend.seen.lock().unwrap().clone();
    assert!(!told.contains_key(HEADER));
    assert_eq!(Verifier::new(house.access.link(), "talker").caller(&told).await.unwrap(), None);
}

#[tokio::test]
async fn limits_are_by_caller_claim_and_route_and_say_what_is_left() {
    let signer = Signer::new("one");
    let house = Landscape::talking(believing(&signer)).await;
    let limits = json!({
        "limits": {"each": {"by": "caller", "requests": 3, "per": "1h"}},
        "traffic": {"talker": {"methods": {
            "Peek": {"limits": {"tenant": {"by": {"claim": "tenant"}, "requests": 2, "per": "day"}}},
            "Say": {"limits": {}}}}},
    });
    assert_eq!(house.documents.put(&limits.to_string()).await, "");
    let get = async |sub: &str, tenant: &str| {
        let bearer = format!("Bearer {}", signer.token(ISSUER, &json!({"sub": sub, "tenant": tenant})));
        ask(&house, "GET", "/public/r", "", &[("authorization", &bearer), ("origin", "https://a.example")]).await
    };
    let first = get("ada", "a").await;
    assert_eq!(first.status, 200);
    assert!(first.header("access-control-expose-headers").contains("ratelimit-policy"), "a page may read what is left");
    assert_eq!(first.header("ratelimit-policy"), "\"each\";q=3;w=3600, \"tenant\";q=2;w=86400");
    assert!(first.header("ratelimit").starts_with("\"each\";r=2;t=1200, \"tenant\";r=1;t="), "{first:?}");
    assert_eq!(get("bob", "a").await.status, 200);
    let spent = get("bob", "a").await;
    assert_eq!((spent.status.as_u16(), reason(&spent).as_str()), (429, "QUOTA_SPENT"));
    assert!(spent.header("retry-after").parse::<u64>().unwrap() <= 86_400);
    assert_eq!(get("bob", "b").await.status, 200, "another tenant");
    let limited = get("bob", "b").await;
    assert_eq!((limited.status.as_u16(), reason(&limited).as_str()), (429, "RATE_LIMITED"));
    assert!(limited.header("ratelimit").starts_with("\"each\";r=0;"), "{limited:?}");
    assert_eq!(get("ada", "c").await.status, 200, "another caller");
    // What does not touch a limit leaves what it counted.
    let mut more = limits.clone();
    more["deadline"] = json!("9s");
    assert_eq!(house.documents.put(&more.to_string()).await, "");
    assert_eq!(get("bob", "d").await.status, 429);
    let refused = house.documents.put(r#"{"limits": {"a b": {"by": "all", "requests": 0}}}"#).await;
    assert!(refused.contains("no name") && refused.contains("at least 1"), "{refused}");
}

#[tokio::test]
async fn a_keys_quota_holds_for_all_edges_together() {
    let redis = Redis::start().await;
    let counters = json!({"redis": redis.url(), "redis_timeout": "2s"});
    let config = Config { counters: serde_json::from_value(counters).unwrap(), ..Config::default() };
    let (one, two) = (Landscape::talking(config.clone()).await, Landscape::talking(config).await);
    let quota = |key: &mut access::Key| {
        may_write(key);
        key.quota = Some(access::Quota { day_max: 4, month_max: 0 });
    };
    let key = one.access.put("abcdefgh2345", quota);
    assert_eq!(two.access.put("abcdefgh2345", quota), key);
    let headers = [("x-api-key", key.as_str())];
    until(&one, &headers, 200).await;
    until(&two, &headers, 200).await;
    assert_eq!((tell(&one, &headers).await, tell(&two, &headers).await), (200, 200));
    assert_eq!((tell(&one, &headers).await, tell(&two, &headers).await), (429, 429));
    drop(redis);
    assert_eq!(tell(&one, &headers).await, 200, "nobody is refused for want of Redis; this edge counts alone");
}

#[tokio::test]
async fn addresses_are_let_in_by_lists_and_proxies_are_believed_if_they_are_named() {
    let house = Landscape::talking(Config::default()).await;
    let get = async |forwarded: &str| ask(&house, "GET", "/public/r", "", &[("x-forwarded-for", forwarded)]).await;
    assert_eq!(get("192.0.2.1").await.status, 200);
    assert_eq!(house.backend.seen.lock().unwrap()["x-forwarded-for"], "127.0.0.1", "nobody is believed unasked");
    let lists = r#"{"addresses": {"trusted_proxies": ["127.0.0.0/8"], "deny": ["203.0.113.0/24"]}}"#;
    assert_eq!(house.documents.put(lists).await, "");
    assert_eq!(get("10.9.9.9, 192.0.2.1").await.status, 200);
    assert_eq!(house.backend.seen.lock().unwrap()["x-forwarded-for"], "192.0.2.1");
    let denied = get("192.0.2.1, 203.0.113.9").await;
    assert_eq!((denied.status.as_u16(), reason(&denied).as_str()), (403, "ADDRESS_DENIED"));
    assert_eq!(house.documents.put(r#"{"addresses": {"allow": ["192.0.2.0/24"]}}"#).await, "");
    assert_eq!(get("192.0.2.1").await.status, 403);
    let refused = house.documents.put(r#"{"addresses": {"allow": ["10.0.0.0/40"]}}"#).await;
    assert!(refused.contains("no network"), "{refused}");
}
