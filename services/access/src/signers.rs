//! The public keys of edges, by which services verify what an edge says of a caller.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ninefold::fault;
use ninefold_proto::ninefold::access::v1 as proto;
use ninefold_store::{Key, Op, Store, Txn};
use proto::signer_service_server::SignerService;
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

use crate::error::Error;

/// Where the keys lie, by what names them.
const SIGNERS: &str = "access/signers/";
/// How long a key is remembered after it was last published: longer than anything that it signed is worth something.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Most keys that are told.
const SIGNERS_MAX: usize = 1000;
/// Longest name of a key.
const KID_CHARS_MAX: usize = 64;
/// Letters of 32 bytes in base64 without padding.
const X_CHARS: usize = 43;

/// Answers for the keys of edges.
#[derive(Clone, Debug)]
pub(crate) struct Signers {
    store: Arc<dyn Store>,
}

/// A key as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Record {
    x: String,
    expires_seconds: u64,
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Signers {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    async fn put(&self, key: proto::Jwk) -> Result<(), Error> {
        let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
        if (key.kty.as_str(), key.crv.as_str(), key.alg.as_str()) != ("OKP", "Ed25519", "EdDSA") {
            return Err(Error::SignerInvalid("it is none of Ed25519"));
        }
        if key.x.len() != X_CHARS || !key.x.bytes().all(is_letter) {
            return Err(Error::SignerInvalid("x is not 32 bytes in base64url"));
        }
        if !(1..=KID_CHARS_MAX).contains(&key.kid.len()) || !key.kid.bytes().all(is_letter) {
            return Err(Error::SignerInvalid("kid is not 1 to 64 letters, digits and hyphens"));
        }
        let now = SystemTime::now();
        let record = Record { x: key.x, expires_seconds: unix(now + LIFE) };
        let value = serde_json::to_vec(&record).expect("a record of texts and numbers is JSON");
        let mut ops =
            vec![Op::Put { key: Key::new(format!("{SIGNERS}{}", key.kid)), value: value.into(), lease: None }];
        let expired = self.all().await?.into_iter().filter(|(_, record)| record.expires_seconds <= unix(now));
        ops.extend(expired.take(50).map(|(kid, _)| Op::Delete(Key::new(format!("{SIGNERS}{kid}")))));
        let txn = Txn { compares: Vec::new(), ops };
        self.store.txn(txn).await.map_err(|source| Error::Store { doing: "write the key of an edge", source })?;
        Ok(())
    }

    async fn all(&self) -> Result<Vec<(String, Record)>, Error> {
        let found = self.store.range(&Key::new(SIGNERS), None, SIGNERS_MAX).await;
        let found = found.map_err(|source| Error::Store { doing: "read the keys of edges", source })?;
        Ok(found
            .entries
            .iter()
            .filter_map(|entry| {
                let kid = entry.key.as_str().strip_prefix(SIGNERS)?.to_owned();
                Some((kid, serde_json::from_slice(&entry.value).ok()?))
            })
            .collect())
    }

    async fn list(&self) -> Result<proto::ListSignersResponse, Error> {
        let now = unix(SystemTime::now());
        let living = self.all().await?.into_iter().filter(|(_, record)| record.expires_seconds > now);
        let keys = living.map(|(kid, record)| proto::Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: record.x,
            kid,
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
        });
        Ok(proto::ListSignersResponse { keys: keys.collect() })
    }
}

#[tonic::async_trait]
impl SignerService for Signers {
    async fn put_signer(
        &self,
        request: Request<proto::PutSignerRequest>,
    ) -> Result<Response<proto::PutSignerResponse>, Status> {
        let key = request.into_inner().key.unwrap_or_default();
        self.put(key).await.map_err(|error| fault::status(&error))?;
        Ok(Response::new(proto::PutSignerResponse {}))
    }

    async fn list_signers(
        &self,
        _: Request<proto::ListSignersRequest>,
    ) -> Result<Response<proto::ListSignersResponse>, Status> {
        self.list().await.map(Response::new).map_err(|error| fault::status(&error))
    }
}
