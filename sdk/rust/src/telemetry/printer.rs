//! Writes lines to a standard stream from a thread of its own.
//!
//! The reader of a pipe may be slow or gone, such as the node that supervised this process; a write would then block a
//! worker, or fail. Here it costs lines, and nothing else.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::Output;
use crate::error::Error;

/// Most lines that wait to be written; more are dropped.
const LINES_MAX: usize = 8192;

/// Longest wait of [`Printer::flush`].
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// A standard stream. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Printer(SyncSender<Entry>);

#[derive(Debug)]
enum Entry {
    Line(String),
    Flush(SyncSender<()>),
}

impl Printer {
    /// Starts the thread that writes. It ends with the last clone.
    pub(super) fn start(output: Output) -> Result<Self, Error> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        std::thread::Builder::new()
            .name("ninefold.print".to_owned())
            .spawn(move || write_all(output, &receiver))
            .map_err(|source| Error::Telemetry { what: "the thread that writes log lines", source: source.into() })?;
        Ok(Self(sender))
    }

    /// Writes a line, or drops it if too many wait.
    pub(super) fn write(&self, line: String) {
        let _ = self.0.try_send(Entry::Line(line));
    }

    /// Waits until what was written is out, for a moment at the longest.
    pub(super) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.0.try_send(Entry::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(FLUSH_MAX);
        }
    }
}

fn write_all(output: Output, entries: &Receiver<Entry>) {
    let mut out: Box<dyn Write> = match output {
        Output::Stdout => Box::new(std::io::stdout()),
        Output::Stderr => Box::new(std::io::stderr()),
    };
    for entry in entries {
        // A write that fails is ignored: there is nobody left to tell.
        match entry {
            Entry::Line(line) => {
                let _ = out.write_all(line.as_bytes());
            }
            Entry::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}
