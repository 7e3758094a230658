//! Lines of all nodes as they come in: a stream of each, joined.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{Stream, StreamExt as _};
use ninefold::lifecycle::Stop;
use ninefold_proto::ninefold::monitor::v1::{FollowLinesRequest, FollowLinesResponse, MissingNode};
use tokio::time::Instant;

use super::Neighbours;
use super::question::{Client, Neighbour, why};
use crate::error::Error;
use crate::follow::Follower;
use crate::model::{Kept, LineFilter};
use crate::tier::Followed;
use crate::wire::neighbour as wire;

/// How often it is looked whether there is a node that is not followed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for the others' first lines; who comes later is followed all the same.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Lines as they come in, and of which nodes none come.
#[derive(Debug, Default)]
pub(crate) struct Tailed {
    /// The lines.
    pub(crate) followed: Followed,
    /// Nodes that are not followed since the message before.
    pub(crate) missing: Vec<MissingNode>,
}

/// What one node says.
enum Said {
    Own(Result<Followed, Error>),
    Other(String, FollowLinesResponse),
    Over(String, String),
}

type Streams = SelectAll<BoxStream<'static, Said>>;

struct Tail {
    neighbours: Arc<Neighbours>,
    filter: LineFilter,
    streams: Streams,
    followed: HashSet<String>,
    /// Nodes of which it was told that they are missing.
    told: HashSet<String>,
    first: Option<Tailed>,
    look: Instant,
    stop: Stop,
}

/// Lines of one node, and then why there are no more.
async fn follow(other: Neighbour, request: FollowLinesRequest) -> Result<BoxStream<'static, Said>, (String, String)> {
    let name = other.name.clone();
    let Some(mut client): Option<Client> = other.client() else {
        return Err((name, "its address means nothing".to_owned()));
    };
    let stream = match client.follow_lines(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err((name, why(&status))),
    };
    let said = futures_util::stream::unfold(Some((stream, name)), |state| async {
        let (mut stream, name) = state?;
        match stream.message().await {
            Ok(Some(some)) => Some((Said::Other(name.clone(), some), Some((stream, name)))),
            Ok(None) => Some((Said::Over(name, "it ended".to_owned()), None)),
            Err(status) => Some((Said::Over(name, why(&status)), None)),
        }
    });
    Ok(said.boxed())
}

fn kept(some: FollowLinesResponse) -> Vec<Arc<Kept>> {
    some.lines.into_iter().filter_map(wire::line_of).map(Arc::new).collect()
}

/// Follows the lines of all nodes, beginning with the newest `backlog` of those that are there.
pub(crate) async fn tail(
    neighbours: Arc<Neighbours>,
    own: Follower,
    filter: LineFilter,
    backlog: usize,
    stop: Stop,
) -> impl Stream<Item = Result<Tailed, Error>> + Send + 'static {
    let mut streams = Streams::new();
    streams.push(own.stream().map(Said::Own).boxed());
    let look = Instant::now();
    let (followed, told) = (HashSet::new(), HashSet::new());
    let mut tail = Tail { neighbours, filter, streams, followed, told, first: None, look, stop };
    tail.first = tail.begin(backlog).await;
    futures_util::stream::unfold(Some(tail), |tail| async move {
        let mut tail = tail?;
        match tail.next().await {
            Some(Ok(tailed)) => Some((Ok(tailed), Some(tail))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    })
}

impl Tail {
    /// Begins with what all nodes have; nothing where this node has no others.
    async fn begin(&mut self, backlog: usize) -> Option<Tailed> {
        self.neighbours.own()?;
        let missing = self.look_around(backlog).await;
        let mut first = Tailed { missing, ..Tailed::default() };
        let mut waited_for: HashSet<String> = self.followed.clone();
        waited_for.insert(String::new());
        let end = Instant::now() + FIRST_WAIT;
        while !waited_for.is_empty() {
            let Ok(Some(said)) = tokio::time::timeout_at(end, self.streams.next()).await else { break };
            match said {
                Said::Own(Ok(some)) => {
                    waited_for.remove("");
                    first.followed.records.extend(some.records);
                    first.followed.missed += some.missed;
                }
                Said::Own(Err(_)) => break,
                Said::Other(name, some) => {
                    waited_for.remove(&name);
                    first.followed.missed += some.missed;
                    first.followed.records.extend(kept(some));
                }
                Said::Over(name, why) => {
                    waited_for.remove(&name);
                    first.missing.extend(self.over(name, why));
                }
            }
        }
        let records = &mut first.followed.records;
        records.sort_by_key(|kept| (kept.line.time, kept.sequence));
        let more = records.len().saturating_sub(backlog);
        records.drain(..more);
        Some(first)
    }

    /// Follows nodes that are not followed; answers those that cannot be, of which it was not told.
    async fn look_around(&mut self, backlog: usize) -> Vec<MissingNode> {
        self.look = Instant::now() + LOOK_EVERY;
        let (nodes, unknown) = self.neighbours.nodes().await;
        let mut missing: Vec<MissingNode> = Vec::new();
        if let Some(why) = unknown {
            missing.extend(self.over("(others)".to_owned(), why));
        }
        let others = self.neighbours.others(&nodes).into_iter().filter(|other| !self.followed.contains(&other.name));
        let request = FollowLinesRequest {
            filter: Some(wire::line_filter(&self.filter)),
            backlog: u64::try_from(backlog).unwrap_or(u64::MAX),
        };
        let begun = others.map(|other| {
            let (name, request) = (other.name.clone(), request.clone());
            async move {
                let late = || Err((name.clone(), "it did not answer in time".to_owned()));
                let outcome = tokio::time::timeout(FIRST_WAIT, follow(other, request)).await;
                (name.clone(), outcome.unwrap_or_else(|_| late()))
            }
        });
        for (name, outcome) in futures_util::future::join_all(begun).await {
            match outcome {
                Ok(stream) => {
                    self.told.remove(&name);
                    self.followed.insert(name);
                    self.streams.push(stream);
                }
                Err((name, why)) => missing.extend(self.over(name, why)),
            }
        }
        missing
    }

    /// Notes that a node is not followed; answers it if it was not told.
    fn over(&mut self, node: String, why: String) -> Option<MissingNode> {
        self.followed.remove(&node);
        self.told.insert(node.clone()).then_some(MissingNode { node, why })
    }

    async fn next(&mut self) -> Option<Result<Tailed, Error>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        loop {
            let has_others = self.neighbours.own().is_some();
            tokio::select! {
                said = self.streams.next() => match said? {
                    Said::Own(followed) => {
                        return Some(followed.map(|followed| Tailed { followed, missing: Vec::new() }));
                    }
                    Said::Other(_, some) if some.lines.is_empty() && some.missed == 0 => {}
                    Said::Other(_, some) => {
                        let missed = some.missed;
                        let followed = Followed { records: kept(some), missed, through: 0 };
                        return Some(Ok(Tailed { followed, missing: Vec::new() }));
                    }
                    Said::Over(name, why) => if let Some(missing) = self.over(name, why) {
                        return Some(Ok(Tailed { missing: vec![missing], ..Tailed::default() }));
                    },
                },
                () = tokio::time::sleep_until(self.look), if has_others => {
                    let missing = self.look_around(0).await;
                    if !missing.is_empty() {
                        return Some(Ok(Tailed { missing, ..Tailed::default() }));
                    }
                }
                () = self.stop.asked() => return None,
            }
        }
    }
}
