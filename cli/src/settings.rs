//! A node's settings: flags and variables over the file over defaults. All mistakes of the file are told at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ninefold::fault::Violation;
use ninefold_access::{Authentication, Door, Openness};
use ninefold_store::Backend;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::args::{AuthKind, NodeArgs, StoreKind};
use crate::exit::Failure;

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Listen,
    pub(crate) data: PathBuf,
    pub(crate) store: ninefold_store::Config,
    pub(crate) contract: ninefold_contract::Config,
    pub(crate) registry: ninefold_registry::Config,
    pub(crate) config: ninefold_config::Config,
    pub(crate) monitor: ninefold_monitor::Config,
    pub(crate) alert: ninefold_alert::Config,
    pub(crate) control: ninefold_control::Config,
    pub(crate) gateway: ninefold_gateway::Config,
    pub(crate) access: ninefold_access::Config,
    /// Who reaches the node, and whether they are asked who they are.
    pub(crate) openness: Openness,
    pub(crate) dialect: ninefold_dialect::Config,
}

/// Where a node listens. Port 0 picks one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// REST, gRPC and gRPC-Web for the outside.
    pub(crate) edge: SocketAddr,
    /// The platform's gRPC API and its page.
    pub(crate) platform: SocketAddr,
    /// OTLP over gRPC.
    pub(crate) otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub(crate) otlp_http: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { edge: loopback(8080), platform: loopback(9900), otlp_grpc: loopback(4317), otlp_http: loopback(4318) }
    }
}

impl Listen {
    /// The doors of the platform. The edge is for strangers, and is none of them.
    fn doors(&self) -> [Door; 3] {
        [
            Door { address: self.platform, flag: "--listen" },
            Door { address: self.otlp_grpc, flag: "--otlp-grpc-listen" },
            Door { address: self.otlp_http, flag: "--otlp-http-listen" },
        ]
    }
}

/// The settings of a node whose data lies in `data` unless it is told otherwise.
pub(crate) fn load(args: &NodeArgs, data: &Path) -> Result<Settings, Failure> {
    let mut file = match &args.config {
        Some(path) => File::read(path)?,
        None => File::empty(),
    };
    let mut listen: Listen = file.section("listen");
    listen.edge = args.edge_listen.unwrap_or(listen.edge);
    listen.platform = args.listen.unwrap_or(listen.platform);
    listen.otlp_grpc = args.otlp_grpc_listen.unwrap_or(listen.otlp_grpc);
    listen.otlp_http = args.otlp_http_listen.unwrap_or(listen.otlp_http);

    let from_file: Option<PathBuf> = file.value("data");
    let data = args.data.clone().or(from_file).unwrap_or_else(|| data.to_owned());

    let has_path = file.rest.get("store").and_then(|store| store.get("path")).is_some();
    let mut store: ninefold_store::Config = file.section("store");
    if !has_path {
        store.path = data.join("store");
    }
    match args.store {
        Some(StoreKind::Embedded) => store.backend = Backend::Embedded,
        Some(StoreKind::Etcd) => store.backend = Backend::Etcd,
        None if !args.etcd.is_empty() => store.backend = Backend::Etcd,
        None => {}
    }
    if !args.etcd.is_empty() {
        store.etcd.clone_from(&args.etcd);
    }

    let access = access(args, file.section("access"));
    if args.insecure && access.authentication != Authentication::Off {
        let told = "--insecure says that nobody is asked who they are, --auth that everybody is: say one of them";
        return Err(Failure::Usage(told.to_owned()));
    }
    let is_secure = access.tls_cert.is_some();
    let openness = ninefold_access::judge(&listen.doors(), access.authentication, is_secure, args.insecure);
    let mut dialect: ninefold_dialect::Config = file.section("dialect");
    dialect.dns_listen = args.dns_listen.or(dialect.dns_listen);
    let mut monitor: ninefold_monitor::Config = file.section("monitor");
    monitor.path.get_or_insert_with(|| data.join("telemetry"));

    let settings = Settings {
        listen,
        data,
        store,
        contract: file.section("contract"),
        registry: file.section("registry"),
        config: file.section("config"),
        monitor,
        alert: file.section("alert"),
        control: file.section("control"),
        gateway: file.section("gateway"),
        access,
        openness,
        dialect,
    };
    file.refuse("store", settings.store.mistakes());
    file.refuse("contract", settings.contract.mistakes());
    file.refuse("registry", settings.registry.mistakes());
    file.refuse("monitor", settings.monitor.mistakes());
    file.refuse("control", settings.control.mistakes());
    file.refuse("access", settings.access.mistakes());
    file.refuse("dialect", settings.dialect.mistakes());
    if let Err(ninefold_gateway::Error::SettingsInvalid(wrong)) = settings.gateway.check() {
        file.mistakes.extend(wrong.into_iter().map(|mistake| format!("gateway.{mistake}")));
    }
    file.finish()?;
    match &settings.openness {
        Openness::Refused(open) => Err(Failure::Open(open.clone())),
        Openness::Loopback | Openness::Guarded { .. } | Openness::Insecure => Ok(settings),
    }
}

