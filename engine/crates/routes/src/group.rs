//! A group: the members that serve one (service, version, pattern), and the choice among them.

use std::{
    cell::OnceCell,
    hash::{Hash, Hasher},
    hint::black_box,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    Chance, Sequence, Service, Target, VersionCounters, balance, load::Load, places::Place, service::Entered,
    target::Out,
};

/// Names one member: `target` in the group (service, version, pattern).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberKey {
    /// Service name.
    pub service: Arc<str>,
    /// Version of the service.
    pub version: Arc<str>,
    /// Route pattern, as control wrote it.
    pub pattern: Arc<str>,
    /// Key of the target.
    pub target: Arc<str>,
}

impl Hash for MemberKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.target.hash(state);
        self.pattern.hash(state);
        self.version.hash(state);
        self.service.hash(state);
    }
}

/// One target in one group. What every request reads comes first, as in [`crate::Route`].
#[derive(Debug)]
#[repr(C)]
pub struct Member {
    pub(crate) load: Arc<Load>,
    pub(crate) target: Arc<Target>,
    pub(crate) capacity: u32,
    pub(crate) last_resort: bool,
    /// In another zone.
    pub(crate) far: bool,
    /// Where its key stands among all values of a hash.
    pub(crate) place: u64,
    pub(crate) key: MemberKey,
}

impl Member {
    /// Its name.
    #[must_use]
    pub fn key(&self) -> &MemberKey {
        &self.key
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Requests at once that it is good for, at least 1.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Only for requests that no other member can take.
    #[must_use]
    pub fn last_resort(&self) -> bool {
        self.last_resort
    }

    /// Requests in flight, over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.load.in_flight() < self.capacity
    }
}

/// The members of one (service, version, pattern). What every request reads comes first, as in [`crate::Route`].
#[derive(Debug)]
#[repr(C)]
pub struct Group {
    /// Ordinary members first, then those of last resort; within each, by target key.
    pub(crate) members: SmallVec<[Arc<Member>; 2]>,
    pub(crate) ordinary: usize,
    pub(crate) counters: Arc<VersionCounters>,
    /// What is set for the service.
    pub(crate) terms: Arc<Service>,
    pub(crate) service: Arc<str>,
    pub(crate) version: Arc<str>,
    /// What a session that began on this version has.
    pub(crate) session: u64,
    pub(crate) stamp: Arc<str>,
    pub(crate) pattern: Arc<str>,
    /// Some of them are in another zone.
    pub(crate) any_far: bool,
    /// Sum of the capacities of the ordinary members.
    pub(crate) ordinary_capacity: u64,
    pub(crate) sequence: Arc<Sequence>,
    /// The epoch that it was built in.
    pub(crate) since: u64,
}

/// What a choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// On the engine's clock.
    pub now_ms: u64,
    /// Ids of targets that were tried already.
    pub avoid: &'a [u64],
    /// The hash of the value by which requests are told apart; `None`: it has none, or nobody asks for it.
    pub key: Option<u64>,
}

impl Group {
    /// Service name.
    #[must_use]
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// Version of the service.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// What a session that began on this version has, see [`crate::Sticky::Session`].
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Route pattern, as control wrote it.
    #[must_use]
    pub fn pattern(&self) -> &Arc<str> {
        &self.pattern
    }

    /// The value of the header `sdlb-to` for this group: `service/version pattern`.
    #[must_use]
    pub fn stamp(&self) -> &Arc<str> {
        &self.stamp
    }

    /// Its members: ordinary ones, then those of last resort.
    #[must_use]
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Counters of its service version.
    #[must_use]
    pub fn counters(&self) -> &Arc<VersionCounters> {
        &self.counters
    }

    /// What is set for its service.
    #[must_use]
    pub fn terms(&self) -> &Arc<Service> {
        &self.terms
    }

    /// The epoch of the delta that changed it last.
    #[must_use]
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Each of its instances has as many requests in flight as it may; there is at least one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.terms.settings().is_some_and(|settings| balance::all_full(self, settings.limits.endpoint_in_flight))
    }

    /// Takes a member: ordinary ones before those of last resort, ejected targets only when there is nothing else, and
    /// among equals as the service's settings say, else the less loaded of two drawn by chance. `None`: no member is left.
    #[must_use]
    pub fn pick(self: &Arc<Self>, ask: &Ask<'_>, chance: &mut Chance) -> Option<Picked> {
        let choice = Class::ALL.iter().find_map(|class| self.choose(*class, ask, chance))?;
        Some(Picked::new(chance.place(self, choice.member)))
    }

    /// The best member of one class.
    pub(crate) fn choose(&self, class: Class, ask: &Ask<'_>, chance: &mut Chance) -> Option<Choice<'_>> {
        if let Some(settings) = self.terms.settings() {
            return balance::choose(self, &settings, class, ask, chance);
        }
        let in_class = self.in_class(class, ask.now_ms);
        let fits = |member: &Arc<Member>| in_class(member) && !ask.avoid.contains(&member.target.id());
        self.two_choices(class.range(self), chance, fits, is_more_loaded)
    }

    /// By two random choices; all are looked at only when neither of the two has room. `better`: the second is.
    pub(crate) fn two_choices<'a>(
        &self,
        members: &'a [Arc<Member>],
        chance: &mut Chance,
        fits: impl Fn(&Arc<Member>) -> bool,
        better: impl Fn(&Member, &Member) -> bool,
    ) -> Option<Choice<'a>> {
        let of = |one: &'a Arc<Member>, other: &'a Arc<Member>| if better(one, other) { other } else { one };
        let count = members.len();
        if count == 0 {
            return None;
        }
        if count == 1 {
            return Some(Choice { member: &members[0] }).filter(|choice| fits(choice.member));
        }
        let first = chance.below(count);
        let mut best = Some(&members[first]).filter(|member| fits(member));
        if count > 1 {
            let other = (first + 1 + chance.below(count - 1)) % count;
            if fits(&members[other]) {
                best = Some(best.map_or(&members[other], |held| of(held, &members[other])));
            }
        }
        if !best.is_some_and(|member| member.has_room()) {
            for member in members[first..].iter().chain(&members[..first]).filter(|member| fits(member)) {
                if member.has_room() {
                    return Some(Choice { member });
                }
                best = Some(best.map_or(member, |held| of(held, member)));
            }
        }
        best.map(|member| Choice { member })
    }

    /// Sum of the capacities of the members of a class.
    pub(crate) fn capacity(&self, class: Class, now_ms: u64) -> u64 {
        if class == Class::Ready && self.members.first().is_some_and(|member| member.load.shared.none_ejected(now_ms)) {
            return self.ordinary_capacity;
        }
        let in_class = self.in_class(class, now_ms);
        class.range(self).iter().filter(|member| in_class(member)).map(|member| u64::from(member.capacity)).sum()
    }

    /// Whether a member may get requests as one of this class. The whole class is looked at only when one is out for a
    /// reason that may be forgiven: then it is, if more than half of the class would be out (the "panic threshold").
    pub(crate) fn in_class(&self, class: Class, now_ms: u64) -> impl Fn(&Member) -> bool {
        let most_are_out = OnceCell::new();
        move |member| match member.target.out(now_ms) {
            _ if class == Class::Any => true,
            None => true,
            Some(Out::Hard) => false,
            Some(Out::Soft) => *most_are_out.get_or_init(|| {
                let members = class.range(self);
                members.iter().filter(|member| member.target.is_ejected(now_ms)).count() * 2 > members.len()
            }),
        }
    }
}

