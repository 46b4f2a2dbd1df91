//! The side of the engine that has taken over.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg,
};
use sdlb_routes::{Address, Protocol, Table, Target, TargetKind};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{TcpStream, UnixStream},
    time::Instant,
};

use super::{Clock, Idle, PACKET_BYTES_MAX, Passed, read};
use crate::{
    conn::{Nap, io::Io, local::Local},
    listen::accept,
    settings::ListenerConfig,
    upstream::Upstream,
    worker::Worker,
};

/// What comes from the engine before.
#[derive(Debug)]
pub struct Taker(AsyncFd<OwnedFd>);

impl Taker {
    /// `socket`: over which the listening sockets came.
    ///
    /// # Errors
    /// No memory is left.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        #[expect(deprecated, reason = "for types that may lie about their descriptor; this one owns it")]
        AsyncFd::with_interest(socket, Interest::READABLE).map(Self)
    }

    /// Says that this engine serves, and takes so many connections of clients. One that does not listen for it, being older,
    /// misses nothing.
    pub fn say_ready(&self, clients: usize) {
        let text = format!("takes {clients}");
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut none = SendAncillaryBuffer::default();
        let _ = sendmsg(self.0.get_ref(), &[IoSlice::new(text.as_bytes())], &mut none, flags);
    }

    /// The next one. `None`: there will be none.
    pub async fn next(&self) -> Option<Passed> {
        let mut reset = false;
        loop {
            let mut bytes = [0; PACKET_BYTES_MAX];
            let (length, socket) = match self.0.async_io(Interest::READABLE, |from| receive(from, &mut bytes)).await {
                Ok(received) => received,
                // The other side has ended without having read all that we said, which Linux tells once, and before
                // what it has sent: that is still there.
                Err(error)
                    if error.kind() == io::ErrorKind::ConnectionReset && !std::mem::replace(&mut reset, true) =>
                {
                    continue;
                }
                Err(_) => return None,
            };
            if length == 0 {
                return None;
            }
            // Without a socket: no descriptor is left here, and what was sent is closed.
            let idle = std::str::from_utf8(&bytes[..length]).ok().and_then(|text| read(text, &Clock::now()));
            if let (Some((worker, idle)), Some(socket)) = (idle, socket) {
                return Some(Passed { worker, idle, socket });
            }
        }
    }
}

fn receive(from: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(from, &mut [IoSliceMut::new(bytes)], &mut rights, flags)?;
    let mut descriptors = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((got.bytes, descriptors.next().and_then(|mut all| all.next())))
}

/// One that a worker is to go on with.
#[derive(Debug)]
pub struct Inherited(Kind);

#[derive(Debug)]
enum Kind {
    Upstream { since: Instant, age_max: Duration, target: Arc<Target>, address_changes: u32, socket: OwnedFd },
    Client { since: Instant, until: Instant, is_new: bool, bound: SocketAddr, socket: OwnedFd },
}

impl Inherited {
    /// `None`: it leads to where no instance of this table is; it is closed.
    #[must_use]
    pub fn new(passed: Passed, table: &Table) -> Option<Self> {
        let socket = passed.socket;
        Some(Self(match passed.idle {
            Idle::Client { since, until, is_new, bound } => Kind::Client { since, until, is_new, bound, socket },
            Idle::Upstream { since, age_max, address, key } => {
                let target = table.target(&key)?.clone();
                let address_changes = target.address_changes();
                let is_same = target.kind() == TargetKind::Instance
                    && target.protocol() == Protocol::Http1
                    && target.address().to_string() == address;
                is_same.then_some(Kind::Upstream { since, age_max, target, address_changes, socket })?
            }
        }))
    }

    /// The address of a client's listener.
    #[must_use]
    pub fn bound(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Client { bound, .. } => Some(*bound),
            Kind::Upstream { .. } => None,
        }
    }
}

/// Goes on with it. What there is no place for is closed. `listener`: of a client's connection, if it is open.
pub fn take(worker: &Rc<Worker>, inherited: Inherited, listener: Option<Rc<ListenerConfig>>) {
    Local::start(worker);
    match inherited.0 {
        Kind::Upstream { since, age_max, target, address_changes, socket } => {
            if worker.descriptors.is_reserved(&socket) {
                return;
            }
            if let Ok(io) = stream(socket, &target.address()) {
                let upstream = Upstream::new(io, target, address_changes).inherited(since, age_max);
                worker.local.pool.put_all([upstream]);
                worker.counters.upstream_inherited_total.add();
            }
        }
        Kind::Client { since, until, is_new, socket, .. } => {
            let Some(listener) = listener else { return };
            let nap = Nap::new(socket.into(), worker, since, until, is_new);
            if accept::inherit(worker, nap, listener) {
                worker.counters.connections_inherited_total.add();
            }
        }
    }
}

fn stream(socket: OwnedFd, address: &Address) -> io::Result<Io> {
    match address {
        Address::Tcp(address) => {
            let socket = std::net::TcpStream::from(socket);
            if socket.peer_addr()? != *address {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            socket.set_nonblocking(true)?;
            TcpStream::from_std(socket).map(Io::Tcp)
        }
        Address::Unix(_) => {
            let socket = std::os::unix::net::UnixStream::from(socket);
            socket.peer_addr()?;
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket).map(Io::Unix)
        }
    }
}
