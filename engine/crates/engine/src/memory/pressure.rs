//! What all workers hold together, and from where on that is too much.
//!
//! The limit is for the process, and what its connections hold is only a part of it. The rest is told by the system: resident memory
//! without what is held. But what was given back is resident for a while longer, and is used again before there is more: so the
//! rest is taken anew when resident memory has grown, beside the most that was held meanwhile, and else is the least that was
//! seen. (Near the limit, what the last look says.) What is left of the limit is for the connections, but never less
//! than a part of it ([`FLOOR`]): a limit that the tables alone exceed must not end all traffic.

use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

use tokio::sync::Notify;

/// From here on what is only kept for speed is given back; connections at rest are closed if at least half of that is not what
/// connections with requests hold.
const HIGH_PERCENT: usize = 65;
/// From here on who holds most is ended, until it is less than [`HIGH_PERCENT`]. The rest of the limit is for what the allocator
/// can't use again at once, which is a tenth of the limit under attacks that were tried.
const FULL_PERCENT: usize = 80;
/// From here on resident memory counts as it is, whatever may be used again.
const NEAR_PERCENT: usize = 90;
/// The connections have this part of the limit whatever else there is.
const FLOOR: usize = 4;
/// A connection at rest costs so much at the most.
const AT_REST_BYTES: usize = 64 << 10;
/// This part of the limit more is a growth.
const GROWTH: usize = 256;

/// How much is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing needs to be done.
    Low,
    /// Who rests is to leave.
    High,
    /// Who holds most is to leave.
    Full,
}

/// Shared by all workers and the control thread.
#[derive(Debug)]
pub struct Pressure {
    limit: AtomicUsize,
    /// Bytes that connections hold, but for what each worker has not told yet.
    held: AtomicUsize,
    /// The most of it since the last look.
    peak: AtomicUsize,
    /// Of these, what those hold that were told to end and have not yet.
    leaving: AtomicUsize,
    high_at: AtomicUsize,
    full_at: AtomicUsize,
    /// Resident memory is near the limit, and it is not what connections hold.
    tight: AtomicBool,
    /// From so many connections on, those at rest may be what fills the limit.
    crowd: AtomicUsize,
    /// By worker: the greatest [class](super::Holder) of those that it could end, or more; 0: it has none.
    worst: Box<[AtomicUsize]>,
    bells: Box<[Notify]>,
    rung: AtomicBool,
    /// Somebody could not grow since the last look.
    filled: AtomicBool,
}

