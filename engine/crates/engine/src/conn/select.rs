//! Finding a member for a request, and waiting when there is none.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use sdlb_http1::Name;
use sdlb_routes::{
    Ask, Balance, Bound, Draw, HashBy, Park, Picked, Route, Service, ServiceLimits, Settings, Sticky, Table,
    VersionCounters, hash,
};
use smallvec::SmallVec;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{Conn, buffer::Scratch, facts::Facts, hedge::Held};
use crate::{
    answer::{Answer, FULL, GONE, UNREACHABLE},
    counters::{Counter, Counters, Gauged},
    settings::ListenerKind,
    worker::Worker,
};

/// A group that is gone below is a moment away from being gone here, or back: so long a request waits for it, even when
/// its route does not park. Control tells within milliseconds while it runs; this is the time in which a control that was
/// killed is back and knows again (a lease).
const SETTLE: Park = Park { requests_max: 4096, timeout_ms: 10_000 };
/// While it waits for what children say, or for members that could not be reached, it asks them again after this time and
/// then after twice the time, besides after every change of the table.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// So often that time is doubled for members that could not be reached: a program that starts may be there any moment.
const UNREACHED_DOUBLED_MAX: u32 = 5;
const NOT_HERE_DOUBLED_MAX: u32 = 8;
/// Members tried for one request between two changes of the table.
const TRIES_MAX: usize = 32;
/// Members that a node below the entry tries: the entry has the retry budget.
const TRIES_BELOW_MAX: usize = 8;
/// Who waits for room looks again after this time, besides when it is woken.
const ROOM_LOOK: Duration = Duration::from_millis(50);
/// What a client is told when nothing was ready.
pub(super) const RETRY_AFTER_S: u32 = 1;

/// What was tried for a request, and what it is bound to.
#[derive(Default)]
pub struct Tries {
    /// Targets that did not take it.
    avoid: SmallVec<[u64; 8]>,
    draw: Option<Draw>,
    /// Where it was tried last.
    pub bound: Option<Bound>,
    /// How many in all.
    pub count: u32,
    /// A child said that nothing was read.
    pub not_here: bool,
    /// `Proxy-Status` of the last child that said so.
    pub below: Vec<u8>,
    /// Why the last one failed.
    pub failure: Option<Answer>,
    /// The next one is paid for by the retry budget.
    pub costs: bool,
    /// No more of them before something has changed, or it has waited: the budget is used up.
    pub enough: bool,
    /// An instance had it and ended its connection without a word.
    pub repeated: bool,
    /// Only a fresh connection will do.
    pub fresh: bool,
    changes: Option<watch::Receiver<u64>>,
    parked: Option<Parked>,
    /// A request waits once, however often it is tried meanwhile.
    until: Option<Instant>,
    /// How often it has waited to ask the children again.
    asked: u32,
    /// What is set for its service.
    pub settings: Option<Arc<Settings>>,
    /// A child said that those below have all that they may.
    pub full: bool,
    /// It waits for room.
    queued: Option<Queued>,
    /// Tries that the retry budget has paid for.
    pub paid: u32,
    /// The request of another member that was slow, while a second one is asked.
    pub held: Option<Box<Held>>,
    /// It was asked of a second one.
    pub hedged: bool,
    /// An answer must have begun by then.
    pub deadline: Option<Instant>,
    /// Of the route, for requests that get no version.
    pub unserved: Option<Arc<VersionCounters>>,
}

impl Tries {
    /// This target did not take it.
    pub fn avoid(&mut self, target: u64) {
        self.avoid.push(target);
    }

    /// What could not take it a moment ago may take it now.
    fn forget(&mut self) {
        self.avoid.clear();
        self.bound = None;
        self.costs = false;
        self.enough = false;
    }

    /// The time. Of a request that is tried for the first time and has not waited: when its head was complete.
    pub fn now(&self, facts: &Facts) -> Instant {
        if self.count <= 1 && self.changes.is_none() { facts.started } else { Instant::now() }
    }

    /// It waits no longer: it has a connection.
    pub fn leave_queue(&mut self) {
        self.parked = None;
        self.queued = None;
    }
}

