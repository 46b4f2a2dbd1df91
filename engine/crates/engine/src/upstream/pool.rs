//! The pool of idle upstream connections of one worker.
//!
//! The one used last is taken first, so that those that are not needed grow old and go. Just before it is used again a
//! connection is looked at: what ended is dropped, and what spoke without being asked is dropped and counted.
//!
//! A server may close a connection that it takes for idle while a request is on its way to it. Whether it has read the
//! request can't be known then, so only one that may be done twice is sent again; the others get 502. So a connection is
//! given up before its server would do so: after three quarters of the time that it announces (`Keep-Alive: timeout=n`),
//! else before any server in wide use closes one (Node.js, uvicorn, Apache: 5 s), and a request that could not be sent
//! again gets none that was idle for a second (`handle.rs`; gunicorn: 2 s). What is left: a server that closes after less
//! than that without having said so, in the very millisecond in which a request reaches it.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use sdlb_routes::{Target, TargetKind};
use tokio::time::Instant;

use crate::{
    conn::io::{Io, Rest},
    counters::Counters,
};

/// Idle connections to one target that a worker keeps.
const IDLE_MAX: usize = 256;
/// How long one to an instance may be idle that says nothing about it.
const IDLE_AGE: Duration = Duration::from_secs(4);
/// How long any may be idle: half the idle time-out of our own listeners.
const IDLE_AGE_MAX: Duration = Duration::from_secs(30);

/// A connection to a target.
#[derive(Debug)]
pub struct Upstream {
    /// The stream.
    pub io: Io,
    /// It was used before: that it ends without an answer need not be the target's fault.
    pub reused: bool,
    /// How long it had been idle before this use.
    pub rested: Duration,
    target: Arc<Target>,
    address_changes: u32,
    /// In the pool since then.
    idle_since: Option<Instant>,
    idle_age_max: Duration,
    open: Option<Open>,
}

/// A connection to a target, counted until dropped.
#[derive(Debug)]
struct Open(Arc<Target>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Relaxed);
    }
}

impl Upstream {
    /// A fresh one, made when the target's address had changed so often.
    #[must_use]
    pub fn new(io: Io, target: Arc<Target>, address_changes: u32) -> Self {
        Self {
            io,
            reused: false,
            rested: Duration::ZERO,
            target,
            address_changes,
            idle_since: None,
            idle_age_max: IDLE_AGE_MAX,
            open: None,
        }
    }

    /// It counts among its target's connections.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.target.counters.connections.fetch_add(1, Relaxed);
        self.open = Some(Open(self.target.clone()));
        self
    }

    /// The stream itself.
    #[must_use]
    pub fn into_io(self) -> Io {
        self.io
    }

    /// How often the target's address had changed when it was made.
    #[must_use]
    pub fn address_changes(&self) -> u32 {
        self.address_changes
    }

    /// Where it leads.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Since when it is idle, and for how long it may be. `None`: it is in use.
    #[must_use]
    pub fn idle(&self) -> Option<(Instant, Duration)> {
        self.idle_since.map(|since| (since, self.idle_age_max))
    }

    /// One that was idle in another engine's pool.
    #[must_use]
    pub fn inherited(mut self, idle_since: Instant, idle_age_max: Duration) -> Self {
        (self.reused, self.idle_since, self.idle_age_max) = (true, Some(idle_since), idle_age_max.min(IDLE_AGE_MAX));
        self.counted()
    }

    /// Whether another process can go on with it: HTTP/1.1 in clear text to an instance, and to where that is now.
    fn may_be_passed_on(&self) -> bool {
        matches!(self.io, Io::Tcp(_) | Io::Unix(_))
            && self.target.kind() == TargetKind::Instance
            && self.address_changes == self.target.address_changes()
    }
}

/// The keys are numbers of our own, counted up.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// Idle connections by target.
#[derive(Debug, Default)]
pub struct Pool(RefCell<HashMap<u64, Vec<Upstream>, BuildHasherDefault<Spread>>>);

