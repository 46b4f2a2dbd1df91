//! Which version and which member a request gets.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::cast_precision_loss, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use sdlb_routes::{
    Address, Ask, Chance, Delta, Draining, Fault, MemberKey, MemberPut, PickPut, Picked, Protocol, Route, RoutePut,
    Shared, Sticky, Table, TargetKind, TargetPut,
};

/// One route `/*` of service `s`. Members: version, target, capacity, last resort. Picks: version, tier, weight.
fn table(members: &[(&str, &str, u32, bool)], picks: &[(&str, u32, u32)]) -> Table {
    let delta = Delta {
        epoch: 1,
        put_targets: members
            .iter()
            .map(|(_, target, ..)| TargetPut {
                key: (*target).into(),
                kind: TargetKind::Instance,
                address: Address::parse("127.0.0.1:1").unwrap(),
                protocol: Protocol::Http1,
            })
            .collect(),
        put_members: members
            .iter()
            .map(|(version, target, capacity, last_resort)| MemberPut {
                key: MemberKey {
                    service: "s".into(),
                    version: (*version).into(),
                    pattern: "/*".into(),
                    target: (*target).into(),
                },
                capacity: *capacity,
                last_resort: *last_resort,
                far: false,
            })
            .collect(),
        put_routes: vec![RoutePut {
            pattern: "/*".into(),
            service: "s".into(),
            picks: picks
                .iter()
                .map(|(version, tier, weight)| PickPut {
                    version: (*version).into(),
                    tier: *tier,
                    weight: *weight,
                    ends_sessions: false,
                })
                .collect(),
            park: None,
            sticky: Sticky::None,
        }],
        ..Delta::default()
    };
    Table::new(Shared::new(|| ())).apply(&delta, &mut Draining::default()).unwrap()
}

fn ask(now_ms: u64, avoid: &[u64]) -> Ask<'_> {
    Ask { now_ms, avoid, key: None }
}

fn route(table: &Table) -> &Route {
    table.route("example.com", "/").unwrap()
}

fn pick(table: &Table, chance: &mut Chance) -> Option<Picked> {
    let route = route(table);
    route.pick(route.draw(None), &ask(0, &[]), chance)
}

fn version(picked: &Picked) -> String {
    picked.group().version().to_string()
}

fn target(picked: &Picked) -> String {
    picked.target().key().to_string()
}

/// How often each version is picked, by requests that end at once.
fn versions(table: &Table, requests: usize) -> BTreeMap<String, usize> {
    let mut chance = Chance::new(7);
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(version(&pick(table, &mut chance).unwrap())).or_default() += 1;
    }
    counts
}

proptest! {
    /// Not only in the long run: after any number of requests.
    #[test]
    fn shares_are_exact(weights in prop::collection::vec(1..1000_u32, 2..6), requests in 1..3000_usize) {
        let names: Vec<_> = (0..weights.len()).map(|index| format!("1.{index}")).collect();
        let members: Vec<_> = names.iter().map(|name| (name.as_str(), "i:1", 100, false)).collect();
        let picks: Vec<_> = names.iter().zip(&weights).map(|(name, weight)| (name.as_str(), 0, *weight)).collect();
        let counts = versions(&table(&members, &picks), requests);
        let total: u32 = weights.iter().sum();
        for (name, weight) in names.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(total) * requests as f64;
            let got = counts.get(name).copied().unwrap_or(0) as f64;
            prop_assert!((got - share).abs() <= 4.0, "{} of {}: {} is not {:.1}", name, requests, got, share);
        }
    }

    #[test]
    fn a_sticky_value_keeps_its_version(values in prop::collection::vec(any::<u64>(), 1..50)) {
        let members = [("1", "i:1", 9, false), ("2", "i:2", 9, false)];
        let picks = [("1", 0, 50), ("2", 0, 50)];
        // Two nodes that know nothing of each other.
        let (one, other) = (table(&members, &picks), table(&members, &picks));
        for value in values {
            let picked = |table: &Table, seed| {
                let draw = route(table).draw(Some(&value.to_le_bytes()));
                version(&route(table).pick(draw, &ask(0, &[]), &mut Chance::new(seed)).unwrap())
            };
            prop_assert_eq!(picked(&one, 1), picked(&other, 2));
        }
    }
}

