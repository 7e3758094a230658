//! Settings of the monitor.

use std::path::PathBuf;
use std::time::Duration;

use ninefold::fault::Violation;
use serde::Deserialize;

use crate::{bucket, forward, mask, parse, shares};

const MIB: usize = 1024 * 1024;
const GIB: u64 = 1024 * 1024 * 1024;
const DAY: u64 = 24 * 3600;

/// How much the monitor takes in and keeps. Every bound of memory was chosen so that a node stays below 512 MiB.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the journal and the files. Without one all is kept in memory, and forgotten when the node ends; a node
    /// takes `telemetry` in its data folder unless it is told otherwise.
    pub path: Option<PathBuf>,
    /// Memory for what is acknowledged, and in the journal, but not in a file yet. Beyond it telemetry is refused.
    pub unfiled_bytes_max: usize,
    /// What is not in a file yet is written to one when it is so old, or half of `unfiled_bytes_max`.
    #[serde(with = "ninefold::settings::duration")]
    pub file_every: Duration,
    /// How often small files are put together, and old ones removed.
    #[serde(with = "ninefold::settings::duration")]
    pub tidy_every: Duration,
    /// Log lines older than this are forgotten.
    #[serde(with = "ninefold::settings::duration")]
    pub logs_age_max: Duration,
    /// Spans older than this are forgotten.
    #[serde(with = "ninefold::settings::duration")]
    pub spans_age_max: Duration,
    /// Measurements older than this are forgotten.
    #[serde(with = "ninefold::settings::duration")]
    pub metrics_age_max: Duration,
    /// Disk for log lines; the oldest files are removed to stay below it.
    pub logs_disk_bytes_max: u64,
    /// Disk for spans; the oldest files are removed to stay below it.
    pub spans_disk_bytes_max: u64,
    /// Disk for measurements; the oldest files are removed to stay below it.
    pub metrics_disk_bytes_max: u64,
    /// Most rows of files that one question looks at.
    pub query_rows_max: u64,
    /// Most records that one statement of SQL is asked of.
    pub sql_records_max: u64,
    /// Memory for the records that a statement of SQL is asked of; one statement is answered at a time.
    pub sql_bytes_max: usize,
    /// Longest time for one question.
    #[serde(with = "ninefold::settings::duration")]
    pub query_wait: Duration,
    /// Most questions that read files at a time; others wait.
    pub queries_max: usize,
    /// Memory for log lines; the oldest are forgotten to stay below it, those that are in files.
    pub logs_bytes_max: usize,
    /// Memory for spans where there is no folder; the oldest are forgotten to stay below it.
    pub spans_bytes_max: usize,
    /// Memory for the newest values of series; the longest silent are forgotten to stay below it.
    pub series_bytes_max: usize,
    /// Most series. Of their newest values the longest silent are forgotten to stay below it; samples of new ones are refused.
    pub series_max: usize,
    /// Memory for the samples of series, which PromQL asks; the oldest are forgotten to stay below it, those that are in
    /// files.
    pub samples_bytes_max: usize,
    /// Samples older than this are forgotten.
    #[serde(with = "ninefold::settings::duration")]
    pub samples_age_max: Duration,
    /// Samples older than this are made few: about one every two minutes, with extremes and resets.
    #[serde(with = "ninefold::settings::duration")]
    pub samples_fine_for: Duration,
    /// Disk for samples; the oldest files are removed to stay below it.
    pub samples_disk_bytes_max: u64,
    /// How often samples go from the journal to a file.
    #[serde(with = "ninefold::settings::duration")]
    pub samples_file_every: Duration,
    /// Largest OTLP request, after decompression.
    pub body_bytes_max: usize,
    /// Most bytes of OTLP requests that are being read at a time; more are refused with a word when to come back.
    pub in_flight_bytes_max: usize,
    /// Longest wait for the body of an OTLP/HTTP request.
    #[serde(with = "ninefold::settings::duration")]
    pub body_wait: Duration,
    /// Most captured lines of child processes that wait to be taken in; the oldest are dropped and counted.
    pub captured_lines_max: usize,
    /// Most followers of log lines at a time.
    pub followers_max: usize,
    /// What is masked before anything is written. The document `monitor` may say otherwise while the node runs.
    pub mask: mask::Config,
    /// How lines that programs print are read. The document `monitor` may say otherwise.
    pub lines: parse::Config,
    /// Who may send how much. The document `monitor` may say otherwise.
    pub limits: shares::Config,
    /// Where the other nodes of a landscape ask this one, such as `http://10.0.0.5:9900`. The address of the platform's door
    /// unless told otherwise; the name of the machine where that is every address.
    pub advertise: Option<String>,
    /// Where what comes in is handed on to.
    pub forward: forward::Config,
    /// Where files are kept beside the folder.
    pub bucket: bucket::Config,
}

impl Config {
    /// What cannot work, although it can be read.
    pub fn mistakes(&self) -> Vec<Violation> {
        let wrong = self.mask.mistakes().into_iter().chain(self.lines.mistakes());
        let told = |text: String| {
            let (field, why) = text.split_once(": ").unwrap_or((text.as_str(), "cannot work"));
            Violation::new(field, why)
        };
        let is_url = |text: &String| {
            let uri = text.parse::<http::Uri>().ok();
            uri.is_some_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")))
        };
        let odd = self.advertise.iter().filter(|text| !is_url(text));
        let odd =
            odd.map(|text| Violation::new("advertise", format!("{text:?} is no URL such as http://10.0.0.5:9900")));
        wrong.map(told).chain(odd).chain(self.forward.mistakes()).chain(self.bucket.mistakes()).collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: None,
            unfiled_bytes_max: 64 * MIB,
            file_every: Duration::from_secs(30),
            tidy_every: Duration::from_secs(20),
            logs_age_max: Duration::from_secs(7 * DAY),
            spans_age_max: Duration::from_secs(7 * DAY),
            metrics_age_max: Duration::from_secs(30 * DAY),
            logs_disk_bytes_max: 4 * GIB,
            spans_disk_bytes_max: 4 * GIB,
            metrics_disk_bytes_max: 2 * GIB,
            query_rows_max: 200_000_000,
            sql_records_max: 1_000_000,
            sql_bytes_max: 128 * MIB,
            query_wait: Duration::from_secs(10),
            queries_max: 4,
            logs_bytes_max: 64 * MIB,
            spans_bytes_max: 64 * MIB,
            series_bytes_max: 64 * MIB,
            series_max: 100_000,
            samples_bytes_max: 64 * MIB,
            samples_age_max: Duration::from_secs(30 * DAY),
            samples_fine_for: Duration::from_secs(7 * DAY),
            samples_disk_bytes_max: 2 * GIB,
            samples_file_every: Duration::from_secs(300),
            body_bytes_max: 16 * MIB,
            in_flight_bytes_max: 64 * MIB,
            body_wait: Duration::from_secs(10),
            captured_lines_max: 8192,
            followers_max: 256,
            mask: mask::Config::default(),
            lines: parse::Config::default(),
            limits: shares::Config::default(),
            advertise: None,
            forward: forward::Config::default(),
            bucket: bucket::Config::default(),
        }
    }
}