impl Pressure {
    /// Without a limit until [`Self::set_limit`].
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            limit: AtomicUsize::new(usize::MAX),
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            high_at: AtomicUsize::new(usize::MAX),
            full_at: AtomicUsize::new(usize::MAX),
            tight: AtomicBool::new(false),
            crowd: AtomicUsize::new(usize::MAX),
            worst: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            bells: (0..workers).map(|_| Notify::new()).collect(),
            rung: AtomicBool::new(false),
            filled: AtomicBool::new(false),
        }
    }

    /// Bytes that this process may have. In force at once, but for what was seen of the rest.
    pub fn set_limit(&self, limit: usize) {
        if self.limit.swap(limit, Relaxed) != limit {
            self.take_over(thresholds(limit, 0));
        }
    }

    /// Bytes that this process may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Bytes that connections hold.
    #[must_use]
    pub fn held(&self) -> usize {
        // Workers tell late: for a moment one may have given back what another has not told yet.
        let held = self.held.load(Relaxed);
        if held > usize::MAX / 2 { 0 } else { held }
    }

    fn take_over(&self, (high_at, full_at): (usize, usize)) {
        self.high_at.store(high_at, Relaxed);
        self.full_at.store(full_at, Relaxed);
    }

    /// The level, were so many bytes more held.
    #[must_use]
    pub fn level_with(&self, more: isize) -> Level {
        let held = self.held.load(Relaxed).wrapping_add_signed(more);
        match if held > usize::MAX / 2 { 0 } else { held } {
            held if held >= self.full_at.load(Relaxed) => Level::Full,
            held if held >= self.high_at.load(Relaxed) => Level::High,
            _ => Level::Low,
        }
    }

    /// Whether resident memory is near the limit for another reason than what connections hold.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.tight.load(Relaxed)
    }

    /// Whether so many connections at rest, with what else is unseen, may be what fills the limit.
    #[must_use]
    pub fn is_crowded(&self, connections: u64) -> bool {
        connections >= self.crowd.load(Relaxed) as u64
    }

    /// Bytes that must go.
    #[must_use]
    pub fn surplus(&self) -> usize {
        self.held().saturating_sub(self.leaving.load(Relaxed)).saturating_sub(self.high_at.load(Relaxed))
    }

    pub(super) fn tell(&self, change: isize) {
        self.held.fetch_add(change as usize, Relaxed);
        if change > 0 {
            self.peak.fetch_max(self.held(), Relaxed);
        }
    }

    pub(super) fn leave(&self, bytes: usize) {
        self.leaving.fetch_add(bytes, Relaxed);
    }

    pub(super) fn left(&self, bytes: usize) {
        self.leaving.fetch_sub(bytes, Relaxed);
    }

    #[cfg(test)]
    pub(super) fn leaving(&self) -> usize {
        self.leaving.load(Relaxed)
    }

    pub(super) fn worst_of(&self, worker: usize) -> &AtomicUsize {
        &self.worst[worker]
    }

    /// The greatest class that another worker could end.
    pub(super) fn worst_elsewhere(&self, worker: usize) -> usize {
        let others = self.worst.iter().enumerate().filter(|(index, _)| *index != worker);
        others.map(|(_, worst)| worst.load(Relaxed)).max().unwrap_or(0)
    }

    /// There is too much in use: somebody has to go.
    pub(super) fn full(&self) {
        self.filled.store(true, Relaxed);
        self.ring();
    }

    /// Whether there was too much in use at any time since this was asked last.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.filled.swap(false, Relaxed)
    }

    /// Makes the keepers of all workers look.
    pub fn ring(&self) {
        if !self.rung.swap(true, AcqRel) {
            self.bells.iter().for_each(Notify::notify_one);
        }
    }

    /// Waits until it is rung.
    pub(super) async fn rung(&self, worker: usize) {
        self.bells[worker].notified().await;
        self.rung.store(false, Relaxed);
    }
}

/// From how many bytes held on it is much, and too much.
fn thresholds(limit: usize, rest: usize) -> (usize, usize) {
    let part = |percent: usize| (limit / 100 * percent).saturating_sub(rest).max(limit / 100 * percent / FLOOR);
    (part(HIGH_PERCENT), part(FULL_PERCENT))
}

/// The control thread's looks at resident memory.
#[derive(Debug, Default)]
pub struct Looks {
    /// Resident and not held, when it was taken last, and what was resident then.
    rest: usize,
    taken_at: usize,
    was: Option<Level>,
}

