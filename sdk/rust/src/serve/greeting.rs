//! The first words of a connection, which no protocol's own limits watch over.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

/// How every HTTP/2 connection begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause between two looks at a preface that comes in parts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until a new connection has said so much that its protocol is known, for `within` at the longest; tells whether
/// it has. Nothing is taken from the stream.
///
/// Servers find out first whether HTTP/1 or HTTP/2 is spoken, and set no limit to that; without this a stranger keeps a
/// place for good by saying nothing, or half of the first word.
pub async fn greeted(stream: &TcpStream, within: Duration) -> bool {
    let end = Instant::now() + within;
    let mut first = [0; PREFACE.len()];
    loop {
        let Ok(Ok(bytes @ 1..)) = tokio::time::timeout_at(end, stream.peek(&mut first)).await else { return false };
        if bytes == first.len() || first[..bytes] != PREFACE[..bytes] {
            return true;
        }
        // What was seen is seen again at once, so more of it, and the end, is waited for by the clock.
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
