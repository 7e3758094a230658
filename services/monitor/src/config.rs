//! Settings of the monitor.

use std::time::Duration;

use serde::Deserialize;

const MIB: usize = 1024 * 1024;

/// How much the monitor takes in and keeps. Every bound was chosen so that a node with full memory stays below 320 MiB.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Memory for log lines; the oldest are forgotten to stay below it.
    pub logs_bytes_max: usize,
    /// Memory for spans; the oldest are forgotten to stay below it.
    pub spans_bytes_max: usize,
    /// Memory for the newest values of series; the longest silent are forgotten to stay below it.
    pub series_bytes_max: usize,
    /// Most series. Of their newest values the longest silent are forgotten to stay below it; samples of new ones are refused.
    pub series_max: usize,
    /// Memory for the samples of series, which PromQL asks; the oldest are forgotten to stay below it.
    pub samples_bytes_max: usize,
    /// How long samples are kept, where there is memory for them.
    #[serde(with = "ninefold::settings::duration")]
    pub samples_age_max: Duration,
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            logs_bytes_max: 64 * MIB,
            spans_bytes_max: 64 * MIB,
            series_bytes_max: 64 * MIB,
            series_max: 100_000,
            samples_bytes_max: 64 * MIB,
            samples_age_max: Duration::from_secs(86_400),
            body_bytes_max: 4 * MIB,
            in_flight_bytes_max: 32 * MIB,
            body_wait: Duration::from_secs(10),
            captured_lines_max: 8192,
            followers_max: 256,
        }
    }
}
