//! A crowd of watchers, each with a stream of its own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ninefold::Link;
use ninefold::lifecycle::{OnError, Scope};
use ninefold_proto::ninefold::registry::v1 as words;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use words::hold_watch_request::Message as Say;
use words::hold_watch_response::Message as Told;
use words::registry_service_client::RegistryServiceClient;

use crate::house::House;

/// Watchers that share a connection.
const PER_CONNECTION: usize = 100;
/// Services that one watcher follows, beside the one that all follow.
const FOLLOWED: usize = 9;
/// Longest wait for all of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// A crowd of watchers.
pub(crate) struct Watchers {
    seen: mpsc::Receiver<(String, Instant)>,
    crowd: usize,
    _scope: Scope,
}

impl Watchers {
    /// Starts them, and waits until all have their snapshot.
    pub(crate) async fn start(house: &House, crowd: usize) -> Result<Self> {
        let scope = Scope::root("watchers");
        let (tell, seen) = mpsc::channel(crowd * 2);
        let mut link = None;
        for number in 0..crowd {
            if number % PER_CONNECTION == 0 {
                link = Some(ninefold::connect::platform(std::slice::from_ref(&house.endpoint)));
            }
            let (link, tell) = (link.clone().context("made before")?, tell.clone());
            scope.spawn("bench.watch", OnError::Log, move |_| async move {
                watch(link, number, tell).await.map_err(|error| std::io::Error::other(error.to_string()))
            });
        }
        let mut watchers = Self { seen, crowd, _scope: scope };
        watchers.all("").await?;
        Ok(watchers)
    }

    /// How long each took, from `begin` to the message that names the instance.
    pub(crate) async fn all_saw(&mut self, id: &str, begin: Instant) -> Result<Vec<Duration>> {
        Ok(self.all(id).await?.into_iter().map(|at| at.duration_since(begin)).collect())
    }

    async fn all(&mut self, id: &str) -> Result<Vec<Instant>> {
        let mut times = Vec::with_capacity(self.crowd);
        let gather = async {
            while times.len() < self.crowd {
                let (seen, at) = self.seen.recv().await.context("watchers live")?;
                if seen == id {
                    times.push(at);
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, gather).await.context("not all watchers have seen it")??;
        Ok(times)
    }
}

/// Follows, acknowledges, and tells each new instance of the service that all follow; an empty id for the snapshot.
async fn watch(link: Link, number: usize, tell: mpsc::Sender<(String, Instant)>) -> Result<()> {
    let mut services = vec!["probe".to_owned()];
    services.extend((0..FOLLOWED).map(|offset| format!("service-{}", (number * 7 + offset * 101) % 1000)));
    let (say, said) = mpsc::channel(4);
    let open = words::OpenWatch { services, watcher: format!("bench/{number}"), ..Default::default() };
    say.try_send(words::HoldWatchRequest { message: Some(Say::Open(open)) })?;
    let mut told = RegistryServiceClient::new(link).hold_watch(ReceiverStream::new(said)).await?.into_inner();
    while let Some(message) = told.message().await? {
        let at = Instant::now();
        match message.message {
            Some(Told::Snapshot(_)) => tell.send((String::new(), at)).await?,
            Some(Told::Delta(delta)) => {
                for instance in delta.upserts.into_iter().filter(|instance| instance.service == "probe") {
                    tell.send((instance.instance_id, at)).await?;
                }
            }
            Some(Told::Heartbeat(_)) | None => continue,
        }
        let acknowledge = Say::Acknowledge(words::AcknowledgeRevision { revision: message.revision });
        // One that is behind with its acknowledgements gives the next.
        let _ = say.try_send(words::HoldWatchRequest { message: Some(acknowledge) });
    }
    Ok(())
}
