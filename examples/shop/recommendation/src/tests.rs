//! What the composite may rely on.

use ninefold::fault::{self, Fault as _};
use ninefold::tonic::{Code, Request, Status};
use shop_backend::{Backend, Settings, Tuning};

use crate::pb::recommendation_service_server::RecommendationService as _;
use crate::pb::{
    CreateRecommendationsRequest, DeleteRecommendationsRequest, ListRecommendationsRequest, Recommendation,
};
use crate::{MIGRATIONS, Service};

async fn service(folder: &tempfile::TempDir) -> Service {
    let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::default() };
    let backend = Backend::open("recommendation", "recommendation-1", &settings, &MIGRATIONS, Tuning::default).await;
    Service::new(backend.expect("the database opens"))
}

async fn list(service: &Service, product_id: i32) -> Result<Vec<Recommendation>, Status> {
    let request = ListRecommendationsRequest { product_id, ..ListRecommendationsRequest::default() };
    Ok(service.list_recommendations(Request::new(request)).await?.into_inner().recommendations)
}

async fn create(service: &Service, product_id: i32, recommendations: Vec<Recommendation>) -> Result<(), Status> {
    let request = CreateRecommendationsRequest { product_id, recommendations };
    service.create_recommendations(Request::new(request)).await.map(drop)
}

async fn delete(service: &Service, product_id: i32) -> Result<(), Status> {
    service.delete_recommendations(Request::new(DeleteRecommendationsRequest { product_id })).await.map(drop)
}

fn warm(recommendation_id: i32) -> Recommendation {
    Recommendation { recommendation_id, author: "Ada".into(), rate: 5, content: "Buy it.".into() }
}

#[tokio::test]
async fn recommendations_are_added_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder).await;
    create(&service, 77, vec![warm(1), warm(2)]).await.unwrap();
    let taken = create(&service, 77, vec![warm(3), warm(2)]).await.unwrap_err();
    assert_eq!((taken.code(), fault::reason(&taken).as_deref()), (Code::AlreadyExists, Some("RECOMMENDATION_EXISTS")));
    assert_eq!(list(&service, 77).await.unwrap(), [warm(1), warm(2)]);
}

#[tokio::test]
async fn removing_what_is_not_there_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder).await;
    assert_eq!(list(&service, 1).await.unwrap().len(), 3);
    delete(&service, 1).await.unwrap();
    delete(&service, 1).await.unwrap();
    assert!(list(&service, 1).await.unwrap().is_empty());
    assert_eq!(list(&service, 2).await.unwrap().len(), 3);
}

#[tokio::test]
async fn malformed_recommendations_are_refused_with_every_violation() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(&folder).await;
    assert_eq!(list(&service, 0).await.unwrap_err().code(), Code::InvalidArgument);

    let cold = Recommendation { rate: 9, author: String::new(), ..warm(2) };
    let error = crate::table::check(0, &[warm(1), cold]).unwrap_err();
    let fields: Vec<_> = error.violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["product_id", "recommendations[1].author", "recommendations[1].rate"]);
    assert!(crate::table::check(5, &[warm(1), warm(1)]).is_err());
}

#[tokio::test]
async fn two_instances_share_the_data_of_their_service() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = tokio::join!(service(&folder), service(&folder));
    create(&one, 77, vec![warm(1)]).await.unwrap();
    assert_eq!(list(&other, 77).await.unwrap(), [warm(1)]);
    assert_eq!(list(&other, 1).await.unwrap().len(), 3);
}