/// One of the requests that wait for room. Gives its place back when dropped.
struct Queued {
    service: Arc<Service>,
    until: Instant,
    _now: Gauged<fn(&Counters) -> &Counter>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.service.leave_queue();
        // It may have been woken and have had no use for it.
        self.service.wake_one();
    }
}

/// One of the requests that wait. Gives its place back when dropped.
struct Parked {
    place: Option<Arc<AtomicU32>>,
    _now: Gauged<fn(&Counters) -> &Counter>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.fetch_sub(1, Relaxed);
        }
    }
}

/// Why a request gets no member.
pub enum Unserved {
    /// The client is told this.
    Answer(Answer),
    /// The client went away while the request waited.
    Gone,
    /// Too much memory is in use, and the request holds much of it.
    Ended,
}

impl From<Answer> for Unserved {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// What the table says.
enum Found {
    Picked(Picked),
    /// A route, and nothing that can take the request.
    Nothing {
        park: Option<Park>,
        place: Arc<AtomicU32>,
    },
    /// Below the entry: no such group, or none of its members can take it.
    NotHere,
    /// There are members, and they have all that they may.
    Full(Arc<Service>, ServiceLimits),
    /// Its priority is too low for what is left.
    Shed,
    NoRoute {
        host: bool,
    },
}

impl Conn {
    /// A member for the request; it may have to wait for one.
    ///
    /// # Errors
    /// The answer, when there is none; or that nobody waits for it any more.
    pub(super) async fn select(
        &mut self,
        scratch: &mut Scratch,
        facts: &Facts,
        tries: &mut Tries,
    ) -> Result<Picked, Unserved> {
        loop {
            let found = match self.listener.kind {
                ListenerKind::Entry => self.find(scratch, facts, tries),
                ListenerKind::Node => self.find_stamped(scratch, facts, tries)?,
            };
            match found {
                Found::Picked(picked) => return Ok(picked),
                Found::NoRoute { host } => return Err(no_route(&self.worker, host).into()),
                Found::NotHere => {
                    self.worker.counters.not_here_total.add();
                    let answer = match tries.failure.take_if(|_| !tries.not_here) {
                        Some(failure) => Answer::not_here(UNREACHABLE, failure.below, failure.error),
                        None => Answer::not_here(GONE, std::mem::take(&mut tries.below), "destination_unavailable"),
                    };
                    return Err(answer.into());
                }
                Found::Nothing { park, place } => self.wait(scratch, park, &place, tries).await?,
                Found::Shed => {
                    self.worker.counters.limit_priority_total.add();
                    return Err(overloaded("Requests of this priority wait until there is less to do.").into());
                }
                Found::Full(service, limits) => self.wait_for_room(scratch, &service, &limits, tries).await?,
            }
        }
    }

    fn find(&self, scratch: &Scratch, facts: &Facts, tries: &mut Tries) -> Found {
        let now_ms = self.worker.ms_at(tries.now(facts).into_std());
        let path = std::str::from_utf8(&scratch.target[..facts.path_bytes]).unwrap_or_default();
        let host = scratch.host.name();
        self.worker.with_table(|table: &Table| {
            let Some(route) = table.route(host, path) else {
                return Found::NoRoute { host: table.serves_host(host) };
            };
            route.read_ahead();
            // Where there is one version only, there is nothing to draw.
            let draw = match route.picks() {
                [] | [_] => tries.draw.unwrap_or_default(),
                _ => *tries.draw.get_or_insert_with(|| self.draw(route, scratch, facts)),
            };
            tries.settings = route.terms().settings();
            let mut entered = None;
            if let Some(settings) = &tries.settings {
                let most = route.terms().in_flight_max(&settings.limits);
                let share = if most == u32::MAX { most } else { self.share(scratch, facts, most) };
                entered = route.terms().enter(share);
                if entered.is_none() {
                    tries.unserved = Some(route.unserved().clone());
                    let low = share < most && route.terms().in_flight() < most;
                    return if low { Found::Shed } else { Found::Full(route.terms().clone(), settings.limits) };
                }
            }
            let key = tries.settings.as_ref().and_then(|settings| self.key(settings, scratch, facts));
            let ask = Ask { now_ms, avoid: &tries.avoid, key };
            let picked = if tries.enough || tries.avoid.len() >= TRIES_MAX {
                None
            } else {
                self.worker.with_chance(|chance| {
                    // The version stays while it may get requests and has a member left.
                    let same = tries
                        .bound
                        .as_ref()
                        .and_then(|bound| route.picks().iter().find(|pick| pick.version == *bound.version()));
                    same.and_then(|pick| pick.group.pick(&ask, chance)).or_else(|| route.pick(draw, &ask, chance))
                })
            };
            match picked {
                Some(picked) => Found::Picked(picked.with(entered)),
                None if tries.full || route.picks().iter().any(|pick| pick.group.is_full()) => {
                    tries.unserved = Some(route.unserved().clone());
                    let limits = tries.settings.as_ref().map(|settings| settings.limits).unwrap_or_default();
                    Found::Full(route.terms().clone(), limits)
                }
                None => {
                    tries.unserved = Some(route.unserved().clone());
                    Found::Nothing { park: route.park(), place: route.parked().clone() }
                }
            }
        })
    }

