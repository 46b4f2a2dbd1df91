//! A group: the members that serve one (service, version, pattern), and the choice among them.

use std::{
    cell::OnceCell,
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use crate::{Chance, Shared, Target, VersionCounters, target::Out};

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

/// What a member carries over from table to table.
#[derive(Debug)]
pub(crate) struct Load {
    in_flight: AtomicU32,
    draining: AtomicBool,
    shared: Arc<Shared>,
}

impl Load {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { in_flight: AtomicU32::new(0), draining: AtomicBool::new(false), shared }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::SeqCst);
    }
}

/// One target in one group.
#[derive(Debug)]
pub struct Member {
    pub(crate) key: MemberKey,
    pub(crate) capacity: u32,
    pub(crate) last_resort: bool,
    pub(crate) target: Arc<Target>,
    pub(crate) load: Arc<Load>,
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

    fn has_room(&self) -> bool {
        self.load.in_flight.load(Ordering::Relaxed) < self.capacity
    }
}

/// The members of one (service, version, pattern).
#[derive(Debug)]
pub struct Group {
    pub(crate) service: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) pattern: Arc<str>,
    pub(crate) stamp: Arc<str>,
    /// Ordinary members first, then those of last resort; within each, by target key.
    pub(crate) members: Box<[Arc<Member>]>,
    pub(crate) ordinary: usize,
    /// Sum of the capacities of the ordinary members.
    pub(crate) ordinary_capacity: u64,
    pub(crate) counters: Arc<VersionCounters>,
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

    /// Takes a member: ordinary ones before those of last resort, ejected targets only when there is nothing else, and
    /// among equals the less loaded of two drawn by chance. `avoid`: ids of targets that were tried already. `None`: no
    /// member is left.
    #[must_use]
    pub fn pick(self: &Arc<Self>, now_ms: u64, avoid: &[u64], chance: &mut Chance) -> Option<Picked> {
        Class::ALL
            .iter()
            .find_map(|class| self.choose(*class, now_ms, avoid, chance))
            .map(|choice| Picked::new(self.clone(), choice.member.clone()))
    }

    /// The best member of one class, by two random choices; all are looked at only when neither of the two has room.
    pub(crate) fn choose(&self, class: Class, now_ms: u64, avoid: &[u64], chance: &mut Chance) -> Option<Choice<'_>> {
        let members = class.range(self);
        let in_class = self.in_class(class, now_ms);
        let fits = |member: &Arc<Member>| in_class(member) && !avoid.contains(&member.target.id());
        let count = members.len();
        if count == 0 {
            return None;
        }
        let first = chance.below(count);
        let mut best = Some(&members[first]).filter(|member| fits(member));
        if count > 1 {
            let other = (first + 1 + chance.below(count - 1)) % count;
            if fits(&members[other]) {
                best = Some(best.map_or(&members[other], |held| less_loaded(held, &members[other])));
            }
        }
        if !best.is_some_and(|member| member.has_room()) {
            for member in members[first..].iter().chain(&members[..first]).filter(|member| fits(member)) {
                if member.has_room() {
                    return Some(Choice { member, room: true });
                }
                best = Some(best.map_or(member, |held| less_loaded(held, member)));
            }
        }
        best.map(|member| Choice { member, room: member.has_room() })
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
    fn in_class(&self, class: Class, now_ms: u64) -> impl Fn(&Member) -> bool {
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

/// The one with fewer requests for its capacity; the first of equals.
fn less_loaded<'a>(one: &'a Arc<Member>, other: &'a Arc<Member>) -> &'a Arc<Member> {
    let score = |member: &Member, by: &Member| {
        (u64::from(member.load.in_flight.load(Ordering::Relaxed)) + 1) * u64::from(by.capacity)
    };
    if score(other, one) < score(one, other) { other } else { one }
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

    fn range(self, group: &Group) -> &[Arc<Member>] {
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
    /// Fewer requests in flight than its capacity.
    pub(crate) room: bool,
}

/// A member that was given a request. It counts as in flight until this is dropped: hold it until the last byte of the
/// answer is through, for an upgraded connection until it is closed.
#[derive(Debug)]
pub struct Picked {
    group: Arc<Group>,
    member: Arc<Member>,
}

impl Picked {
    pub(crate) fn new(group: Arc<Group>, member: Arc<Member>) -> Self {
        member.load.in_flight.fetch_add(1, Ordering::SeqCst);
        member.target.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { group, member }
    }

    /// The group: stamp, counters, names.
    #[must_use]
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The member.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Where the request goes.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.member.target
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.member.target.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        let load = &self.member.load;
        let last = load.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && load.draining.load(Ordering::SeqCst) {
            load.shared.ring();
        }
    }
}
