//! What operators set for a service, and what is known of it over all its groups: live, without a new table.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use crate::waiting::{Waiter, Waiting};

/// How a member is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// The less loaded of two drawn by chance (Mitzenmacher, "The Power of Two Choices", 2001).
    #[default]
    LeastRequests,
    /// Of two drawn by chance the one with the smaller product of latency and requests in flight; latency is an average
    /// that follows a rise at once and a fall slowly ("peak EWMA", as in Finagle).
    PeakEwma,
    /// Few in flight first, then fast (Wydrowski et al., "Load is not what you should balance: Introducing Prequal", 2024).
    Prequal,
    /// In turn, by weight.
    RoundRobin,
    /// Equal values go to the same member while it has room (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2018).
    Hash(HashBy),
}

/// What a request is told apart by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The value of this header field.
    Header(Arc<str>),
    /// The value of this cookie.
    Cookie(Arc<str>),
    /// The client's address.
    Client,
    /// The path, without the query.
    Path,
}

/// Limits of a service; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceLimits {
    /// Requests in flight at once on this engine.
    pub in_flight: u32,
    /// The same for each endpoint.
    pub endpoint_in_flight: u32,
    /// Connections to each endpoint, over all workers.
    pub endpoint_connections: u32,
    /// Requests that wait for one of those in flight to end; more are refused.
    pub pending: u32,
    /// For how long each of them waits at most.
    pub pending_timeout_ms: u32,
    /// The limit in flight follows the latency, from what `in_flight` says downwards.
    pub adaptive: bool,
}

/// Who is taken out because the others do better. A rule whose number is 0 is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outlier {
    /// Standard deviations below the mean of the success rates, in hundredths.
    pub success_deviations_percent: u32,
    /// Times the median latency, in hundredths.
    pub latency_factor_percent: u32,
    /// So many of a group at most.
    pub ejected_percent_max: u32,
    /// Between two looks.
    pub interval_ms: u32,
    /// Requests that a member must have had between two looks to be compared.
    pub requests_min: u32,
}

/// All of it. The default is what holds for a service that nothing was set for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How a member is chosen.
    pub balance: Balance,
    /// With [`Balance::Hash`]: a member's share of what is in flight, at most so many hundredths of its fair share.
    pub hash_load_percent: u32,
    /// A member that is new, or back, gets its full share only after so long.
    pub slow_start_ms: u32,
    /// Members of other zones get what those of our own have no room for.
    pub near_first: bool,
    /// Limits.
    pub limits: ServiceLimits,
    /// Bytes of a request body; 0: as many as the node allows.
    pub body_bytes: u64,
    /// Taking out by comparison.
    pub outlier: Outlier,
    /// A request must be answered within so long; 0: no limit but those of all requests.
    pub timeout_ms: u32,
    /// A try that may be repeated is given up after so long; 0: never.
    pub try_timeout_ms: u32,
    /// A request that may be done twice and has no answer after so long is asked of a second member as well; 0: never.
    pub hedge_ms: u32,
    /// Tries of one request after the first that the retry budget pays for.
    pub retries_max: u32,
    /// Paths may hold encoded slashes, on public listeners too.
    pub keep_encoded_slash: bool,
    /// What goes ahead of each request to an instance.
    pub proxy_protocol: ProxyProtocol,
}

/// A header that names the client, for instances that want one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// None.
    #[default]
    Off,
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            balance: Balance::LeastRequests,
            hash_load_percent: 125,
            slow_start_ms: 0,
            near_first: true,
            limits: ServiceLimits::default(),
            body_bytes: 0,
            outlier: Outlier::default(),
            timeout_ms: 0,
            try_timeout_ms: 0,
            hedge_ms: 0,
            retries_max: u32::MAX,
            keep_encoded_slash: false,
            proxy_protocol: ProxyProtocol::Off,
        }
    }
}

/// One service, for all workers and tables.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    /// Nothing is set: what follows need not be looked at.
    plain: AtomicBool,
    settings: RwLock<Arc<Settings>>,
    pub(crate) in_flight: AtomicU32,
    /// What the latency allows; `u32::MAX` until it is known.
    adaptive_limit: AtomicU32,
    /// Since the last look at the latency: requests that ended well, their latencies, and the most in flight.
    window: Mutex<Window>,
    waiting: Waiting,
}