/// The version that each of 300 clients gets.
fn clients(capacities: &[u32]) -> Vec<String> {
    let names: Vec<_> = (0..capacities.len()).map(|index| format!("1.{index}")).collect();
    let present = || names.iter().zip(capacities).filter(|(_, capacity)| **capacity != 0);
    let members: Vec<_> = present().map(|(name, capacity)| (name.as_str(), "i:1", *capacity, false)).collect();
    let picks: Vec<_> = present().map(|(name, _)| (name.as_str(), 0, 0)).collect();
    let table = table(&members, &picks);
    let of = |client: u32| {
        let draw = route(&table).draw(Some(format!("session-{client}").as_bytes()));
        version(&route(&table).pick(draw, &ask(0, &[]), &mut Chance::new(1)).unwrap())
    };
    (0..300).map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A version gets more capacity or less, comes or goes (0): clients move to it or from it, never between others.
    #[test]
    fn only_those_sticky_clients_move_that_must(
        capacities in prop::collection::vec(1..20_u32, 2..6), which in any::<prop::sample::Index>(), next in 0..20_u32,
    ) {
        let at = which.index(capacities.len());
        let mut changed = capacities.clone();
        changed[at] = next;
        let name = format!("1.{at}");
        let grew = next > capacities[at];
        for (before, after) in clients(&capacities).into_iter().zip(clients(&changed)) {
            if before != after {
                prop_assert_eq!(if grew { after } else { before }, name.clone());
            }
        }
    }
}

#[test]
fn sticky_shares_hold_on_average() {
    let table = table(&[("1", "i:1", 9, false), ("2", "i:2", 9, false)], &[("1", 0, 90), ("2", 0, 10)]);
    let canary = (0..10_000_u32)
        .filter(|client| {
            let draw = route(&table).draw(Some(format!("session-{client}").as_bytes()));
            version(&route(&table).pick(draw, &ask(0, &[]), &mut Chance::new(1)).unwrap()) == "2"
        })
        .count();
    assert!((900..1100).contains(&canary), "{canary} of 10000 clients");
}

#[test]
fn weight_zero_follows_the_ready_capacity() {
    let members = [("1", "i:1", 30, false), ("1", "i:2", 30, false), ("2", "i:3", 20, false), ("2", "i:4", 99, true)];
    let counts = versions(&table(&members, &[("1", 0, 0), ("2", 0, 0)]), 800);
    assert!(counts["1"].abs_diff(600) <= 4, "{counts:?}");
}

#[test]
fn a_tier_overflows_into_the_next_and_back() {
    let table = table(&[("2", "i:2", 2, false), ("1", "i:1", 2, false)], &[("2", 0, 0), ("1", 1, 0)]);
    let mut chance = Chance::new(3);
    let mut held: Vec<_> = (0..4).map(|_| pick(&table, &mut chance).unwrap()).collect();
    assert_eq!(held.iter().map(version).collect::<Vec<_>>(), ["2", "2", "1", "1"]);
    // Nothing has room: the lowest tier takes it.
    assert_eq!(version(&pick(&table, &mut chance).unwrap()), "2");
    held.remove(0);
    assert_eq!(version(&pick(&table, &mut chance).unwrap()), "2");
}

#[test]
fn an_empty_or_ejected_tier_is_passed_over() {
    let table = table(&[("2", "i:2", 1, false), ("1", "i:1", 1, false)], &[("3", 0, 0), ("2", 1, 0), ("1", 2, 0)]);
    let mut chance = Chance::new(3);
    let first = pick(&table, &mut chance).unwrap();
    assert_eq!(version(&first), "2");
    let ejected =
        (0..9).find_map(|_| first.target().failed(0, Fault::Broken)).expect("taken out after failures in a row");
    drop(first);
    assert_eq!(version(&pick(&table, &mut chance).unwrap()), "1");
    let later = u64::from(ejected.for_ms) + 1;
    let back = route(&table).pick(route(&table).draw(None), &ask(later, &[]), &mut chance).unwrap();
    assert_eq!(version(&back), "2");
    // On probation: one more failure, and for longer; a success ends it.
    let again = back.target().failed(later, Fault::Broken).expect("one failure is enough");
    assert!(again.for_ms > ejected.for_ms);
    back.target().succeeded();
    assert_eq!(back.target().failed(later + u64::from(again.for_ms), Fault::Broken), None);
}

#[test]
fn the_last_resort_comes_last_and_ejected_ones_after_it() {
    let table = table(&[("1", "i:1", 1, false), ("1", "i:2", 1, true)], &[("1", 0, 0)]);
    let mut chance = Chance::new(3);
    let first = pick(&table, &mut chance).unwrap();
    assert_eq!(target(&first), "i:1");
    assert_eq!(target(&pick(&table, &mut chance).unwrap()), "i:1", "even when it is full");
    let _ = (0..9).find_map(|_| first.target().failed(0, Fault::Broken)).unwrap();
    let second = pick(&table, &mut chance).unwrap();
    assert_eq!(target(&second), "i:2");
    let _ = (0..9).find_map(|_| second.target().failed(0, Fault::Broken)).unwrap();
    assert!(pick(&table, &mut chance).is_some(), "all are ejected: trying is better than refusing");
    let tried = [first.target().id(), second.target().id()];
    assert!(route(&table).pick(route(&table).draw(None), &ask(0, &tried), &mut chance).is_none());
    let group = table.stamped(b"s/1 /*").unwrap();
    assert_eq!(target(&group.pick(&ask(0, &tried[..1]), &mut chance).unwrap()), "i:2");
    assert!(group.pick(&ask(0, &tried), &mut chance).is_none());
}

