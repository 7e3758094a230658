//! Hands a node's listening sockets to the process that takes its place, so that no connection is refused in between.
//!
//! A node listens at `handover.sock` in its data folder, which only its own user may open. Its heir asks there, and five
//! short lines and one message with the sockets go back and forth: the heir has what it needs to start; the node lets go of
//! all but its edge and its children; the heir starts, and its edge knows all routes; the node ends. The sockets listen
//! throughout, so whoever connects while nobody takes connections waits in their queue.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::exit::Failure;

/// Where an heir asks, in the data folder.
const SOCKET: &str = "handover.sock";
/// What an heir says first. The number changes with what is said after it.
const HELLO: &str = "ninefold handover 1";
/// The heir has the sockets, and all that it can find out without the store is in order.
const TAKEN: &str = "taken";
/// The store is free.
const FREE: &str = "free";
/// The heir answers.
const READY: &str = "ready";
/// Most sockets that change hands.
const SOCKETS_MAX: usize = 8;
/// Longest line.
const LINE_BYTES_MAX: usize = 256;
/// Longest wait for a word that its sayer has only to say.
const WORD_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a word that its sayer has to work for: to close a store, to start all roles.
const WORK_MAX: Duration = Duration::from_secs(120);

/// Sockets that listen, by what they are for.
pub(super) type Sockets = BTreeMap<&'static str, TcpListener>;

/// What sockets are for, as it is said on the way.
const NAMES: [&str; 5] = ["edge", "platform", "otlp-grpc", "otlp-http", "inner"];

/// Where heirs are waited for. The place is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Post {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl Drop for Post {
    fn drop(&mut self) {
        // If it stays, the next node removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Post {
    /// Begins to wait in a data folder. A place that a former life left behind is made anew.
    pub(super) fn open(data: &Path) -> std::io::Result<Self> {
        let path = data.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = tokio::net::UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Waits for somebody who says that it wants to take over. Cancel safe.
    pub(super) async fn heir(&self) -> Talk {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Nothing but a lack of descriptors, which passes.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(talk) = stream.into_std().and_then(Talk::over) else { continue };
            match talk.hear(WORD_MAX).await {
                Ok((talk, line)) if line == HELLO => return talk,
                Ok((_, line)) => tracing::warn!(line, "somebody at the handover socket does not speak as an heir"),
                Err(_) => {}
            }
        }
    }
}

/// A conversation between a node and its heir.
#[derive(Debug)]
pub(crate) struct Talk(BufReader<UnixStream>);

