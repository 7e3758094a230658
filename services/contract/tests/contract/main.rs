//! The contract store as its users meet it: through its gRPC face, on the embedded store.

mod cases;
mod gate;
mod hostile;
mod mutation;
mod oracle;
mod vectors;
mod world;

use std::sync::Arc;
use std::time::Duration;

use ninefold::Link;
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold_contract::{Config, Contract, Deps, Digest, Strictness};
use ninefold_proto::ninefold::contract::v1 as proto;
use ninefold_store::{self as store, Key, Op, Store, Txn};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use proto::contract_service_client::ContractServiceClient;
use proto::package_service_client::PackageServiceClient;
use tonic::service::RoutesBuilder;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

struct House {
    client: ContractServiceClient<Link>,
    packages: PackageServiceClient<Link>,
    store: Arc<dyn Store>,
    scope: Scope,
    folder: tempfile::TempDir,
}

impl House {
    async fn start() -> Self {
        Self::with(Config::default(), tempfile::tempdir().expect("a folder can be made")).await
    }

    async fn with(config: Config, folder: tempfile::TempDir) -> Self {
        let scope = Scope::root("test");
        let settings = store::Config { path: folder.path().to_owned(), ..store::Config::default() };
        let store = store::open(&settings, &scope).await.expect("the store opens");
        let link = link(config, store.clone(), &scope).await;
        let (client, packages) = (client(link.clone()), PackageServiceClient::new(link));
        Self { client, packages, store, scope, folder }
    }

    /// Stops everything, and starts it again on the same data.
    async fn restart(self) -> Self {
        drop((self.client, self.packages, self.store));
        assert_eq!(self.scope.close(Duration::from_secs(10)).await, [] as [&str; 0]);
        Self::with(Config::default(), self.folder).await
    }

    async fn put(&self, service: &str, descriptor_set: &[u8]) -> Result<proto::Contract, Status> {
        let (service, descriptor_set) = (service.to_owned(), descriptor_set.to_vec());
        let request = proto::PutContractRequest { service, descriptor_set, protobuf_services: Vec::new() };
        let answer = self.client.clone().put_contract(request).await?.into_inner();
        Ok(answer.contract.expect("the answer holds the contract"))
    }

    async fn is_known(&self, digest: &str) -> bool {
        let request = proto::CheckContractRequest { digest: digest.to_owned(), service: String::new() };
        self.client.clone().check_contract(request).await.expect("a check is answered").into_inner().known
    }

    async fn get(&self, digest: &str) -> Result<proto::GetContractResponse, Status> {
        let request = proto::GetContractRequest { digest: digest.to_owned() };
        Ok(self.client.clone().get_contract(request).await?.into_inner())
    }

