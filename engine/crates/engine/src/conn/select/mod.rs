//! Finding a member for a request, and waiting when there is none (`wait`).

mod wait;

use std::sync::{Arc, atomic::AtomicU32};

use sdlb_http1::Name;
use sdlb_routes::{
    Ask, Balance, Bound, Draw, Entered, HashBy, Park, Picked, Route, Service, ServiceLimits, Settings, Sticky, Table,
    VersionCounters, hash, read_session,
};
use smallvec::SmallVec;
use tokio::{sync::watch, time::Instant};

use self::wait::{Parked, Queued};
use super::{Conn, buffer::Scratch, facts::Facts, hedge::Held};
use crate::{
    answer::{Answer, GONE, UNREACHABLE},
    settings::ListenerKind,
    worker::Worker,
};

/// Members tried for one request between two changes of the table.
const TRIES_MAX: usize = 32;
/// Members that a node below the entry tries: the entry has the retry budget.
const TRIES_BELOW_MAX: usize = 8;
/// What a client is told when nothing was ready.
pub(super) const RETRY_AFTER_S: u32 = 1;

/// What was tried for a request, and what it is bound to.
#[derive(Default)]
pub struct Tries {
    /// Targets that did not take it: first those that shall not be asked again ...
    avoid: SmallVec<[u64; 8]>,
    /// ... so many, and then those that are asked again only when there is no other.
    never: usize,
    /// The endpoint, by its key, that had it at a tier below and ended its connection.
    pub avoid_below: Vec<u8>,
    /// How often it was sent on another connection because one was closed already.
    pub reconnects: u32,
    /// The table that it was looked up in last.
    epoch: u64,
    /// How often an endpoint has refused it.
    pub refusals: u32,
    draw: Option<Draw>,
    /// Where it was tried last.
    pub last: Option<Bound>,
    /// It stays with that version while it can.
    bound: bool,
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
    /// The cookie that names the version of the client's session, and what the client has sent of it; 0: nothing.
    pub session: Option<(Arc<str>, u64)>,
    /// Of the route, for requests that get no version.
    pub unserved: Option<Arc<VersionCounters>>,
}

impl Tries {
    /// This target did not take it, and is not asked again.
    pub fn avoid(&mut self, target: u64) {
        self.avoid.insert(self.never, target);
        self.never += 1;
    }

    /// Another target is asked, if there is one.
    pub fn spread(&mut self, target: u64) {
        self.avoid.push(target);
    }

    /// What could not take it a moment ago may take it now.
    fn forget(&mut self) {
        self.avoid.clear();
        self.never = 0;
        self.bound = false;
        self.costs = false;
        self.enough = false;
    }

    /// What to ask for first, if some are asked again only when there is no other; and what else.
    fn asks(&self, now_ms: u64, key: Option<u64>) -> (Option<Ask<'_>>, Ask<'_>) {
        let ask = |avoid| Ask { now_ms, avoid, key };
        let spread = (self.never < self.avoid.len()).then(|| ask(&self.avoid[..]));
        (spread, ask(&self.avoid[..self.never]))
    }

    /// The time. Of a request that is tried for the first time and has not waited: when its head was complete.
    pub fn now(&self, facts: &Facts) -> Instant {
        if self.count <= 1 && self.changes.is_none() { facts.started } else { Instant::now() }
    }

    /// It is looked up in the table of this epoch; what matters to it has changed in `since`. What was found by an older state
    /// is forgotten then: who could not be reached may serve another version now, and why it could not is no answer.
    fn look(&mut self, epoch: u64, since: impl FnOnce() -> u64) {
        if self.count > 0 && self.epoch < epoch && self.epoch < since() {
            self.forget();
            self.not_here = false;
            self.full = false;
            self.failure = None;
            self.below.clear();
        }
        self.epoch = epoch;
    }