    /// Another member of the same version, if one can take the request now.
    pub(super) fn another(
        &self,
        scratch: &Scratch,
        facts: &Facts,
        tries: &mut Tries,
        first: &Picked,
    ) -> Option<Picked> {
        match self.find(scratch, facts, tries) {
            Found::Picked(picked) if picked.group().version() == first.group().version() => Some(picked),
            _ => None,
        }
    }

    /// # Errors
    /// The request has no stamp: it is not from a node.
    fn find_stamped(&self, scratch: &Scratch, facts: &Facts, tries: &mut Tries) -> Result<Found, Answer> {
        let head = &scratch.from_client.data()[..facts.head_bytes];
        let Some(stamp) = scratch.request.single(head, Name::SdlbTo) else {
            self.worker.counters.wrong_host_total.add();
            let detail = "This address takes requests from nodes only, and this one has no stamp.";
            return Err(Answer::new(421, "not-stamped", "http_request_denied", detail));
        };
        let now_ms = self.worker.ms_at(tries.now(facts).into_std());
        let most = tries.avoid.len() >= TRIES_BELOW_MAX;
        Ok(self.worker.with_table(|table| {
            let Some(group) = table.stamped(stamp).filter(|_| !most) else { return Found::NotHere };
            // The entry has the limit of the whole service; here it is counted, and that of each endpoint holds.
            tries.settings = group.terms().settings();
            let entered = tries.settings.as_ref().and_then(|_| group.terms().enter(u32::MAX));
            let key = tries.settings.as_ref().and_then(|settings| self.key(settings, scratch, facts));
            let ask = Ask { now_ms, avoid: &tries.avoid, key };
            match self.worker.with_chance(|chance| group.pick(&ask, chance)) {
                Some(picked) => Found::Picked(picked.with(entered)),
                None if tries.full || group.is_full() => {
                    let limits = tries.settings.as_ref().map(|settings| settings.limits).unwrap_or_default();
                    Found::Full(group.terms().clone(), limits)
                }
                None => Found::NotHere,
            }
        }))
    }

    /// What the request is told apart by, if its service wants to know.
    fn key(&self, settings: &Settings, scratch: &Scratch, facts: &Facts) -> Option<u64> {
        let Balance::Hash(by) = &settings.balance else { return None };
        let head = &scratch.from_client.data()[..facts.head_bytes];
        let fields = || scratch.request.fields().iter();
        let value = match by {
            HashBy::Path => Some(&scratch.target[..facts.path_bytes]),
            HashBy::Header(name) => field(scratch, head, name),
            HashBy::Cookie(name) => cookie(scratch, head, name),
            // Below the entry: the address that the entry has put there.
            HashBy::Client if self.listener.kind == ListenerKind::Node => fields()
                .find(|field| field.text.of(head).eq_ignore_ascii_case(b"x-forwarded-for"))
                .map(|field| field.value.of(head)),
            HashBy::Client => Some(self.address.as_bytes()),
        };
        value.map(hash)
    }

