//! Chance, passed in, and the even sequence that keeps the shares of versions exact.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    Group, Member,
    places::{Place, Places},
};

/// What a worker thread brings to a choice: a small fast generator (SplitMix64, not for secrets), and the places it has
/// chosen before.
#[derive(Debug)]
pub struct Chance {
    state: u64,
    places: Places,
}

impl Chance {
    /// Starts from `seed`; equal seeds give equal sequences.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed, places: Places::default() }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias of the multiplication is under 2^-32 for small bounds.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// To be called with each new table: what only the old one has can be freed.
    pub fn forget_places(&mut self) {
        self.places.forget();
    }

    pub(crate) fn place(&mut self, group: &Arc<Group>, member: &Arc<Member>) -> Arc<Place> {
        self.places.get(group, member)
    }
}

/// The finaliser of SplitMix64: every input bit moves every output bit.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number for a value: equal on every node and after every restart. No table is keyed by it.
#[must_use]
pub fn hash(value: &[u8]) -> u64 {
    mix(fnv(value.iter().copied()))
}

/// The score of a candidate of this weight in rendezvous hashing. `hash`: of the value and the candidate.
pub(crate) fn score(hash: u64, weight: f64) -> f64 {
    // A number above 0 and at most 1, from the upper 53 bits.
    let unit = ((hash >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
    -weight / unit.ln().min(-f64::MIN_POSITIVE)
}

/// Names a version to the clients that have a session on it: equal on every node and after every restart, and it says nothing about
/// the version. Never 0.
pub(crate) fn session(service: &str, version: &str) -> u64 {
    mix(fnv(b"session\0".iter().copied().chain(service.bytes()).chain([0]).chain(version.bytes()))).max(1)
}

/// FNV-1a: stable over versions of the standard library.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A request's fixed place among the shares of the versions, as a fraction of 2^64. Kept for the request's retries, so
/// that a retry does not change its version while that version can take it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    at: u64,
    /// Of a value, which keeps its version as far as the shares allow.
    sticky: bool,
    /// Of a session, which keeps its version whatever the shares are; 0: of none.
    session: u64,
}

impl Draw {
    /// The draw of a sticky value: equal for equal values, on every node and after every restart. `service` is mixed in
    /// so that a client's place in one service says nothing about its place in another.
    #[must_use]
    pub fn sticky(service: &str, value: &[u8]) -> Self {
        Self { at: mix(fnv(service.bytes().chain([0]).chain(value.iter().copied()))), sticky: true, session: 0 }
    }

    /// The draw of a session: no turn of the others is spent on it.
    pub(crate) fn of_session(session: u64) -> Self {
        Self { at: 0, sticky: false, session }
    }

    /// The session; 0: it is of none.
    pub(crate) fn session(self) -> u64 {
        self.session
    }

    /// Scales the draw to `0..total`.
    pub(crate) fn scaled(self, total: u64) -> u64 {
        ((u128::from(self.at) * u128::from(total)) >> 64) as u64
    }

    /// Whether it is that of a value.
    pub(crate) fn is_sticky(self) -> bool {
        self.sticky
    }

    /// The score of a version of this weight for a sticky value. The highest gets it: weighted rendezvous
    /// hashing (Thaler and Ravishankar, 1998; with weights: Schindelhauer and Schomaker, 2005). When a weight grows, values
    /// come to its version and none move between others; when it falls, they leave only it.
    pub(crate) fn rendezvous(self, version: &str, weight: u64) -> f64 {
        score(mix(self.at ^ hash(version.as_bytes())), weight as f64)
    }
}

/// The additive recurrence by the golden ratio: after any N draws, each interval of width w holds N*w of them up to a
/// bound that grows with log N (Kuipers and Niederreiter, 1974). So a share of 5 % is 5 % of *every* hundred requests.
/// One a route, shared by the workers, kept over deltas.
#[derive(Debug, Default)]
pub struct Sequence(AtomicU64);

impl Sequence {
    /// The next draw.
    pub fn next(&self) -> Draw {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio
        Draw { at: self.0.fetch_add(GOLDEN, Ordering::Relaxed), sticky: false, session: 0 }
    }
}