    /// Begins to watch the table. Gives whether it was watched already: if not, it may have changed since it was looked at, and is
    /// looked at once more.
    fn watches(&mut self, worker: &Worker) -> bool {
        let before = self.changes.is_some();
        self.changes.get_or_insert_with(|| worker.table_changes());
        before
    }

    /// It waits no longer: it has a connection.
    pub fn leave_queue(&mut self) {
        self.parked = None;
        self.queued = None;
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
    /// The path is another's to those who read it otherwise, and so is refused: why.
    Ambiguous(&'static str),
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
                Found::NoRoute { host } => match self.settles_at() {
                    Some(until) if tries.watches(&self.worker) => self.wait_for_routes(scratch, until, tries).await?,
                    Some(_) => {}
                    None => return Err(no_route(&self.worker, host).into()),
                },
                Found::Ambiguous(detail) => {
                    self.worker.counters.refused_malformed_total.add();
                    return Err(Answer::new(400, "malformed-request", "http_request_error", detail).into());
                }
                // HAProxy retries elsewhere only what may be repeated; the rest waits for the routes of an engine that has just started.
                Found::NotHere
                    if facts.retries_425
                        && !facts.idempotent
                        && let Some(until) = self.settles_at() =>
                {
                    if tries.watches(&self.worker) {
                        self.wait_for_routes(scratch, until, tries).await?;
                    }
                }
                Found::NotHere => {
                    self.worker.counters.not_here_total.add();
                    let answer = match tries.failure.take_if(|_| !tries.not_here) {
                        Some(failure) => Answer::not_here(UNREACHABLE, failure.below, failure.error),
                        None => Answer::not_here(GONE, std::mem::take(&mut tries.below), "destination_unavailable"),
                    };
                    return Err(answer.into());
                }
                Found::Nothing { park, place } if tries.watches(&self.worker) => {
                    self.wait(scratch, park, &place, tries).await?;
                }
                Found::Nothing { .. } => {}
                Found::Shed => {
                    self.worker.counters.limit_priority_total.add();
                    return Err(overloaded("The service is busy, and low-priority requests are shed first.").into());
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
            if path.starts_with("//") && is_ambiguous(table, route, host, path) {
                return Found::Ambiguous(
                    "The path begins with several slashes; with one slash it belongs to another service.",
                );
            }
            if facts.encoded_slash && !route.terms().settings().is_some_and(|settings| settings.keep_encoded_slash) {
                return Found::Ambiguous("The path contains an encoded slash, which this service does not allow.");
            }
            route.read_ahead();
            tries.look(table.epoch(), || route.since());
            if let Sticky::Session(name) = route.sticky() {
                let head = &scratch.from_client.data()[..facts.head_bytes];
                let had = cookie(scratch, head, name).map_or(0, read_session);
                tries.session = Some((name.clone(), had));
            }
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
            let (spread, all) = tries.asks(now_ms, key);
            let picked = if tries.enough || tries.never >= TRIES_MAX {
                None
            } else {
                self.worker.with_chance(|chance| {
                    // The version stays while it may get requests and has a member left.
                    let same = tries
                        .last
                        .as_ref()
                        .filter(|_| tries.bound)
                        .and_then(|last| route.picks().iter().find(|pick| pick.version == *last.version()));
                    let mut of_same = |ask: &Ask<'_>| same.and_then(|pick| pick.group.pick(ask, chance));
                    let picked = spread.as_ref().and_then(&mut of_same).or_else(|| of_same(&all));
                    let mut of_any = |ask: &Ask<'_>| route.pick(draw, ask, chance);
                    picked.or_else(|| spread.as_ref().and_then(&mut of_any)).or_else(|| of_any(&all))
                })
            };
            match picked {
                Some(picked) => Found::Picked(picked.with(entered)),
                None => {
                    entered.into_iter().for_each(Entered::put_back);
                    self.none_found(route, tries)
                }
            }
        })
    }

