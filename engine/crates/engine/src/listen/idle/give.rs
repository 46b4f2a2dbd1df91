//! The side of the engine that ends.

use std::{
    cell::Cell,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Mutex,
    time::{Instant, timeout_at},
};

use super::{Clock, Idle, write};
use crate::{
    conn::{Nap, io::Io},
    upstream::Upstream,
    worker::Worker,
};

/// For so long what comes to rest goes over too. Then connections are told to go, as without another engine.
const WITHIN: Duration = Duration::from_secs(1);
/// Connections to instances that go over; each is a descriptor there.
const UPSTREAMS_MAX: usize = 4096;

/// The way to the engine that has taken over, for all workers.
#[derive(Debug, Clone)]
pub struct Way {
    socket: Arc<OwnedFd>,
    until: Instant,
    workers: usize,
    clients_left: Arc<AtomicUsize>,
    upstreams_left: Arc<AtomicUsize>,
}

impl Way {
    /// `socket`: over which the listening sockets went. `deadline`: of this engine's end. `None`: the other one has not said that
    /// it takes anything.
    #[must_use]
    pub fn open(socket: OwnedFd, workers: usize, deadline: Duration) -> Option<Self> {
        let mut bytes = [0; 32];
        let mut none = RecvAncillaryBuffer::default();
        let got = recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut none, RecvFlags::DONTWAIT).ok()?;
        let said = std::str::from_utf8(&bytes[..got.bytes]).ok()?;
        let clients: usize = said.strip_prefix("takes ")?.parse().ok()?;
        Some(Self {
            socket: socket.into(),
            until: Instant::now() + WITHIN.min(deadline / 2),
            workers,
            clients_left: Arc::new(clients.into()),
            upstreams_left: Arc::new(UPSTREAMS_MAX.into()),
        })
    }
}

/// One worker's end of it.
#[derive(Debug)]
pub struct Giver {
    socket: AsyncFd<Arc<OwnedFd>>,
    way: Way,
    worker: usize,
    /// One at a time, in the order in which they have come: who waits for room in the queue is not overtaken.
    turn: Mutex<()>,
    over: Cell<bool>,
}

impl Giver {
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn new(way: Way, worker: usize) -> io::Result<Self> {
        #[expect(deprecated, reason = "for types that may lie about their descriptor; this one owns it")]
        let socket = AsyncFd::with_interest(way.socket.clone(), Interest::WRITABLE)?;
        Ok(Self { socket, way, worker, turn: Mutex::new(()), over: Cell::new(false) })
    }

    /// Whether anything more may go.
    pub fn is_open(&self) -> bool {
        !self.over.get() && Instant::now() < self.way.until
    }

    /// Sends the idle connections to instances. When one can't be sent, it and the others stay.
    pub async fn give_upstreams(&self, worker: &Worker) {
        let _turn = self.turn.lock().await;
        self.empty_pool(worker).await;
    }

    async fn empty_pool(&self, worker: &Worker) {
        let mut all = worker.local.pool.take_all(Instant::now()).into_iter();
        while let Some(upstream) = all.next() {
            if !take_one(&self.way.upstreams_left) || !self.give_upstream(&upstream).await {
                worker.local.pool.put_all(std::iter::once(upstream).chain(all));
                return;
            }
        }
    }

    async fn give_upstream(&self, upstream: &Upstream) -> bool {
        let target = upstream.target();
        // In this order: who reads the new address sees the new count too.
        let address = target.address().to_string();
        let Some((since, age_max)) = upstream.idle().filter(|_| upstream.address_changes() == target.address_changes())
        else {
            return true;
        };
        let socket = match &upstream.io {
            Io::Tcp(stream) => stream.as_fd(),
            Io::Unix(stream) => stream.as_fd(),
            Io::Tls(_) | Io::Stream(_) | Io::Link(_) => return true,
        };
        match self.write(&Idle::Upstream { since, age_max, address, key: target.key().to_string() }) {
            Some(text) => self.send(&text, socket).await,
            None => true,
        }
    }

    /// Sends a client's connection, behind the connections that it may have used. Gives it back when that can't be.
    pub async fn give_client(&self, worker: &Worker, nap: Nap, bound: SocketAddr) -> Option<Nap> {
        let _turn = self.turn.lock().await;
        self.empty_pool(worker).await;
        let idle = Idle::Client { since: nap.since(), until: nap.idle_until(), is_new: nap.is_new(), bound };
        if let Some(text) = self.write(&idle)
            && take_one(&self.way.clients_left)
            && self.send(&text, nap.socket().as_fd()).await
        {
            return None;
        }
        self.over.set(true);
        Some(nap)
    }

    fn write(&self, idle: &Idle) -> Option<String> {
        write((self.worker, self.way.workers), idle, &Clock::now())
    }

    async fn send(&self, text: &str, socket: BorrowedFd<'_>) -> bool {
        let sent = self.socket.async_io(Interest::WRITABLE, |to| {
            let descriptors = [socket];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            rights.push(SendAncillaryMessage::ScmRights(&descriptors));
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            Ok(sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut rights, flags)?)
        });
        let done = self.is_open() && matches!(timeout_at(self.way.until, sent).await, Ok(Ok(_)));
        if !done {
            // It is gone, or does not read.
            self.over.set(true);
        }
        done
    }
}

/// False: none is left.
fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
}
