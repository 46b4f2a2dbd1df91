//! A worker's accept loop, and the counting of its connections.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use super::{
    asleep::Asleep,
    nodes, proxied,
    spread::{self, Given},
};
use crate::{
    conn::{self, Nap, Rested, io::Io},
    counters::{Counter, Counters, Gauged},
    http2, rate,
    settings::{ListenerConfig, ListenerKind},
    tls::handshake,
    worker::Worker,
};

/// How long accepting waits when there are no file descriptors or connection slots left.
const PAUSE: Duration = Duration::from_millis(20);
/// Connections at once from one address on a public listener, unless set.
const PUBLIC_CONNECTIONS_PER_ADDRESS: u32 = 1024;

/// One listener on one worker. `config` changes when control names the same address with another kind.
pub type SharedConfig = Rc<RefCell<Rc<ListenerConfig>>>;

/// Accepts until `stop` turns true; connections that the kernel has completed by then are served too.
pub async fn run(listener: TcpListener, config: SharedConfig, worker: Rc<Worker>, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
            () = worker.crowded().notified() => {
                if worker.is_full() || worker.is_short_of_memory() {
                    worker.make_room();
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                place(&stream, &config, &worker, &stop).await;
                serve(stream, peer, &config, &worker);
            }
            Err(error) => {
                worker.counters.accept_failures_total.add();
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
                    // Out of descriptors or memory: the same error would come back at once, for ever.
                    worker.make_room();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            serve(stream, peer, &config, &worker);
        }
    }
}

/// What there is none of for another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Descriptors,
    Connections,
    Memory,
}

impl Lack {
    fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Self::Descriptors => &counters.limit_descriptors_total,
            Self::Connections => &counters.limit_connections_total,
            Self::Memory => &counters.memory_accept_waits_total,
        }
    }
}

fn lack(client: &impl AsFd, worker: &Worker) -> Option<Lack> {
    if worker.descriptors.are_short(client) {
        Some(Lack::Descriptors)
    } else if worker.is_full() {
        Some(Lack::Connections)
    } else {
        worker.is_short_of_memory().then_some(Lack::Memory)
    }
}

