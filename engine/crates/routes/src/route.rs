//! What an entry does with the requests of one pattern: which versions may get them, and in which shares.

use std::{hint::black_box, sync::Arc};

use smallvec::SmallVec;

use crate::{Ask, Chance, Draw, Group, Member, Picked, Sequence, Service, VersionCounters, group::Class, load::Load};

/// A bounded queue for the moment without any version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Park {
    /// Requests that may wait at once, on this engine.
    pub requests_max: u32,
    /// How long each may wait.
    pub timeout_ms: u32,
}

/// What fixes the version that a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// Nothing: the shares are dealt out in turn.
    None,
    /// The value of this cookie.
    Cookie(Arc<str>),
    /// The value of this header field.
    Header(Arc<str>),
    /// The client's address.
    Client,
    /// A cookie of this name, which the entry sets: it names the version that the client's session began on. The session keeps
    /// its version while that may get sessions and has a ready member, whatever the shares are. Others are dealt out in turn.
    Session(Arc<str>),
}

/// A version that may get new requests.
#[derive(Debug, Clone)]
pub struct Pick {
    /// The version.
    pub version: Arc<str>,
    /// Lower tiers first.
    pub tier: u32,
    /// Among the picks of one tier; 0: the sum of its ready capacities.
    pub weight: u32,
    /// Its members; may be empty.
    pub group: Arc<Group>,
    /// Sessions that began on it end.
    pub ends_sessions: bool,
}

/// What matches one pattern at an entry. With many routes most of what a request costs more is memory that no cache has:
/// so what every request reads comes first, and the only version, in most cases, needs no memory of its own.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Route {
    pub(crate) terms: Arc<Service>,
    /// By tier.
    pub(crate) picks: SmallVec<[Pick; 1]>,
    pub(crate) ahead: Option<Ahead>,
    pub(crate) park: Option<Park>,
    pub(crate) sticky: Sticky,
    pub(crate) service: Arc<str>,
    pub(crate) pattern: Arc<str>,
    pub(crate) unserved: Arc<VersionCounters>,
    pub(crate) sequence: Arc<Sequence>,
    pub(crate) parked: Arc<std::sync::atomic::AtomicU32>,
    /// The epoch that it was built in.
    pub(crate) since: u64,
}

/// What a request of this route will read, if its first version gets it: one would lead to the next, each from memory that no
/// cache has. Known from here, they come at once.
#[derive(Debug, Clone)]
pub(crate) struct Ahead {
    member: Arc<Member>,
    load: Arc<Load>,
}

impl Ahead {
    pub(crate) fn of(picks: &[Pick]) -> Option<Self> {
        let member = picks.first()?.group.members.first()?;
        Some(Self { member: member.clone(), load: member.load.clone() })
    }
}

impl Route {
    /// To be called some time before [`Self::pick`]: has what that reads brought to the processor, without waiting for it.
    pub fn read_ahead(&self) {
        if let ([pick, ..], Some(Ahead { member, load })) = (self.picks.as_slice(), &self.ahead) {
            let members = pick.group.ordinary as u32;
            // None of these waits for another one; their sum is never looked at.
            black_box(members ^ member.capacity ^ load.read_ahead() ^ u32::from(self.terms.is_plain()));
        }
    }

    /// The pattern, as control wrote it.
    #[must_use]
    pub fn pattern(&self) -> &Arc<str> {
        &self.pattern
    }

    /// The service that holds it.
    #[must_use]
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// What is set for it.
    #[must_use]
    pub fn terms(&self) -> &Arc<Service> {
        &self.terms
    }

    /// Its versions, by tier.
    #[must_use]
    pub fn picks(&self) -> &[Pick] {
        &self.picks
    }

    /// Whether and how requests wait when no version can take them. `None`: 503 at once.
    #[must_use]
    pub fn park(&self) -> Option<Park> {
        self.park
    }

    /// What [`Self::draw`] wants to know of the request.
    #[must_use]
    pub fn sticky(&self) -> &Sticky {
        &self.sticky
    }

    /// Counters of the requests that no version got.
    #[must_use]
    pub fn unserved(&self) -> &Arc<VersionCounters> {
        &self.unserved
    }

