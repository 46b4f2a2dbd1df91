//! How one member of a group is chosen for a service that something was set for. What holds without is in `group.rs`.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    Balance, Chance, Group, Member, Settings, TargetKind,
    chance::{mix, score},
    group::{Ask, Choice, Class},
};

/// With fewer in flight a member is not busy, whatever the others have: its values stay with it.
const IDLE_BELOW: f64 = 8.0;
/// A member that is new gets this share of its weight at first, so that it gets anything at all.
const RAMP_MIN: f64 = 0.1;
/// Of a member that nothing is known of. It is soon known better.
const LATENCY_UNKNOWN_US: f64 = 1_000.0;
/// Members that are compared with each other for a request.
const SAMPLE: usize = 5;
/// Those with more in flight than this share of the sample are hot (the paper's Q_RIF is between 0.8 and 0.9).
const HOT_ABOVE: f64 = 0.8;

pub(crate) fn choose<'a>(
    group: &'a Group,
    settings: &Settings,
    class: Class,
    ask: &Ask<'_>,
    chance: &mut Chance,
) -> Option<Choice<'a>> {
    if settings.near_first && group.any_far {
        let near = among(group, settings, class, ask, chance, |member| !member.far);
        if near.as_ref().is_some_and(|choice| choice.has_room()) {
            return near;
        }
    }
    among(group, settings, class, ask, chance, |_| true)
}

fn among<'a>(
    group: &'a Group,
    settings: &Settings,
    class: Class,
    ask: &Ask<'_>,
    chance: &mut Chance,
    zone: impl Fn(&Member) -> bool,
) -> Option<Choice<'a>> {
    let in_class = group.in_class(class, ask.now_ms);
    let fits = |member: &Arc<Member>| {
        zone(member)
            && in_class(member)
            && !ask.avoid.contains(&member.target.id())
            && !is_full(member, settings.limits.endpoint_in_flight)
    };
    let members = class.range(group);
    let weight = |member: &Member| f64::from(member.capacity) * ramp(member, settings.slow_start_ms, ask.now_ms);
    match (&settings.balance, ask.key) {
        (Balance::RoundRobin, _) => in_turn(group, members, fits, weight),
        (Balance::Hash(_), Some(key)) => by_hash(members, key, settings.hash_load_percent, fits),
        (Balance::Prequal, _) => hot_and_cold(members, ask.now_ms, chance, fits, weight),
        (Balance::PeakEwma, _) => {
            let cost = |member: &Member| latency_us(member, ask.now_ms) * (load(member) + 1.0) / weight(member);
            group.two_choices(members, chance, fits, |one, other| cost(other) < cost(one))
        }
        // A request without the value that it is told apart by goes where there is most room.
        (Balance::LeastRequests | Balance::Hash(_), _) => {
            let cost = |member: &Member| (load(member) + 1.0) / weight(member);
            group.two_choices(members, chance, fits, |one, other| cost(other) < cost(one))
        }
    }
}

/// An instance has its limit; a node has those of the instances below it.
fn is_full(member: &Member, limit: u32) -> bool {
    limit != 0 && member.target.kind() == TargetKind::Instance && member.load.in_flight() >= limit
}

/// Whether each member that comes into question is at its limit, and there are some.
pub(crate) fn all_full(group: &Group, limit: u32) -> bool {
    limit != 0 && !group.members.is_empty() && group.members.iter().all(|member| is_full(member, limit))
}

fn load(member: &Member) -> f64 {
    f64::from(member.load.in_flight())
}

fn latency_us(member: &Member, now_ms: u64) -> f64 {
    member.load.average_us(now_ms).unwrap_or(LATENCY_UNKNOWN_US).max(1.0)
}

/// How much of its weight a member has that is new, or back from an ejection: more by the time, all of it in the end.
fn ramp(member: &Member, slow_start_ms: u32, now_ms: u64) -> f64 {
    if slow_start_ms == 0 {
        return 1.0;
    }
    let back_ms = Some(member.target.ejected_until_ms()).filter(|until_ms| *until_ms <= now_ms).unwrap_or(0);
    let age_ms = now_ms.saturating_sub(member.load.since_ms(now_ms).max(back_ms));
    (age_ms as f64 / f64::from(slow_start_ms)).clamp(RAMP_MIN, 1.0)
}

