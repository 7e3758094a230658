//! The doors of the platform: bound first, or taken over from the node before, and opened last.

use std::os::fd::AsFd as _;

use ninefold::lifecycle::{OnError, Scope};
use ninefold::serve::{self, Listener, LiveAdmission, ServeConfig};
use ninefold::tls::ServerTls;
use ninefold::tonic::service::Routes;
use ninefold_access::Access;
use ninefold_monitor::Monitor;

use crate::exit::Failure;
use crate::node::handover::Sockets;
use crate::page;
use crate::settings::Settings;

/// The addresses of a node, bound.
pub(super) struct Doors {
    pub(super) edge: tokio::net::TcpListener,
    pub(super) platform: Platform,
    /// All of them once more, for whoever comes after.
    pub(super) sockets: Sockets,
}

/// Those of the platform.
pub(super) struct Platform {
    pub(super) platform: Listener,
    pub(super) otlp_grpc: Listener,
    pub(super) otlp_http: Listener,
    /// Where the node and its own children are spoken with in clear text, if everybody else speaks TLS: a certificate is
    /// of a name, and they have none but an address of this machine.
    pub(super) inner: Option<Listener>,
}

impl Doors {
    /// Binds all addresses that are not among what was taken over, and names all that cannot be had.
    pub(super) async fn bind(settings: &Settings, mut taken: Sockets) -> Result<Self, Failure> {
        let listen = &settings.listen;
        let mut door = async |name: &str, address, what: &str, flag: &str| match taken.remove(name) {
            Some(socket) => adopt(socket, address, what, flag),
            None => bind(address, what, flag).await,
        };
        let doors = (
            door("edge", listen.edge, "the edge", "--edge-listen").await,
            door("platform", listen.platform, "the platform", "--listen").await,
            door("otlp-grpc", listen.otlp_grpc, "OTLP over gRPC", "--otlp-grpc-listen").await,
            door("otlp-http", listen.otlp_http, "OTLP over HTTP", "--otlp-http-listen").await,
        );
        let (Ok(edge), Ok(platform), Ok(otlp_grpc), Ok(otlp_http)) = doors else {
            let (edge, platform, otlp_grpc, otlp_http) = doors;
            let refused = [edge.err(), platform.err(), otlp_grpc.err(), otlp_http.err()];
            return Err(Failure::Addresses(refused.into_iter().flatten().collect()));
        };
        let inner = match settings.access.tls_cert {
            None => None,
            Some(_) => {
                let inner = door("inner", ([127, 0, 0, 1], 0).into(), "the node's own children", "127.0.0.1:0").await;
                Some(inner.map_err(|refused| Failure::Addresses(vec![refused]))?)
            }
        };
        let mut sockets = Sockets::new();
        let all = [("edge", &edge), ("platform", &platform), ("otlp-grpc", &otlp_grpc), ("otlp-http", &otlp_http)];
        for (name, socket) in all.into_iter().chain(inner.iter().map(|inner| ("inner", inner))) {
            let again = socket.as_fd().try_clone_to_owned().map_err(|error| super::unusable(&error))?;
            sockets.insert(name, again.into());
        }
        let platform = Platform {
            platform: listener(platform)?,
            otlp_grpc: listener(otlp_grpc)?,
            otlp_http: listener(otlp_http)?,
            inner: inner.map(listener).transpose()?,
        };
        Ok(Self { edge, platform, sockets })
    }
}

/// Takes a socket of the node before, if it listens where it is to.
fn adopt(
    socket: std::net::TcpListener,
    address: std::net::SocketAddr,
    what: &str,
    flag: &str,
) -> Result<tokio::net::TcpListener, String> {
    let refused = |why: String| format!("on {address} for {what} ({flag}): {why}");
    let listens = socket.local_addr().map_err(|error| refused(error.to_string()))?;
    if address.port() != 0 && address != listens {
        return Err(refused(format!("the node that is to hand over listens on {listens}")));
    }
    socket.set_nonblocking(true).map_err(|error| refused(error.to_string()))?;
    tokio::net::TcpListener::from_std(socket).map_err(|error| refused(error.to_string()))
}

fn listener(socket: tokio::net::TcpListener) -> Result<Listener, Failure> {
    Listener::of(socket).map_err(|error| super::unusable(&error))
}

async fn bind(address: std::net::SocketAddr, what: &str, flag: &str) -> Result<tokio::net::TcpListener, String> {
    let refused = |error| format!("on {address} for {what} ({flag}): {error}");
    tokio::net::TcpListener::bind(address).await.map_err(refused)
}

/// What is behind the doors.
pub(super) struct Behind<'a> {
    pub(super) routes: Routes,
    pub(super) page: axum::Router,
    pub(super) monitor: &'a Monitor,
    pub(super) access: &'a Access,
    pub(super) tls: Option<ServerTls>,
}

impl Platform {
    /// Opens the doors. Access stands around every one of them.
    pub(super) fn open(self, behind: Behind<'_>, scope: &Scope) {
        let Behind { routes, page, monitor, access, tls } = behind;
        let around = Some(access.around(tls.is_some()));
        // Roles have bounds of their own, and an overloaded platform must hear who is alive before all else.
        let admission = LiveAdmission::disabled();
        let config = ServeConfig { tls, around, admission, ..ServeConfig::default() };
        let descriptor_sets = vec![bytes::Bytes::from_static(ninefold_proto::DESCRIPTOR_SET)];
        let with_pages = ServeConfig { http1: true, descriptor_sets, ..config.clone() };
        let routes = page::with(routes, page);
        if let Some(inner) = self.inner {
            let config = ServeConfig { tls: None, around: Some(access.around(false)), ..with_pages.clone() };
            open(inner, routes.clone(), config, "platform.serve_children", scope);
        }
        open(self.platform, routes, with_pages, "platform.serve", scope);
        open(self.otlp_grpc, monitor.otlp_routes(), config.clone(), "otlp.serve", scope);
        let http = Routes::from(monitor.http_router());
        open(self.otlp_http, http, ServeConfig { http1: true, ..config }, "otlp.serve_http", scope);
    }
}

fn open(listener: Listener, routes: Routes, config: ServeConfig, name: &'static str, scope: &Scope) {
    scope.spawn(name, OnError::Shutdown, move |stop| {
        serve::run(listener, routes, config, async move { stop.asked().await })
    });
}
