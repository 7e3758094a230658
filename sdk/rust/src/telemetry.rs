//! What a process tells about itself: log lines on its standard output, and logs, spans and measurements by OTLP.
//!
//! Telemetry never stands in the way of the service: queues are bounded and drop what does not fit, the exporters have
//! threads of their own, and a standard output that is full, slow or closed costs lines, not calls.

mod context;
mod count;
mod export;
pub mod journal;
mod lines;
mod machine;
mod measured;
mod printer;
mod process;
mod requests;
mod rotate;
mod served;

use std::time::Duration;

use http::Uri;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use context::{continue_trace, extract, inject, rename, trace_id};
pub use count::Count;
pub use journal::Journal;
pub use measured::{Measure, Measured, measure};
pub(crate) use process::cpu_seconds;
pub use requests::Requests;
pub use served::{Served, TRACE_ID_HEADER};

use crate::credentials::Credentials;
use crate::error::{Error, Mistake};
use crate::settings::is_endpoint;
use export::Exporters;
use lines::Lines;
use printer::Printer;

/// Libraries whose chatter below warnings is left out: they speak of every frame, and those of the exporter itself would
/// never end.
const QUIET: [&str; 7] = ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry", "opentelemetry_sdk"];

/// What to tell, and to whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where OTLP over gRPC is taken; tried in turn. Empty to export nothing.
    pub endpoints: Vec<Uri>,
    /// Who this process is to whoever takes its telemetry.
    pub credentials: Credentials,
    /// What is logged, in the directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Where log lines are printed.
    pub output: Output,
    /// What is printed, where that is less than what is logged.
    pub printed: Option<String>,
    /// How printed log lines look.
    pub format: Format,
    /// How long spans and log records are gathered before they leave.
    pub batch_delay: Duration,
    /// How often measurements leave.
    pub measure_every: Duration,
    /// Most spans, and most log records, that wait to leave; what does not fit is dropped.
    pub queue_max: usize,
}

/// Where log lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// On the standard output, where supervisors look.
    Stdout,
    /// On the standard error, for programs whose standard output is data.
    Stderr,
}

/// How printed log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            credentials: Credentials::default(),
            filter: "info".to_owned(),
            output: Output::Stdout,
            printed: None,
            format: Format::Auto,
            batch_delay: Duration::from_millis(250),
            measure_every: Duration::from_secs(2),
            queue_max: 8192,
        }
    }
}

impl Config {
    /// Reads `NINEFOLD_LOG` or `RUST_LOG`, `NINEFOLD_LOG_FORMAT`, `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SDK_DISABLED`.
    /// Without an endpoint of its own, telemetry goes to `platform`. `credentials` are shown to hosts of the platform only.
    ///
    /// # Errors
    /// [`Error::Settings`] with all that cannot be used.
    pub fn from_env(platform: &[Uri], credentials: &Credentials) -> Result<Self, Error> {
        let mut mistakes = Vec::new();
        let config = Self::read(&|name| std::env::var(name).ok(), platform, credentials, &mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(Error::Settings(mistakes)) }
    }

    /// Reads the settings from `lookup`; adds what cannot be used to `mistakes`.
    pub(crate) fn read(
        lookup: &dyn Fn(&str) -> Option<String>,
        platform: &[Uri],
        credentials: &Credentials,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut config = Self { endpoints: platform.to_vec(), ..Self::default() };
        let mut refuse = |setting: &str, value: String, problem: String| {
            mistakes.push(Mistake { setting: setting.to_owned(), value, problem });
        };
        let named = |name: &'static str| lookup(name).filter(|value| !value.is_empty()).map(|value| (name, value));

        if let Some((name, value)) = named("NINEFOLD_LOG").or_else(|| named("RUST_LOG")) {
            match EnvFilter::try_new(&value) {
                Ok(_) => config.filter = value,
                Err(error) => {
                    refuse(name, value, format!("is no log filter, such as info or my_crate=debug ({error})"));
                }
            }
        }
        if let Some((name, value)) = named("NINEFOLD_LOG_FORMAT") {
            match value.as_str() {
                "auto" => config.format = Format::Auto,
                "human" => config.format = Format::Human,
                "json" => config.format = Format::Json,
                _ => refuse(name, value, "is none of auto, human, json".to_owned()),
            }
        }
        if let Some((name, value)) = named("OTEL_EXPORTER_OTLP_ENDPOINT") {
            match value.parse::<Uri>() {
                Ok(uri) if is_endpoint(&uri) => {
                    config.endpoints = vec![uri];
                }
                _ => refuse(name, value, "is no address such as http://127.0.0.1:4317".to_owned()),
            }
        }
        if let Some((name, value)) = named("OTEL_EXPORTER_OTLP_PROTOCOL")
            && value != "grpc"
        {
            refuse(name, value, "this service exports telemetry by grpc only".to_owned());
        }
        if named("OTEL_SDK_DISABLED").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")) {
            config.endpoints = Vec::new();
        }
        config.credentials = credentials.among(platform, &config.endpoints);
        config
    }
}

