//! Opening a connection to a target.

use std::{io, time::Duration};

use sdlb_routes::{Address, Target};
use socket2::SockRef;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    conn::io::Io,
    listen::{self, descriptors::Descriptors},
    upstream::{Upstream, silence},
};

/// No descriptors are left.
const EMFILE: i32 = 24;

/// Why a connection could not be opened.
#[derive(Debug, Clone)]
pub struct ConnectError {
    /// The error type of RFC 9209, 2.3.
    pub error: &'static str,
    /// One clause: "connection refused".
    pub reason: String,
    /// It took too long.
    pub late: bool,
    /// The fault is ours: no descriptors, no ports, no memory.
    pub ours: bool,
}

/// Opens a connection to where the target is now.
///
/// # Errors
/// [`ConnectError`]
pub async fn connect(
    target: &std::sync::Arc<Target>,
    within: Duration,
    descriptors: Descriptors,
) -> Result<Upstream, ConnectError> {
    // Before the address: if it changes in between, the connection counts as one to the old address.
    let address_changes = target.address_changes();
    let address = target.address();
    let opened = timeout(within, async {
        match &*address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                if descriptors.is_reserved(&stream) {
                    return Err(io::Error::from_raw_os_error(EMFILE));
                }
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                socket.set_tcp_keepalive(&listen::keepalive())?;
                silence::bound(&socket)?;
                Ok(Io::Tcp(stream))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                if descriptors.is_reserved(&stream) {
                    return Err(io::Error::from_raw_os_error(EMFILE));
                }
                Ok(Io::Unix(stream))
            }
        }
    })
    .await;
    target.counters.connects.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    match opened {
        Ok(Ok(io)) => Ok(Upstream::new(io, target.clone(), address_changes).counted()),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err(ConnectError {
            error: "connection_timeout",
            reason: "connecting timed out".to_owned(),
            late: true,
            ours: false,
        }),
    }
}

fn describe(error: &io::Error) -> ConnectError {
    const ENFILE: i32 = 23;
    const ENOMEM: i32 = 12;
    const EADDRNOTAVAIL: i32 = 99;
    let ours = matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | EADDRNOTAVAIL));
    let (kind, reason) = match error.kind() {
        _ if ours => ("proxy_internal_error", error.to_string()),
        io::ErrorKind::ConnectionRefused => ("connection_refused", "connection refused".to_owned()),
        io::ErrorKind::TimedOut => ("connection_timeout", "connecting timed out".to_owned()),
        io::ErrorKind::NotFound => ("connection_refused", "its socket does not exist".to_owned()),
        _ => ("destination_ip_unroutable", error.to_string()),
    };
    ConnectError { error: kind, reason, late: false, ours }
}
