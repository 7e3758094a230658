//! The gate as services and operators meet it.

use ninefold::fault;
use ninefold_proto::ninefold::contract::v1 as proto;
use proto::change_package_request::Change as Wish;
use proto::package_service_client::PackageServiceClient;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use tonic::{Code, Status};

use crate::{House, check};

struct Sources(Vec<(String, String)>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, text)) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Compiles sources; the name of each is its package with `.proto`.
pub(crate) fn compile(sources: &[(&str, &str)]) -> Vec<u8> {
    let named = sources.iter().map(|(package, body)| {
        (format!("{}.proto", package.replace('.', "/")), format!("syntax = \"proto3\";\npackage {package};\n{body}"))
    });
    let named: Vec<(String, String)> = named.collect();
    let names: Vec<String> = named.iter().map(|(name, _)| name.clone()).collect();
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(named));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for name in names {
        compiler.open_file(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
    compiler.encode_file_descriptor_set()
}

const SERVICE: &str = "service ReviewService {\n  rpc Get(Review) returns (Review);\n}\n";

fn review(version: &str, fields: &str) -> Vec<u8> {
    compile(&[(&format!("review.{version}"), &format!("{SERVICE}message Review {{\n  string id = 1;\n{fields}}}\n"))])
}

fn first() -> Vec<u8> {
    review("v1", "  int32 stars = 2;\n")
}

fn harmless() -> Vec<u8> {
    review("v1", "  int32 stars = 2;\n  string text = 3;\n")
}

fn breaking() -> Vec<u8> {
    review("v1", "  string stars = 2;\n")
}

impl House {
    fn packages(&self) -> PackageServiceClient<ninefold::Link> {
        self.packages.clone()
    }

    async fn offer(&self, service: &str, set: &[u8], offered: &[&str]) -> Result<proto::PutContractResponse, Status> {
        let request = proto::PutContractRequest {
            service: service.to_owned(),
            descriptor_set: set.to_vec(),
            protobuf_services: offered.iter().map(|name| (*name).to_owned()).collect(),
        };
        Ok(self.client.clone().put_contract(request).await?.into_inner())
    }

    async fn may_join(&self, service: &str, set: &[u8]) -> bool {
        let digest = ninefold_contract::Digest::of(set).to_string();
        let request = proto::CheckContractRequest { digest, service: service.to_owned() };
        self.client.clone().check_contract(request).await.expect("the gate answers").into_inner().known
    }

    async fn package(&self, package: &str) -> proto::Package {
        let request = proto::GetPackageRequest { package: package.to_owned() };
        self.packages()
            .get_package(request)
            .await
            .expect("the gate answers")
            .into_inner()
            .package
            .expect("an answer has a package")
    }

    async fn change(&self, package: &str, wish: Wish) -> Result<proto::Package, Status> {
        let (package, author, reason) = (package.to_owned(), "Ada".to_owned(), "agreed".to_owned());
        let request = proto::ChangePackageRequest { package, author, reason, change: Some(wish) };
        Ok(self.packages().change_package(request).await?.into_inner().package.expect("an answer has a package"))
    }

    async fn changes(&self, service: &str) -> Vec<(proto::ChangeKind, String)> {
        let request = proto::ListChangesRequest { service: service.to_owned(), ..Default::default() };
        let changes = self.packages().list_changes(request).await.expect("the gate answers").into_inner().changes;
        changes.into_iter().map(|change| (change.kind(), change.author)).collect()
    }
}

#[tokio::test]
async fn a_break_is_refused_with_its_place_and_how_to_mend_it_and_what_was_goes_on() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    let refused = house.put("review", &breaking()).await.unwrap_err();
    check(&refused, Code::FailedPrecondition, "CONTRACT_BREAKS");
    let violations = fault::preconditions(&refused);
    let found = violations.iter().find(|one| one.kind == "FIELD_WIRE_JSON_COMPATIBLE_TYPE").expect("the type changed");
    assert!(found.subject.contains("review.v1.Review"), "{found:?}");
    for part in ["review/v1.proto:8", "int32", "string", "revision 1"] {
        assert!(found.description.contains(part), "{part} is not in {found:?}");
    }
    assert!(!house.may_join("review", &breaking()).await);
    assert!(house.may_join("review", &first()).await);
    house.put("review", &harmless()).await.unwrap();
    let package = house.package("review.v1").await;
    assert_eq!((package.owner.as_str(), package.revisions), ("review", 2));
    assert_eq!(
        house.changes("review").await.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>(),
        [proto::ChangeKind::Accepted, proto::ChangeKind::Refused, proto::ChangeKind::Accepted]
    );
}

#[tokio::test]
async fn what_was_accepted_once_joins_again_at_once() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    house.put("review", &harmless()).await.unwrap();
    house.put("review", &first()).await.expect("rolling back always works");
    assert_eq!(house.package("review.v1").await.revisions, 2);
    let house = house.restart().await;
    assert!(house.may_join("review", &first()).await && house.may_join("review", &harmless()).await);
}

