//! What is known of one member, over all workers, kept from table to table.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, Ordering::Relaxed, Ordering::SeqCst},
};

use crate::{Shared, Striped};

/// After so long an average that nothing was added to counts for a third (Finagle's default).
const DECAY_MS: f64 = 10_000.0;

/// Figures of one member.
#[derive(Debug)]
pub(crate) struct Load {
    /// One that begins on one thread may end on another: the sum over all is what counts.
    in_flight: Striped<AtomicI64>,
    draining: AtomicBool,
    pub(crate) shared: Arc<Shared>,
    /// On the engine's clock; 0: nobody has looked at it yet.
    since_ms: AtomicU64,
    /// Latency in microseconds and when it was measured, in milliseconds: halves of one number, so that they fit together.
    average: AtomicU64,
    /// Since the last look for outliers.
    requests: AtomicU32,
    failures: AtomicU32,
    latency_us: AtomicU64,
    /// On the engine's clock: all requests that began up to then have to end; 0: none.
    cut_all_ms: AtomicU64,
    /// The same for streams alone.
    cut_streams_ms: AtomicU64,
}

/// What happened to a member between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub(crate) requests: u32,
    pub(crate) failures: u32,
    pub(crate) latency_us: u64,
}

impl Load {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            in_flight: Striped::default(),
            draining: AtomicBool::new(false),
            shared,
            since_ms: AtomicU64::new(0),
            average: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            latency_us: AtomicU64::new(0),
            cut_all_ms: AtomicU64::new(0),
            cut_streams_ms: AtomicU64::new(0),
        }
    }

    /// Requests that began up to `now_ms` have to end; later ones do not.
    pub(crate) fn cut(&self, now_ms: u64, streams_only: bool) {
        let which = if streams_only { &self.cut_streams_ms } else { &self.cut_all_ms };
        which.fetch_max(now_ms.max(1), Relaxed);
    }

    /// Whether a request has to end. `began_ms` is asked for only if any has.
    pub(crate) fn is_cut(&self, is_stream: bool, began_ms: impl FnOnce() -> u64) -> bool {
        let streams_ms = if is_stream { self.cut_streams_ms.load(Relaxed) } else { 0 };
        let until_ms = self.cut_all_ms.load(Relaxed).max(streams_ms);
        until_ms != 0 && began_ms() <= until_ms
    }

    /// Reads what other threads write: costs more the more of them there are.
    pub(crate) fn in_flight(&self) -> u32 {
        self.sum(Relaxed)
    }

    fn sum(&self, order: Ordering) -> u32 {
        let sum: i64 = self.in_flight.each().map(|one| one.load(order)).sum();
        // Between the looks at two stripes one may have begun in the first and ended in the second.
        u32::try_from(sum).unwrap_or(0)
    }

    /// Brings what the calling thread will read and write.
    pub(crate) fn read_ahead(&self) -> u32 {
        self.in_flight.mine().load(Relaxed) as u32 ^ u32::from(self.draining.load(Relaxed))
    }

    /// Once draining is set, and nothing begins any more: whether all have ended, if nobody rings for the last.
    pub(crate) fn is_idle(&self) -> bool {
        self.sum(SeqCst) == 0
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, SeqCst);
    }

    pub(crate) fn begin(&self) {
        self.in_flight.mine().fetch_add(1, SeqCst);
    }

    pub(crate) fn end(&self) {
        self.in_flight.mine().fetch_sub(1, SeqCst);
        // In the one order of all these the last to end sees that all others have.
        if self.draining.load(SeqCst) && self.is_idle() {
            self.shared.ring();
        }
    }

    /// When it was first looked at; that is now, when it was not.
    pub(crate) fn since_ms(&self, now_ms: u64) -> u64 {
        match self.since_ms.load(Relaxed) {
            0 => {
                // The first of several workers counts.
                let now_ms = now_ms.max(1);
                self.since_ms.compare_exchange(0, now_ms, Relaxed, Relaxed).unwrap_or(now_ms).max(1)
            }
            since_ms => since_ms,
        }
    }

    /// A request ended. `latency_us`: until the head of its answer.
    pub(crate) fn ended(&self, now_ms: u64, latency_us: u64, failed: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.failures.fetch_add(u32::from(failed), Relaxed);
        self.latency_us.fetch_add(latency_us, Relaxed);
        let held = self.average.load(Relaxed);
        let (average_us, at_ms) = ((held >> 32) as f64, held & 0xffff_ffff);
        let age_ms = (now_ms & 0xffff_ffff).saturating_sub(at_ms) as f64;
        let new = latency_us as f64;
        let weight = (-age_ms / DECAY_MS).exp();
        // A rise counts at once, a fall bit by bit; the first measurement as it is.
        let next = if held == 0 || new > average_us { new } else { average_us * weight + new * (1.0 - weight) };
        let next = (next as u64).clamp(1, u64::from(u32::MAX));
        // When two end at once one of them is lost, which an average can bear.
        self.average.store((next << 32) | (now_ms & 0xffff_ffff), Relaxed);
    }

    /// In microseconds, less the longer nothing was measured. `None`: never was.
    pub(crate) fn average_us(&self, now_ms: u64) -> Option<f64> {
        let held = self.average.load(Relaxed);
        if held == 0 {
            return None;
        }
        let age_ms = (now_ms & 0xffff_ffff).saturating_sub(held & 0xffff_ffff) as f64;
        Some((held >> 32) as f64 * (-age_ms / DECAY_MS).exp())
    }

    /// What happened since the last call.
    pub(crate) fn take_window(&self) -> Window {
        Window {
            requests: self.requests.swap(0, Relaxed),
            failures: self.failures.swap(0, Relaxed),
            latency_us: self.latency_us.swap(0, Relaxed),
        }
    }
}
