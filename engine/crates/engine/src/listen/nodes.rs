//! What connects to a node listener: parents with requests, children that speak with control. In clear text they are told
//! apart by the first bytes, over mutual TLS by what they have asked for (ALPN).

use std::{net::SocketAddr, rc::Rc};

use tokio::{net::TcpStream, time::timeout};

use super::{accept::Open, splice, spread::Place};
use crate::{
    conn::{self, io::Io},
    http2,
    settings::ListenerConfig,
    tls::identity::{Identity, Wants},
    worker::Worker,
};

/// Serves a connection in plaintext until it ends.
pub async fn serve(stream: TcpStream, peer: SocketAddr, config: Rc<ListenerConfig>, worker: Rc<Worker>) {
    // It may be a request by the time that an engine that ends has nothing else open.
    let open = Open::of_node(&worker);
    match splice::first_bytes(&stream, &worker).await {
        splice::First::Request => {
            worker.counters.connections_total.add();
            conn::serve(Io::Tcp(stream), peer, config, worker.clone()).await;
        }
        splice::First::Preface => {
            drop(open);
            splice::run(stream, "", &worker).await;
        }
        splice::First::Nothing => {}
    }
}

/// The same over mutual TLS. `place`: among the links of this worker.
pub async fn serve_link(
    stream: TcpStream,
    peer: SocketAddr,
    config: Rc<ListenerConfig>,
    worker: Rc<Worker>,
    place: Place,
) {
    // Without one there is no such listener; and plaintext is never the way out.
    if let Some(identity) = worker.config().identity.clone() {
        secured(stream, peer, config, worker, &identity, place).await;
    }
}

/// Nodes are few and must get through: the limit on handshakes at once is for clients.
async fn secured(
    stream: TcpStream,
    peer: SocketAddr,
    config: Rc<ListenerConfig>,
    worker: Rc<Worker>,
    identity: &Identity,
    place: Place,
) {
    let open = Open::of_node(&worker);
    let accepted = timeout(worker.config().limits.handshake_timeout, Box::pin(identity.accept(stream))).await;
    let node = match accepted {
        Ok(Ok(node)) => node,
        Ok(Err(refused)) => return refused.counter(&worker.counters).add(),
        Err(_) => return worker.counters.timeout_handshake_total.add(),
    };
    worker.counters.links_total.add();
    match node.wants {
        Wants::Requests => {
            worker.counters.connections_total.add();
            http2::connection::serve(node.stream, peer, config, worker.clone(), None).await;
        }
        Wants::Control => {
            drop((open, place));
            splice::run(node.stream, &node.name, &worker).await;
        }
    }
}