impl Service {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            plain: AtomicBool::new(true),
            settings: RwLock::default(),
            in_flight: AtomicU32::new(0),
            adaptive_limit: AtomicU32::new(u32::MAX),
            window: Mutex::default(),
            waiting: Waiting::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.plain.load(Relaxed)
    }

    /// What is set; `None`: nothing.
    #[must_use]
    pub fn settings(&self) -> Option<Arc<Settings>> {
        if self.is_plain() {
            return None;
        }
        Some(self.settings.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(crate) fn set(&self, settings: Option<&Arc<Settings>>) {
        let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        *held = settings.cloned().unwrap_or_default();
        self.adaptive_limit.store(u32::MAX, Relaxed);
        self.plain.store(settings.is_none(), Relaxed);
        drop(held);
        self.waiting.tell_all();
    }

    /// Requests in flight on this engine that were counted: those that came while a limit was set.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// What may be in flight now; `u32::MAX`: any number.
    #[must_use]
    pub fn in_flight_max(&self, limits: &ServiceLimits) -> u32 {
        let set = if limits.in_flight == 0 { u32::MAX } else { limits.in_flight };
        if limits.adaptive { set.min(self.adaptive_limit.load(Relaxed)) } else { set }
    }

    /// A place among its requests in flight; `None`: `most` are. One that gets no endpoint is to be [put
    /// back](Entered::put_back).
    #[must_use]
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<Entered> {
        let enter = |now: u32| (now < most).then(|| now + 1);
        self.in_flight.fetch_update(Relaxed, Relaxed, enter).ok()?;
        Some(Entered { service: self.clone(), unused: false })
    }

    /// One of its requests was answered, or failed, after so long.
    pub(crate) fn went(&self, latency_us: u64, failed: bool) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.in_flight_max = window.in_flight_max.max(self.in_flight.load(Relaxed));
        if !failed {
            window.requests += 1;
            window.latency_us += latency_us;
        }
    }

    /// Sets the limit by what was seen since the last call; called about once a second. Gradient: the limit goes down as the
    /// latency rises over the least that was seen, and up by its square root while it is used (Netflix, "concurrency-limits",
    /// after TCP Vegas).
    pub(crate) fn adapt(&self, settings: &Settings) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Window { least_us: window.least_us, ..Window::default() };
        let seen = std::mem::replace(&mut *window, fresh);
        if !settings.limits.adaptive || seen.requests < WINDOW_MIN {
            return;
        }
        let mean_us = seen.latency_us as f64 / f64::from(seen.requests);
        // The least is forgotten slowly, so that a service that has become slower for good gets its due.
        let least_us = if seen.least_us == 0.0 { mean_us } else { mean_us.min(seen.least_us * FORGET) };
        window.least_us = least_us;
        drop(window);
        let set = if settings.limits.in_flight == 0 { ADAPTIVE_MAX } else { settings.limits.in_flight };
        let held = f64::from(match self.adaptive_limit.load(Relaxed) {
            u32::MAX => (seen.in_flight_max * 2).max(ADAPTIVE_FIRST),
            limit => limit,
        });
        let gradient = (TOLERANCE * least_us / mean_us).clamp(0.5, 1.0);
        let used = f64::from(seen.in_flight_max) * 2.0 >= held;
        let next = held * gradient + if used { held.sqrt() } else { 0.0 };
        self.adaptive_limit.store((next as u32).clamp(ADAPTIVE_MIN.min(set), set), Relaxed);
    }

    /// The limit that follows the latency; `None`: not known yet.
    #[must_use]
    pub fn adaptive_limit(&self) -> Option<u32> {
        Some(self.adaptive_limit.load(Relaxed)).filter(|limit| *limit != u32::MAX)
    }

    /// A place among the requests that wait for room. `None`: `most` wait already.
    #[must_use]
    pub fn enter_queue(self: &Arc<Self>, most: u32) -> Option<Waiter> {
        self.waiting.enter(most).map(|number| Waiter::new(self.clone(), number))
    }

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    fn ended(&self, unused: bool) {
        self.in_flight.fetch_sub(1, Relaxed);
        if !unused {
            self.waiting.tell_if_any();
        }
    }
}

/// A request of the service, in flight until dropped.
#[derive(Debug)]
pub struct Entered {
    service: Arc<Service>,
    unused: bool,
}

impl Entered {
    /// It was not used: nobody who waits is told, for nothing has changed.
    pub fn put_back(mut self) {
        self.unused = true;
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.service.ended(self.unused);
    }
}

#[derive(Debug, Default)]
struct Window {
    requests: u32,
    latency_us: u64,
    in_flight_max: u32,
    least_us: f64,
}

/// Fewer requests say nothing.
const WINDOW_MIN: u32 = 10;
/// The limit before anything is known, at least.
const ADAPTIVE_FIRST: u32 = 20;
const ADAPTIVE_MIN: u32 = 4;
const ADAPTIVE_MAX: u32 = 10_000;
/// The mean may be so many times the least latency before the limit goes down.
const TOLERANCE: f64 = 1.5;
/// By so much the least latency rises from look to look.
const FORGET: f64 = 1.005;

/// The services of an engine, by name.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<HashMap<Arc<str>, Arc<Service>>>);

/// Those that nothing refers to are forgotten past this number.
const FORGOTTEN_AFTER: usize = 16_384;

impl Services {
    pub(crate) fn get(&self, name: &Arc<str>) -> Arc<Service> {
        let mut services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if services.len() > FORGOTTEN_AFTER && services.len().is_power_of_two() {
            services.retain(|_, service| Arc::strong_count(service) > 1 || !service.plain.load(Relaxed));
        }
        services.entry(name.clone()).or_insert_with(|| Arc::new(Service::new(name.clone()))).clone()
    }
}
