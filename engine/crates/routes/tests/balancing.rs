//! Which member a request gets when a service has settings of its own, and what its limits do.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Wake, Waker},
};

use proptest::prelude::*;
use sdlb_routes::{
    Address, Ask, Balance, Chance, Delta, Draining, Group, HashBy, MemberKey, MemberPut, Outlier, Outliers, Picked,
    Protocol, ServiceLimits, ServicePut, Settings, Shared, Table, TargetKind, TargetPut, hash,
};

struct World {
    table: Table,
    draining: Draining,
    chance: Chance,
}

impl World {
    /// Members of one group: target, capacity, far.
    fn new(settings: Settings, members: &[(&str, u32, bool)]) -> Self {
        let table = Table::new(Shared::new(|| ()));
        let mut world = Self { table, draining: Draining::default(), chance: Chance::new(7) };
        world.apply(Delta {
            put_services: vec![ServicePut { name: "s".into(), settings }],
            put_targets: members.iter().map(|(target, ..)| target_put(target)).collect(),
            put_members: members.iter().map(|(target, capacity, far)| member_put(target, *capacity, *far)).collect(),
            ..Delta::default()
        });
        world
    }

    fn apply(&mut self, delta: Delta) {
        let delta = Delta { epoch: self.table.epoch() + 1, ..delta };
        self.table = self.table.apply(&delta, &mut self.draining).unwrap();
    }

    fn group(&self) -> Arc<Group> {
        self.table.stamped(b"s/1 /*").unwrap().clone()
    }

    fn pick(&mut self, now_ms: u64, key: Option<u64>) -> Option<Picked> {
        let group = self.group();
        let entered = group.terms().enter(u32::MAX);
        let ask = Ask { now_ms, avoid: &[], key };
        group.pick(&ask, &mut self.chance).map(|picked| picked.with(entered))
    }

    /// How often each is picked when every request ends at once.
    fn counts(&mut self, now_ms: u64, requests: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..requests {
            *counts.entry(name(&self.pick(now_ms, None).unwrap())).or_default() += 1;
        }
        counts
    }

    /// Requests that take so long by member, one after the other.
    fn serve(
        &mut self,
        now_ms: u64,
        requests: usize,
        latency_us: impl Fn(&str) -> u64,
        fails: impl Fn(&str, usize) -> bool,
    ) {
        for number in 0..requests {
            let picked = self.pick(now_ms, None).unwrap();
            let target = name(&picked);
            picked.went(now_ms, latency_us(&target), fails(&target, number));
        }
    }
}

fn name(picked: &Picked) -> String {
    picked.target().key().to_string()
}

fn target_put(key: &str) -> TargetPut {
    let address = Address::parse("127.0.0.1:1").unwrap();
    TargetPut { key: key.into(), kind: TargetKind::Instance, address, protocol: Protocol::Http1 }
}

fn member_put(target: &str, capacity: u32, far: bool) -> MemberPut {
    let key = MemberKey { service: "s".into(), version: "1".into(), pattern: "/*".into(), target: target.into() };
    MemberPut { key, capacity, last_resort: false, far }
}

fn by(balance: Balance) -> Settings {
    Settings { balance, ..Settings::default() }
}

fn by_hash() -> Settings {
    by(Balance::Hash(HashBy::Client))
}

const THREE: [(&str, u32, bool); 3] = [("i:a", 100, false), ("i:b", 100, false), ("i:c", 200, false)];

#[test]
fn in_turn_is_exact_by_weight_and_smooth() {
    let mut world = World::new(by(Balance::RoundRobin), &THREE);
    for _ in 0..50 {
        let counts = world.counts(1, 16);
        assert!((3..=5).contains(&counts["i:a"]) && (7..=9).contains(&counts["i:c"]), "{counts:?}");
    }
    let counts = world.counts(1, 4000);
    assert!((999..=1001).contains(&counts["i:a"]) && (1999..=2001).contains(&counts["i:c"]), "{counts:?}");
}