    /// There is a route, and nothing that takes the request now.
    fn none_found(&self, route: &Route, tries: &mut Tries) -> Found {
        tries.unserved = Some(route.unserved().clone());
        if tries.full || route.picks().iter().any(|pick| pick.group.is_full()) {
            let limits = tries.settings.as_ref().map(|settings| settings.limits).unwrap_or_default();
            return Found::Full(route.terms().clone(), limits);
        }
        Found::Nothing { park: route.park(), place: route.parked().clone() }
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
            let detail = "This address accepts requests from nodes only.";
            return Err(Answer::new(421, "not-stamped", "http_request_denied", detail));
        };
        let now_ms = self.worker.ms_at(tries.now(facts).into_std());
        Ok(self.worker.with_table(|table| {
            let Some(group) = table.stamped(stamp) else { return Found::NotHere };
            tries.look(table.epoch(), || group.since());
            if tries.never >= TRIES_BELOW_MAX {
                return Found::NotHere;
            }
            // The entry has the limit of the whole service; here it is counted, and that of each endpoint holds.
            tries.settings = group.terms().settings();
            let entered = tries.settings.as_ref().and_then(|_| group.terms().enter(u32::MAX));
            let key = tries.settings.as_ref().and_then(|settings| self.key(settings, scratch, facts));
            if tries.count == 0
                && let Some(key) = scratch.request.single(head, Name::SdlbAvoid)
            {
                let target = std::str::from_utf8(key).ok().and_then(|key| table.target(key));
                target.into_iter().for_each(|target| tries.spread(target.id()));
            }
            let (spread, all) = tries.asks(now_ms, key);
            let picked = self.worker.with_chance(|chance| {
                let mut pick = |ask: &Ask<'_>| group.pick(ask, chance);
                spread.as_ref().and_then(&mut pick).or_else(|| pick(&all))
            });
            match picked {
                Some(picked) => return Found::Picked(picked.with(entered)),
                None => entered.into_iter().for_each(Entered::put_back),
            }
            if tries.full || group.is_full() {
                let limits = tries.settings.as_ref().map(|settings| settings.limits).unwrap_or_default();
                return Found::Full(group.terms().clone(), limits);
            }
            Found::NotHere
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
            HashBy::Client => Some(self.client(facts).as_bytes()),
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
                address = self.client(facts).as_bytes();
                Some(address)
            }
            Sticky::Header(name) => field(scratch, head, name),
            Sticky::Cookie(name) | Sticky::Session(name) => cookie(scratch, head, name),
        };
        route.draw(value)
    }

    /// Binds the request to the version that was picked for it.
    pub(super) fn bind(tries: &mut Tries, picked: &Picked) {
        (tries.last, tries.bound) = (Some(picked.bound()), true);
    }
}

/// `//x` is a path of its own (RFC 9112, 3.2.1), but many endpoints read it as `/x`. It is served where both are the same route's, or
/// where a claim names it; else one service could be reached by a path that another holds.
fn is_ambiguous(table: &Table, route: &Arc<Route>, host: &str, path: &str) -> bool {
    let claimed = route.pattern().find('/').is_some_and(|at| route.pattern()[at..].starts_with("//"));
    let read = path.trim_start_matches('/');
    let as_read = table.route(host, &path[path.len() - read.len() - 1..]);
    !claimed && !as_read.is_some_and(|as_read| Arc::ptr_eq(as_read, route))
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

fn no_route(worker: &Worker, host: bool) -> Answer {
    if host {
        worker.counters.no_route_total.add();
        Answer::new(404, "no-route", "destination_not_found", "No service claims this path.")
    } else {
        worker.counters.wrong_host_total.add();
        Answer::new(421, "wrong-host", "destination_not_found", "This host is not served here.")
    }
}

fn overloaded(detail: &str) -> Answer {
    Answer { retry_after_s: Some(RETRY_AFTER_S), ..Answer::new(503, "overloaded", "connection_limit_reached", detail) }
}
