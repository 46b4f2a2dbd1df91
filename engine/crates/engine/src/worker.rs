//! What a connection sees of its worker thread.
//!
//! A worker is one thread with one single-threaded runtime; everything here is plain `Rc`/`Cell` state of that thread.
//! The control thread sends it new tables and settings; a connection reads them at the moment it needs them and keeps
//! none over an `await` longer than it must: a member that is picked must come from [`Worker::table`] called right before.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use sdlb_routes::{Chance, Fault, Picked, Table, Target};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    access_log::{AccessLog, Sink},
    conn::{local::Local, resting::Oldest},
    counters::Counters,
    listen::{
        accept::PerAddress,
        asleep::Asleep,
        descriptors::Descriptors,
        idle::{Giver, Way},
        spread::Spread,
    },
    memory::{Memory, Pressure},
    rate::Rates,
    settings::{ListenerKind, NodeConfig},
    tls::sites::Sites,
};

/// An endpoint was taken out, or its state is otherwise news for control.
#[derive(Debug, Clone)]
pub struct TargetEjected {
    /// Key of the target.
    pub target: Arc<Target>,
    /// For how long.
    pub for_ms: u32,
    /// One clause: "connection refused".
    pub reason: String,
}

/// One worker thread, as its connections see it. Shared as `Rc<Worker>`.
pub struct Worker {
    /// 0, 1, ...: for logs.
    pub index: usize,
    /// Named counters of the engine.
    pub counters: Arc<Counters>,
    /// Where lines of the access log go; cheap to ask whether it is on.
    pub access_log: AccessLog,
    pub(crate) per_address: PerAddress,
    pub(crate) asleep: Asleep,
    pub(crate) handshakes: PerAddress,
    pub(crate) rates: Rates,
    pub(crate) descriptors: Descriptors,
    pub(crate) spread: Arc<Spread>,
    pub(crate) sites: Sites,
    /// Upstream connections, memory and the retry budget of this worker's connections.
    pub local: Local,
    table: RefCell<Arc<Table>>,
    config: RefCell<Rc<NodeConfig>>,
    chance: RefCell<Chance>,
    started: Instant,
    table_changes: watch::Sender<u64>,
    leaving: watch::Sender<Leaving>,
    giver: RefCell<Option<Rc<Giver>>>,
    connections: Cell<usize>,
    ejected: mpsc::UnboundedSender<TargetEjected>,
    crowded: Arc<Notify>,
}

impl Worker {
    /// A worker with a table. `started` is the zero of the engine's clock, the same for all workers.
    #[must_use]
    pub fn new(index: usize, shared: &WorkerShared, table: Arc<Table>, config: NodeConfig) -> Self {
        Self {
            index,
            counters: shared.counters.clone(),
            access_log: AccessLog::new(shared.access_log.clone()),
            per_address: shared.per_address.clone(),
            asleep: Asleep::default(),
            handshakes: shared.handshakes.clone(),
            rates: shared.rates.clone(),
            descriptors: Descriptors::now(),
            spread: shared.spread.clone(),
            sites: shared.sites.clone(),
            local: Local::new(Rc::new(Memory::new(shared.pressure.clone(), index))),
            table: RefCell::new(table),
            config: RefCell::new(Rc::new(config)),
            chance: RefCell::new(Chance::new(shared.seed.wrapping_add(index as u64))),
            started: shared.started,
            table_changes: watch::Sender::new(0),
            leaving: watch::Sender::new(Leaving::Nobody),
            giver: RefCell::default(),
            connections: Cell::new(0),
            ejected: shared.ejected.clone(),
            crowded: shared.crowded.clone(),
        }
    }

    /// The table now. Pick from it before the next `await`: after `Applied` no member may be picked from an older one.
    pub fn table(&self) -> Arc<Table> {
        self.table.borrow().clone()
    }