#[test]
fn who_is_fast_gets_more_with_peak_ewma_and_a_rise_counts_at_once() {
    let mut world = World::new(by(Balance::PeakEwma), &[("i:fast", 100, false), ("i:slow", 100, false)]);
    world.serve(1, 200, |target| if target == "i:slow" { 50_000 } else { 1_000 }, |_, _| false);
    assert!(world.counts(2, 1000)["i:fast"] > 990);
    // One slow answer and the other is the better one, until so long has passed that it is tried again.
    let picked = world.pick(2, None).unwrap();
    picked.went(2, 400_000, false);
    drop(picked);
    assert!(world.counts(3, 1000)["i:slow"] > 990);
    world.serve(120_000, 20, |target| if target == "i:slow" { 50_000 } else { 1_000 }, |_, _| false);
    assert!(world.counts(120_001, 1000)["i:fast"] > 990, "what was measured long ago says nothing");
}

#[test]
fn prequal_takes_the_fast_ones_while_they_are_not_hot() {
    let members: Vec<_> = ["i:a", "i:b", "i:c", "i:d", "i:e"].map(|target| (target, 100, false)).into();
    let mut world = World::new(by(Balance::Prequal), &members);
    let slow = |target: &str| if target == "i:a" { 1_000 } else { 9_000 };
    world.serve(1, 300, slow, |_, _| false);
    assert!(world.counts(2, 200)["i:a"] > 190, "none is busy: the fastest");
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(world.pick(2, None).unwrap());
    }
    let mut counts = BTreeMap::new();
    held.iter().for_each(|picked| *counts.entry(name(picked)).or_insert(0_u32) += 1);
    assert!(counts.values().all(|count| (10..=40).contains(count)), "who has the most is hot: {counts:?}");
}

#[test]
fn a_value_goes_to_one_member_while_it_has_room() {
    let mut world = World::new(by_hash(), &THREE);
    let key = hash(b"10.0.0.7");
    let first = name(&world.pick(1, Some(key)).unwrap());
    for _ in 0..50 {
        assert_eq!(name(&world.pick(1, Some(key)).unwrap()), first);
    }
    // Nobody may have more than 1.25 times its fair share: the value overflows to others.
    let held: Vec<_> = (0..100).map(|_| world.pick(1, Some(key)).unwrap()).collect();
    let mut counts = BTreeMap::new();
    held.iter().for_each(|picked| *counts.entry(name(picked)).or_insert(0_u32) += 1);
    for (target, capacity) in [("i:a", 1.0), ("i:b", 1.0), ("i:c", 2.0)] {
        let bound = (100.0 * capacity / 4.0 * 1.25_f64).ceil() as u32;
        assert!(counts.get(target).copied().unwrap_or_default() <= bound, "{counts:?}");
    }
}

#[test]
fn a_new_member_gets_more_by_the_time() {
    let settings = Settings { slow_start_ms: 10_000, ..by(Balance::RoundRobin) };
    let mut world = World::new(settings, &[("i:a", 100, false), ("i:b", 100, false)]);
    world.counts(1, 10);
    assert!(world.counts(20_000, 1000)["i:a"].abs_diff(500) < 3, "both are warm");
    world.apply(Delta {
        put_targets: vec![target_put("i:new")],
        put_members: vec![member_put("i:new", 100, false)],
        ..Delta::default()
    });
    for (after_ms, share) in [(0, 0.1), (5_000, 0.5), (10_000, 1.0)] {
        let counts = world.counts(20_000 + after_ms, 2100);
        let expected = 2100.0 * share / (2.0 + share);
        assert!((counts["i:new"] as f64 - expected).abs() < 25.0, "{after_ms}: {counts:?}");
    }
}

