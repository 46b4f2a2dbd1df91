//! File descriptors run out before anything else where the system gives few of them. The last ones are no client's: with them
//! nodes and control get through, and what clients have asked for can be fetched.
//!
//! The system gives the lowest number that is free, so a high number says that there are few left.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, getrlimit},
};

/// This share of all ...
const RESERVE: u64 = 8;
/// ... and not much more than is ever used.
const RESERVE_MAX: u64 = 4096;

/// From which number on there are too few.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors {
    clients_end: RawFd,
    upstreams_end: RawFd,
}

impl Descriptors {
    /// As many as this process may have now.
    #[must_use]
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::Nofile).current)
    }

    fn of(limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(u64::MAX).min(RawFd::MAX as u64);
        let reserve = (limit / RESERVE).min(RESERVE_MAX);
        let end = |parts: u64| RawFd::try_from(limit - parts * reserve).unwrap_or(RawFd::MAX);
        Self { clients_end: end(2), upstreams_end: end(1) }
    }

    /// As many connections clients may have at most.
    pub fn clients(&self) -> usize {
        usize::try_from(self.clients_end).unwrap_or(0)
    }

    /// There are too few left for one more client.
    pub fn are_short(&self, client: &impl AsFd) -> bool {
        let client = client.as_fd();
        // Others may have been closed since it was accepted.
        let is_last = |free: RawFd| free >= self.clients_end;
        is_last(client.as_raw_fd()) && fcntl_dupfd_cloexec(client, 0).map_or(true, |free| is_last(free.as_raw_fd()))
    }

    /// Half of those of clients are taken: what only saves time takes no more, for they are wanted for connections.
    pub fn are_scarce(&self, taken: &impl AsFd) -> bool {
        taken.as_fd().as_raw_fd() >= self.clients_end / 2
    }

    /// A connection to an upstream took one of the last.
    pub fn is_reserved(&self, upstream: &impl AsFd) -> bool {
        upstream.as_fd().as_raw_fd() >= self.upstreams_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        for (limit, clients_end, upstreams_end) in
            [(Some(1024), 768, 896), (Some(1_000_000), 991_808, 995_904), (None, RawFd::MAX - 8192, RawFd::MAX - 4096)]
        {
            let made = Descriptors::of(limit);
            assert_eq!((made.clients_end, made.upstreams_end), (clients_end, upstreams_end));
        }
    }
}
