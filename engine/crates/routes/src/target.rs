//! Where requests can go: an instance, or a child node.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crate::{Shared, Striped, names::Refused};

/// What stands behind a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// An instance of a service: gets the request without our private headers.
    Instance,
    /// A child node: gets the request with the stamp of the chosen group.
    Node,
}

/// Where a target listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Path of a Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `127.0.0.1:8001`, `[::1]:8001` or `unix:/path`.
    ///
    /// # Errors
    /// [`Refused`] with what was expected.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refused = |expected: &str| Err(Refused(format!("address {text:?}: expected {expected}")));
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path holds 108 bytes with its end.
            return match path.len() {
                2..=107 if path.starts_with('/') && !path.contains('\0') => Ok(Self::Unix(path.into())),
                _ => refused("unix: and an absolute path of at most 107 bytes"),
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => refused("a port from 1 to 65535"),
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => refused("IP:port, [IPv6]:port or unix:/path; names are not resolved"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in clear text, with prior knowledge.
    Http2,
}

/// Totals since the target was first put; gauges where said.
#[derive(Debug, Default)]
pub struct TargetCounters {
    /// Connections opened.
    pub connects: AtomicU64,
    /// Connections that could not be opened.
    pub connect_failures: AtomicU64,
    /// Requests that failed after they were sent.
    pub failures: AtomicU64,
    /// Gauge: connections for one request at a time, over all workers.
    pub connections: AtomicU32,
    /// What every request counts.
    busy: Striped<Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    requests: AtomicU64,
    /// It may have begun on another thread than it ends on: the sum over all stripes is what counts.
    in_flight: AtomicI64,
    idle_connections: AtomicI64,
}

impl TargetCounters {
    fn sum(&self, gauge: impl Fn(&Busy) -> &AtomicI64) -> u32 {
        let sum: i64 = self.busy.each().map(|busy| gauge(busy).load(Relaxed)).sum();
        u32::try_from(sum).unwrap_or(0)
    }

    /// A request is sent.
    pub fn requested(&self) {
        self.busy.mine().requests.fetch_add(1, Relaxed);
    }

    /// Requests sent.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.busy.each().map(|busy| busy.requests.load(Relaxed)).sum()
    }

    pub(crate) fn in_flight_by(&self, one: i64) {
        self.busy.mine().in_flight.fetch_add(one, Relaxed);
    }

    /// Gauge: requests in flight, over all groups.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.sum(|busy| &busy.in_flight)
    }

    /// One more pooled connection waits for a request, or one less (-1).
    pub fn idle_by(&self, one: i64) {
        self.busy.mine().idle_connections.fetch_add(one, Relaxed);
    }

    /// Gauge: pooled connections that wait for a request, over all workers.
    #[must_use]
    pub fn idle_connections(&self) -> u32 {
        self.sum(|busy| &busy.idle_connections)
    }
}

/// What a target did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It could not be reached, broke its connection, or answered what is no HTTP.
    Broken,
    /// It did not answer in time.
    Late,
    /// It answered 500, 502, 503 or 504.
    Error,
}

impl Fault {
    /// In a row, after which a target is taken out.
    fn limit(self) -> u32 {
        match self {
            Self::Broken | Self::Late => 3,
            // One bad request that somebody repeats is soon this many.
            Self::Error => 5,
        }
    }

    /// Who is broken serves nobody. The others may suffer from load, or from what stands behind all of them: then it
    /// helps nobody to take most of them out.
    fn is_soft(self) -> bool {
        self != Self::Broken
    }
}

/// How a target is out. (One that was compared with others is out softly.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    /// It gets requests only when there is nothing else.
    Hard,
    /// It gets requests also when most of its group is out.
    Soft,
}

/// A target was taken out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejected {
    /// For how long, in milliseconds.
    pub for_ms: u32,
}

/// The first ejection lasts this long; each further one twice as long.
const EJECT_MS: u32 = 1_000;
const EJECT_MS_MAX: u32 = 60_000;

/// Something that takes requests. One object for all groups, deltas and workers as long as its key is configured.
#[derive(Debug)]
pub struct Target {
    key: Arc<str>,
    kind: TargetKind,
    id: u64,
    address: RwLock<Arc<Address>>,
    speaks_http2: AtomicBool,
    address_changes: AtomicU32,
    /// Counters, for all workers.
    pub counters: TargetCounters,
    failures_in_a_row: AtomicU32,
    ejections_in_a_row: AtomicU32,
    /// Milliseconds on the engine's clock; in the past: not ejected.
    ejected_until_ms: AtomicU64,
    ejected_softly: AtomicBool,
    shared: Arc<Shared>,
}