impl Talk {
    fn over(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(WORD_MAX))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks the node that uses a data folder. `None` if there is none.
    pub(super) fn with(data: &Path) -> std::io::Result<Option<Self>> {
        match UnixStream::connect(data.join(SOCKET)) {
            Ok(stream) => {
                let mut talk = Self::over(stream)?;
                talk.say(HELLO)?;
                Ok(Some(talk))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    /// Waits for the next line. It blocks a thread of its own, and not an async worker.
    async fn hear(mut self, within: Duration) -> std::io::Result<(Self, String)> {
        let heard = tokio::task::spawn_blocking(move || -> std::io::Result<(Self, String)> {
            self.0.get_ref().set_read_timeout(Some(within))?;
            let mut line = String::new();
            std::io::Read::take(&mut self.0, LINE_BYTES_MAX as u64).read_line(&mut line)?;
            match line.strip_suffix('\n') {
                Some(text) => Ok((self, text.to_owned())),
                None => Err(ErrorKind::UnexpectedEof.into()),
            }
        });
        heard.await.unwrap_or_else(|_| Err(std::io::Error::other("the wait was given up")))
    }

    async fn expect(self, word: &str, within: Duration) -> std::io::Result<Self> {
        let (talk, line) = self.hear(within).await?;
        if line == word {
            Ok(talk)
        } else {
            Err(std::io::Error::other(format!("{line:?} was said instead of {word:?}")))
        }
    }

    /// Gives the sockets, and waits until the heir has them.
    pub(super) async fn give(mut self, sockets: &Sockets) -> std::io::Result<Self> {
        let names = sockets.keys().copied().collect::<Vec<_>>().join(" ") + "\n";
        let descriptors: Vec<BorrowedFd<'_>> = sockets.values().map(std::os::fd::AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        if !message.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(std::io::Error::other("more sockets than one message holds"));
        }
        sendmsg(self.0.get_mut().as_fd(), &[IoSlice::new(names.as_bytes())], &mut message, SendFlags::empty())?;
        self.expect(TAKEN, WORD_MAX).await
    }

    /// Takes the sockets.
    pub(super) async fn take(self) -> std::io::Result<(Self, Sockets)> {
        let taken = tokio::task::spawn_blocking(move || -> std::io::Result<(Self, Sockets)> {
            self.0.get_ref().set_read_timeout(Some(WORD_MAX))?;
            let (mut names, mut descriptors) = (Vec::new(), Vec::new());
            while names.last() != Some(&b'\n') && names.len() < LINE_BYTES_MAX {
                let mut bytes = [0; LINE_BYTES_MAX];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
                let mut message = RecvAncillaryBuffer::new(&mut space);
                let slices = &mut [IoSliceMut::new(&mut bytes)];
                let read = recvmsg(self.0.get_ref().as_fd(), slices, &mut message, RecvFlags::CMSG_CLOEXEC)?.bytes;
                if read == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                for one in message.drain() {
                    if let RecvAncillaryMessage::ScmRights(found) = one {
                        descriptors.extend(found);
                    }
                }
                names.extend_from_slice(&bytes[..read]);
            }
            Ok((self, named(&names, descriptors)?))
        });
        taken.await.unwrap_or_else(|_| Err(std::io::Error::other("the wait was given up")))
    }

    /// Says that the sockets are in good hands, and waits until the store is free.
    pub(super) async fn taken(mut self) -> std::io::Result<Self> {
        self.say(TAKEN)?;
        self.expect(FREE, WORK_MAX).await
    }

    /// Says that the store is free, and waits until the heir answers in this node's place.
    pub(super) async fn freed(mut self) -> std::io::Result<()> {
        self.say(FREE)?;
        self.expect(READY, WORK_MAX).await.map(drop)
    }

    /// Says that this node answers now.
    pub(super) fn ready(mut self) -> std::io::Result<()> {
        self.say(READY)
    }
}

/// The sockets by their names. Those that this version does not know are closed.
fn named(names: &[u8], descriptors: Vec<OwnedFd>) -> std::io::Result<Sockets> {
    let names = std::str::from_utf8(names).map_err(|_| std::io::Error::from(ErrorKind::InvalidData))?;
    let named = names.split_ascii_whitespace().zip(descriptors);
    let known = |name: &str| NAMES.into_iter().find(|known| *known == name);
    Ok(named.filter_map(|(name, socket)| Some((known(name)?, TcpListener::from(socket)))).collect())
}

/// Says why nothing is taken over.
pub(super) fn failed(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("the node that runs did not hand over: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_change_hands_and_listen_throughout() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Talk::with(folder.path()).unwrap().is_none(), "nobody is there");
        let post = Post::open(folder.path()).unwrap();
        let edge = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = edge.local_addr().unwrap();
        let heir = async {
            let (talk, sockets) = Talk::with(folder.path()).unwrap().unwrap().take().await.unwrap();
            talk.taken().await.unwrap().ready().unwrap();
            sockets
        };
        let node = async {
            let sockets = Sockets::from([("edge", edge)]);
            let talk = post.heir().await.give(&sockets).await.unwrap();
            drop(sockets);
            // Nobody takes connections, and nobody is refused.
            let waiting = tokio::net::TcpStream::connect(address).await.unwrap();
            talk.freed().await.unwrap();
            waiting
        };
        let (sockets, waiting) = tokio::join!(heir, node);
        let (_, from) = sockets["edge"].accept().unwrap();
        assert_eq!(from, waiting.local_addr().unwrap());
        drop(post);
        assert!(Talk::with(folder.path()).unwrap().is_none(), "the place is gone");
    }
}