    /// Gauge of the requests that wait now, over all workers and tables: add one, compare with `park.requests_max`.
    #[must_use]
    pub fn parked(&self) -> &Arc<std::sync::atomic::AtomicU32> {
        &self.parked
    }

    /// The epoch of the delta that changed it last: its versions, or a member of one of them.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Fixes a request's place among the versions: by the sticky value when there is one, else the next in turn. Once a
    /// request, not once a try.
    #[must_use]
    pub fn draw(&self, sticky: Option<&[u8]>) -> Draw {
        match (&self.sticky, sticky) {
            (Sticky::Session(_), value) => match value.map_or(0, read_session) {
                session if self.of_session(session).is_some() => Draw::of_session(session),
                _ => self.sequence.next(),
            },
            (_, Some(value)) => Draw::sticky(&self.service, value),
            (_, None) => self.sequence.next(),
        }
    }

    /// The version that the session began on, if it goes on.
    fn of_session(&self, session: u64) -> Option<&Pick> {
        let its = |pick: &&Pick| !pick.ends_sessions && pick.group.session() == session;
        Some(&self.picks).filter(|_| session != 0)?.iter().find(its)
    }

    /// Takes a member: the lowest tier with a ready member that has room, else the lowest tier with a ready member; in
    /// the tier a version by `draw`; in the version a member as [`Group::pick`] does. `None`: nothing can take it now (park or 503).
    #[must_use]
    pub fn pick(&self, draw: Draw, ask: &Ask<'_>, chance: &mut Chance) -> Option<Picked> {
        // What has room matters only where there are others: to know it is to read what other threads write.
        if let [only] = self.picks.as_slice() {
            return only.group.pick(ask, chance);
        }
        let mut draw = draw;
        if draw.session() != 0 {
            if let Some(picked) = self.of_session(draw.session()).and_then(|pick| pick.group.pick(ask, chance)) {
                return Some(picked);
            }
            draw = self.sequence.next();
        }
        for class in Class::ALL {
            let mut full = None;
            for tier in self.picks.chunk_by(|one, other| one.tier == other.tier) {
                match choose_in_tier(tier, class, draw, ask, chance) {
                    Some((picked, true)) => return Some(Picked::new(chance.place(picked.0, picked.1))),
                    Some((picked, false)) => full = full.or(Some(picked)),
                    None => {}
                }
            }
            if let Some((group, member)) = full {
                return Some(Picked::new(chance.place(group, member)));
            }
        }
        None
    }
}

/// What [`Group::session`] gave, as a client sends it: 16 digits. 0: something else.
#[must_use]
pub fn read_session(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() == 16);
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0)
}

type Place<'a> = (&'a Arc<Group>, &'a Arc<Member>);

/// The version drawn in one tier and its member, and whether anything in the tier has room.
fn choose_in_tier<'a>(
    tier: &'a [Pick],
    class: Class,
    draw: Draw,
    ask: &Ask<'_>,
    chance: &mut Chance,
) -> Option<(Place<'a>, bool)> {
    let mut choose = |pick: &'a Pick| {
        let choice = pick.group.choose(class, ask, chance)?;
        Some((pick, choice.member, choice.has_room()))
    };
    let mut ready: SmallVec<[_; 4]> = tier.iter().filter_map(&mut choose).collect();
    let room = ready.iter().any(|(_, _, room)| *room);
    if room {
        // A version without a share of its own leaves its turn to one that has room. One with a share keeps it: shares
        // are exact.
        ready.retain(|(pick, _, room)| *room || pick.weight != 0);
    }
    let weight = |pick: &Pick| match pick.weight {
        0 => pick.group.capacity(class, ask.now_ms),
        weight => u64::from(weight),
    };
    let chosen = match ready.as_slice() {
        [] => return None,
        [only] => only,
        several if draw.is_sticky() => {
            let score = |pick: &Pick| draw.rendezvous(&pick.version, weight(pick));
            several.iter().max_by(|one, other| score(one.0).total_cmp(&score(other.0)))?
        }
        several => {
            let total = several.iter().map(|(pick, ..)| weight(pick)).sum();
            let mut place = draw.scaled(total);
            several.iter().find(|(pick, ..)| {
                let weight = weight(pick);
                let here = place < weight;
                place = place.wrapping_sub(weight);
                here
            })?
        }
    };
    Some(((&chosen.0.group, chosen.1), room))
}
