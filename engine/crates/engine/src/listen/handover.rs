//! Listening sockets on their way from one engine process to the next (`SCM_RIGHTS`, unix(7)).
//!
//! The very same sockets go over, with the connections that wait in their queues: to close one of a `SO_REUSEPORT` group
//! would reset those. Both processes may accept from them. The new process listens at a path, the old one connects and
//! sends a packet for each socket: its key, the address that was asked for and the one it is bound to, a line each. A last
//! packet without a socket says how many there were, so that half of them is never taken for all. Both keep the connection:
//! over it go idle connections when the old one ends (`idle`).

use std::{
    fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with, bind, connect, listen, recvmsg, sendmsg,
    socket_with, sockopt,
};

/// The longest silence of the other process.
const WITHIN: Duration = Duration::from_secs(10);
/// Far above what a key and two addresses take.
pub(super) const PACKET_BYTES_MAX: usize = 4096;

/// A listening socket of the other engine.
#[derive(Debug)]
pub struct Passed {
    /// Of its listener.
    pub key: String,
    /// As asked for.
    pub address: SocketAddr,
    /// As bound.
    pub bound: SocketAddr,
    /// A descriptor of our own for the same socket.
    pub socket: TcpListener,
}

/// Sends sockets to the process that listens at `path`, and gives the connection to it. Blocks, for 10 s without progress
/// at most.
///
/// # Errors
/// Nobody listens, it is another user's, or it has stopped reading.
pub fn send(path: &Path, sockets: &[Passed]) -> io::Result<OwnedFd> {
    let to = packets()?;
    connect(&to, &SocketAddrUnix::new(path)?)?;
    check_peer(&to)?;
    for passed in sockets {
        let text = format!("{}\n{}\n{}", passed.key, passed.address, passed.bound);
        let descriptors = [passed.socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        rights.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&to, &[IoSlice::new(text.as_bytes())], &mut rights, SendFlags::NOSIGNAL)?;
    }
    let end = sockets.len().to_string();
    sendmsg(&to, &[IoSlice::new(end.as_bytes())], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
    Ok(to)
}

/// Listens at `path`, takes the sockets that come, and gives the connection to where they came from. Blocks, for 10 s
/// without progress at most.
///
/// # Errors
/// One sentence; what had come is closed again on this side.
pub fn receive(path: &Path) -> Result<(Vec<Passed>, OwnedFd), String> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => format!("handover at {}: no sockets arrived within 10 s", path.display()),
        _ => format!("handover at {}: {error}", path.display()),
    };
    receive_all(path).map_err(told)
}

fn receive_all(path: &Path) -> io::Result<(Vec<Passed>, OwnedFd)> {
    let listener = packets()?;
    bind(&listener, &SocketAddrUnix::new(path)?)?;
    let _file = RemovedAtEnd(path.to_owned());
    listen(&listener, 1)?;
    let (from, _) = acceptfrom_with(&listener, SocketFlags::CLOEXEC)?;
    sockopt::set_socket_timeout(&from, sockopt::Timeout::Recv, Some(WITHIN))?;
    check_peer(&from)?;
    let mut all = Vec::new();
    loop {
        let mut bytes = [0; PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&from, &mut [IoSliceMut::new(&mut bytes)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = rights.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptor = descriptors.next().and_then(|mut all| all.next());
        let text = std::str::from_utf8(&bytes[..got.bytes]).map_err(io::Error::other)?;
        match descriptor {
            Some(descriptor) => {
                all.push(read(text, descriptor).ok_or_else(|| io::Error::other("not a listening socket of an engine"))?)
            }
            None if text.parse() == Ok(all.len()) => return Ok((all, from)),
            None => return Err(io::Error::other(format!("the connection closed after {} sockets", all.len()))),
        }
    }
}

fn read(text: &str, descriptor: OwnedFd) -> Option<Passed> {
    let mut lines = text.split('\n');
    let (key, address, bound) = (lines.next()?.to_owned(), lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
    let socket = TcpListener::from(descriptor);
    let ours = socket.local_addr().is_ok_and(|local| local == bound);
    ours.then_some(Passed { key, address, bound, socket })
}

fn packets() -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(WITHIN))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(WITHIN))?;
    Ok(socket)
}

/// Whoever has the sockets has the traffic.
fn check_peer(socket: &OwnedFd) -> io::Result<()> {
    let peer = sockopt::socket_peercred(socket)?.uid;
    let ours = peer == rustix::process::geteuid() || peer.is_root();
    if ours { Ok(()) } else { Err(io::Error::other("the peer runs as another user")) }
}

struct RemovedAtEnd(PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