    async fn list(
        &self,
        service: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<proto::ListContractsResponse, Status> {
        let (service, page_token) = (service.to_owned(), page_token.to_owned());
        let request = proto::ListContractsRequest { service, page_size, page_token };
        Ok(self.client.clone().list_contracts(request).await?.into_inner())
    }
}

async fn serve(config: Config, store: Arc<dyn Store>, scope: &Scope) -> ContractServiceClient<Link> {
    client(link(config, store, scope).await)
}

fn client(link: Link) -> ContractServiceClient<Link> {
    // As a reader does that takes every contract.
    ContractServiceClient::new(link).max_decoding_message_size(16 * 1024 * 1024)
}

async fn link(config: Config, store: Arc<dyn Store>, scope: &Scope) -> Link {
    let deps = Deps { store, registry: None, remembered: None };
    let contract = Contract::start(config, deps, scope).await.expect("the contract store starts");
    let mut routes = RoutesBuilder::default();
    contract.add_to(&mut routes);
    Link::from(routes.routes())
}

/// A contract of about `size` bytes, unlike those of other numbers.
fn contract(number: usize, size: usize) -> Vec<u8> {
    let pad = |part| format!("pad_{part}_{}", "x".repeat(100));
    let message = |part| prost_types::DescriptorProto { name: Some(pad(part)), ..Default::default() };
    let file = FileDescriptorProto {
        name: Some(format!("shop/v{number}/shop.proto")),
        package: Some(format!("shop.v{number}")),
        syntax: Some("proto3".to_owned()),
        message_type: (0..size / 116).map(message).collect(),
        service: vec![prost_types::ServiceDescriptorProto { name: Some("Shop".to_owned()), ..Default::default() }],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn check(status: &Status, code: Code, reason: &str) {
    assert_eq!((status.code(), fault::reason(status).as_deref()), (code, Some(reason)), "{status:?}");
}

#[tokio::test]
async fn a_contract_is_unknown_until_it_is_handed_in_and_then_kept_byte_by_byte() {
    let house = House::start().await;
    let set = ninefold_proto::DESCRIPTOR_SET;
    let digest = Digest::of(set).to_string();
    assert!(!house.is_known(&digest).await);
    check(&house.get(&digest).await.unwrap_err(), Code::NotFound, "CONTRACT_UNKNOWN");

    let put = house.put("platform", set).await.unwrap();
    assert_eq!(
        (put.digest.as_str(), put.service.as_str(), put.edition.as_str()),
        (digest.as_str(), "platform", "proto3")
    );
    assert_eq!(usize::try_from(put.size_bytes).unwrap(), set.len());
    assert!(put.packages.contains(&"ninefold.registry.v1".to_owned()) && put.create_time.is_some());
    assert!(house.is_known(&digest).await);
    assert_eq!(house.get(&digest).await.unwrap().descriptor_set, set);

    let again = house.put("somebody-else", set).await.unwrap();
    assert_eq!(again, put, "who was first stays");
    assert_eq!(house.list("", 0, "").await.unwrap().contracts, std::slice::from_ref(&put));

    let house = house.restart().await;
    let got = house.get(&digest).await.unwrap();
    assert_eq!((got.contract, got.descriptor_set.as_slice()), (Some(put), set), "it outlives the process");
}

#[tokio::test]
async fn a_contract_of_many_pieces_comes_back_whole() {
    let house = House::start().await;
    let set = contract(1, 5 * 1024 * 1024);
    let put = house.put("shop", &set).await.unwrap();
    // A second reader has nothing in memory.
    let other = serve(Config::default(), house.store.clone(), &house.scope).await;
    let request = proto::GetContractRequest { digest: put.digest };
    let got = other.clone().get_contract(request).await.unwrap().into_inner();
    assert!(got.descriptor_set == set, "{} bytes came back of {}", got.descriptor_set.len(), set.len());
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_name_or_by_the_transport() {
    let house = House::start().await;
    let refused = house.put("shop", &vec![0; 8 * 1024 * 1024 + 1]).await.unwrap_err();
    check(&refused, Code::InvalidArgument, "CONTRACT_TOO_LARGE");
    let refused = house.put("shop", &vec![0; 64 * 1024 * 1024]).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert!(refused.message().contains("too large"), "{refused:?}");
    house.put("shop", &contract(1, 100)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_contract_is_refused_with_the_place() {
    let house = House::start().await;
    let itself = FileDescriptorProto {
        name: Some("a.proto".to_owned()),
        dependency: vec!["a.proto".to_owned()],
        ..Default::default()
    };
    let whole = contract(1, 1000);
    for (bytes, place) in [
        (b"no contract at all".to_vec(), "the set"),
        (Vec::new(), "the set has no file"),
        (FileDescriptorSet { file: vec![itself] }.encode_to_vec(), "a.proto imports itself"),
        (whole[..whole.len() - 3].to_vec(), "the set is cut off"),
    ] {
        let refused = house.put("shop", &bytes).await.unwrap_err();
        check(&refused, Code::InvalidArgument, "CONTRACT_MALFORMED");
        let violation = refused.get_details_bad_request().unwrap().field_violations.remove(0);
        assert_eq!(violation.field, "descriptor_set");
        assert!(violation.description.starts_with(place), "{violation:?}");
        assert!(!house.is_known(Digest::of(&bytes).as_str()).await);
    }
    assert_eq!(house.list("", 0, "").await.unwrap().contracts, []);
    for name in ["", "Shop", "a/b", &"s".repeat(64)] {
        check(&house.put(name, &whole).await.unwrap_err(), Code::InvalidArgument, "SERVICE_NAME_INVALID");
    }
}

#[tokio::test]
async fn a_contract_of_an_edition_is_kept_as_it_came() {
    let house = House::start().await;
    let mut file = FileDescriptorProto {
        name: Some("shop.proto".to_owned()),
        syntax: Some("editions".to_owned()),
        ..Default::default()
    }
    .encode_to_vec();
    // Field 14, edition 2023, which the generated types do not know.
    file.extend([0x70, 0xe8, 0x07]);
    let mut set = vec![0x0a, u8::try_from(file.len()).unwrap()];
    set.extend(file);
    let put = house.put("shop", &set).await.unwrap();
    assert_eq!(put.edition, "2023");
    assert_eq!(house.get(&put.digest).await.unwrap().descriptor_set, set);
}

#[tokio::test]
async fn contracts_are_listed_newest_first_page_by_page() {
    let config = Config { level: Strictness::Off, ..Config::default() };
    let house = House::with(config, tempfile::tempdir().unwrap()).await;
    for number in 0..7 {
        let service = if number % 2 == 0 { "even" } else { "odd" };
        house.put(service, &contract(number, 0)).await.unwrap();
    }
    for (service, wanted) in
        [("", &[6, 5, 4, 3, 2, 1, 0][..]), ("even", &[6, 4, 2, 0]), ("odd", &[5, 3, 1]), ("no", &[])]
    {
        let mut seen = Vec::new();
        let mut token = String::new();
        loop {
            let page = house.list(service, 2, &token).await.unwrap();
            assert!(page.contracts.len() <= 2);
            seen.extend(page.contracts.into_iter().flat_map(|one| one.packages));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, wanted.iter().map(|number| format!("shop.v{number}")).collect::<Vec<_>>());
    }
    check(&house.list("", 0, "x").await.unwrap_err(), Code::InvalidArgument, "PAGE_TOKEN_INVALID");
    check(&house.list("", -1, "").await.unwrap_err(), Code::InvalidArgument, "PAGE_SIZE_INVALID");
    check(&house.get("sha256:1").await.unwrap_err(), Code::InvalidArgument, "DIGEST_INVALID");
}

#[tokio::test]
async fn many_that_hand_in_the_same_at_once_agree_on_who_was_first() {
    let house = House::start().await;
    let set = contract(1, 600 * 1024);
    let puts = (0..8).map(|number| {
        let (house, set) = (&house, &set);
        async move { house.put(&format!("shop-{number}"), set).await.unwrap() }
    });
    let all = futures_util::future::join_all(puts).await;
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(house.list("", 0, "").await.unwrap().contracts.len(), 1);
}

#[tokio::test]
async fn a_contract_that_is_damaged_in_the_store_is_not_handed_out() {
    let house = House::start().await;
    let put = house.put("shop", &contract(1, 2000)).await.unwrap();
    let key = Key::new(format!("contract/chunk/{}/00000", put.digest));
    let ops = vec![Op::Put { key, value: contract(2, 2000).into(), lease: None }];
    house.store.txn(Txn { compares: Vec::new(), ops }).await.unwrap();
    let other = serve(Config::default(), house.store.clone(), &house.scope).await;
    let refused = other.clone().get_contract(proto::GetContractRequest { digest: put.digest }).await.unwrap_err();
    check(&refused, Code::DataLoss, "CONTRACT_DAMAGED");
}

#[tokio::test]
async fn no_more_contracts_are_kept_than_may_be() {
    let config = Config { contracts_max: 2, level: Strictness::Off, ..Config::default() };
    let house = House::with(config, tempfile::tempdir().unwrap()).await;
    for number in 0..2 {
        house.put("shop", &contract(number, 0)).await.unwrap();
    }
    check(&house.put("shop", &contract(2, 0)).await.unwrap_err(), Code::FailedPrecondition, "CONTRACTS_FULL");
    house.put("shop", &contract(1, 0)).await.expect("a known one is welcome");
}