impl Pool {
    /// A connection to the target that has not been idle for longer than it may be, nor for longer than `age_max`: with
    /// one, for a request that could not be sent again, it is looked at once more.
    pub fn take(
        &self,
        target: &Target,
        now: Instant,
        age_max: Option<Duration>,
        counters: &Counters,
    ) -> Option<Upstream> {
        let mut pool = self.0.borrow_mut();
        let idle = pool.get_mut(&target.id())?;
        while let Some(mut upstream) = idle.pop() {
            target.counters.idle_by(-1);
            if upstream.address_changes != target.address_changes() {
                continue;
            }
            let age = now.saturating_duration_since(upstream.idle_since?);
            if age > upstream.idle_age_max {
                continue;
            }
            if age_max.is_some_and(|age_max| age > age_max) {
                // The others are older; they will do for other requests.
                target.counters.idle_by(1);
                idle.push(upstream);
                return None;
            }
            match upstream.io.rest(age_max.is_some()) {
                Rest::Good => {
                    upstream.idle_since = None;
                    upstream.reused = true;
                    upstream.rested = age;
                    return Some(upstream);
                }
                Rest::Ended => {}
                Rest::Spoke => counters.upstream_unsolicited_total.add(),
            }
        }
        None
    }

    /// Keeps a connection that is ready for another request. `announced`: for how long the other side keeps it, as it says.
    pub fn put(&self, mut upstream: Upstream, now: Instant, announced: Option<Duration>) {
        upstream.idle_age_max = match (announced, upstream.target.kind()) {
            (Some(age), _) => IDLE_AGE_MAX.min(age * 3 / 4),
            (None, TargetKind::Instance) => IDLE_AGE,
            (None, TargetKind::Node) => IDLE_AGE_MAX,
        };
        if upstream.idle_age_max.is_zero() || upstream.io.is_stream() {
            return;
        }
        let mut pool = self.0.borrow_mut();
        let idle = pool.entry(upstream.target.id()).or_default();
        if idle.len() < IDLE_MAX && upstream.address_changes == upstream.target.address_changes() {
            upstream.idle_since = Some(now);
            upstream.target.counters.idle_by(1);
            idle.push(upstream);
        }
    }

    /// Takes out what another process can go on with.
    pub fn take_all(&self, now: Instant) -> Vec<Upstream> {
        let mut all = Vec::new();
        self.0.borrow_mut().retain(|_, idle| {
            let passed = idle.extract_if(.., |upstream| upstream.may_be_passed_on());
            let before = all.len();
            all.extend(passed);
            if let Some(first) = all.get(before) {
                first.target.counters.idle_by(before as i64 - all.len() as i64);
            }
            !idle.is_empty()
        });
        let is_young = |since: Instant, most| now.saturating_duration_since(since) <= most;
        all.retain(|upstream| {
            upstream.idle().is_some_and(|(since, most)| is_young(since, most)) && upstream.io.rest(true) == Rest::Good
        });
        all
    }

    /// Takes in what was idle already.
    pub fn put_all(&self, all: impl IntoIterator<Item = Upstream>) {
        let mut pool = self.0.borrow_mut();
        for upstream in all {
            let idle = pool.entry(upstream.target.id()).or_default();
            if idle.len() < IDLE_MAX && upstream.address_changes == upstream.target.address_changes() {
                upstream.target.counters.idle_by(1);
                idle.push(upstream);
            }
        }
    }

    /// Closes what is too old or not good any more, and what no table has a use for. To be called every few seconds.
    pub fn sweep(&self, now: Instant, counters: &Counters, in_use: impl Fn(&Arc<Target>) -> bool) {
        self.0.borrow_mut().retain(|_, idle| {
            let Some(target) = idle.first().map(|upstream| upstream.target.clone()) else { return false };
            let (before, used) = (idle.len(), in_use(&target));
            idle.retain(|upstream| {
                let age = |since: Instant| now.saturating_duration_since(since);
                let old = upstream.idle_since.is_none_or(|since| age(since) > upstream.idle_age_max);
                match upstream.io.rest(true) {
                    Rest::Good => used && !old && upstream.address_changes == upstream.target.address_changes(),
                    Rest::Ended => false,
                    Rest::Spoke => {
                        counters.upstream_unsolicited_total.add();
                        false
                    }
                }
            });
            target.counters.idle_by(idle.len() as i64 - before as i64);
            !idle.is_empty()
        });
    }
}
