//! Requests a second of one client: a token bucket for each address, kept as the time at which it will be full again.
//!
//! Whose bucket is full need not be remembered. Addresses are kept in two halves; after the time that a bucket takes to fill,
//! the older half is forgotten and the younger one is the older. With more addresses than a half holds that happens
//! earlier: memory is bounded, and what is forgotten then is let through rather than refused.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Addresses in one half: some megabytes in all.
const ADDRESSES_MAX: usize = 65_536;

/// What counts as one client: an IPv6 address has 2^64 neighbours that belong to the same line (RFC 6177).
#[must_use]
pub fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// How often a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// For long.
    pub per_s: u32,
    /// At once.
    pub burst: u32,
}

/// The buckets, over all workers; only kept when there is a limit. Its map is keyed by chance (`RandomState`), as clients
/// choose what is in it.
#[derive(Debug, Clone, Default)]
pub struct Rates(Arc<Mutex<Halves>>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<IpAddr, Instant>,
    old: HashMap<IpAddr, Instant>,
    since: Option<Instant>,
}

impl Rates {
    /// One more request.
    ///
    /// # Errors
    /// It is too many; with the time until there is room for one.
    pub fn ask(&self, address: IpAddr, rate: Rate, now: Instant) -> Result<(), Duration> {
        let address = client(address);
        let one = Duration::from_secs(1) / rate.per_s.max(1);
        let whole = one * rate.burst.max(1);
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Halves { young, old, since } = &mut *halves;
        if young.len() >= ADDRESSES_MAX || since.is_none_or(|since| now.saturating_duration_since(since) > whole) {
            *old = std::mem::take(young);
            *since = Some(now);
        }
        let full_at = young.get(&address).copied().or_else(|| old.remove(&address)).unwrap_or(now).max(now) + one;
        let over = full_at.saturating_duration_since(now).saturating_sub(whole);
        if over.is_zero() {
            young.insert(address, full_at);
            return Ok(());
        }
        young.insert(address, full_at - one);
        Err(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 5 };

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (rates, now) = (Rates::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(rates.ask(address(1), RATE, now), Ok(()));
        }
        assert_eq!(rates.ask(address(1), RATE, now), Err(Duration::from_millis(100)));
        assert_eq!(rates.ask(address(2), RATE, now), Ok(()));
        let served = (0..10_000).filter(|ms| rates.ask(address(1), RATE, now + Duration::from_millis(*ms)).is_ok());
        assert_eq!(served.count(), 99);
    }

    #[test]
    fn who_has_waited_may_have_a_burst_again() {
        let (rates, mut now) = (Rates::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!((0..20).filter(|_| rates.ask(address(1), RATE, now).is_ok()).count(), 5);
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (rates, now) = (Rates::default(), Instant::now());
        for number in 0..300_000 {
            let _ = rates.ask(address(number), RATE, now);
        }
        let halves = rates.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(halves.young.len() <= ADDRESSES_MAX && halves.old.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn neighbours_are_one_client() {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap_or(IpAddr::V4([0; 4].into()));
        assert_eq!(client(parse("2001:db8:0:1::7")), client(parse("2001:db8:0:1:ffff::1")));
        assert_ne!(client(parse("2001:db8:0:1::7")), client(parse("2001:db8:0:2::7")));
        assert_ne!(client(parse("192.0.2.1")), client(parse("192.0.2.2")));
    }
}
