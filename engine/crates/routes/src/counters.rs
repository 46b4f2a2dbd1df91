//! What is counted for each service version. Totals only grow; workers add, control reads.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Upper bounds of the latency buckets, in milliseconds; one more bucket takes what is slower.
pub const LATENCY_BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000];

/// Counters of one (service, version). Version `""` counts requests that no version got.
#[derive(Debug, Default)]
pub struct VersionCounters {
    requests: AtomicU64,
    status: [AtomicU64; 5],
    failed: AtomicU64,
    retries: AtomicU64,
    parked: AtomicU64,
    latency: [AtomicU64; LATENCY_BOUNDS_MS.len() + 1],
    latency_us_sum: AtomicU64,
    grpc_status: [AtomicU64; GRPC_STATUSES],
}

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
}

impl VersionCounters {
    /// A request ended with `status`, `latency_us` after its head was read. Call once for each request.
    pub fn finished(&self, status: u16, latency_us: u64) {
        self.requests.fetch_add(1, Relaxed);
        if let Some(class) = self.status.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound_ms| bound_ms * 1000 < latency_us);
        self.latency[bucket].fetch_add(1, Relaxed);
        self.latency_us_sum.fetch_add(latency_us, Relaxed);
    }

    /// The engine answered 502, 503 or 504 in the service's place (besides [`Self::finished`]).
    pub fn failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// A gRPC call ended (besides [`Self::finished`]). `None`: without a status.
    pub fn grpc_finished(&self, status: Option<u8>) {
        let last = GRPC_STATUSES - 1;
        self.grpc_status[status.map_or(last, |status| usize::from(status).min(last))].fetch_add(1, Relaxed);
    }

    /// A request was tried again.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// A request began to wait for a version.
    pub fn parked(&self) {
        self.parked.fetch_add(1, Relaxed);
    }

    /// The values now. Counters that move meanwhile may be one apart from each other.
    #[must_use]
    pub fn snapshot(&self) -> VersionSnapshot {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        VersionSnapshot {
            requests: load(&self.requests),
            status: self.status.each_ref().map(load),
            failed: load(&self.failed),
            retries: load(&self.retries),
            parked: load(&self.parked),
            latency: self.latency.each_ref().map(load),
            latency_us_sum: load(&self.latency_us_sum),
            grpc_status: self.grpc_status.each_ref().map(load),
        }
    }
}

/// Versions that no table holds any more are forgotten past this number, so that a long life does not grow without end.
const FORGOTTEN_AFTER: usize = 65_536;

/// The counters of every (service, version) that was ever configured: a version that comes back goes on counting.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Versions>);

type Name = Arc<str>;

#[derive(Debug, Default)]
struct Versions {
    held: HashMap<(Name, Name), Arc<VersionCounters>>,
    /// After the last look for forgotten ones this many were left.
    left: usize,
}

impl Registry {
    pub(crate) fn get(&self, service: &Name, version: &Name) -> Arc<VersionCounters> {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Looking through all is paid for by as many additions.
        if versions.held.len() > FORGOTTEN_AFTER.max(2 * versions.left) {
            versions.held.retain(|_, counters| Arc::strong_count(counters) > 1);
            versions.left = versions.held.len();
        }
        versions.held.entry((service.clone(), version.clone())).or_default().clone()
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<str>, &Arc<str>, &VersionCounters)) {
        let versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((service, version), counters) in &versions.held {
            visit(service, version, counters);
        }
    }
}