/// Who tells.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the service, such as `product`.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Version of the program.
    pub version: String,
}

/// Telemetry that was started. Dropped, it writes out the log lines that still wait; [`flush`](Self::flush) does the same
/// for what leaves by OTLP.
#[derive(Debug)]
#[must_use = "what is told late is lost when this is dropped without a flush"]
pub struct Telemetry {
    exporters: Option<Exporters>,
    printer: Option<Printer>,
}

/// Starts telemetry for this process. Call it within a tokio runtime.
///
/// A process has one telemetry: started a second time, as tests do that run two services in one process, the second tells
/// what it has to tell through the first, under the first one's name.
///
/// # Errors
/// [`Error::Telemetry`] if an exporter cannot be made; [`Error::Settings`] for a malformed filter.
pub fn start(config: &Config, identity: &Identity) -> Result<Telemetry, Error> {
    let printed = filter(config.printed.as_ref().unwrap_or(&config.filter))?;
    let printer = Printer::start(config.output)?;
    let lines = Lines::new(config.output, config.format, identity, printer.clone()).with_filter(printed);

    let (exporters, layers) = if config.endpoints.is_empty() {
        (None, None)
    } else {
        let exporters = Exporters::start(config, identity)?;
        let spans = exporters.span_layer().with_filter(FilterFn::new(is_span_of_ours));
        let logs = exporters.log_layer().with_filter(filter(&config.filter)?);
        (Some(exporters), Some(spans.and_then(logs)))
    };
    let installed = tracing_subscriber::registry().with(layers).with(lines).try_init().is_ok();
    if !installed {
        tracing::debug!("telemetry was started before in this process; the first is kept");
        return Ok(Telemetry { exporters: None, printer: None });
    }
    if let Some(exporters) = &exporters {
        exporters.measure();
    }
    Ok(Telemetry { exporters, printer: Some(printer) })
}

impl Telemetry {
    /// Opens a journal that is kept under the name of `identity`, which may be another than that of the process.
    ///
    /// # Errors
    /// [`Error::Telemetry`] if an exporter cannot be made.
    pub fn journal(&self, config: &Config, identity: &Identity) -> Result<Journal, Error> {
        self.exporters.as_ref().map_or_else(|| Ok(Journal::silent()), |exporters| exporters.journal(config, identity))
    }

    /// Sends and writes what still waits, for `deadline` at the longest.
    pub async fn flush(&self, deadline: Duration) {
        if let Some(exporters) = &self.exporters {
            exporters.flush(deadline).await;
        }
        if let Some(printer) = &self.printer {
            printer.flush();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(printer) = &self.printer {
            printer.flush();
        }
    }
}

/// The log filter of `directives`, with the chatter of libraries left out.
fn filter(directives: &str) -> Result<EnvFilter, Error> {
    let quiet = QUIET.map(|target| format!("{target}=warn")).join(",");
    EnvFilter::try_new(format!("{quiet},{directives}")).map_err(|error| {
        let problem = format!("is no log filter ({error})");
        Error::Settings(vec![Mistake { setting: "NINEFOLD_LOG".to_owned(), value: directives.to_owned(), problem }])
    })
}

/// Spans are exported whatever the log filter says, or quieter logs would tear traces.
fn is_span_of_ours(metadata: &tracing::Metadata<'_>) -> bool {
    let target = metadata.target();
    let root = target.split_once("::").map_or(target, |(root, _)| root);
    metadata.is_span() && *metadata.level() <= tracing::Level::INFO && !QUIET.contains(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Config, Vec<Mistake>) {
        let mut mistakes = Vec::new();
        let platform = [Uri::from_static("http://127.0.0.1:9900")];
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        (Config::read(&lookup, &platform, &Credentials::default(), &mut mistakes), mistakes)
    }

    #[test]
    fn telemetry_goes_to_the_platform_unless_told_otherwise() {
        assert_eq!(read(&[]).0.endpoints, ["http://127.0.0.1:9900/"]);
        let (config, _) = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://10.0.0.1:4317")]);
        assert_eq!(config.endpoints, ["http://10.0.0.1:4317/"]);
        assert!(read(&[("OTEL_SDK_DISABLED", "true")]).0.endpoints.is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let variables = [
            ("RUST_LOG", "a=b=c"),
            ("NINEFOLD_LOG_FORMAT", "xml"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ];
        let told: Vec<_> = read(&variables).1.into_iter().map(|mistake| mistake.setting).collect();
        assert_eq!(told, variables.map(|(name, _)| name));
    }
}
