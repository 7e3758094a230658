//! What a server takes in, as its callers see it.

use std::sync::atomic::AtomicUsize;

use http::HeaderName;
use http_body_util::BodyExt as _;
use prost::Message as _;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::*;
use crate::connect::orca;
use crate::serve::Deadlined;

/// Answers after a while, and counts what it began.
#[derive(Clone, Default)]
struct Handler(Arc<AtomicUsize>);

impl Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let trailers = http::HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from(0))]);
            let frames = [Ok::<_, Status>(http_body::Frame::trailers(trailers))];
            Ok(Response::new(Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))))
        }
        .boxed()
    }
}

fn request(path: &str, headers: &[(&'static str, &'static str)]) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    for (name, value) in headers {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request
}

fn server(admission: Admission) -> (Deadlined<Admitted<Handler>>, Handler, LiveAdmission) {
    let (handler, live) = (Handler::default(), LiveAdmission::new(admission));
    (Deadlined::new(Admitted::new(handler.clone(), live.clone())), handler, live)
}

fn code(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

async fn ask(server: &Deadlined<Admitted<Handler>>, headers: &[(&'static str, &'static str)]) -> Response<Body> {
    server.clone().oneshot(request("/a.B/C", headers)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_is_refused_unbegun_and_told_when_to_come_again() {
    let one = Admission { in_flight_max: Some(1), queue_max: 0, ..Admission::default() };
    let (server, handler, live) = server(one.clone());
    let (taken, refused) = tokio::join!(ask(&server, &[]), ask(&server, &[]));
    assert_eq!((code(&taken), code(&refused)), (Code::Ok, Code::ResourceExhausted));
    assert_eq!(handler.0.load(Ordering::Relaxed), 1);
    let wait: u64 = refused.headers()[PUSHBACK].to_str().unwrap().parse().unwrap();
    assert!(PUSHBACK_MS.contains(&wait));
    let status = Status::from_header_map(refused.headers()).unwrap();
    assert_eq!(fault::reason(&status).as_deref(), Some("INSTANCE_OVERLOADED"));

    // It changes while the server runs.
    live.set(Admission { is_disabled: true, ..one });
    let (first, second) = tokio::join!(ask(&server, &[]), ask(&server, &[]));
    assert_eq!((code(&first), code(&second)), (Code::Ok, Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_whether_it_lives_is_told() {
    let (server, _, _) = server(Admission { in_flight_max: Some(1), queue_max: 0, ..Admission::default() });
    let probe = server.clone().oneshot(request("/grpc.health.v1.Health/Check", &[]));
    let (taken, probed) = tokio::join!(ask(&server, &[]), probe);
    assert_eq!((code(&taken), code(&probed.unwrap())), (Code::Ok, Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn the_important_call_waits_for_its_turn_and_the_unimportant_one_makes_room() {
    let wait = Duration::from_secs(5);
    let (server, handler, _) =
        server(Admission { in_flight_max: Some(1), queue_max: 1, queue_wait_max: wait, ..Admission::default() });
    let (first, least, most) = tokio::join!(
        ask(&server, &[]),
        ask(&server, &[(priority::HEADER, "sheddable")]),
        ask(&server, &[(priority::HEADER, "critical")]),
    );
    assert_eq!((code(&first), code(&least), code(&most)), (Code::Ok, Code::ResourceExhausted, Code::Ok));
    assert_eq!(handler.0.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn expired_work_is_never_begun() {
    let wait = Duration::from_secs(5);
    let (server, handler, _) =
        server(Admission { in_flight_max: Some(1), queue_wait_max: wait, ..Admission::default() });
    assert_eq!(code(&ask(&server, &[("grpc-timeout", "0u")]).await), Code::DeadlineExceeded);
    assert_eq!(handler.0.load(Ordering::Relaxed), 0);
    // Nor when it expires while it waits.
    let (taken, late) = tokio::join!(ask(&server, &[]), ask(&server, &[("grpc-timeout", "10m")]));
    assert_eq!((code(&taken), code(&late)), (Code::Ok, Code::DeadlineExceeded));
    assert_eq!(handler.0.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn every_answer_ends_with_how_busy_the_instance_is() {
    let (server, _, _) = server(Admission::default());
    for _ in 0..3 {
        let answer = ask(&server, &[]).await.into_body().collect().await.unwrap();
        let trailers = MetadataMap::from_headers(answer.trailers().unwrap().clone());
        let report = trailers.get_bin(orca::TRAILER).unwrap().to_bytes().unwrap();
        let report = orca::LoadReport::decode(report).unwrap();
        assert!(report.rps_fractional > 0.0 && report.eps == 0.0, "{report:?}");
    }
}
