//! What is counted for each service version. Totals only grow; workers add, control reads.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Striped,
    asked::{Asked, AskedSnapshot},
};

/// Upper bounds of the latency buckets, in milliseconds; one more bucket takes what is slower.
pub const LATENCY_BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000];

/// Counters of one (service, version). Version `""` counts requests that no version got.
#[derive(Debug)]
pub struct VersionCounters {
    busy: Striped<Busy>,
    asked: Asked,
    /// It is among [`Changes`] already.
    told: AtomicBool,
    failed: AtomicU64,
    retries: AtomicU64,
    parked: AtomicU64,
    name: (Name, Name),
    changes: Arc<Changes>,
    me: Weak<Self>,
}

/// What every request counts.
#[derive(Debug, Default)]
struct Busy {
    latency_us_sum: AtomicU64,
    status: [AtomicU64; 5],
    latency: [AtomicU64; LATENCY_BOUNDS_MS.len() + 1],
    grpc_status: [AtomicU64; GRPC_STATUSES],
}

/// Versions that something was counted for since they were last asked for: what control reads follows the traffic, not
/// what is configured.
type Changes = Mutex<Vec<Weak<VersionCounters>>>;

/// Codes of gRPC, 0 (`OK`) to 16 (`UNAUTHENTICATED`), and one for answers without a valid one.
pub const GRPC_STATUSES: usize = 18;

/// A copy of [`VersionCounters`] at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct VersionSnapshot {
    /// Requests that ended.
    pub requests: u64,
    /// By first digit of the status: 1xx (101 only) to 5xx.
    pub status: [u64; 5],
    /// Answered by the engine itself: 502, 503, 504.
    pub failed: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Requests that waited for a version.
    pub parked: u64,
    /// Counts by [`LATENCY_BOUNDS_MS`], not cumulative.
    pub latency: [u64; LATENCY_BOUNDS_MS.len() + 1],
    /// Sum of all latencies in microseconds.
    pub latency_us_sum: u64,
    /// Answers to gRPC calls by their status; the last: none, or one that is not known.
    pub grpc_status: [u64; GRPC_STATUSES],
    /// At instances that this engine asks itself; `None`: there are none.
    pub asked: Option<Box<AskedSnapshot>>,
}

impl VersionCounters {
    fn new(name: (Name, Name), changes: Arc<Changes>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            name,
            told: AtomicBool::new(false),
            changes,
            me: me.clone(),
            busy: Striped::default(),
            asked: Asked::default(),
            failed: AtomicU64::default(),
            retries: AtomicU64::default(),
            parked: AtomicU64::default(),
        })
    }

    /// Service and version.
    #[must_use]
    pub fn name(&self) -> &(Arc<str>, Arc<str>) {
        &self.name
    }

    /// Brings what the calling thread will read and write.
    pub(crate) fn read_ahead(&self) -> u64 {
        let busy = self.busy.mine();
        busy.latency_us_sum.load(Relaxed) ^ busy.latency[2].load(Relaxed) ^ u64::from(self.told.load(Relaxed))
    }

    /// To be called after each count.
    fn tell(&self) {
        // Read first: a write would take the line from the other workers.
        if !self.told.load(Relaxed) && !self.told.swap(true, Relaxed) {
            self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(self.me.clone());
        }
    }

    /// A request ended with `status`, `latency_us` after its head was read. Call once for each request.
    pub fn finished(&self, status: u16, latency_us: u64) {
        let busy = self.busy.mine();
        if let Some(class) = busy.status.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound_ms| bound_ms * 1000 < latency_us);
        busy.latency[bucket].fetch_add(1, Relaxed);
        busy.latency_us_sum.fetch_add(latency_us, Relaxed);
        self.tell();
    }

    /// The engine answered 502, 503 or 504 in the service's place (besides [`Self::finished`]).
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.tell();
    }

    /// A gRPC call ended (besides [`Self::finished`]). `None`: without a status.
    pub fn grpc_finished(&self, status: Option<u8>) {
        let last = GRPC_STATUSES - 1;
        let at = status.map_or(last, |status| usize::from(status).min(last));
        self.busy.mine().grpc_status[at].fetch_add(1, Relaxed);
        self.tell();
    }

    /// An instance was sent a request. Its end is told of ([`Self::finished`]), and this with it.
    pub fn asked(&self) {
        self.asked.sent();
    }

    /// It has answered, and the head was there after so long. `grpc`: the status of a call. As above.
    pub fn answered(&self, status: u16, grpc: Option<u8>, head_us: u64) {
        self.asked.answered(status, grpc, head_us);
    }

    /// It did not, or not so that the answer could be used.
    pub fn broken(&self) {
        self.asked.broken();
        self.tell();
    }

    /// It could not be connected to.
    pub fn unreached(&self) {
        self.asked.unreached();
        self.tell();
    }

    /// A request was tried again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
        self.tell();
    }

    /// A request began to wait for a version.
    pub fn parked(&self) {
        self.parked.fetch_add(1, Relaxed);
        self.tell();
    }

    /// The values now. Counters that move meanwhile may be one apart from each other.
    #[must_use]
    pub fn snapshot(&self) -> VersionSnapshot {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let mut seen = VersionSnapshot {
            failed: load(&self.failed),
            retries: load(&self.retries),
            parked: load(&self.parked),
            asked: self.asked.snapshot(),
            ..VersionSnapshot::default()
        };
        for busy in self.busy.each() {
            seen.latency_us_sum += load(&busy.latency_us_sum);
            seen.status.iter_mut().zip(&busy.status).for_each(|(sum, counter)| *sum += load(counter));
            seen.latency.iter_mut().zip(&busy.latency).for_each(|(sum, counter)| *sum += load(counter));
            seen.grpc_status.iter_mut().zip(&busy.grpc_status).for_each(|(sum, counter)| *sum += load(counter));
        }
        seen.requests = seen.latency.iter().sum();
        seen
    }
}

/// Versions that no table holds any more are forgotten past this number, so that a long life does not grow without end.
const FORGOTTEN_AFTER: usize = 16_384;

/// The counters of every (service, version) that was ever configured: a version that comes back goes on counting.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    versions: Mutex<Versions>,
    changes: Arc<Changes>,
}

type Name = Arc<str>;

#[derive(Debug, Default)]
struct Versions {
    held: HashMap<(Name, Name), Arc<VersionCounters>>,
    /// After the last look for forgotten ones this many were left.
    left: usize,
}

impl Registry {
    pub(crate) fn get(&self, service: &Name, version: &Name) -> Arc<VersionCounters> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        // Looking through all is paid for by as many additions.
        if versions.held.len() > FORGOTTEN_AFTER.max(2 * versions.left) {
            versions.held.retain(|_, counters| Arc::strong_count(counters) > 1);
            versions.left = versions.held.len();
        }
        let name = (service.clone(), version.clone());
        let new = |name: &(Name, Name)| VersionCounters::new(name.clone(), self.changes.clone());
        versions.held.entry(name).or_insert_with_key(new).clone()
    }

    pub(crate) fn all(&self) -> Vec<Arc<VersionCounters>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).held.values().cloned().collect()
    }

    pub(crate) fn changed(&self) -> Vec<Arc<VersionCounters>> {
        let changed = mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        let changed: Vec<_> = changed.iter().filter_map(Weak::upgrade).collect();
        changed.iter().for_each(|counters| counters.told.store(false, Relaxed));
        changed
    }
}