    /// Runs `read` on the table now, without touching its reference count.
    pub fn with_table<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        read(&self.table.borrow())
    }

    /// Name, limits, control socket now.
    pub fn config(&self) -> Rc<NodeConfig> {
        self.config.borrow().clone()
    }

    /// Runs `act` with this worker's generator.
    pub fn with_chance<T>(&self, act: impl FnOnce(&mut Chance) -> T) -> T {
        act(&mut self.chance.borrow_mut())
    }

    /// Milliseconds since the engine started: the clock of ejections.
    pub fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// The same at another time: to read the clock costs as much as to look a route up.
    pub fn ms_at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Parked requests wait on this: `changed().await` returns after each new table. Subscribe before looking at the
    /// table, so that no change is missed.
    pub fn table_changes(&self) -> watch::Receiver<u64> {
        self.table_changes.subscribe()
    }

    /// Returns when connections of this kind are to end: close idle ones, answer with `Connection: close`. Holds no borrow of the
    /// worker.
    pub fn ends(&self, kind: ListenerKind) -> impl Future<Output = ()> + use<> {
        let mut leaving = self.leaving.subscribe();
        async move { drop(leaving.wait_for(|leaving| leaving.concerns(kind)).await) }
    }

    /// Whether connections of this kind are to end.
    pub fn is_ending(&self, kind: ListenerKind) -> bool {
        self.leaving.borrow().concerns(kind)
    }

    /// Whether they are, and do not go to another engine.
    pub fn is_draining(&self, kind: ListenerKind) -> bool {
        self.is_ending(kind) && self.giver().is_none()
    }

    /// The engine shuts down, and another takes what rests.
    pub(crate) fn giver(&self) -> Option<Rc<Giver>> {
        self.giver.borrow().clone().filter(|giver| giver.is_open())
    }

    /// A request to this member went well as far as its target's health is concerned.
    pub fn succeeded(&self, picked: &Picked) {
        picked.target().succeeded();
    }

    /// Connecting or the exchange failed through the target's fault. Ejects it after several in a row and tells control.
    /// `reason`: one clause, "connection refused".
    pub fn failed(&self, picked: &Picked, fault: Fault, reason: &str) {
        let target = picked.target();
        if let Some(ejected) = target.failed(self.now_ms(), fault) {
            // The receiver lives as long as the engine.
            let _ = self.ejected.send(TargetEjected {
                target: target.clone(),
                for_ms: ejected.for_ms,
                reason: reason.to_owned(),
            });
        }
    }

    /// Another worker needs room, and has no connection at rest. Wakes one of those who wait for it.
    pub(crate) fn crowded(&self) -> &Notify {
        &self.crowded
    }

    /// Whether the limit on connections is reached.
    pub(crate) fn is_full(&self) -> bool {
        self.counters.connections_open.get() >= self.config.borrow().limits.connections as u64
    }

    /// Whether there is no memory for another connection now.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        !self.local.memory.may_grow() || self.local.memory.pressure().is_crowded(self.counters.connections_open.get())
    }

    /// Asks the client connection that has rested longest to end. False: there is none.
    pub(crate) fn make_room(&self) -> bool {
        let now = tokio::time::Instant::now();
        while let Some(oldest) = self.local.resting.end_oldest(now) {
            match oldest {
                Oldest::Asked => return true,
                Oldest::Asleep(number) if self.asleep.end(number) => {
                    self.counters.connections_evicted_total.add();
                    return true;
                }
                // It has just spoken: the next one.
                Oldest::Asleep(_) => {}
            }
        }
        false
    }

    /// Connections on this worker now.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Gives the old table, for the control thread to free: that can take milliseconds.
    pub(crate) fn set_table(&self, table: Arc<Table>) -> Arc<Table> {
        let old = self.table.replace(table);
        self.chance.borrow_mut().forget_places();
        self.table_changes.send_modify(|changes| *changes += 1);
        old
    }

    pub(crate) fn set_config(&self, config: NodeConfig) {
        *self.config.borrow_mut() = Rc::new(config);
    }

    /// `way`: to an engine that takes what rests.
    pub(crate) fn drain(&self, way: Option<Way>) {
        // Without a descriptor for it they drain as without the other engine.
        *self.giver.borrow_mut() = way.and_then(|way| Giver::new(way, self.index).ok()).map(Rc::new);
        self.leaving.send_replace(Leaving::All);
    }

    /// Clients are to go, nodes stay; or all stay.
    pub(crate) fn drain_clients(&self, go: bool) {
        self.leaving.send_if_modified(|leaving| {
            let next = if go { Leaving::Clients } else { Leaving::Nobody };
            *leaving != Leaving::All && std::mem::replace(leaving, next) != next
        });
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.set(self.connections.get() - 1);
    }
}

/// Whose connections are to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Nobody,
    /// The node is about to leave.
    Clients,
    /// The engine shuts down.
    All,
}

impl Leaving {
    fn concerns(self, kind: ListenerKind) -> bool {
        self == Self::All || (self == Self::Clients && kind == ListenerKind::Entry)
    }
}

/// What all workers have in common.
#[derive(Clone)]
pub struct WorkerShared {
    /// Named counters.
    pub counters: Arc<Counters>,
    /// The access log.
    pub access_log: Sink,
    /// Zero of the engine's clock.
    pub started: Instant,
    /// For the workers' generators.
    pub seed: u64,
    /// Connections by client address.
    pub per_address: PerAddress,
    /// TLS handshakes by client address.
    pub handshakes: PerAddress,
    /// Requests by client address.
    pub rates: Rates,
    /// Links of parents, over the workers.
    pub spread: Arc<Spread>,
    /// Certificates.
    pub sites: Sites,
    /// To the control session.
    pub ejected: mpsc::UnboundedSender<TargetEjected>,
    /// From a worker that needs room for a connection to another.
    pub crowded: Arc<Notify>,
    /// What all workers hold.
    pub pressure: Arc<Pressure>,
}
