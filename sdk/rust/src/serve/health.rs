//! Health and reflection, which every server offers.

use bytes::Bytes;
use prost::Message as _;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::ServeConfig;
use crate::error::Error;

/// What a server says about its health. Clones are the same.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: std::sync::Arc<std::sync::OnceLock<Vec<String>>>,
}

impl Health {
    /// Makes a health that says `SERVING`.
    pub fn new() -> Self {
        Self { reporter: HealthReporter::new(), services: std::sync::Arc::default() }
    }

    /// Says `NOT_SERVING` from now on, for the server and all its services.
    pub async fn drain(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    /// Says `SERVING` again.
    pub async fn resume(&self) {
        self.say(ServingStatus::Serving).await;
    }

    async fn say(&self, status: ServingStatus) {
        self.reporter.set_service_status("", status).await;
        for service in self.services.get().into_iter().flatten() {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds health and reflection to the routes.
pub(super) fn add(routes: Routes, config: &ServeConfig) -> Result<Routes, Error> {
    let mut services = config.services.clone();
    if services.is_empty() {
        for set in &config.descriptor_sets {
            services.extend(services_of(set)?);
        }
    }
    services.sort();
    services.dedup();
    for service in &services {
        // Made known before the first call can ask; the lock cannot be taken yet, so this never waits.
        futures_util::FutureExt::now_or_never(
            config.health.reporter.set_service_status(service, ServingStatus::Serving),
        );
    }
    let _ = config.health.services.set(services.clone());

    let reflection = || {
        let own = [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        let known =
            config.descriptor_sets.iter().fold(tonic_reflection::server::Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            });
        services.iter().map(String::as_str).chain(own).fold(
            known
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET),
            |builder, service| builder.with_service_name(service),
        )
    };
    let failed = |error: tonic_reflection::server::Error| Error::Descriptors { source: error.into() };
    let health = HealthServer::new(HealthService::from_health_reporter(config.health.reporter.clone()));
    Ok(routes
        .add_service(health)
        .add_service(reflection().build_v1().map_err(failed)?)
        .add_service(reflection().build_v1alpha().map_err(failed)?))
}

/// Full names of the services that a descriptor set describes.
pub(crate) fn services_of(set: &Bytes) -> Result<Vec<String>, Error> {
    let set = prost_types::FileDescriptorSet::decode(set.clone())
        .map_err(|error| Error::Descriptors { source: error.into() })?;
    let services = set.file.iter().flat_map(|file| {
        file.service.iter().map(|service| match file.package() {
            "" => service.name().to_owned(),
            package => format!("{package}.{}", service.name()),
        })
    });
    Ok(services.collect())
}
