//! A way to instances past their servers: what they answer comes as it is, and connections are sent away one by one.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use ninefold::connect::Dialer;
use ninefold::lifecycle::Scope;
use ninefold::tonic::body::Body;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{Answering, Instance};

/// Pipes in memory to whoever answers behind them.
#[derive(Clone, Default)]
pub(crate) struct Door {
    /// By the port that the registry names.
    answering: Arc<Mutex<HashMap<u16, Answering>>>,
    connections: Arc<Mutex<Vec<CancellationToken>>>,
}

impl Door {
    pub(crate) fn dialer(&self) -> Dialer {
        let (door, scope) = (self.clone(), Scope::root("door"));
        Dialer::default().connecting(move |address| {
            let (door, scope) = (door.clone(), scope.clone());
            async move {
                let answering = door.answering.lock().unwrap().get(&address.port).cloned();
                let answering = answering.ok_or(io::ErrorKind::ConnectionRefused)?;
                let (near, far) = tokio::io::duplex(64 * 1024);
                let asked = CancellationToken::new();
                door.connections.lock().unwrap().push(asked.clone());
                scope.run("test.serve", |_| serve(far, answering, asked));
                Ok(near)
            }
        })
    }

    /// Leads to an instance, before the registry names it.
    pub(crate) fn answer_for(&self, instance: &Instance) {
        self.answering.lock().unwrap().insert(instance.address.port(), instance.answering.clone());
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Takes no more calls on one of them, and finishes those that it has.
    pub(crate) fn send_away(&self, connection: usize) {
        self.connections.lock().unwrap()[connection].cancel();
    }
}

async fn serve(far: DuplexStream, answering: Answering, asked: CancellationToken) {
    let service = answering.map_request(|request: http::Request<Incoming>| request.map(Body::new));
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut served = pin!(builder.serve_connection(TokioIo::new(far), TowerToHyperService::new(service)));
    tokio::select! {
        _ = served.as_mut() => {}
        () = asked.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = served.await;
        }
    }
}
