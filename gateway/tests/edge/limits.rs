//! How many requests a client may send.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ninefold::fault;
use ninefold::proto::ninefold::config::v1::GetDocumentRequest;
use ninefold::proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold::tonic::Code;
use ninefold::tonic::transport::Endpoint;
use ninefold_gateway::{Config, RateLimit};

use crate::client::{Answer, Connection, request};
use crate::landscape::Landscape;

const TARGET: &str = "/v1/documents/shop/test";

fn limited(limit: RateLimit) -> Config {
    Config { rate_limit: Some(limit), ..Config::default() }
}

async fn ask(edge: SocketAddr) -> Answer {
    Connection::open(edge).await.ask(request("GET", TARGET, "")).await
}

#[tokio::test]
async fn a_client_that_sends_too_much_is_told_when_to_come_again() {
    let house = Landscape::start_with(limited(RateLimit::alone(1, 3))).await;
    for _ in 0..3 {
        assert_eq!(ask(house.edge).await.status, 200);
    }
    let answer = ask(house.edge).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
    assert_eq!(answer.json()["details"].to_string().matches("RATE_LIMITED").count(), 1);
    let channel = Endpoint::try_from(format!("http://{}", house.edge)).unwrap().connect().await.unwrap();
    let refused = ConfigServiceClient::new(channel).get_document(GetDocumentRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), fault::reason(&refused).as_deref()), (Code::ResourceExhausted, Some("RATE_LIMITED")));
}

/// A real Redis, stopped when it is dropped.
pub(crate) struct Redis {
    process: Child,
    url: String,
}

impl Redis {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tools = std::env::var_os("NINEFOLD_TOOLS").map(|tools| PathBuf::from(tools).join("bin/redis-server"));
        let program = tools.filter(|program| program.exists()).unwrap_or_else(|| "redis-server".into());
        let process = Command::new(program)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &free.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is not there: install redis-server or run ./check");
        let redis = Self { process, url: format!("redis://127.0.0.1:{free}") };
        let listening = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", free)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listening).await.expect("redis-server listens");
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn edges_count_together_and_go_on_alone_when_redis_is_gone() {
    let redis = Redis::start().await;
    // Long enough that a busy machine does not matter.
    let redis_timeout = Duration::from_secs(10);
    let config = limited(RateLimit { redis: Some(redis.url.clone()), redis_timeout, ..RateLimit::alone(1, 60) });
    let one = Landscape::start_with(config.clone()).await;
    let two = Landscape::start_with(config).await;
    let (mut passed, mut refused) = (0, 0);
    let began = std::time::Instant::now();
    for _ in 0..45 {
        for edge in [one.edge, two.edge] {
            match ask(edge).await.status.as_u16() {
                200 => passed += 1,
                429 => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    let came_back = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!(passed >= 55 && passed <= 60 + came_back, "together as many as one: {passed} passed, {refused} refused");
    drop(redis);
    assert_eq!(ask(one.edge).await.status, 200, "nobody is refused for want of Redis");
    assert_eq!(ask(two.edge).await.status, 200);
}