/// What flags say of access, over what the file says.
fn access(args: &NodeArgs, mut access: ninefold_access::Config) -> ninefold_access::Config {
    match args.auth {
        Some(AuthKind::Off) => access.authentication = Authentication::Off,
        Some(AuthKind::Token) => access.authentication = Authentication::Token,
        Some(AuthKind::Mtls) => access.authentication = Authentication::Mtls,
        None => {}
    }
    access.tls_cert = args.tls_cert.clone().or(access.tls_cert);
    access.tls_key = args.tls_key.clone().or(access.tls_key);
    access.client_ca = args.client_ca.clone().or(access.client_ca);
    access
}

/// A settings file that is taken apart section by section, collecting mistakes.
struct File {
    path: String,
    rest: Table,
    mistakes: Vec<String>,
}

impl File {
    fn empty() -> Self {
        Self { path: String::new(), rest: Table::new(), mistakes: Vec::new() }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        let wrong = |mistake: String| Failure::Settings { path: shown.clone(), mistakes: vec![mistake] };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let rest = text.parse::<Table>().map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        Ok(Self { path: shown, rest, mistakes: Vec::new() })
    }

    /// Takes a top-level value.
    fn value<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.rest.remove(name)?;
        self.parse(name, value)
    }

    /// Takes a section. Every key is tried by itself, so that one mistake does not hide the next; with a mistake in it
    /// the section's defaults are answered, and [`File::finish`] refuses the file.
    fn section<T: DeserializeOwned + Default>(&mut self, name: &str) -> T {
        let table = match self.rest.remove(name) {
            None => return T::default(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.mistakes.push(format!("{name} = {other}: is a section, written [{name}]"));
                return T::default();
            }
        };
        let before = self.mistakes.len();
        for (key, value) in &table {
            let alone = Table::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = Value::Table(alone).try_into::<T>() {
                self.mistakes.push(format!("{name}.{key} = {value}: {}", reason(&error)));
            }
        }
        if self.mistakes.len() > before {
            return T::default();
        }
        self.parse(name, Value::Table(table)).unwrap_or_default()
    }

    fn parse<T: DeserializeOwned>(&mut self, name: &str, value: Value) -> Option<T> {
        let shown = value.to_string();
        match value.try_into() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.mistakes.push(format!("{name} = {shown}: {}", reason(&error)));
                None
            }
        }
    }

    /// Notes what cannot work although it can be read.
    fn refuse(&mut self, name: &str, mistakes: Vec<Violation>) {
        self.mistakes.extend(mistakes.into_iter().map(|wrong| format!("{name}.{} {}", wrong.field, wrong.description)));
    }

    fn finish(mut self) -> Result<(), Failure> {
        for (name, _) in std::mem::take(&mut self.rest) {
            self.mistakes.push(format!(
                "{name}: is no setting; there are data, listen, store, contract, registry, config, monitor, alert, control, gateway, access and dialect"
            ));
        }
        if self.mistakes.is_empty() {
            Ok(())
        } else if self.path.is_empty() {
            Err(Failure::Usage(self.mistakes.join("\n  ")))
        } else {
            Err(Failure::Settings { path: self.path, mistakes: self.mistakes })
        }
    }
}

