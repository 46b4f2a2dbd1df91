//! Idle connections on their way from an engine that ends to the one that has taken over from it (`SCM_RIGHTS`, unix(7)).
//!
//! The packet socket over which the listening sockets went (`handover.rs`) stays open. An engine that is configured says on
//! it how many client connections it takes; one that is told to end looks whether that was said, and then sends what rests
//! in clear text: a packet for each connection, with its socket and what is known of it. Nobody waits for an answer. An
//! engine that says nothing gets nothing, and what can't be sent drains as if there were no other engine.
//!
//! Only what rests goes: nothing of it was read that is not handled, so all that its other end has sent is in the kernel and
//! goes along. First the connections to instances, then those of clients: their next requests find them there.

mod give;
mod take;

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

pub use give::{Giver, Way};
use rustix::time::{ClockId, clock_gettime};
pub use take::{Inherited, Taker, take};
use tokio::time::Instant;

use super::handover::PACKET_BYTES_MAX;

/// What is known of a connection. On the wire a line each, in this order; what may hold anything comes last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Idle {
    /// In the pool of connections to instances.
    Upstream {
        since: Instant,
        age_max: Duration,
        /// Of the target, as text.
        address: String,
        /// Of the target.
        key: String,
    },
    /// A client's.
    Client {
        /// The end of its last request.
        since: Instant,
        /// It is closed then.
        until: Instant,
        /// Nothing has come from it yet.
        is_new: bool,
        /// The address of its listener.
        bound: SocketAddr,
    },
}

/// A packet. `worker`: the number of the thread that had it, and how many there were. With as many here it stays with its like:
/// a client finds the connections that it used.
#[derive(Debug)]
pub struct Passed {
    worker: (usize, usize),
    idle: Idle,
    socket: OwnedFd,
}

impl Passed {
    /// The worker of `workers` for it; `turn` counts up.
    #[must_use]
    pub fn worker(&self, workers: usize, turn: usize) -> usize {
        if self.worker.1 == workers { self.worker.0 % workers } else { turn % workers }
    }
}

/// Both processes read the same clock, and a packet may lie in the queue for a while.
struct Clock {
    here: Instant,
    ms: u64,
}

impl Clock {
    fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let ms = u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
        Self { here: Instant::now(), ms }
    }

    fn write(&self, at: Instant) -> u64 {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.here) {
            Some(ahead) => self.ms.saturating_add(ms(ahead)),
            None => self.ms.saturating_sub(ms(self.here.saturating_duration_since(at))),
        }
    }

    fn read(&self, text: &str) -> Option<Instant> {
        let ms: u64 = text.parse().ok()?;
        match ms.checked_sub(self.ms) {
            Some(ahead) => self.here.checked_add(Duration::from_millis(ahead)),
            None => self.here.checked_sub(Duration::from_millis(self.ms - ms)),
        }
    }
}

/// `None`: it is too long for a packet.
fn write(worker: (usize, usize), idle: &Idle, clock: &Clock) -> Option<String> {
    let (index, count) = worker;
    let text = match idle {
        Idle::Upstream { since, age_max, address, key } => {
            format!("u\n{index}\n{count}\n{}\n{}\n{address}\n{key}", clock.write(*since), age_max.as_millis())
        }
        Idle::Client { since, until, is_new, bound } => {
            let is_new = u8::from(*is_new);
            format!("c\n{index}\n{count}\n{}\n{}\n{is_new}\n{bound}", clock.write(*since), clock.write(*until))
        }
    };
    (text.len() <= PACKET_BYTES_MAX).then_some(text)
}

fn read(text: &str, clock: &Clock) -> Option<((usize, usize), Idle)> {
    let mut lines = text.splitn(7, '\n');
    let mut line = || lines.next();
    let kind = line()?;
    let worker = (line()?.parse().ok()?, line()?.parse().ok()?);
    let since = clock.read(line()?)?.min(clock.here);
    let idle = match kind {
        "u" => {
            let age_max = Duration::from_millis(line()?.parse().ok()?);
            Idle::Upstream { since, age_max, address: line()?.to_owned(), key: line()?.to_owned() }
        }
        "c" => {
            let (until, is_new) = (clock.read(line()?)?, line()? == "1");
            Idle::Client { since, until, is_new, bound: line()?.parse().ok()? }
        }
        _ => return None,
    };
    Some((worker, idle))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            index in 0..8_usize, ago_ms in 0..5_000_u64, ahead_ms in 0..100_000_u64, is_new: bool, key in "(?s).{0,40}",
            later_ms in 0..3_000_u64,
        ) {
            let here = Instant::now() + Duration::from_secs(60);
            let clock = Clock { here, ms: 1_000_000 };
            let (since, ahead) = (here - Duration::from_millis(ago_ms), Duration::from_millis(ahead_ms));
            // The other process reads it a while later.
            let later = Clock { here: here + Duration::from_millis(later_ms), ms: 1_000_000 + later_ms };
            for idle in [
                Idle::Upstream { since, age_max: ahead, address: "unix:/a b".to_owned(), key: key.clone() },
                Idle::Client { since, until: here + ahead, is_new, bound: SocketAddr::from(([127, 0, 0, 1], 80)) },
            ] {
                let text = write((index, 8), &idle, &clock).expect("it is short");
                prop_assert_eq!(read(&text, &later), Some(((index, 8), idle)));
            }
        }

        #[test]
        fn anything_else_is_refused_or_harmless(text in "([uc]|[0-9]{1,20}|\\n|.){0,40}") {
            if let Some((_, Idle::Upstream { since, .. } | Idle::Client { since, .. })) = read(&text, &Clock::now()) {
                prop_assert!(since <= Instant::now());
            }
        }
    }

    #[test]
    fn what_is_too_long_for_a_packet_stays() {
        let key = "k".repeat(PACKET_BYTES_MAX);
        let idle = Idle::Upstream { since: Instant::now(), age_max: Duration::ZERO, address: String::new(), key };
        assert_eq!(write((0, 1), &idle, &Clock::now()), None);
    }

    #[test]
    fn a_worker_keeps_what_it_had_if_there_are_as_many() {
        let (socket, _) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let bound = SocketAddr::from(([127, 0, 0, 1], 80));
        let idle = Idle::Client { since: Instant::now(), until: Instant::now(), is_new: false, bound };
        let passed = Passed { worker: (2, 3), idle, socket: socket.into() };
        assert_eq!([passed.worker(3, 7), passed.worker(2, 7), passed.worker(4, 7)], [2, 1, 3]);
    }
}