#[test]
fn load_follows_capacity() {
    let members = [("1", "i:1", 10, false), ("1", "i:2", 30, false), ("1", "i:3", 60, false)];
    let table = table(&members, &[("1", 0, 0)]);
    let mut chance = Chance::new(3);
    // All in flight at once: as many as there is capacity for fill each one exactly.
    let held: Vec<_> = (0..100).map(|_| pick(&table, &mut chance).unwrap()).collect();
    for (_, name, capacity, _) in members {
        assert_eq!(held.iter().filter(|picked| target(picked) == name).count(), capacity as usize, "{name}");
    }
    assert_eq!(held[0].target().counters.in_flight() % 10, 0);
}

#[test]
fn the_less_loaded_of_two_is_taken() {
    let members = [("1", "i:1", 100, false), ("1", "i:2", 100, false), ("1", "i:3", 200, false)];
    let table = table(&members, &[("1", 0, 0)]);
    let mut chance = Chance::new(3);
    // Room everywhere all the time, so only the choice keeps the load even.
    let held: Vec<_> = (0..200).map(|_| pick(&table, &mut chance).unwrap()).collect();
    for (_, name, capacity, _) in members {
        let load = held.iter().filter(|picked| target(picked) == name).count();
        assert!(load.abs_diff(capacity as usize / 2) <= 5, "{name}: {load}");
    }
}

#[test]
fn nothing_to_pick_is_said() {
    assert!(pick(&table(&[("1", "i:1", 1, false)], &[]), &mut Chance::new(1)).is_none());
    assert!(pick(&table(&[("1", "i:1", 1, false)], &[("2", 0, 5)]), &mut Chance::new(1)).is_none());
}

/// Takes members out, one after the other.
fn fail(picked: &Picked, fault: Fault) -> u32 {
    let failures = (1..).find(|_| picked.target().failed(0, fault).is_some());
    failures.unwrap()
}

proptest! {
    /// Slow answers and errors take out at most half of a group; only what is broken may be out beyond that, and the
    /// last one is tried all the same.
    #[test]
    fn most_of_a_group_stays(faults in prop::collection::vec(0..4_u8, 1..12), seed in any::<u64>()) {
        let names: Vec<_> = (0..faults.len()).map(|index| format!("i:{index}")).collect();
        let members: Vec<_> = names.iter().map(|name| ("1", name.as_str(), 1000, false)).collect();
        let table = table(&members, &[("1", 0, 0)]);
        let group = table.stamped(b"s/1 /*").unwrap();
        let mut chance = Chance::new(seed);
        let (mut broken, mut soft) = (Vec::new(), Vec::new());
        for (member, fault) in group.members().iter().zip(&faults) {
            let out = |fault| (0..9).find_map(|_| member.target().failed(0, fault)).map(|_| target_of(member));
            match fault {
                0 => broken.extend(out(Fault::Broken)),
                1 => soft.extend(out(Fault::Late)),
                2 => soft.extend(out(Fault::Error)),
                _ => {}
            }
        }
        let picked: std::collections::BTreeSet<_> =
            (0..2000).map(|_| target(&group.pick(&ask(0, &[]), &mut chance).unwrap())).collect();
        let forgiven = (broken.len() + soft.len()) * 2 > names.len();
        for name in &names {
            let expected = match () {
                () if broken.len() == names.len() => true,
                () if broken.contains(name) => false,
                () if soft.contains(name) => forgiven,
                () => true,
            };
            prop_assert_eq!(picked.contains(name), expected, "{} of {:?}", name, faults);
        }
    }
}

fn target_of(member: &sdlb_routes::Member) -> String {
    member.target().key().to_string()
}

#[test]
fn each_fault_has_its_patience() {
    let table = table(&[("1", "i:1", 1, false), ("1", "i:2", 1, false), ("1", "i:3", 1, false)], &[("1", 0, 0)]);
    let mut chance = Chance::new(3);
    let held: Vec<_> = (0..3).map(|_| pick(&table, &mut chance).unwrap()).collect();
    assert_eq!((fail(&held[0], Fault::Broken), fail(&held[1], Fault::Late), fail(&held[2], Fault::Error)), (3, 3, 5));
}