/// What is wrong, in one line.
fn reason(error: &toml::de::Error) -> String {
    error.message().trim().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Settings, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ninefold.toml");
        std::fs::write(&path, text).unwrap();
        load(&NodeArgs { config: Some(path), ..NodeArgs::default() }, folder.path())
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = "colour = 1\n[listen]\nedge = \"nowhere\"\nplatform = 5\n[store]\nspeed = 3\n[registry]\nlease = \"long\"\n";
        let Err(Failure::Settings { mistakes, .. }) = load_text(text) else { panic!("the file has mistakes") };
        for place in ["colour", "listen.edge", "listen.platform", "store.speed", "registry.lease"] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(place)), "{place} is not in {mistakes:?}");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_told_with_the_rest() {
        let text = "[gateway]\ndeadline = \"0s\"\nheaders_max = 1\n[registry]\nlease = \"1ms\"\n[control]\nx = 1\n";
        let Err(Failure::Settings { mistakes, .. }) = load_text(text) else { panic!("the file has mistakes") };
        for place in ["gateway.deadline", "gateway.headers_max", "registry.lease", "control.x"] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(place)), "{place} is not in {mistakes:?}");
        }
    }

    #[test]
    fn the_manual_shows_every_setting_with_its_default() {
        let manual = include_str!("../../docs/guide/config-file.md");
        let (_, rest) = manual.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let mut shown = load_text(text).unwrap();
        assert_eq!(shown.data, Path::new("/var/lib/ninefold"));
        let defaults = load(&NodeArgs::default(), &shown.data).unwrap();
        assert_eq!(format!("{shown:#?}"), format!("{defaults:#?}"));
        // With the lines that are commented out, too, it can be read.
        let all: String = text.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(line))).collect();
        shown = load_text(&all).unwrap();
        assert!(shown.gateway.rate_limit.is_some());
    }

    #[test]
    fn who_names_etcd_means_etcd() {
        let args = NodeArgs { etcd: vec!["http://127.0.0.1:2379".to_owned()], ..NodeArgs::default() };
        assert_eq!(load(&args, Path::new("data")).unwrap().store.backend, Backend::Etcd);
        let embedded = NodeArgs { store: Some(StoreKind::Embedded), ..args };
        assert_eq!(load(&embedded, Path::new("data")).unwrap().store.backend, Backend::Embedded);
    }

    #[test]
    fn nobody_listens_beyond_this_machine_unasked() {
        let listen = |args: NodeArgs| load(&NodeArgs { listen: "0.0.0.0:0".parse().ok(), ..args }, Path::new("data"));
        let refused = listen(NodeArgs::default()).unwrap_err();
        assert!(matches!(&refused, Failure::Open(doors) if doors == &["0.0.0.0:0 (--listen)"]), "{refused}");
        assert_eq!(listen(NodeArgs { insecure: true, ..NodeArgs::default() }).unwrap().openness, Openness::Insecure);
        let token = || NodeArgs { auth: Some(AuthKind::Token), ..NodeArgs::default() };
        assert_eq!(listen(token()).unwrap().openness, Openness::Guarded { is_secure: false });
        assert!(matches!(listen(NodeArgs { insecure: true, ..token() }), Err(Failure::Usage(_))));
        assert_eq!(load(&NodeArgs::default(), Path::new("data")).unwrap().openness, Openness::Loopback);
    }

    #[test]
    fn flags_win_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ninefold.toml");
        std::fs::write(&path, "[listen]\nedge = \"127.0.0.1:1\"\nplatform = \"127.0.0.1:2\"\n").unwrap();
        let edge = "127.0.0.1:3".parse().ok();
        let args = NodeArgs { config: Some(path), edge_listen: edge, ..NodeArgs::default() };
        let listen = load(&args, folder.path()).unwrap().listen;
        assert_eq!((listen.edge.port(), listen.platform.port()), (3, 2));
    }
}