#[test]
fn members_of_other_zones_get_what_ours_have_no_room_for() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::Prequal, Balance::PeakEwma] {
        let settings = Settings { near_first: true, ..by(balance) };
        let mut world = World::new(settings, &[("i:near", 3, false), ("i:far", 3, true)]);
        let held: Vec<_> = (0..5).map(|_| name(&world.pick(1, None).unwrap())).collect();
        assert!(held.iter().all(|target| target == "i:near"), "each ends at once: {held:?}");
        let held: Vec<_> = (0..6).map(|_| world.pick(1, None).unwrap()).collect();
        let names: Vec<_> = held.iter().map(name).collect();
        assert_eq!(names, ["i:near", "i:near", "i:near", "i:far", "i:far", "i:far"]);
    }
}

#[test]
fn an_instance_at_its_limit_gets_nothing() {
    let limits = ServiceLimits { endpoint_in_flight: 2, ..ServiceLimits::default() };
    let mut world = World::new(Settings { limits, ..Settings::default() }, &THREE);
    let held: Vec<_> = (0..6).map(|_| world.pick(1, None).unwrap()).collect();
    assert!(world.group().is_full() && world.pick(1, None).is_none());
    drop(held);
    assert!(!world.group().is_full() && world.pick(1, None).is_some());
}

#[test]
fn settings_change_live_and_are_replaced_with_the_rest() {
    let mut world = World::new(by_hash(), &THREE);
    let group = world.group();
    assert_eq!(group.terms().settings().unwrap().balance, Balance::Hash(HashBy::Client));
    world.apply(Delta {
        put_services: vec![ServicePut { name: "s".into(), settings: by(Balance::Prequal) }],
        ..Delta::default()
    });
    assert_eq!(group.terms().settings().unwrap().balance, Balance::Prequal, "also for who still has the old table");
    world.apply(Delta { delete_services: vec!["s".into()], ..Delta::default() });
    assert!(group.terms().settings().is_none());
    world.apply(Delta { put_services: vec![ServicePut { name: "s".into(), settings: by_hash() }], ..Delta::default() });
    world.apply(Delta { replace: true, ..Delta::default() });
    assert!(group.terms().settings().is_none(), "what a whole table does not name is gone");
}

#[test]
fn a_refused_delta_changes_no_settings() {
    let world = World::new(by_hash(), &THREE);
    let delta = Delta {
        epoch: 9,
        put_services: vec![ServicePut { name: "s".into(), settings: by(Balance::Prequal) }],
        put_members: vec![member_put("i:unknown", 1, false)],
        ..Delta::default()
    };
    assert!(world.table.apply(&delta, &mut Draining::default()).is_err());
    assert_eq!(world.group().terms().settings().unwrap().balance, Balance::Hash(HashBy::Client));
}