/// Finds the connection in hand a place within the limits: that of a connection at rest, of this worker or else of another.
/// With all of them busy it waits, and those behind it wait in the kernel. Links between nodes are few and must get through
/// when clients take everything. Who came before the end is served at the end.
async fn place(client: &TcpStream, config: &SharedConfig, worker: &Worker, stop: &watch::Receiver<bool>) {
    let mut told = None;
    while config.borrow().kind == ListenerKind::Entry && !*stop.borrow() {
        let Some(lack) = lack(client, worker) else { break };
        if worker.make_room() {
            // The other one is at its end before this goes on.
            tokio::task::yield_now().await;
            continue;
        }
        worker.crowded().notify_one();
        if told.replace(lack) != Some(lack) {
            lack.counter(&worker.counters).add();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn serve(stream: TcpStream, peer: SocketAddr, config: &SharedConfig, worker: &Rc<Worker>) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let config = config.borrow().clone();
    let worker = worker.clone();
    if config.kind == ListenerKind::Node && config.tls {
        let place = worker.spread.place(worker.index);
        if place.worker() == worker.index {
            tokio::task::spawn_local(nodes::serve_link(stream, peer, config, worker, place));
        } else if let Ok(stream) = stream.into_std() {
            spread::give(Given { config: (*config).clone(), stream, peer, place });
        }
        return;
    }
    if config.kind == ListenerKind::Node {
        tokio::task::spawn_local(nodes::serve(stream, peer, config, worker));
        return;
    }
    if config.trusted.contains(peer.ip()) {
        worker.counters.connections_total.add();
        tokio::task::spawn_local(behind_proxy(stream, peer, config, Open::of_client(&worker, None)));
        return;
    }
    let Ok(slot) = slot(&worker, &config, peer) else { return };
    worker.counters.connections_total.add();
    let open = Open::of_client(&worker, slot);
    if config.tls {
        tokio::task::spawn_local(secured(stream, peer, config, open));
    } else {
        tokio::task::spawn_local(plain(stream, None, peer, config, open));
    }
}

/// A trusted proxy may say who is behind it. It has no limit of its own: what is one address to us are many clients.
async fn behind_proxy(mut stream: TcpStream, proxy: SocketAddr, config: Rc<ListenerConfig>, mut open: Open) {
    let worker = open.worker.clone();
    let within = worker.config().limits.head_timeout;
    let peer = match timeout(within, Box::pin(proxied::behind(&mut stream, proxy))).await {
        Ok(Ok(peer)) => peer,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            return worker.counters.refused_malformed_total.add();
        }
        Ok(Err(_)) => return,
        Err(_) => return worker.counters.timeout_head_total.add(),
    };
    if !config.trusted.contains(peer.ip()) {
        let Ok(slot) = slot(&worker, &config, peer) else { return };
        open._slot = slot;
    }
    if config.tls {
        secured(stream, peer, config, open).await;
    } else {
        plain(stream, None, peer, config, open).await;
    }
}

/// Serves a link that another worker has accepted.
pub(crate) fn serve_link(given: Given, worker: &Rc<Worker>) {
    let Given { config, stream, peer, place } = given;
    // Without a descriptor for it the parent connects again.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    tokio::task::spawn_local(nodes::serve_link(stream, peer, Rc::new(config), worker.clone(), place));
}

async fn secured(stream: TcpStream, peer: SocketAddr, config: Rc<ListenerConfig>, open: Open) {
    let worker = open.worker.clone();
    // Each on its own: what a connection needs for a moment only, or never, is not kept with it.
    let client =
        Some(peer.ip()).filter(|client| config.hardening.handshakes_per_address && !config.trusted.contains(*client));
    if let Some(stream) = Box::pin(handshake::accept(stream, client, &worker.sites, &worker)).await {
        if stream.is_http2() {
            let handshake = Some(stream.handshake().clone());
            Box::pin(http2::connection::serve(stream, peer, config, worker, handshake)).await;
        } else {
            Box::pin(conn::serve(Io::Tls(stream), peer, config, worker)).await;
        }
    }
}

/// In clear text; a new one, or one that has slept.
pub(super) async fn plain(
    stream: TcpStream,
    rested: Option<Rested>,
    peer: SocketAddr,
    config: Rc<ListenerConfig>,
    open: Open,
) {
    let worker = open.worker.clone();
    let nap = conn::serve_plain(stream, rested, peer, config.clone(), worker.clone()).await;
    let nap = match (nap, worker.giver()) {
        (Some(nap), Some(giver)) => giver.give_client(&worker, nap, config.bound).await,
        (nap, _) => nap,
    };
    if let Some(nap) = nap {
        Asleep::put(&worker, nap, peer, config, open);
    }
}

/// Goes on with a connection that rested in the engine before. It takes a place within the limits as a new one does, but does
/// not wait for it. False: there is none, and it is closed.
pub(super) fn inherit(worker: &Rc<Worker>, nap: Nap, config: Rc<ListenerConfig>) -> bool {
    let Ok(peer) = nap.socket().peer_addr() else { return false };
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if config.kind != ListenerKind::Entry || config.tls || nap.socket().set_nonblocking(true).is_err() {
        return false;
    }
    if let Some(lack) = lack(nap.socket(), worker)
        && !worker.make_room()
    {
        lack.counter(&worker.counters).add();
        return false;
    }
    let Ok(slot) = slot(worker, &config, peer) else { return false };
    let open = Open::of_client(worker, slot);
    Asleep::put(worker, nap, peer, config, open);
    true
}

/// Among the connections of its address, if they are limited.
fn slot(worker: &Worker, config: &ListenerConfig, peer: SocketAddr) -> Result<Option<Slot>, TooMany> {
    let limit =
        worker.config().limits.connections_per_address.or(config.public.then_some(PUBLIC_CONNECTIONS_PER_ADDRESS));
    let Some(limit) = limit else { return Ok(None) };
    let slot = worker.per_address.enter(peer.ip(), limit);
    if slot.is_none() {
        worker.counters.limit_connections_per_address_total.add();
    }
    slot.map(Some).ok_or(TooMany)
}

/// There are too many connections of one address.
struct TooMany;

/// An open connection; dropped when it ends, however it ends.
pub(super) struct Open {
    worker: Rc<Worker>,
    _slot: Option<Slot>,
    _of_client: Option<OfClient>,
}

type OfClient = Gauged<fn(&Counters) -> &Counter>;

impl Open {
    fn of_client(worker: &Rc<Worker>, slot: Option<Slot>) -> Self {
        let counted = OfClient::new(worker.counters.clone(), |counters| &counters.connections_of_clients);
        Self::new(worker, slot, Some(counted))
    }

    pub(super) fn of_node(worker: &Rc<Worker>) -> Self {
        Self::new(worker, None, None)
    }

    fn new(worker: &Rc<Worker>, slot: Option<Slot>, of_client: Option<OfClient>) -> Self {
        worker.counters.connections_open.add();
        worker.connection_opened();
        Self { worker: worker.clone(), _slot: slot, _of_client: of_client }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.counters.connections_open.sub();
        self.worker.connection_closed();
        if std::thread::panicking() {
            // The runtime ends the task and nothing else.
            self.worker.counters.faults_total.add();
        }
    }
}

/// Connections by client address, an IPv6 network as one, over all workers; only kept when there is a limit. The map is keyed
/// by chance (`RandomState`), as clients choose what is in it.
#[derive(Debug, Clone, Default)]
pub struct PerAddress(Arc<Mutex<HashMap<IpAddr, u32>>>);

impl PerAddress {
    pub(crate) fn enter(&self, address: IpAddr, limit: u32) -> Option<Slot> {
        let address = rate::client(address);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = held.entry(address).or_default();
        if *open >= limit {
            return None;
        }
        *open += 1;
        Some(Slot { all: self.clone(), address })
    }
}

/// One of the connections of an address; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    all: PerAddress,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = held.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_slots_back() {
        let all = PerAddress::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        let first = all.enter(address, 2);
        let second = all.enter(address, 2);
        assert!(first.is_some() && second.is_some() && all.enter(address, 2).is_none());
        assert!(all.enter(IpAddr::from([127, 0, 0, 2]), 2).is_some());
        drop(first);
        assert!(all.enter(address, 2).is_some());
        drop(second);
        assert!(all.0.lock().is_ok_and(|held| held.is_empty()));
    }
}
