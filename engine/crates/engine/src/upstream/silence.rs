//! Whether anybody is still at the other end of a connection while a request waits there for its answer.
//!
//! A machine that loses its power, or a cable that is pulled, says nothing: without a look at it a request waits for as long as
//! an answer may take. The kernel can look. A probe is sent when nothing has come for a second, and a second later, or when
//! what was sent is not acknowledged for a second, the connection has failed. That costs a small packet a second, so only
//! connections on which a request waits are watched, and not before it has waited for [`SILENCE`]. A peer whose program
//! stands still acknowledges, and is waited for.

use std::{net::IpAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::{conn::io::Io, listen};

/// An answer that takes longer is worth a look.
pub const SILENCE: Duration = Duration::from_millis(500);
/// Between probes, and for how long one, or what was sent, may stay without an acknowledgement.
const PROBE: Duration = Duration::from_secs(1);
/// Ordinarily: as long as [`listen::keepalive`] takes. Without it the kernel sends again for a quarter of an hour.
const PATIENCE: Duration = Duration::from_secs(120);

/// The ordinary time for which what was sent may stay unacknowledged.
pub fn bound(socket: &SockRef<'_>) -> std::io::Result<()> {
    socket.set_tcp_user_timeout(Some(PATIENCE))
}

/// Looks closely from now on. False: there is nothing to look at, for the other end is on this machine, or has no socket.
/// `small`: all of the request fits into any receive window. Of a larger one some may wait for the peer to read, which
/// cannot be told from silence.
pub fn watch(io: &Io, small: bool) -> bool {
    let Some(socket) = remote(io) else { return false };
    let probes = TcpKeepalive::new().with_time(PROBE).with_interval(PROBE).with_retries(1);
    let user_timeout = if small { PROBE } else { PATIENCE };
    socket.set_tcp_keepalive(&probes).is_ok() && socket.set_tcp_user_timeout(Some(user_timeout)).is_ok()
}

/// The answer has come.
pub fn rest(io: &Io) {
    if let Some(socket) = remote(io) {
        // A connection that keeps the short times is only found dead sooner.
        let _ = socket.set_tcp_keepalive(&listen::keepalive());
        let _ = bound(&socket);
    }
}

fn remote(io: &Io) -> Option<SockRef<'_>> {
    let Io::Tcp(stream) = io else { return None };
    let peer = stream.peer_addr().ok()?.ip();
    // Nodes and endpoints of this machine are reached by the address of one of its interfaces, too.
    let here = |address: IpAddr| stream.local_addr().is_ok_and(|local| local.ip() == address);
    (!peer.is_loopback() && !here(peer)).then(|| SockRef::from(stream))
}
