//! What stands beside samples, over restarts: what metrics are, and exemplars. One file, written anew when it changed.
//!
//! It is not in the journal: what was said of metrics is said again with every export, and of exemplars only some are kept
//! anyway. A death loses what came in the last seconds.

use std::io::Write as _;
use std::path::Path;

use ninefold_promql::Labels;
use serde::{Deserialize, Serialize};

use super::about::About;
use super::exemplars::{Exemplar, Said};

/// Name of the file, in the folder of samples.
const FILE: &str = "beside";
/// Largest file that is read, unpacked.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// How hard it is packed.
const ZSTD_LEVEL: i32 = 1;

type Pairs = Vec<(String, String)>;

/// What the file says.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Beside {
    /// What metrics are, by name.
    about: Vec<(String, About)>,
    /// Series, and when, how much and with which labels something was measured.
    exemplars: Vec<(Pairs, i64, f64, Pairs)>,
}

fn pairs(labels: &Labels) -> Pairs {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Beside {
    /// Takes what is known.
    pub(crate) fn new(about: Vec<(String, About)>, exemplars: Vec<Said>) -> Self {
        // A value that is no number has no place in JSON, and says nothing.
        let exemplars = exemplars.into_iter().filter(|(_, exemplar)| exemplar.value.is_finite());
        let told = |(series, of): Said| (pairs(&series), of.at, of.value, pairs(&of.labels));
        Self { about, exemplars: exemplars.map(told).collect() }
    }

    /// Gives what is known: what metrics are, and exemplars.
    pub(crate) fn into_parts(self) -> (Vec<(String, About)>, Vec<Said>) {
        let said = |(series, at, value, labels): (Pairs, i64, f64, Pairs)| {
            (Labels::new(series), Exemplar { at, value, labels: Labels::new(labels) })
        };
        (self.about, self.exemplars.into_iter().map(said).collect())
    }

    /// Writes the file in one step: it is the old one or the new one, whenever a node dies. Blocks.
    pub(crate) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let packed = zstd::bulk::compress(&serde_json::to_vec(self)?, ZSTD_LEVEL)?;
        let next = folder.join(format!("{FILE}.part"));
        let mut file = std::fs::File::create(&next)?;
        file.write_all(&packed)?;
        file.sync_all()?;
        std::fs::rename(next, folder.join(FILE))
    }

    /// Reads the file; nothing where there is none. One that cannot be read is told of, and passed over. Blocks.
    pub(crate) fn read(folder: &Path) -> Self {
        let read = std::fs::read(folder.join(FILE)).and_then(|packed| zstd::bulk::decompress(&packed, BYTES_MAX));
        let read = read.and_then(|plain| serde_json::from_slice(&plain).map_err(std::io::Error::from));
        read.unwrap_or_else(|error| {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, "what is known of metrics beside their samples could not be read");
            }
            Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::about::Type;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Beside::read(folder.path()).about.is_empty());
        let about = vec![("m".to_owned(), About { of: Type::Counter, unit: "s".to_owned(), help: "it".to_owned() })];
        let exemplar = |value| Exemplar { at: 7, value, labels: Labels::new([("trace_id", "t")]) };
        let series = Labels::new([("__name__", "m"), ("job", "cart")]);
        let said = vec![(series.clone(), exemplar(0.1)), (series.clone(), exemplar(f64::NAN))];
        Beside::new(about.clone(), said).write(folder.path()).expect("there is room");
        let read = Beside::read(folder.path()).into_parts();
        assert_eq!(read, (about, vec![(series, exemplar(0.1))]));
        std::fs::write(folder.path().join(FILE), "no").expect("there is room");
        assert!(Beside::read(folder.path()).about.is_empty());
    }
}