#[tokio::test]
async fn a_second_version_lives_beside_the_first_and_the_first_must_not_go_missing() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    let alone = review("v2", "  string stars = 2;\n");
    let refused = house.put("review", &alone).await.unwrap_err();
    assert_eq!(fault::preconditions(&refused)[0].kind, "PACKAGE_NO_DELETE");
    let body = |fields: &str| format!("{SERVICE}message Review {{\n  string id = 1;\n{fields}}}\n");
    let both = compile(&[("review.v1", &body("  int32 stars = 2;\n")), ("review.v2", &body("  string stars = 2;\n"))]);
    house.put("review", &both).await.unwrap();
    assert_eq!(house.package("review.v2").await.owner, "review");
    house.change("review.v1", Wish::Retire(proto::Retire::default())).await.unwrap();
    house.put("review", &alone).await.expect("what is retired may go");
    assert!(house.may_join("review", &first()).await, "even then, rolling back works");
    let again = review("v1", "  int32 stars = 2;\n  bool new = 4;\n");
    let refused = house.put("other", &again).await.unwrap_err();
    assert_eq!(fault::preconditions(&refused)[0].kind, "PACKAGE_RETIRED");
}

#[tokio::test]
async fn an_operator_accepts_a_break_by_name_and_with_a_reason() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    house.put("review", &breaking()).await.unwrap_err();
    let digest = ninefold_contract::Digest::of(&breaking()).to_string();
    let accept = |reason: &str| {
        let (digest, reason, mut client) = (digest.clone(), reason.to_owned(), house.packages());
        async move {
            let request = proto::AcceptContractRequest { digest, author: "Ada".to_owned(), reason };
            client.accept_contract(request).await.map(tonic::Response::into_inner)
        }
    };
    check(&accept("").await.unwrap_err(), Code::InvalidArgument, "REASON_MISSING");
    let accepted = accept("nobody calls it yet").await.unwrap();
    assert!(accepted.findings.iter().any(|finding| !finding.warning));
    assert!(house.may_join("review", &breaking()).await);
    assert_eq!(house.package("review.v1").await.revisions, 2);
    assert!(house.changes("review").await.contains(&(proto::ChangeKind::Overridden, "Ada".to_owned())));
    check(&accept("again").await.unwrap_err(), Code::NotFound, "CONTRACT_UNKNOWN");
}

#[tokio::test]
async fn how_strictly_a_package_is_held_can_be_set() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    house.change("review.v1", Wish::Level(proto::Level::Warn.into())).await.unwrap();
    let answer = house.offer("review", &breaking(), &[]).await.unwrap();
    assert!(answer.warnings.iter().any(|finding| finding.rule == "FIELD_WIRE_JSON_COMPATIBLE_TYPE"));

    house.put("trial", &review("v1beta1", "  int32 stars = 2;\n")).await.unwrap();
    let answer = house.offer("trial", &review("v1beta1", "  string stars = 2;\n"), &[]).await.unwrap();
    assert!(!answer.warnings.is_empty(), "a beta only warns");

    house.change("review.v1", Wish::Level(proto::Level::Strict.into())).await.unwrap();
    let kept_number = review("v1", "  reserved 2;\n  reserved \"stars\";\n");
    house.put("review", &kept_number).await.unwrap_err();
    house.change("review.v1", Wish::Level(proto::Level::Off.into())).await.unwrap();
    house.put("review", &kept_number).await.unwrap();
}

#[tokio::test]
async fn of_two_that_contradict_each_other_at_once_one_is_taken() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    let one = review("v1", "  int32 stars = 2;\n  string author = 3;\n");
    let other = review("v1", "  int32 stars = 2;\n  bytes picture = 3;\n");
    let (one, other) = tokio::join!(house.put("review", &one), house.put("review", &other));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    check(&one.err().or(other.err()).unwrap(), Code::FailedPrecondition, "CONTRACT_BREAKS");
    assert_eq!(house.package("review.v1").await.revisions, 2);
}

#[tokio::test]
async fn a_package_of_messages_is_shared_and_an_older_copy_of_it_harms_nobody() {
    let house = House::start().await;
    let common = |fields: &str| format!("message Money {{\n  int64 units = 1;\n{fields}}}\n");
    let user = |package: &'static str, fields: &str| {
        let body =
            "import \"common/v1.proto\";\nservice S {\n  rpc Pay(common.v1.Money) returns (common.v1.Money);\n}\n";
        compile(&[("common.v1", &common(fields)), (package, body)])
    };
    house.put("orders", &user("orders.v1", "")).await.unwrap();
    house.put("orders", &user("orders.v1", "  string currency = 2;\n")).await.unwrap();
    assert_eq!(house.package("common.v1").await.revisions, 2);
    house.put("bills", &user("bills.v1", "")).await.expect("a copy that was accepted");
    let newest = user("orders.v1", "  string currency = 2;\n  int32 nanos = 3;\n");
    house.put("orders", &newest).await.unwrap();
    let between = user("bills.v1", "  string currency = 2;\n  reserved 9;\n");
    let refused = house.put("bills", &between).await;
    assert!(refused.is_err(), "neither ahead nor behind: {refused:?}");
    let behind = compile(&[
        (
            "common.v1",
            &format!("// Another comment, and no more fields than at first.\n{}", common("  string currency = 2;\n")),
        ),
        (
            "bills.v1",
            "import \"common/v1.proto\";\nservice S {\n  rpc Pay(common.v1.Money) returns (common.v1.Money);\n}\n",
        ),
    ]);
    house.put("bills", &behind).await.expect("comments make no difference");
    assert_eq!(house.package("common.v1").await.revisions, 3);
}

