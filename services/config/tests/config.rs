//! Central configuration through its contract, on a real store.

use std::time::Duration;

use ninefold::Link;
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Code, Status, Streaming};
use ninefold_config::{Config, Documents};
use ninefold_proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold_proto::ninefold::config::v1::{
    AcknowledgeDocumentRequest, Acknowledgement, DiffRevisionsRequest, Document, GetDocumentRequest,
    ListAcknowledgementsRequest, ListDocumentsRequest, ListRevisionsRequest, PutDocumentRequest,
    RollbackDocumentRequest, WatchDocumentRequest, WatchDocumentResponse,
};
use tempfile::TempDir;
use tokio_stream::StreamExt as _;

/// A node with this role alone.
struct House {
    folder: TempDir,
    scope: Scope,
    link: Link,
}

impl House {
    async fn start(config: Config) -> Self {
        Self::open(TempDir::new().expect("a temporary folder"), config).await
    }

    async fn open(folder: TempDir, config: Config) -> Self {
        let scope = Scope::root("test");
        let settings = ninefold_store::Config { path: folder.path().join("store"), ..Default::default() };
        let store = ninefold_store::open(&settings, &scope.child("store")).await.expect("the store opens");
        let documents = Documents::start(config, store, &scope.child("config"));
        let mut routes = Routes::builder();
        documents.add_to(&mut routes);
        Self { folder, scope, link: routes.routes().into() }
    }

    async fn restart(self) -> Self {
        let Self { folder, scope, link } = self;
        drop(link);
        assert!(scope.close(Duration::from_secs(10)).await.is_empty());
        Self::open(folder, Config::default()).await
    }

    fn client(&self) -> ConfigServiceClient<Link> {
        ConfigServiceClient::new(self.link.clone())
    }

    async fn put(&self, request: PutDocumentRequest) -> Result<Document, Status> {
        let answer = self.client().put_document(request).await?;
        Ok(answer.into_inner().document.expect("an answer has a document"))
    }

    async fn write(&self, service: &str, content: &str) -> i64 {
        self.put(write(service, content)).await.expect("the document is written").revision
    }

    async fn get(&self, service: &str, revision: Option<i64>) -> Result<Document, Status> {
        let request = GetDocumentRequest { service: service.into(), environment: String::new(), revision };
        let answer = self.client().get_document(request).await?;
        Ok(answer.into_inner().document.expect("an answer has a document"))
    }

    async fn watch(&self, service: &str, known_revision: i64) -> Streaming<WatchDocumentResponse> {
        let request = WatchDocumentRequest { service: service.into(), environment: "default".into(), known_revision };
        self.client().watch_document(request).await.expect("it can be watched").into_inner()
    }
}

fn write(service: &str, content: &str) -> PutDocumentRequest {
    PutDocumentRequest { service: service.into(), content: content.into(), ..PutDocumentRequest::default() }
}

fn reason<T: std::fmt::Debug>(outcome: Result<T, Status>) -> String {
    fault::reason(&outcome.expect_err("it is refused")).expect("a refusal has a reason")
}

async fn next(stream: &mut Streaming<WatchDocumentResponse>) -> Option<Document> {
    let message = tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("something comes");
    message.expect("the stream goes on").expect("and does not fail").document
}