/// Whether the first has more requests for its capacity.
fn is_more_loaded(one: &Member, other: &Member) -> bool {
    let score = |member: &Member, by: &Member| (u64::from(member.load.in_flight()) + 1) * u64::from(by.capacity);
    score(other, one) < score(one, other)
}

/// Which members come into question, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Ordinary and not ejected: "ready".
    Ready,
    /// Of last resort and not ejected.
    LastResort,
    /// Everything: when all are ejected, trying is better than refusing.
    Any,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Ready, Self::LastResort, Self::Any];

    pub(crate) fn range(self, group: &Group) -> &[Arc<Member>] {
        match self {
            Self::Ready => &group.members[..group.ordinary],
            Self::LastResort => &group.members[group.ordinary..],
            Self::Any => &group.members,
        }
    }
}

/// A member that could take the request.
pub(crate) struct Choice<'a> {
    pub(crate) member: &'a Arc<Member>,
}

impl Choice<'_> {
    /// Fewer requests in flight than its capacity.
    pub(crate) fn has_room(&self) -> bool {
        self.member.has_room()
    }
}

/// The version, and the member of it, that a request was given to last: the version is what it is tried at again.
#[derive(Debug)]
pub struct Bound(Arc<Place>);

impl Bound {
    /// Name of the version.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.0.group.version
    }

    /// Of the version.
    #[must_use]
    pub fn counters(&self) -> &Arc<VersionCounters> {
        self.0.group.counters()
    }

    /// Names of service, version and target.
    #[must_use]
    pub fn names(&self) -> (&str, &str, &str) {
        (&self.0.group.service, &self.0.group.version, &self.0.member.key.target)
    }
}

/// A member that was given a request. It counts as in flight until this is dropped: hold it until the last byte of the
/// answer is through, for an upgraded connection until it is closed.
#[derive(Debug)]
pub struct Picked {
    place: Arc<Place>,
    /// In the service's count.
    entered: Option<Entered>,
}

impl Picked {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        place.member.load.begin();
        place.member.target.counters.in_flight_by(1);
        Self { place, entered: None }
    }

    /// It counts among the service's requests in flight, too, from here on.
    #[must_use]
    pub fn with(mut self, entered: Option<Entered>) -> Self {
        self.entered = entered;
        self
    }

    /// The group: stamp, counters, names.
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.place.group
    }

    /// Its version, also when this is dropped.
    #[must_use]
    pub fn bound(&self) -> Bound {
        Bound(self.place.clone())
    }

    /// The member.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.place.member
    }

    /// Where the request goes.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.place.member.target
    }

    /// To be called before the end of a request is counted and logged, as [`crate::Route::read_ahead`] is before its start.
    pub fn read_ahead(&self) {
        let Place { group, member } = &*self.place;
        let text = |text: &str| u64::from(text.as_bytes().first().copied().unwrap_or_default());
        let in_flight = u64::from(member.load.read_ahead());
        black_box(group.counters.read_ahead() ^ text(&group.service) ^ text(&group.version) ^ in_flight);
    }

    /// Whether it has to end before its time, see [`crate::Table::cut`]. `began_ms`: on the engine's clock; asked for only where
    /// requests of this member had to.
    pub fn is_cut(&self, is_stream: bool, began_ms: impl FnOnce() -> u64) -> bool {
        self.place.member.load.is_cut(is_stream, began_ms)
    }

    /// Whether anybody wants to know how it went, see [`Self::went`].
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.entered.is_some()
    }

    /// The head of its answer came after `latency_us`, or it failed after so long.
    pub fn went(&self, now_ms: u64, latency_us: u64, failed: bool) {
        if let Some(entered) = &self.entered {
            self.place.member.load.ended(now_ms, latency_us, failed);
            entered.service().went(latency_us, failed);
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.place.member.target.counters.in_flight_by(-1);
        self.place.member.load.end();
    }
}
