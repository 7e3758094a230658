//! What the composite may rely on.

use ninefold::fault::{self, Fault as _};
use ninefold::tonic::{Code, Request, Status};
use shop_backend::{Backend, Settings, Tuning};

use crate::pb::product_service_server::ProductService as _;
use crate::pb::{CreateProductRequest, DeleteProductRequest, GetProductRequest, ListProductsRequest, Product};
use crate::{MIGRATIONS, Service};

async fn service(folder: &tempfile::TempDir) -> Service {
    let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
    let backend = Backend::open("product", "product-1", &settings, &MIGRATIONS, Tuning::default).await;
    Service::new(backend.expect("the database opens"))
}

async fn get(service: &Service, product_id: i32) -> Result<Product, Status> {
    let response = service.get_product(Request::new(GetProductRequest { product_id })).await?.into_inner();
    assert_eq!(response.service_address, "product-1");
    Ok(response.product.expect("an answer has a product"))
}

async fn create(service: &Service, product: Product) -> Result<(), Status> {
    service.create_product(Request::new(CreateProductRequest { product: Some(product) })).await.map(drop)
}

async fn delete(service: &Service, product_id: i32) -> Result<(), Status> {
    service.delete_product(Request::new(DeleteProductRequest { product_id })).await.map(drop)
}

async fn list(service: &Service, page_size: i32, page_token: String) -> Result<(Vec<i32>, String), Status> {
    let request = Request::new(ListProductsRequest { page_size, page_token });
    let page = service.list_products(request).await?.into_inner();
    Ok((page.products.iter().map(|product| product.product_id).collect(), page.next_page_token))
}

fn kettle(product_id: i32) -> Product {
    Product { product_id, name: "Kettle".into(), weight_grams: 940 }
}

#[tokio::test]
async fn a_product_lives_from_create_to_delete() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder).await;
    create(&service, kettle(77)).await.unwrap();
    assert_eq!(get(&service, 77).await.unwrap(), kettle(77));

    let again = create(&service, kettle(77)).await.unwrap_err();
    assert_eq!((again.code(), fault::reason(&again).as_deref()), (Code::AlreadyExists, Some("PRODUCT_EXISTS")));

    delete(&service, 77).await.unwrap();
    delete(&service, 77).await.expect("removing what is not there succeeds");
    let gone = get(&service, 77).await.unwrap_err();
    assert_eq!((gone.code(), fault::reason(&gone).as_deref()), (Code::NotFound, Some("PRODUCT_UNKNOWN")));
}

#[tokio::test]
async fn pages_hold_every_product_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder).await;
    let (all, end) = list(&service, 0, String::new()).await.unwrap();
    assert_eq!(end, "");
    assert!(all.len() > 10, "the shop is empty: {all:?}");

    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let (page, next) = list(&service, 5, token).await.unwrap();
        assert!(page.len() <= 5);
        seen.extend(page);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
    assert_eq!(list(&service, 5, "nonsense".into()).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn malformed_requests_are_refused_with_every_violation() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder).await;
    assert_eq!(get(&service, 0).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(delete(&service, -1).await.unwrap_err().code(), Code::InvalidArgument);

    let malformed = Product { product_id: 0, name: String::new(), weight_grams: -1 };
    let error = crate::table::checked(Some(malformed)).unwrap_err();
    let fields: Vec<_> = error.violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["product.product_id", "product.name", "product.weight_grams"]);
}

#[tokio::test]
async fn two_instances_that_start_together_fill_the_shop_once() {
    let folder = tempfile::tempdir().unwrap();
    let starting: Vec<_> = std::iter::repeat_with(|| service(&folder)).take(6).collect();
    let [a, b, c, d, e, f] = <[_; 6]>::try_from(starting).unwrap_or_else(|_| unreachable!("six were taken"));
    let (first, ..) = tokio::join!(a, b, c, d, e, f);
    let (products, _) = list(&first, 100, String::new()).await.unwrap();
    assert_eq!(products.len(), 12, "{products:?}");
}

#[tokio::test]
async fn a_product_that_was_deleted_does_not_come_back_with_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    delete(&service(&folder).await, 1).await.unwrap();
    assert_eq!(get(&service(&folder).await, 1).await.unwrap_err().code(), Code::NotFound);
}