/// Notes in what order it was woken, and how often.
struct Note(u32, Arc<std::sync::Mutex<Vec<u32>>>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

struct Queue {
    service: Arc<sdlb_routes::Service>,
    woken: Arc<std::sync::Mutex<Vec<u32>>>,
}

impl Queue {
    fn new() -> Self {
        let world = World::new(Settings::default(), &THREE);
        Self { service: world.group().terms().clone(), woken: Arc::default() }
    }

    /// Whether it is worth a look for the waiter of this number.
    fn poll(&self, waiter: &sdlb_routes::Waiter, number: u32) -> bool {
        let waker = Waker::from(Arc::new(Note(number, self.woken.clone())));
        waiter.poll(&mut std::task::Context::from_waker(&waker)).is_ready()
    }

    fn woken(&self) -> Vec<u32> {
        std::mem::take(&mut self.woken.lock().unwrap())
    }
}

#[test]
fn who_waits_for_room_is_woken_in_turn() {
    let queue = Queue::new();
    let service = &queue.service;
    let entered: Vec<_> = (0..2).map(|_| service.enter(2).unwrap()).collect();
    assert!(service.enter(2).is_none());
    let (one, two) = (service.enter_queue(2).unwrap(), service.enter_queue(2).unwrap());
    assert!(service.enter_queue(2).is_none());
    assert!(!queue.poll(&two, 2) && !queue.poll(&one, 1));
    for ended in entered {
        drop(ended);
    }
    assert_eq!(queue.woken(), [1, 2]);
    assert_eq!(service.in_flight(), 0);
    assert!(queue.poll(&one, 1) && queue.poll(&two, 2));
    drop(one);
    assert!(service.enter_queue(2).is_some());
}

#[test]
fn who_looks_in_vain_does_not_wake_itself_or_others() {
    let queue = Queue::new();
    let service = &queue.service;
    let waiters: Vec<_> = (0..3).map(|_| service.enter_queue(10).unwrap()).collect();
    for (number, waiter) in waiters.iter().enumerate() {
        assert!(!queue.poll(waiter, number as u32));
    }
    // Each looks again, and finds no endpoint with room.
    for _ in 0..100 {
        service.enter(u32::MAX).unwrap().put_back();
    }
    assert_eq!(queue.woken(), []);
    assert_eq!(service.in_flight(), 0);
}

#[test]
fn a_waiter_has_one_place_however_often_it_looks() {
    let queue = Queue::new();
    let service = &queue.service;
    let (one, two) = (service.enter_queue(10).unwrap(), service.enter_queue(10).unwrap());
    for _ in 0..1_000 {
        assert!(!queue.poll(&one, 1) && !queue.poll(&two, 2));
    }
    for _ in 0..5 {
        drop(service.enter(u32::MAX).unwrap());
    }
    assert_eq!(queue.woken(), [1, 2], "each once");
    // It was told, and leaves without a look: the next one is told in its place.
    assert!(queue.poll(&two, 2) && !queue.poll(&two, 2));
    drop(one);
    assert_eq!(queue.woken(), [2]);
}

// ------------------------------------------------------------------ outliers

const FIVE: [(&str, u32, bool); 5] =
    [("i:a", 9, false), ("i:b", 9, false), ("i:c", 9, false), ("i:d", 9, false), ("i:e", 9, false)];

fn outliers(ejected_percent_max: u32) -> Settings {
    let outlier = Outlier {
        success_deviations_percent: 150,
        latency_factor_percent: 300,
        ejected_percent_max,
        interval_ms: 5_000,
        requests_min: 20,
    };
    Settings { outlier, ..by(Balance::RoundRobin) }
}

#[test]
fn who_fails_more_than_the_others_is_taken_out_for_a_while() {
    let mut world = World::new(outliers(50), &FIVE);
    let mut rules = Outliers::default();
    assert!(rules.look(&world.table, 1_000).is_empty());
    let fails = |target: &str, number: usize| target == "i:c" && number & 1 == 0 || number.is_multiple_of(50);
    world.serve(1_500, 500, |_| 2_000, fails);
    assert!(rules.look(&world.table, 3_000).is_empty(), "not before its time");
    let out = rules.look(&world.table, 6_000);
    assert_eq!(out.iter().map(|(target, ..)| target.key().to_string()).collect::<Vec<_>>(), ["i:c"]);
    assert!(out[0].2.contains("% of its responses succeed"), "{}", out[0].2);
    assert!(!world.counts(6_100, 100).contains_key("i:c"));
    assert!(world.counts(6_000 + u64::from(out[0].1.for_ms) + 1, 100).contains_key("i:c"), "and back");
}

#[test]
fn who_is_slower_by_far_is_taken_out() {
    let mut world = World::new(outliers(50), &FIVE);
    let mut rules = Outliers::default();
    rules.look(&world.table, 1_000);
    world.serve(1_500, 500, |target| if target == "i:e" { 90_000 } else { 10_000 }, |_, _| false);
    let out = rules.look(&world.table, 6_000);
    assert_eq!(out.len(), 1);
    assert!(out[0].2.contains("90.0 ms"), "{}", out[0].2);
}

#[test]
fn when_all_fail_alike_or_few_were_asked_nobody_is() {
    for (requests, least) in [(500, 20), (60, 20)] {
        let mut world = World::new(outliers(50), &FIVE);
        let mut rules = Outliers::default();
        rules.look(&world.table, 1_000);
        let all_fail = requests == 500;
        world.serve(1_500, requests, |_| least * 100, |target, _| all_fail || target == "i:a");
        assert!(rules.look(&world.table, 6_000).is_empty());
    }
}

proptest! {
    /// Whatever fails, no more than the cap is out.
    #[test]
    fn never_more_than_the_cap(cap in 0u32..=100, bad in prop::collection::vec(any::<bool>(), 5)) {
        let mut world = World::new(outliers(cap), &FIVE);
        let mut rules = Outliers::default();
        rules.look(&world.table, 1_000);
        let failing = |target: &str| bad[usize::from(target.as_bytes()[2] - b'a')];
        world.serve(1_500, 500, |target| if failing(target) { 70_000 } else { 3_000 }, |target, n| failing(target) && n % 3 > 0);
        let out = rules.look(&world.table, 6_000).len();
        prop_assert!(out <= 5 * cap as usize / 100);
        prop_assert!(out <= bad.iter().filter(|bad| **bad).count());
    }

    /// When a member comes, values move to it alone, about its share of them; when it goes, only its own move.
    #[test]
    fn hashing_moves_what_it_must(count in 1usize..12, seed in any::<u32>()) {
        let names: Vec<String> = (0..=count).map(|number| format!("i:{seed}-{number}")).collect();
        let members: Vec<_> = names.iter().map(|name| (name.as_str(), 100, false)).collect();
        let mut without = World::new(by_hash(), &members[..count]);
        let mut with = World::new(by_hash(), &members);
        let mut moved = 0;
        for value in 0..600u32 {
            let key = Some(hash(&value.to_be_bytes()));
            let (before, after) = (name(&without.pick(1, key).unwrap()), name(&with.pick(1, key).unwrap()));
            if before != after {
                prop_assert_eq!(&after, &names[count]);
                moved += 1;
            }
        }
        let fair = 600.0 / (count + 1) as f64;
        prop_assert!((f64::from(moved) - fair).abs() < 6.0 * fair.sqrt(), "{} moved of {} expected", moved, fair);
    }

    /// Limits are exact, whatever the algorithm.
    #[test]
    fn a_limit_is_never_passed(limit in 1u32..6, which in 0usize..5, keys in prop::collection::vec(any::<u64>(), 1..60)) {
        let balance = [Balance::LeastRequests, Balance::RoundRobin, Balance::Prequal, Balance::PeakEwma, Balance::Hash(HashBy::Path)];
        let limits = ServiceLimits { endpoint_in_flight: limit, ..ServiceLimits::default() };
        let mut world = World::new(Settings { limits, ..by(balance[which].clone()) }, &THREE);
        let held: Vec<_> = keys.iter().filter_map(|key| world.pick(1, Some(*key))).collect();
        let mut counts = BTreeMap::new();
        held.iter().for_each(|picked| *counts.entry(name(picked)).or_insert(0_u32) += 1);
        prop_assert!(counts.values().all(|count| *count <= limit));
        prop_assert_eq!(held.len(), keys.len().min(3 * limit as usize));
    }
}

#[test]
fn the_limit_follows_the_latency() {
    let limits = ServiceLimits { adaptive: true, in_flight: 400, ..ServiceLimits::default() };
    let mut world = World::new(Settings { limits, ..Settings::default() }, &[("i:a", 1000, false)]);
    let mut rules = Outliers::default();
    let service = world.group().terms().clone();
    let settings = service.settings().unwrap();
    let mut second = |world: &mut World, latency_us: u64| {
        let held: Vec<_> = (0..200).map(|_| world.pick(1, None).unwrap()).collect();
        held.iter().for_each(|picked| picked.went(1, latency_us, false));
        rules.look(&world.table, 1);
        service.in_flight_max(&settings.limits)
    };
    assert_eq!(second(&mut world, 2_000), 400, "twice of what was in flight, at most what is set");
    let slower = (0..5).map(|_| second(&mut world, 8_000)).last().unwrap();
    assert!(slower < 120, "{slower}");
    let again = (0..40).map(|_| second(&mut world, 2_000)).last().unwrap();
    assert!(again > 300, "{again}");
}
