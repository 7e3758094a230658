//! The two proxies, started alike.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::place::{OF_PROXIES, Process};

/// Longest wait for a proxy to answer its first request.
const READY_MAX: Duration = Duration::from_secs(60);

/// What a proxy does beside its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Nothing.
    Plain,
    /// A trace and an access log line of every request by OTLP, and a local limit that is never reached.
    AllOn,
}

/// Addresses of the others.
#[derive(Clone, Debug)]
pub(crate) struct Others {
    /// The service, as `host:port`.
    pub(crate) service: String,
    /// The collector, as `host:port`.
    pub(crate) collector: String,
}

/// A proxy that runs.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Process,
    /// Where REST is spoken.
    pub(crate) rest: String,
    /// Where gRPC is spoken.
    pub(crate) grpc: String,
    /// Where the platform is; empty for Envoy, which has none.
    pub(crate) platform: String,
    _folder: TempDir,
}

impl Proxy {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts our edge: the whole platform in one process, as `ninefold up` runs it.
    pub(crate) fn ninefold(manners: Manners, collector: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let binary = match std::env::var_os("NINEFOLD_BINARY") {
            Some(path) => PathBuf::from(path),
            None => std::env::current_exe()?.with_file_name("ninefold"),
        };
        ensure!(binary.exists(), "{} is not built: cargo build --release -p ninefold-cli", binary.display());
        let (binary, data) = (binary.display().to_string(), folder.path().join("data").display().to_string());
        let mut words = vec![binary.as_str(), "up", "-o", "json", "--data", &data];
        for flag in ["--edge-listen", "--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
            words.extend([flag, "127.0.0.1:0"]);
        }
        let settings = folder.path().join("ninefold.toml");
        if manners == Manners::AllOn {
            std::fs::write(&settings, "[gateway]\nrate_limit = { per_second = 1000000, burst = 1000000 }\n")?;
        } else {
            std::fs::write(&settings, "")?;
        }
        let settings = settings.display().to_string();
        words.extend(["--config", &settings]);
        let collector = format!("http://{collector}");
        let environment = match manners {
            Manners::Plain => ("OTEL_SDK_DISABLED", "true"),
            Manners::AllOn => ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
        };
        let mut process = Process::start(OF_PROXIES, &words, &[environment])?;
        let facts: Value = serde_json::from_str(&process.line()?)?;
        let address = |which: &str| facts[which].as_str().map(str::to_owned).with_context(|| which.to_owned());
        let (edge, platform) = (address("edge")?, address("platform")?);
        Ok(Self { process, rest: edge.clone(), grpc: edge, platform, _folder: folder })
    }

    /// Starts Envoy with one worker: a listener that transcodes, and one that passes gRPC through.
    pub(crate) fn envoy(manners: Manners, others: &Others) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let tools = std::env::var_os("NINEFOLD_TOOLS").context("NINEFOLD_TOOLS is not set")?;
        let binary = Path::new(&tools).join("venv/bin/envoy").display().to_string();
        let set = folder.path().join("contract.binpb");
        std::fs::write(&set, crate::service::pb::DESCRIPTOR_SET)?;
        let (rest, grpc) = (free_address()?, free_address()?);
        let config = json!({"static_resources": {
            "listeners": [
                listener("rest", &rest, &filters(manners, Some(&set)), manners),
                listener("grpc", &grpc, &filters(manners, None), manners),
            ],
            "clusters": [cluster("service", &others.service), cluster("collector", &others.collector)],
        }});
        let path = folder.path().join("envoy.json");
        std::fs::write(&path, config.to_string())?;
        let path = path.display().to_string();
        let words = [&binary, "-c", &path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
            .map(AsRef::as_ref);
        let words: Vec<&str> = words.to_vec();
        let process = Process::start(OF_PROXIES, &words, &[])?;
        Ok(Self { process, rest, grpc, platform: String::new(), _folder: folder })
    }

    /// Waits until an order is taken.
    pub(crate) fn ready(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let plan = json!({"kind": "rest", "address": self.rest, "lanes": 1, "per_second": 0, "pid": self.pid(),
                "lines": 1, "millis": 10});
            match crate::table::ask(&plan) {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > READY_MAX => bail!("no order is taken: {error:#}"),
                Err(_) => {}
            }
        }
    }
}

fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn socket(address: &str) -> Value {
    let (host, port) = address.split_once(':').unwrap_or((address, "0"));
    json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap_or_default()}})
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/{kind}"));
    json!({"name": name, "typed_config": config})
}

fn cluster(name: &str, address: &str) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(address)}},
        ]}]},
    })
}

fn filters(manners: Manners, contract: Option<&Path>) -> Vec<Value> {
    let mut filters = Vec::new();
    if manners == Manners::AllOn {
        let bucket = json!({"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"});
        let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
        filters.push(typed(
            "envoy.filters.http.local_ratelimit",
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            json!({"stat_prefix": "limit", "token_bucket": bucket, "filter_enabled": always, "filter_enforced": always}),
        ));
    }
    if let Some(contract) = contract {
        filters.push(typed(
            "envoy.filters.http.grpc_json_transcoder",
            "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            json!({
                "proto_descriptor": contract.display().to_string(),
                "services": ["bench.edge.v1.OrderService"],
                "convert_grpc_status": true,
            }),
        ));
    }
    filters.push(typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", json!({})));
    filters
}

fn listener(name: &str, address: &str, filters: &[Value], manners: Manners) -> Value {
    let mut manager = json!({
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "service", "timeout": "15s"}},
        ]}]},
        "http_filters": filters,
    });
    if manners == Manners::AllOn {
        let collector = json!({"envoy_grpc": {"cluster_name": "collector"}, "timeout": "5s"});
        manager["tracing"] = json!({"provider": typed(
            "envoy.tracers.opentelemetry",
            "envoy.config.trace.v3.OpenTelemetryConfig",
            json!({"grpc_service": collector, "service_name": "envoy"}),
        )});
        let field = |key: &str, text: &str| json!({"key": key, "value": {"string_value": text}});
        manager["access_log"] = json!([typed(
            "envoy.access_loggers.open_telemetry",
            "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            json!({
                "common_config": {"log_name": "access", "grpc_service": collector, "transport_api_version": "V3"},
                "body": {"string_value": "request answered"},
                "attributes": {"values": [
                    field("http.request.method", "%REQ(:METHOD)%"),
                    field("http.route", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
                    field("http.response.status_code", "%RESPONSE_CODE%"),
                    field("grpc.code", "%GRPC_STATUS%"),
                    field("protocol", "%PROTOCOL%"),
                    field("upstream.address", "%UPSTREAM_HOST%"),
                    field("duration_ms", "%DURATION%"),
                ]},
            }),
        )]);
    }
    json!({
        "name": name,
        "address": socket(address),
        "filter_chains": [{"filters": [typed(
            "envoy.filters.network.http_connection_manager",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            manager,
        )]}],
    })
}