#[tokio::test]
async fn what_a_service_only_calls_is_not_its_promise_but_is_known() {
    let house = House::start().await;
    house.offer("review", &harmless(), &["review.v1.ReviewService"]).await.unwrap();
    let body = "import \"review/v1.proto\";\nservice FrontService {\n  rpc Show(review.v1.Review) returns (review.v1.Review);\n}\n";
    let older = format!("{SERVICE}message Review {{\n  string id = 1;\n}}\n");
    let front = compile(&[("review.v1", &older), ("front.v1", body)]);
    house.offer("front", &front, &["front.v1.FrontService"]).await.expect("an older copy of what it calls");
    assert_eq!(house.package("review.v1").await.revisions, 1);

    let callers = || {
        let mut client = house.packages();
        async move {
            let request = proto::ListCallersRequest { package: "review.v1".to_owned(), method: String::new() };
            client.list_callers(request).await.unwrap().into_inner().callers
        }
    };
    let told = callers().await;
    assert_eq!((told.len(), told[0].service.as_str(), told[0].declared, told[0].calls), (1, "front", true, 0));
    let method = "review.v1.ReviewService.Get".to_owned();
    for calls in [3, 4] {
        let counts = vec![proto::CallCount { method: method.clone(), calls }];
        let request = proto::ReportCallsRequest { service: "front".to_owned(), counts };
        house.packages().report_calls(request).await.unwrap();
    }
    let told = callers().await;
    assert_eq!((told.len(), told[0].method.as_str(), told[0].calls), (1, method.as_str(), 7));
    assert!(told[0].last_time.is_some());
    let refused = house.change("review.v1", Wish::Retire(proto::Retire::default())).await.unwrap_err();
    check(&refused, Code::FailedPrecondition, "PACKAGE_IN_USE");
    house.change("review.v1", Wish::Retire(proto::Retire { force: true })).await.unwrap();
}

#[tokio::test]
async fn a_package_is_documented_compared_and_handed_out() {
    let house = House::start().await;
    house.put("review", &first()).await.unwrap();
    house.put("review", &harmless()).await.unwrap();
    let mut client = house.packages();
    let request = proto::GetDocumentationRequest { package: "review.v1".to_owned(), revision: 0 };
    let told = client.get_documentation(request).await.unwrap().into_inner();
    assert_eq!((told.revision, told.history.len(), told.services.len(), told.messages.len()), (2, 2, 1, 1));
    let examples = told.services[0].methods[0].examples.clone().unwrap();
    assert!(examples.ninefold.contains("review.v1.ReviewService/Get -d '{\"id\":\"text\""), "{examples:?}");

    let request = proto::DiffRevisionsRequest { package: "review.v1".to_owned(), before: 0, after: 0 };
    let diff = client.diff_revisions(request).await.unwrap().into_inner();
    assert_eq!((diff.before, diff.after), (1, 2));
    assert!(diff.unified_diff.contains("+  string text = 3;"), "{}", diff.unified_diff);
    // Before the first there was nothing; numbers that nothing has are refused by name.
    let request = proto::DiffRevisionsRequest { package: "review.v1".to_owned(), before: 0, after: 1 };
    let diff = client.diff_revisions(request).await.unwrap().into_inner();
    assert_eq!((diff.before, diff.after, diff.findings.len()), (0, 1, 0));
    assert!(diff.unified_diff.contains("+  int32 stars = 2;"), "{}", diff.unified_diff);
    for (before, after) in [(-1, 1), (1, -1), (i64::MIN, i64::MAX), (1, 7)] {
        let request = proto::DiffRevisionsRequest { package: "review.v1".to_owned(), before, after };
        check(&client.diff_revisions(request).await.unwrap_err(), Code::NotFound, "REVISION_UNKNOWN");
    }

    for (form, ending) in [(proto::ExportForm::DescriptorSet, "binpb"), (proto::ExportForm::ProtoFiles, "tar")] {
        let request = proto::ExportPackageRequest { package: "review.v1".to_owned(), revision: 1, form: form.into() };
        let file = client.export_package(request).await.unwrap().into_inner();
        assert_eq!(file.file_name, format!("review.v1-1.{ending}"));
        assert!(!file.content.is_empty());
    }
    for revision in [9, -1, i64::MIN] {
        let request = proto::GetDocumentationRequest { package: "review.v1".to_owned(), revision };
        check(&client.get_documentation(request).await.unwrap_err(), Code::NotFound, "REVISION_UNKNOWN");
    }
    let request = proto::GetPackageRequest { package: "nothing.v1".to_owned() };
    check(&client.get_package(request).await.unwrap_err(), Code::NotFound, "PACKAGE_UNKNOWN");
}
