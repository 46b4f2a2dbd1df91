//! The retry budget: retries are a share of the requests, so that they cannot multiply an outage.

use std::cell::Cell;

/// Tries, in thousandths.
const TRY: u64 = 1000;
/// Retries a second that are always allowed, on each worker.
const TRIES_PER_S_MIN: u64 = 10;
/// What can be saved up.
const SAVED_MAX: u64 = 100 * TRY;

/// One worker's budget.
#[derive(Debug)]
pub struct Budget {
    saved: Cell<u64>,
    filled_ms: Cell<u64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: Cell::new(TRIES_PER_S_MIN * TRY), filled_ms: Cell::new(0) }
    }
}

impl Budget {
    /// A request came in.
    pub fn earn(&self, percent: u32) {
        self.saved.set((self.saved.get() + u64::from(percent) * TRY / 100).min(SAVED_MAX));
    }

    /// Whether a request may be tried again; takes it from the budget.
    pub fn spend(&self, now_ms: u64) -> bool {
        let since = now_ms.saturating_sub(self.filled_ms.replace(now_ms));
        let saved = (self.saved.get() + since.min(60_000) * TRIES_PER_S_MIN).min(SAVED_MAX);
        let enough = saved >= TRY;
        self.saved.set(if enough { saved - TRY } else { saved });
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_and_ten_a_second() {
        let budget = Budget::default();
        assert_eq!((0..50).filter(|_| budget.spend(0)).count(), 10);
        assert_eq!((0..50).filter(|_| budget.spend(1000)).count(), 10);
        (0..100).for_each(|_| budget.earn(20));
        assert_eq!((0..50).filter(|_| budget.spend(1000)).count(), 20);
    }
}
