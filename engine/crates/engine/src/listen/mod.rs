//! Listening sockets: bound by the control thread, one a worker (`SO_REUSEPORT`), accepted from by the workers.

pub mod accept;
pub mod asleep;
pub mod descriptors;
pub mod handover;
pub mod idle;
pub mod nodes;
pub mod proxied;
pub mod splice;
pub mod spread;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that the kernel keeps for each worker until they are accepted (bounded by `net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Binds one socket for each of `workers` to `address` and listens. Port 0: any one, the same for all.
///
/// # Errors
/// Those of the system: the address is in use, not ours, or not allowed.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if address.port() != 0 {
        // With SO_REUSEPORT another process of this user could listen on the same port, and each would get a part of the
        // connections. A socket without it fails to bind when anybody listens.
        let probe = socket(address)?;
        probe.bind(&address.into())?;
    }
    let mut bound = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        // Accepted connections inherit these.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive())?;
        socket.bind(&bound.into())?;
        if let Some(local) = socket.local_addr()?.as_socket() {
            bound = local;
        }
        sockets.push(socket);
    }
    // Only when all are bound: a connection to a socket that is closed again would be reset.
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok((bound, sockets.into_iter().map(Into::into).collect()))
}

/// A peer that vanished without a word is noticed within two minutes, however long a stream may be silent.
#[must_use]
pub fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}
