//! What became of requests at the instances of one version, counted by the engine that asks them: answers by class, requests that were
//! broken off, instances that were not reached, and the time to the head of each answer.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::Striped;

/// Upper bounds of the times, in nanoseconds: from 0.5 ms in steps of 10 % to 60 s. One more bucket takes what is slower.
pub const HEAD_BOUNDS_NS: [u64; 124] = bounds();

/// `UNKNOWN`, `DEADLINE_EXCEEDED`, `UNIMPLEMENTED`, `INTERNAL`, `UNAVAILABLE`, `DATA_LOSS`: others are about what was asked.
pub const GRPC_ERRORS: [u8; 6] = [2, 4, 12, 13, 14, 15];

const FIRST_NS: u64 = 500_000;
const LAST_NS: u64 = 60_000_000_000;
const BUCKETS: usize = HEAD_BOUNDS_NS.len() + 1;

const fn bounds() -> [u64; 124] {
    let mut bounds = [LAST_NS; 124];
    let (mut at, mut bound) = (0, FIRST_NS);
    while at < bounds.len() - 1 {
        bounds[at] = bound;
        bound = bound * 11 / 10;
        at += 1;
    }
    assert!(bounds[122] < LAST_NS && bound > LAST_NS, "the last step is no longer than the others");
    bounds
}

/// Nothing is allocated for versions of which this engine asks no instance: entries know many of them.
#[derive(Debug, Default)]
pub(crate) struct Asked(Striped<OnceLock<Box<Counts>>>);

#[derive(Debug)]
struct Counts {
    requests: AtomicU64,
    answers: [AtomicU64; 5],
    broken: AtomicU64,
    unreached: AtomicU64,
    grpc_errors: AtomicU64,
    head_us_sum: AtomicU64,
    heads: [AtomicU64; BUCKETS],
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: AtomicU64::default(),
            answers: Default::default(),
            broken: AtomicU64::default(),
            unreached: AtomicU64::default(),
            grpc_errors: AtomicU64::default(),
            head_us_sum: AtomicU64::default(),
            heads: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

/// A copy of the counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedSnapshot {
    /// Requests that instances were sent, each attempt of one.
    pub requests: u64,
    /// Answers by the first digit of their status.
    pub answers: [u64; 5],
    /// Attempts without an answer, or with one that is not whole, not in time or not to be understood.
    pub broken: u64,
    /// Attempts for which no connection could be opened; they are not among the requests.
    pub unreached: u64,
    /// Answers of the class 2xx to calls of gRPC whose status says that the service failed: [`GRPC_ERRORS`].
    pub grpc_errors: u64,
    /// Sum of the times to the heads of answers, in microseconds.
    pub head_us_sum: u64,
    /// Counts by [`HEAD_BOUNDS_NS`], not cumulative.
    pub heads: [u64; BUCKETS],
}

impl Default for AskedSnapshot {
    fn default() -> Self {
        Self {
            requests: 0,
            answers: [0; 5],
            broken: 0,
            unreached: 0,
            grpc_errors: 0,
            head_us_sum: 0,
            heads: [0; BUCKETS],
        }
    }
}

impl Asked {
    fn mine(&self) -> &Counts {
        self.0.mine().get_or_init(Box::default)
    }

    pub(crate) fn sent(&self) {
        self.mine().requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn answered(&self, status: u16, grpc: Option<u8>, head_us: u64) {
        let counts = self.mine();
        if status / 100 == 2 && grpc.is_some_and(|code| GRPC_ERRORS.contains(&code)) {
            counts.grpc_errors.fetch_add(1, Relaxed);
        }
        if let Some(class) = counts.answers.get(usize::from(status / 100).wrapping_sub(1)) {
            class.fetch_add(1, Relaxed);
        }
        let bucket = HEAD_BOUNDS_NS.partition_point(|bound_ns| *bound_ns < head_us.saturating_mul(1000));
        counts.heads[bucket].fetch_add(1, Relaxed);
        counts.head_us_sum.fetch_add(head_us, Relaxed);
    }

    pub(crate) fn broken(&self) {
        self.mine().broken.fetch_add(1, Relaxed);
    }

    pub(crate) fn unreached(&self) {
        self.mine().unreached.fetch_add(1, Relaxed);
    }

    /// `None`: no instance was ever asked.
    pub(crate) fn snapshot(&self) -> Option<Box<AskedSnapshot>> {
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let mut seen: Option<Box<AskedSnapshot>> = None;
        for counts in self.0.each().filter_map(OnceLock::get) {
            let seen = seen.get_or_insert_default();
            seen.requests += load(&counts.requests);
            seen.broken += load(&counts.broken);
            seen.unreached += load(&counts.unreached);
            seen.grpc_errors += load(&counts.grpc_errors);
            seen.head_us_sum += load(&counts.head_us_sum);
            seen.answers.iter_mut().zip(&counts.answers).for_each(|(sum, counter)| *sum += load(counter));
            seen.heads.iter_mut().zip(&counts.heads).for_each(|(sum, counter)| *sum += load(counter));
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart_by_a_tenth() {
        assert_eq!((HEAD_BOUNDS_NS[0], HEAD_BOUNDS_NS[123]), (FIRST_NS, LAST_NS));
        for pair in HEAD_BOUNDS_NS.windows(2) {
            assert!(pair[1] > pair[0] && pair[1] * 100 <= pair[0] * 111, "{pair:?}");
        }
        let asked = Asked::default();
        for (us, bucket) in [(0, 0), (500, 0), (501, 1), (550, 1), (551, 2), (60_000_000, 123), (60_000_001, 124)] {
            let before = asked.snapshot().unwrap_or_default().heads[bucket];
            asked.answered(200, None, us);
            assert_eq!(asked.snapshot().unwrap_or_default().heads[bucket], before + 1, "{us} us");
        }
    }

    #[test]
    fn calls_fail_by_their_status_and_others_by_theirs() {
        let asked = Asked::default();
        for (status, grpc) in
            [(200, Some(0)), (200, Some(14)), (200, Some(3)), (200, None), (503, Some(14)), (200, Some(2))]
        {
            asked.answered(status, grpc, 1);
        }
        let seen = asked.snapshot().unwrap_or_default();
        assert_eq!((seen.grpc_errors, seen.answers), (2, [0, 5, 0, 0, 1]));
    }

    #[test]
    fn who_asks_no_instance_has_no_counts() {
        let asked = Asked::default();
        assert_eq!(asked.snapshot(), None);
        asked.unreached();
        asked.sent();
        asked.broken();
        let seen = asked.snapshot().expect("counts");
        assert_eq!((seen.requests, seen.unreached, seen.broken), (1, 1, 1));
    }
}