    /// How many of the service's requests may be in flight for this one to be let in: fewer for one that can wait
    /// (`Priority`, RFC 9218, 4.1: an urgency from 0 to 7, 3 when nothing is said).
    fn share(&self, scratch: &Scratch, facts: &Facts, most: u32) -> u32 {
        let head = &scratch.from_client.data()[..facts.head_bytes];
        let percent = match field(scratch, head, "priority").map_or(3, urgency) {
            0..=3 => 100,
            4 | 5 => 90,
            _ => 80,
        };
        (u64::from(most) * percent / 100).max(1) as u32
    }

    fn draw(&self, route: &Route, scratch: &Scratch, facts: &Facts) -> Draw {
        let head = &scratch.from_client.data()[..facts.head_bytes];
        let address;
        let value: Option<&[u8]> = match route.sticky() {
            Sticky::None => None,
            Sticky::Client => {
                address = self.address.as_bytes();
                Some(address)
            }
            Sticky::Header(name) => field(scratch, head, name),
            Sticky::Cookie(name) => cookie(scratch, head, name),
        };
        route.draw(value)
    }

    /// Waits until it is worth another look.
    async fn wait(
        &mut self,
        scratch: &mut Scratch,
        park: Option<Park>,
        place: &Arc<AtomicU32>,
        tries: &mut Tries,
    ) -> Result<(), Unserved> {
        let Some(changes) = &mut tries.changes else {
            // Once more, with an eye on the table: it may have changed since it was looked at.
            tries.changes = Some(self.worker.table_changes());
            return Ok(());
        };
        let counters = &self.worker.counters;
        let until = match (&tries.parked, tries.until) {
            (Some(_), Some(until)) => until,
            _ => {
                // In a cut-over the last old process is gone a moment before its member is: a request that nobody has
                // read waits for the new version like those that come a moment later. Its route parks only while
                // something is expected; else there is nothing to wait for.
                if park.is_none()
                    && let Some(failure) = tries.failure.take_if(|_| !tries.not_here)
                {
                    return Err(failure.into());
                }
                let Some(terms) = park.or(tries.not_here.then_some(SETTLE)) else {
                    return Err(nothing_ready(tries, "No instance is ready.").into());
                };
                let waiting = place.fetch_add(1, Relaxed);
                let parked = Parked {
                    place: Some(place.clone()),
                    _now: Gauged::new(counters.clone(), |counters| &counters.parked_now),
                };
                if waiting >= terms.requests_max {
                    counters.limit_parked_total.add();
                    drop(parked);
                    return Err(
                        nothing_ready(tries, "No instance is ready, and too many requests wait already.").into()
                    );
                }
                if tries.until.is_none() {
                    counters.parked_total.add();
                    tries.unserved.iter().for_each(|unserved| unserved.parked());
                }
                tries.parked = Some(parked);
                *tries.until.get_or_insert_with(|| Instant::now() + Duration::from_millis(terms.timeout_ms.into()))
            }
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            counters.timeout_parked_total.add();
            if let Some(failure) = tries.failure.take() {
                return Err(if park.is_some() { unreached(failure).into() } else { failure.into() });
            }
            return Err(nothing_ready(tries, "No instance became ready in time.").into());
        }
        let turn = match (tries.not_here, &tries.failure) {
            (true, _) => left.min(ASK_AGAIN * (1 << tries.asked.min(NOT_HERE_DOUBLED_MAX))),
            (false, Some(_)) => left.min(ASK_AGAIN * (1 << tries.asked.min(UNREACHED_DOUBLED_MAX))),
            (false, None) => left,
        };
        tries.asked += 1;
        tokio::select! {
            biased;
            // An error means that the worker ends.
            _ = timeout(turn, changes.changed()) => {}
            left = self.left(scratch) => return Err(left),
        }
        tries.forget();
        Ok(())
    }

