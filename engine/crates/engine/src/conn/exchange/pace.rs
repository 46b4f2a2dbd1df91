//! The least that a client must send of a body, or take of an answer, on average: a byte now and then is progress, and would
//! hold a place, a buffer and an endpoint for days.
//!
//! Patience is a store of time. Waiting for the client takes of it, each byte gives some back, and it never holds more than it
//! had in the beginning: who was fast for long may not be slow for long. Time in which nothing is owed to the client, or by
//! it, costs nothing: so long polls, server-sent events and slow endpoints take none of it.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub struct Pace {
    full: Duration,
    left: Duration,
    /// 0: no matter how slow.
    bytes_per_s: u32,
    /// What the client has sent and taken since it was looked at.
    bytes: u64,
    waits_since: Option<Instant>,
}

impl Pace {
    /// `bytes_per_s` is to be kept on average over about the time `full`; 0: no matter how slow.
    pub fn new(full: Duration, bytes_per_s: u32) -> Self {
        Self { full, left: full, bytes_per_s, bytes: 0, waits_since: None }
    }

    /// The client has sent or taken something.
    pub fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Something has moved. Gives how long to wait now: for the client (`waits`) no longer than its patience lasts.
    pub fn turn(&mut self, now: Instant, waits: bool, patience: Duration) -> Duration {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(since) = self.waits_since.take() {
            let earned = Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_s));
            self.left = self.left.saturating_sub(now.saturating_duration_since(since));
            self.left = self.left.saturating_add(earned).min(self.full);
        }
        if !waits || self.bytes_per_s == 0 {
            return patience;
        }
        self.waits_since = Some(now);
        patience.min(self.left)
    }

    /// Whether its patience is at an end.
    pub fn is_lost(&self, now: Instant) -> bool {
        // Who did not move at all is silent, not slow.
        self.left < self.full && self.waits_since.is_some_and(|since| now.saturating_duration_since(since) >= self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_dribbles_is_lost_and_who_keeps_the_pace_is_not() {
        for (bytes_a_second, lasts) in [(1, false), (90, false), (100, true), (5_000, true)] {
            let mut now = Instant::now();
            let mut pace = Pace::new(30 * SECOND, 100);
            let mut patience = pace.turn(now, true, 30 * SECOND);
            for _ in 0..1_000 {
                if patience < SECOND {
                    break;
                }
                now += SECOND;
                pace.moved(bytes_a_second);
                patience = pace.turn(now, true, 30 * SECOND);
            }
            assert_eq!(patience >= SECOND, lasts, "{bytes_a_second} bytes a second");
            assert_eq!(pace.is_lost(now + patience), !lasts);
        }
    }

    #[test]
    fn what_was_fast_before_does_not_count_for_long() {
        let mut now = Instant::now();
        let mut pace = Pace::new(30 * SECOND, 100);
        pace.turn(now, true, 30 * SECOND);
        pace.moved(1 << 30);
        assert_eq!(pace.turn(now, true, 30 * SECOND), 30 * SECOND);
        now += 20 * SECOND;
        pace.moved(1);
        assert!(pace.turn(now, true, 30 * SECOND) < 11 * SECOND);
    }

    #[test]
    fn nobody_pays_for_the_time_of_others() {
        let now = Instant::now();
        let mut pace = Pace::new(30 * SECOND, 100);
        assert_eq!(pace.turn(now, false, 90 * SECOND), 90 * SECOND);
        assert_eq!(pace.turn(now + 3_600 * SECOND, true, 30 * SECOND), 30 * SECOND);
        assert_eq!(Pace::new(SECOND, 0).turn(now, true, 90 * SECOND), 90 * SECOND);
    }
}