impl Looks {
    /// A look, with so many connections open. Gives the level for the process as a whole.
    pub fn look(&mut self, pressure: &Pressure, resident: usize, connections: u64) -> Level {
        let (limit, held) = (pressure.limit(), pressure.held());
        let rest = resident.saturating_sub(pressure.peak.swap(held, Relaxed).max(held));
        if resident > self.taken_at.saturating_add(limit / GROWTH) || rest < self.rest {
            (self.rest, self.taken_at) = (rest, resident);
        }
        let at = |percent| limit / 100 * percent;
        let near = resident >= at(NEAR_PERCENT);
        pressure.take_over(thresholds(limit, if near { resident.saturating_sub(held) } else { self.rest }));
        let level = match pressure.level_with(0) {
            Level::Low if resident >= at(HIGH_PERCENT) => Level::High,
            level => level,
        };
        let (tight_at, crowded_at) = (at(HIGH_PERCENT) / 2, at(NEAR_PERCENT));
        pressure.tight.store(resident >= at(HIGH_PERCENT) && self.rest >= tight_at, Relaxed);
        // A thousand may come before the next look: so many more, and it is near the limit and they are the reason.
        let more = crowded_at.saturating_sub(resident).max(tight_at.saturating_sub(self.rest)) / AT_REST_BYTES;
        let open = usize::try_from(connections).unwrap_or(usize::MAX);
        pressure.crowd.store(open.saturating_add(more).max(limit / FLOOR / AT_REST_BYTES), Relaxed);
        // Once more when it is over: somebody may wait.
        if level != Level::Low || self.was.is_some_and(|was| was != Level::Low) {
            pressure.ring();
        }
        self.was = Some(level);
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_not_held_counts_against_the_limit() {
        let (pressure, mut looks) = (Pressure::new(1), Looks::default());
        pressure.set_limit(100 * MIB);
        pressure.tell(55 * MIB as isize);
        assert_eq!(looks.look(&pressure, 61 * MIB, 0), Level::Low);
        assert_eq!(pressure.level_with(5 * MIB as isize), Level::High, "60 held and 6 beside them");
        assert_eq!(pressure.level_with(20 * MIB as isize), Level::Full);
        assert_eq!(looks.look(&pressure, 57 * MIB, 0), Level::Low);
        assert_eq!(pressure.level_with(5 * MIB as isize), Level::Low);
    }

    #[test]
    fn memory_that_was_given_back_and_is_resident_still_ends_nobody() {
        let (pressure, mut looks) = (Pressure::new(1), Looks::default());
        pressure.set_limit(100 * MIB);
        pressure.tell(78 * MIB as isize);
        assert_eq!(looks.look(&pressure, 80 * MIB, 0), Level::Full);
        assert_eq!(pressure.surplus() / MIB, 15);
        pressure.tell(-20 * MIB as isize);
        for _ in 0..10 {
            assert_eq!(looks.look(&pressure, 80 * MIB, 0), Level::High, "for the process");
            assert_eq!(pressure.level_with(0), Level::Low, "for who holds it");
        }
        pressure.tell(MIB as isize);
        assert_eq!(looks.look(&pressure, 86 * MIB, 0), Level::Full, "it was not used again");
        pressure.tell(-30 * MIB as isize);
        assert_eq!(looks.look(&pressure, 91 * MIB, 0), Level::Full, "nothing is left");
    }

    #[test]
    fn tables_that_are_larger_than_the_limit_leave_something_for_connections() {
        let (pressure, mut looks) = (Pressure::new(1), Looks::default());
        pressure.set_limit(100 * MIB);
        for _ in 0..10 {
            assert_eq!(looks.look(&pressure, 300 * MIB, 0), Level::High);
        }
        assert_eq!(pressure.level_with(15 * MIB as isize), Level::Low);
        assert_eq!(pressure.level_with(22 * MIB as isize), Level::Full);
    }

    #[test]
    fn only_many_connections_at_rest_keep_others_out() {
        let (pressure, mut looks) = (Pressure::new(1), Looks::default());
        pressure.set_limit(64 * MIB);
        assert!(!pressure.is_crowded(100_000), "nobody has looked");
        // Until the next look, each new one counts as if it cost all that one may.
        looks.look(&pressure, 50 * MIB, 1000);
        assert!(pressure.is_tight() && !pressure.is_crowded(1110) && pressure.is_crowded(1140));
        looks.look(&pressure, 63 * MIB, 1000);
        assert!(!pressure.is_crowded(999) && pressure.is_crowded(1000));
        looks.look(&pressure, 63 * MIB, 10);
        assert!(!pressure.is_crowded(200) && pressure.is_crowded(256), "the tables leave them a part");
        looks.look(&pressure, 20 * MIB, 10);
        assert!(!pressure.is_crowded(400));
    }

    #[test]
    fn what_requests_hold_keeps_nobody_out() {
        let (pressure, mut looks) = (Pressure::new(1), Looks::default());
        pressure.set_limit(64 * MIB);
        pressure.tell(50 * MIB as isize);
        looks.look(&pressure, 60 * MIB, 300);
        assert!(!pressure.is_crowded(400));
    }
}
