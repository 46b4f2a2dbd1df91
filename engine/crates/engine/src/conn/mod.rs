//! One client connection, from its first byte to its last.

use std::{net::SocketAddr, rc::Rc};

use tokio::net::TcpStream;

use crate::{settings::ListenerConfig, worker::Worker};

/// Serves the connection until it ends. Called once for each accepted connection, on its worker's thread.
pub async fn serve(stream: TcpStream, peer: SocketAddr, listener: Rc<ListenerConfig>, worker: Rc<Worker>) {
    drop((stream, peer, listener, worker));
}