/// By the even sequence of the group over the weights laid end to end: smooth, exact, and without a lock.
fn in_turn<'a>(
    group: &'a Group,
    members: &'a [Arc<Member>],
    fits: impl Fn(&Arc<Member>) -> bool,
    weight: impl Fn(&Member) -> f64,
) -> Option<Choice<'a>> {
    const PARTS: f64 = 1024.0;
    let parts = |member: &Member| ((weight(member) * PARTS) as u64).max(1);
    for room in [true, false] {
        let able = || members.iter().filter(|member| fits(member) && (!room || member.has_room()));
        let total: u64 = able().map(|member| parts(member)).sum();
        if total == 0 {
            continue;
        }
        let mut place = group.sequence.next().scaled(total);
        let found = able().find(|member| {
            let here = place < parts(member);
            place = place.saturating_sub(parts(member));
            here
        });
        // Another worker may have filled one up meanwhile: then the last is as good as any.
        return found.or_else(|| able().last()).map(|member| Choice { member });
    }
    None
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998) by weight, with a bound: when a member comes or goes, only the values
/// that are its own move. One that is at its bound leaves a request to the next in the value's own order.
fn by_hash<'a>(
    members: &'a [Arc<Member>],
    key: u64,
    load_percent: u32,
    fits: impl Fn(&Arc<Member>) -> bool,
) -> Option<Choice<'a>> {
    let (mut in_flight, mut capacity) = (1.0, 0.0);
    for member in members.iter().filter(|member| fits(member)) {
        in_flight += load(member);
        capacity += f64::from(member.capacity);
    }
    let bound = |member: &Member| {
        let fair = in_flight * f64::from(member.capacity) / capacity;
        (fair * f64::from(load_percent) / 100.0).ceil().max(IDLE_BELOW)
    };
    let mut best: Option<(bool, f64, &Arc<Member>)> = None;
    for member in members.iter().filter(|member| fits(member)) {
        let free = member.has_room() && load(member) < bound(member);
        let score = score(mix(key ^ member.place), f64::from(member.capacity));
        if best.is_none_or(|(held, most, _)| (free, score) > (held, most)) {
            best = Some((free, score, member));
        }
    }
    best.map(|(_, _, member)| Choice { member })
}

/// Prequal's rule. The paper's proxies ask the servers for load and latency ahead of time, for each sees a small part of the
/// requests; here both are what this engine sees itself, which is all of a service's requests at a host, and a part at an
/// entry beside others. Load is in relation to the weight.
fn hot_and_cold<'a>(
    members: &'a [Arc<Member>],
    now_ms: u64,
    chance: &mut Chance,
    fits: impl Fn(&Arc<Member>) -> bool,
    weight: impl Fn(&Member) -> f64,
) -> Option<Choice<'a>> {
    let mut sample: SmallVec<[(&'a Arc<Member>, f64); SAMPLE]> = SmallVec::new();
    let count = members.len();
    if count == 0 {
        return None;
    }
    // So many neighbours in the order from a place and with a step drawn by chance; all when there are few.
    let (first, step) = (chance.below(count), 1 + chance.below(count.max(2) - 1));
    let spread = if count > SAMPLE && gcd(step, count) == 1 { step } else { 1 };
    for index in 0..count {
        let member = &members[(first + index * spread) % count];
        if fits(member) {
            sample.push((member, load(member) / weight(member)));
            if sample.len() == SAMPLE {
                break;
            }
        }
    }
    let mut loads: SmallVec<[f64; SAMPLE]> = sample.iter().map(|(_, load)| *load).collect();
    loads.sort_by(f64::total_cmp);
    let hot_above = *loads.get(((loads.len() as f64 * HOT_ABOVE).ceil() as usize).saturating_sub(1))?;
    let coldest_room = sample.iter().any(|(member, _)| member.has_room());
    let able = sample.iter().filter(|(member, _)| !coldest_room || member.has_room());
    let cost = |member: &Member, load: f64| {
        let hot = load > hot_above;
        (hot, if hot { load } else { latency_us(member, now_ms) }, load)
    };
    let (member, _) = able.min_by(|one, other| {
        let (a, b) = (cost(one.0, one.1), cost(other.0, other.1));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2))
    })?;
    Some(Choice { member })
}

fn gcd(one: usize, other: usize) -> usize {
    if other == 0 { one } else { gcd(other, one % other) }
}