impl Target {
    pub(crate) fn new(
        key: Arc<str>,
        kind: TargetKind,
        id: u64,
        address: Address,
        protocol: Protocol,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            key,
            kind,
            id,
            address: RwLock::new(Arc::new(address)),
            speaks_http2: AtomicBool::new(protocol == Protocol::Http2),
            address_changes: AtomicU32::new(0),
            counters: TargetCounters::default(),
            failures_in_a_row: AtomicU32::new(0),
            ejections_in_a_row: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            ejected_softly: AtomicBool::new(false),
            shared,
        }
    }

    /// `i:<instance id>` or `n:<node name>`.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Instance or node.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        self.kind
    }

    /// Unique in this process, never used again: the key for connection pools.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where to connect now.
    #[must_use]
    pub fn address(&self) -> Arc<Address> {
        self.address.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Grows each time the address changes: a pooled connection made under an older count leads elsewhere.
    #[must_use]
    pub fn address_changes(&self) -> u32 {
        self.address_changes.load(Relaxed)
    }

    /// What it speaks now.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.speaks_http2.load(Relaxed) { Protocol::Http2 } else { Protocol::Http1 }
    }

    pub(crate) fn set_address(&self, address: Address, protocol: Protocol) {
        let mut held = self.address.write().unwrap_or_else(PoisonError::into_inner);
        if **held != address || self.protocol() != protocol {
            *held = Arc::new(address);
            self.speaks_http2.store(protocol == Protocol::Http2, Relaxed);
            self.address_changes.fetch_add(1, Relaxed);
            self.failures_in_a_row.store(0, Relaxed);
            self.ejections_in_a_row.store(0, Relaxed);
            self.ejected_until_ms.store(0, Relaxed);
        }
    }

    /// Taken out after failures, at `now_ms` on the engine's clock.
    #[must_use]
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms.load(Relaxed) > now_ms
    }

    pub(crate) fn out(&self, now_ms: u64) -> Option<Out> {
        let soft = || self.ejected_softly.load(Relaxed);
        self.is_ejected(now_ms).then(|| if soft() { Out::Soft } else { Out::Hard })
    }

    /// When the ejection ends, on the engine's clock; in the past when there is none.
    #[must_use]
    pub fn ejected_until_ms(&self) -> u64 {
        self.ejected_until_ms.load(Relaxed)
    }

    /// A request went well. Costs one load when nothing was wrong.
    pub fn succeeded(&self) {
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
        }
        if self.ejections_in_a_row.load(Relaxed) != 0 {
            self.ejections_in_a_row.store(0, Relaxed);
        }
    }

    /// Taken out because others do better. `None`: it is out already.
    pub(crate) fn outdone(&self, now_ms: u64) -> Option<Ejected> {
        if self.is_ejected(now_ms) {
            return None;
        }
        self.eject(now_ms, Fault::Error)
    }

    /// A connect or a request failed through the target's fault. Says when that takes it out (once for each ejection).
    pub fn failed(&self, now_ms: u64, fault: Fault) -> Option<Ejected> {
        let failures = self.failures_in_a_row.fetch_add(1, Relaxed) + 1;
        let ejections = self.ejections_in_a_row.load(Relaxed);
        // A target that comes back from an ejection is on probation: one failure is enough.
        if self.is_ejected(now_ms) || (ejections == 0 && failures < fault.limit()) {
            return None;
        }
        self.eject(now_ms, fault)
    }

    fn eject(&self, now_ms: u64, fault: Fault) -> Option<Ejected> {
        let ejections = self.ejections_in_a_row.load(Relaxed);
        let for_ms = EJECT_MS.saturating_mul(1 << ejections.min(16)).min(EJECT_MS_MAX);
        let until = self.ejected_until_ms.load(Relaxed);
        // One worker wins when several see the failure at once.
        let ends = now_ms + u64::from(for_ms);
        self.ejected_until_ms.compare_exchange(until, ends, Relaxed, Relaxed).ok()?;
        self.ejected_softly.store(fault.is_soft(), Relaxed);
        self.shared.ejected_until(ends);
        self.ejections_in_a_row.fetch_add(1, Relaxed);
        Some(Ejected { for_ms })
    }
}