    /// Waits until one of the service's requests has ended, if there is a place in the queue.
    async fn wait_for_room(
        &mut self,
        scratch: &mut Scratch,
        service: &Arc<Service>,
        limits: &ServiceLimits,
        tries: &mut Tries,
    ) -> Result<(), Unserved> {
        let counters = &self.worker.counters;
        let below = self.listener.kind == ListenerKind::Node;
        let refused = |detail: &str| {
            if below { Answer::not_here(FULL, Vec::new(), "connection_limit_reached") } else { overloaded(detail) }
        };
        if tries.queued.is_none() {
            if limits.pending == 0 {
                counters.limit_in_flight_total.add();
                return Err(refused("The service has as many requests as it may.").into());
            }
            if !service.enter_queue(limits.pending) {
                counters.limit_pending_total.add();
                return Err(refused("Too many requests wait for the service already.").into());
            }
            tries.queued = Some(Queued {
                service: service.clone(),
                until: Instant::now() + Duration::from_millis(limits.pending_timeout_ms.into()),
                _now: Gauged::new(counters.clone(), |counters| &counters.pending_now),
            });
            // Once more: one may have ended since.
            return Ok(());
        }
        let until = tries.queued.as_ref().map_or_else(Instant::now, |queued| queued.until);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            counters.timeout_pending_total.add();
            tries.queued = None;
            return Err(refused("The service had no room for the request in time.").into());
        }
        let mut asked = false;
        let woken = poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            service.wait(cx.waker().clone());
            Poll::Pending
        });
        tokio::select! {
            biased;
            // A wake that another one has had the use of is made up for.
            _ = timeout(left.min(ROOM_LOOK), woken) => {}
            left = self.left(scratch) => return Err(left),
        }
        tries.full = false;
        tries.forget();
        Ok(())
    }

    /// Waits until the client is gone, or the request has to end for its memory.
    pub(super) async fn left(&mut self, scratch: &mut Scratch) -> Unserved {
        poll_fn(|cx| {
            if scratch.must_end() {
                return Poll::Ready(Unserved::Ended);
            }
            let Scratch { from_client, to_client, ahead, .. } = &mut *scratch;
            let ahead = to_client.is_empty().then_some(ahead);
            if self.watch.poll(cx, &mut self.io, from_client, ahead).is_ready() {
                return Poll::Ready(Unserved::Gone);
            }
            scratch.waits(cx, self.io.held(false, false), None);
            Poll::Pending
        })
        .await
    }

    /// Binds the request to the version that was picked for it.
    pub(super) fn bind(tries: &mut Tries, picked: &Picked) {
        tries.bound = Some(picked.bound());
    }
}

/// The value of a field.
fn field<'a>(scratch: &Scratch, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields = scratch.request.fields().iter();
    fields.find(|field| field.text.of(head).eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value.of(head))
}

fn cookie<'a>(scratch: &Scratch, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let fields = scratch.request.fields().iter().filter(|field| field.name == Name::Cookie);
    fields
        .flat_map(|field| field.value.of(head).split(|byte| *byte == b';'))
        .find_map(|pair| sdlb_http1::trim(pair).strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// Of `Priority: u=5, i`.
fn urgency(value: &[u8]) -> u8 {
    let said = value.split(|byte| *byte == b',').find_map(|part| sdlb_http1::trim(part).strip_prefix(b"u="));
    match said {
        Some([digit @ b'0'..=b'7']) => digit - b'0',
        _ => 3,
    }
}

fn overloaded(detail: &str) -> Answer {
    Answer { retry_after_s: Some(RETRY_AFTER_S), ..Answer::new(503, "overloaded", "connection_limit_reached", detail) }
}

fn no_route(worker: &Worker, host: bool) -> Answer {
    if host {
        worker.counters.no_route_total.add();
        Answer::new(404, "no-route", "destination_not_found", "No service claims this path.")
    } else {
        worker.counters.wrong_host_total.add();
        Answer::new(421, "wrong-host", "destination_not_found", "This host is not served here.")
    }
}

/// There were members all the time, and none of them could be reached.
fn unreached(failure: Answer) -> Answer {
    let detail = "No instance could be reached in time.";
    let below = failure.below;
    Answer { retry_after_s: Some(RETRY_AFTER_S), below, ..Answer::new(503, "nothing-ready", failure.error, detail) }
}

fn nothing_ready(tries: &mut Tries, detail: &str) -> Answer {
    Answer {
        retry_after_s: Some(RETRY_AFTER_S),
        below: std::mem::take(&mut tries.below),
        ..Answer::new(503, "nothing-ready", "destination_unavailable", detail)
    }
}