#[tokio::test]
async fn every_write_is_a_revision_that_stays_as_it_was() {
    let house = House::start(Config::default()).await;
    assert_eq!(reason(house.get("shop", None).await), "DOCUMENT_UNKNOWN");
    let request = PutDocumentRequest { author: "ada".into(), reason: "a start".into(), ..write("shop", r#"{"a":1}"#) };
    let first = house.put(request).await.expect("it is written");
    assert_eq!((first.revision, first.environment.as_str(), first.author.as_str()), (1, "default", "ada"));
    assert_eq!(house.write("shop", r#"{"a":2}"#).await, 2);
    assert_eq!(house.write("other", "{}").await, 1);
    assert_eq!(house.get("shop", Some(1)).await.expect("it is kept"), first);
    assert_eq!(house.get("shop", None).await.expect("it is kept").content, r#"{"a":2}"#);
    for revision in [0, 3, -1, i64::MAX] {
        assert_eq!(reason(house.get("shop", Some(revision)).await), "REVISION_UNKNOWN");
    }
}

#[tokio::test]
async fn what_is_no_document_is_refused_with_all_that_is_wrong() {
    let house = House::start(Config::default()).await;
    let wrong = PutDocumentRequest { environment: "Prod".into(), author: "x".repeat(300), ..write("a/b", "[1]") };
    let refused = house.put(wrong).await.expect_err("it is refused");
    assert_eq!((refused.code(), fault::reason(&refused).as_deref()), (Code::InvalidArgument, Some("DOCUMENT_INVALID")));
    for part in ["service", "environment", "author", "content"] {
        assert!(refused.message().contains(part), "{part} in {}", refused.message());
    }
    let fitting = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000 - 8));
    assert_eq!(house.write("large", &fitting).await, 1);
    assert_eq!(house.get("large", None).await.expect("it is kept").content.len(), 1_000_000);
    assert_eq!(reason(house.put(write("large", &format!("{fitting} "))).await), "DOCUMENT_INVALID");
    let request = WatchDocumentRequest { service: "A".into(), ..WatchDocumentRequest::default() };
    assert_eq!(reason(house.client().watch_document(request).await), "DOCUMENT_INVALID");
}

#[tokio::test]
async fn a_check_tells_what_would_happen_and_writes_nothing() {
    let house = House::start(Config::default()).await;
    let check = PutDocumentRequest { validate_only: true, expected_revision: Some(0), ..write("shop", "{}") };
    assert_eq!(house.put(check.clone()).await.expect("it would be written").revision, 1);
    assert_eq!(reason(house.get("shop", None).await), "DOCUMENT_UNKNOWN");
    house.write("shop", "{}").await;
    assert_eq!(reason(house.put(check).await), "REVISION_CONFLICT");
}

#[tokio::test]
async fn of_many_writers_that_know_the_same_one_wins() {
    let house = House::start(Config::default()).await;
    house.write("shop", "{}").await;
    for known in 1..=5 {
        let writers = (0..10).map(|writer| {
            let content = format!(r#"{{"writer":{writer}}}"#);
            house.put(PutDocumentRequest { expected_revision: Some(known), ..write("shop", &content) })
        });
        let outcomes = futures_util::future::join_all(writers).await;
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(winners, 1);
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_eq!(reason(outcome), "REVISION_CONFLICT");
        }
    }
    let stale = PutDocumentRequest { expected_revision: Some(0), ..write("shop", "{}") };
    assert_eq!(reason(house.put(stale).await), "REVISION_CONFLICT");
}

#[tokio::test]
async fn writers_that_expect_nothing_all_get_a_revision_without_gaps() {
    let house = House::start(Config::default()).await;
    let contents: Vec<String> = (0..20).map(|writer| format!(r#"{{"writer":{writer}}}"#)).collect();
    let writers = contents.iter().map(|content| house.write("shop", content));
    let mut revisions = futures_util::future::join_all(writers).await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_old_content() {
    let house = House::start(Config::default()).await;
    let roll = |revision, expected_revision| {
        let service = "shop".to_owned();
        let request =
            RollbackDocumentRequest { service, revision, expected_revision, ..RollbackDocumentRequest::default() };
        let mut client = house.client();
        async move { client.rollback_document(request).await.map(|answer| answer.into_inner().document) }
    };
    assert_eq!(reason(roll(None, None).await), "DOCUMENT_UNKNOWN");
    house.write("shop", r#"{"a":1}"#).await;
    assert_eq!(reason(roll(None, None).await), "REVISION_UNKNOWN");
    house.write("shop", r#"{"a":2}"#).await;
    house.write("shop", r#"{"a":3}"#).await;
    let back = roll(None, Some(3)).await.expect("it is rolled back").expect("an answer has a document");
    assert_eq!((back.revision, back.content.as_str(), back.rollback_of), (4, r#"{"a":2}"#, Some(2)));
    let back = roll(Some(1), None).await.expect("it is rolled back").expect("an answer has a document");
    assert_eq!((back.revision, back.content.as_str(), back.rollback_of), (5, r#"{"a":1}"#, Some(1)));
    assert_eq!(reason(roll(Some(9), None).await), "REVISION_UNKNOWN");
    assert_eq!(reason(roll(Some(1), Some(4)).await), "REVISION_CONFLICT");
}

#[tokio::test]
async fn what_differs_between_revisions_is_told_by_place() {
    let house = House::start(Config::default()).await;
    house.write("shop", r#"{"limits":{"page":10},"names":["a","b"]}"#).await;
    house.write("shop", r#"{"limits":{"page":20,"body":1},"names":["a"]}"#).await;
    let diff = |before, after| {
        let request = DiffRevisionsRequest { service: "shop".into(), before, after, ..DiffRevisionsRequest::default() };
        let mut client = house.client();
        async move { client.diff_revisions(request).await.map(ninefold::tonic::Response::into_inner) }
    };
    let newest = diff(None, None).await.expect("it is told");
    assert_eq!((newest.before, newest.after), (1, 2));
    let told: Vec<_> = newest
        .changes
        .iter()
        .map(|change| (change.path.as_str(), change.before.as_deref(), change.after.as_deref()))
        .collect();
    let expected = [
        ("/limits/body", None, Some("1")),
        ("/limits/page", Some("10"), Some("20")),
        ("/names/1", Some("\"b\""), None),
    ];
    assert_eq!(told, expected);
    let first = diff(None, Some(1)).await.expect("it is told");
    assert_eq!((first.before, first.after, first.changes.len()), (0, 1, 2));
    assert!(diff(Some(2), Some(2)).await.expect("it is told").changes.is_empty());
    assert_eq!(reason(diff(Some(7), None).await), "REVISION_UNKNOWN");
}

#[tokio::test]
async fn lists_come_page_by_page_and_old_revisions_are_forgotten() {
    let house = House::start(Config { revisions_max: 5, ..Config::default() }).await;
    for number in 1..=12 {
        house.write("shop", &format!(r#"{{"n":{number}}}"#)).await;
    }
    let mut seen = Vec::new();
    let mut request = ListRevisionsRequest { service: "shop".into(), page_size: 2, ..ListRevisionsRequest::default() };
    loop {
        let answer = house.client().list_revisions(request.clone()).await.expect("they are listed").into_inner();
        seen.extend(answer.documents.into_iter().map(|document| document.revision));
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [12, 11, 10, 9, 8]);
    assert_eq!(reason(house.get("shop", Some(7)).await), "REVISION_UNKNOWN");
    request.page_token = "x".into();
    assert_eq!(reason(house.client().list_revisions(request).await), "PAGE_TOKEN_INVALID");

    for service in ["b", "a", "c", "ab"] {
        house.write(service, "{}").await;
    }
    let mut names = Vec::new();
    let mut request = ListDocumentsRequest { page_size: 2, ..ListDocumentsRequest::default() };
    loop {
        let answer = house.client().list_documents(request.clone()).await.expect("they are listed").into_inner();
        names.extend(answer.documents.into_iter().map(|document| (document.service, document.revision)));
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((names.len(), sorted.len()), (5, 5), "{names:?}");
    assert!(names.contains(&("shop".to_owned(), 12)));
    let only = ListDocumentsRequest { service: "a".into(), ..ListDocumentsRequest::default() };
    let answer = house.client().list_documents(only).await.expect("they are listed").into_inner();
    assert_eq!(answer.documents.len(), 1);
    request.page_token = "../x".into();
    assert_eq!(reason(house.client().list_documents(request).await), "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn a_list_of_large_documents_comes_in_small_answers() {
    let house = House::start(Config::default()).await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(900_000));
    for _ in 0..7 {
        house.write("shop", &large).await;
    }
    let mut request = ListRevisionsRequest { service: "shop".into(), ..ListRevisionsRequest::default() };
    let mut pages = Vec::new();
    loop {
        let answer = house.client().list_revisions(request.clone()).await.expect("a page is small").into_inner();
        pages.push(answer.documents.len());
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [3, 3, 1]);
}

#[tokio::test]
async fn a_watcher_is_given_what_is_there_and_then_the_newest() {
    let house = House::start(Config::default()).await;
    let mut early = house.watch("shop", 0).await;
    assert_eq!(next(&mut early).await, None, "there is nothing yet");
    house.write("other", "{}").await;
    for number in 1..=3 {
        house.write("shop", &format!(r#"{{"n":{number}}}"#)).await;
        let told = next(&mut early).await.expect("a revision");
        assert_eq!((told.revision, told.content), (number, format!(r#"{{"n":{number}}}"#)));
    }
    let mut late = house.watch("shop", 0).await;
    assert_eq!(next(&mut late).await.expect("a revision").revision, 3);
    let mut knowing = house.watch("shop", 3).await;
    assert_eq!(next(&mut knowing).await, None, "what is known is not sent again");
    house.write("shop", r#"{"n":4}"#).await;
    for stream in [&mut early, &mut late, &mut knowing] {
        assert_eq!(next(stream).await.expect("a revision").revision, 4);
    }
}

#[tokio::test]
async fn a_watcher_that_reads_slowly_gets_the_newest_and_never_an_older_one() {
    let house = House::start(Config::default()).await;
    let mut stream = house.watch("shop", 0).await;
    for number in 1..=50 {
        house.write("shop", &format!(r#"{{"n":{number}}}"#)).await;
    }
    let mut last = 0;
    while last < 50 {
        if let Some(document) = next(&mut stream).await {
            assert!(document.revision > last, "{} after {last}", document.revision);
            last = document.revision;
        }
    }
}

#[tokio::test]
async fn watchers_are_bounded_and_those_that_left_make_room() {
    let house = House::start(Config { watchers_max: 2, ..Config::default() }).await;
    let one = house.watch("shop", 0).await;
    let mut two = house.watch("shop", 0).await;
    let request = WatchDocumentRequest { service: "shop".into(), ..WatchDocumentRequest::default() };
    assert_eq!(reason(house.client().watch_document(request).await), "WATCHERS_FULL");
    drop(one);
    let _three = house.watch("shop", 0).await;
    assert_eq!(next(&mut two).await, None);
    house.write("shop", "{}").await;
    assert_eq!(next(&mut two).await.expect("a revision").revision, 1);
    house.scope.close(Duration::from_secs(10)).await;
    assert!(two.next().await.is_none(), "the stream ends with the node");
}

#[tokio::test]
async fn what_instances_run_with_is_told_by_instance() {
    let house = House::start(Config::default()).await;
    house.write("shop", "{}").await;
    house.write("shop", r#"{"a":1}"#).await;
    let acknowledge = |instance: &str, revision, refusal: &str| {
        let acknowledgement = Acknowledgement {
            service: "shop".into(),
            instance_id: instance.into(),
            revision,
            refusal: refusal.into(),
            ..Acknowledgement::default()
        };
        let request = AcknowledgeDocumentRequest { acknowledgement: Some(acknowledgement) };
        let mut client = house.client();
        async move { client.acknowledge_document(request).await }
    };
    for (instance, revision, refusal) in [("s-2", 1, ""), ("s-1", 2, "a is no text"), ("s-2", 2, "")] {
        acknowledge(instance, revision, refusal).await.expect("it is noted");
    }
    assert_eq!(reason(acknowledge("s-1", 3, "").await), "REVISION_UNKNOWN");
    assert_eq!(reason(acknowledge("s/1", 2, "").await), "DOCUMENT_INVALID");
    let list = || async {
        let request = ListAcknowledgementsRequest { service: "shop".into(), environment: String::new() };
        let answer = house.client().list_acknowledgements(request).await.expect("they are listed").into_inner();
        answer.acknowledgements
    };
    let told = list().await;
    let words: Vec<_> =
        told.iter().map(|told| (told.instance_id.as_str(), told.revision, told.refusal.as_str())).collect();
    assert_eq!(words, [("s-1", 2, "a is no text"), ("s-2", 2, "")]);
    assert!(told.iter().all(|told| told.time.is_some() && told.environment == "default"));
}

#[tokio::test]
async fn nodes_that_share_a_store_tell_the_same() {
    let scope = Scope::root("test");
    let folder = TempDir::new().expect("a temporary folder");
    let settings = ninefold_store::Config { path: folder.path().join("store"), ..Default::default() };
    let store = ninefold_store::open(&settings, &scope.child("store")).await.expect("the store opens");
    let [mut one, mut two] = ["one", "two"].map(|name| {
        let documents = Documents::start(Config::default(), store.clone(), &scope.child(name));
        let mut routes = Routes::builder();
        documents.add_to(&mut routes);
        ConfigServiceClient::<Link>::new(routes.routes().into())
    });
    let request = WatchDocumentRequest { service: "shop".into(), ..WatchDocumentRequest::default() };
    let mut stream = two.watch_document(request).await.expect("it can be watched").into_inner();
    assert_eq!(next(&mut stream).await, None);
    one.put_document(write("shop", "{}")).await.expect("it is written");
    assert_eq!(next(&mut stream).await.expect("a revision").revision, 1);
    let acknowledgement = Acknowledgement {
        service: "shop".into(),
        instance_id: "s-1".into(),
        revision: 1,
        ..Acknowledgement::default()
    };
    let request = AcknowledgeDocumentRequest { acknowledgement: Some(acknowledgement) };
    two.acknowledge_document(request).await.expect("it is noted");
    let request = ListAcknowledgementsRequest { service: "shop".into(), environment: String::new() };
    let told = one.list_acknowledgements(request).await.expect("they are listed").into_inner();
    assert_eq!(told.acknowledgements.len(), 1);
    assert!(scope.close(Duration::from_secs(10)).await.is_empty());
}

#[tokio::test]
async fn a_restart_keeps_all() {
    let house = House::start(Config::default()).await;
    for number in 1..=3 {
        house.write("shop", &format!(r#"{{"n":{number}}}"#)).await;
    }
    let before = house.get("shop", Some(2)).await.expect("it is kept");
    let house = house.restart().await;
    assert_eq!(house.get("shop", Some(2)).await.expect("it is kept"), before);
    assert_eq!(house.get("shop", None).await.expect("it is kept").revision, 3);
    let mut stream = house.watch("shop", 2).await;
    assert_eq!(next(&mut stream).await.expect("a revision").revision, 3);
    assert_eq!(house.write("shop", "{}").await, 4);
    assert_eq!(next(&mut stream).await.expect("a revision").revision, 4);
}
