//! The table against a naive model: plain maps, every rule spelled out by brute force.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*, sample::select};
use sdlb_routes::{
    Address, Ask, Chance, Delta, Draining, HostPattern, MemberKey, MemberPut, PathPattern, Pattern, PickPut, Protocol,
    RoutePut, Shared, Sticky, Table, TargetKind, TargetPut,
};

const HOSTS: [&str; 6] = ["a.x", "b.a.x", "x", "*.x", "*.a.x", "*"];
const PATHS: [&str; 9] = ["/", "/*", "/c", "/c*", "/c/*", "/ca*", "/cat", "/cat/*", "/cat/1*"];
const REQUEST_HOSTS: [&str; 7] = ["a.x", "b.a.x", "c.b.a.x", "x", "c.x", "y", "xa.x"];
const REQUEST_PATHS: [&str; 10] = ["/", "/c", "/c/", "/ca", "/cat", "/cat/", "/cat/1", "/cat/12/3", "/d", "/cx"];

type Key = (String, String, String, String);

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    targets: BTreeSet<String>,
    members: BTreeMap<Key, (u32, bool)>,
    routes: BTreeMap<String, (String, Vec<String>)>,
}

impl Model {
    /// The rules of `Delta`, one after the other. `None`: refused.
    fn apply(&self, delta: &Delta) -> Option<(Self, BTreeSet<Key>)> {
        let mut next = if delta.replace { Self::default() } else { self.clone() };
        next.targets.extend(delta.put_targets.iter().map(|put| put.key.clone()));
        for put in &delta.put_members {
            if !next.targets.contains(&*put.key.target) {
                return None;
            }
            next.members.insert(plain(&put.key), (put.capacity, put.last_resort));
        }
        for put in &delta.put_routes {
            let versions = put.picks.iter().map(|pick| pick.version.clone()).collect();
            next.routes.insert(put.pattern.clone(), (put.service.clone(), versions));
        }
        for key in &delta.delete_members {
            next.members.remove(&plain(key));
        }
        for pattern in &delta.delete_routes {
            next.routes.remove(pattern);
        }
        for key in &delta.delete_targets {
            if next.members.keys().any(|(_, _, _, target)| target == key) {
                return None;
            }
            next.targets.remove(key);
        }
        let gone = self.members.keys().filter(|key| !next.members.contains_key(*key)).cloned();
        let named = delta.delete_members.iter().map(plain).filter(|key| !next.members.contains_key(key));
        let deleted = gone.chain(named).collect();
        Some((next, deleted))
    }

    /// All patterns that match, then the contract's order.
    fn route(&self, host: &str, path: &str) -> Option<&String> {
        self.routes.keys().filter(|text| Pattern::parse(text).unwrap().matches(host, path)).min_by_key(|text| {
            let pattern = Pattern::parse(text).unwrap();
            let host = match pattern.host {
                HostPattern::Exact(_) => (0, Reverse(0)),
                HostPattern::Wildcard(suffix) => (1, Reverse(suffix.len())),
                HostPattern::Any => (2, Reverse(0)),
            };
            let path = match pattern.path {
                PathPattern::Exact(_) => (0, Reverse(0)),
                PathPattern::Prefix(prefix) => (1, Reverse(prefix.len())),
            };
            (host, path)
        })
    }
}

fn plain(key: &MemberKey) -> Key {
    (key.service.to_string(), key.version.to_string(), key.pattern.to_string(), key.target.to_string())
}

fn pattern() -> impl Strategy<Value = String> {
    (select(&HOSTS), select(&PATHS)).prop_map(|(host, path)| format!("{host}{path}"))
}

fn service() -> impl Strategy<Value = String> {
    select(&["s", "t"]).prop_map(str::to_owned)
}

fn version() -> impl Strategy<Value = String> {
    select(&["1", "2"]).prop_map(str::to_owned)
}

fn target() -> impl Strategy<Value = String> {
    select(&["i:1", "i:2", "i:3"]).prop_map(str::to_owned)
}

fn member_key() -> impl Strategy<Value = MemberKey> {
    (service(), version(), select(&["*/*", "a.x/c*", "*.x/cat"]), target()).prop_map(
        |(service, version, pattern, target)| MemberKey {
            service: service.into(),
            version: version.into(),
            pattern: pattern.into(),
            target: target.into(),
        },
    )
}

fn route_put() -> impl Strategy<Value = RoutePut> {
    let patterns = prop_oneof![pattern(), select(&["*/*", "a.x/c*", "*.x/cat"]).prop_map(str::to_owned)];
    (patterns, service(), proptest::collection::btree_set(version(), 0..=2)).prop_map(|(pattern, service, versions)| {
        let picks =
            versions.into_iter().map(|version| PickPut { version, tier: 0, weight: 0, ends_sessions: false }).collect();
        RoutePut { pattern, service, picks, park: None, sticky: Sticky::None }
    })
}

prop_compose! {
    fn delta()(
        replace in prop::bool::weighted(0.1),
        put_targets in vec(target(), 0..3),
        put_members in vec((member_key(), 1..4_u32, any::<bool>()), 0..4),
        put_routes in vec(route_put(), 0..4),
        delete_members in vec(member_key(), 0..3),
        delete_routes in vec(pattern(), 0..3),
        delete_targets in vec(target(), 0..2),
    ) -> Delta {
        let address = Address::parse("127.0.0.1:1").unwrap();
        Delta {
            epoch: 0,
            replace,
            put_targets: put_targets
                .into_iter()
                .map(|key| TargetPut { key, kind: TargetKind::Instance, address: address.clone(), protocol: Protocol::Http1 })
                .collect(),
            put_members: put_members
                .into_iter()
                .map(|(key, capacity, last_resort)| MemberPut { key, capacity, last_resort, far: false })
                .collect(),
            put_routes,
            delete_members,
            delete_routes,
            delete_targets,
            put_services: Vec::new(),
            delete_services: Vec::new(),
        }
    }
}

fn check(table: &Table, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.route_count(), model.routes.len());
    prop_assert_eq!(table.member_count(), model.members.len());
    let targets: BTreeSet<_> = table.targets().map(|target| target.key().to_string()).collect();
    prop_assert_eq!(&targets, &model.targets);
    for host in REQUEST_HOSTS {
        for path in REQUEST_PATHS {
            let found = table.route(host, path).map(|route| route.pattern().to_string());
            prop_assert_eq!(found.as_ref(), model.route(host, path), "{}{}", host, path);
        }
        let served = model.routes.keys().any(|text| match Pattern::parse(text).unwrap().host {
            HostPattern::Any => true,
            held => Pattern { host: held, path: PathPattern::Prefix("/".into()) }.matches(host, "/"),
        });
        prop_assert_eq!(table.serves_host(host), served);
    }
    let mut members = BTreeMap::new();
    let stamps: BTreeSet<_> = model.members.keys().map(|(s, v, p, _)| format!("{s}/{v} {p}")).collect();
    for stamp in &stamps {
        let group = table.stamped(stamp.as_bytes()).expect("a group with members is found by its stamp");
        for member in group.members() {
            members.insert(plain(member.key()), (member.capacity(), member.last_resort()));
        }
    }
    prop_assert_eq!(&members, &model.members);
    for (text, (service, versions)) in &model.routes {
        let route = table.route_of(text).expect("a route is found by its pattern");
        prop_assert_eq!(&**route.service(), service);
        let held: Vec<_> = route.picks().iter().map(|pick| pick.version.to_string()).collect();
        prop_assert_eq!(&held, versions);
        for pick in route.picks() {
            let expected =
                model.members.keys().filter(|(s, v, p, _)| s == service && **v == *pick.version && p == text).count();
            prop_assert_eq!(pick.group.members().len(), expected, "a route sees the members of its groups");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn deltas_do_what_the_rules_say(deltas in vec(delta(), 1..12)) {
        let mut table = Table::new(Shared::new(|| ()));
        let mut model = Model::default();
        let mut draining = Draining::default();
        let mut owed: BTreeSet<Key> = BTreeSet::new();
        for (epoch, mut delta) in (1..).zip(deltas) {
            delta.epoch = epoch;
            let before = table.clone();
            let expected = model.apply(&delta);
            let outcome = table.apply(&delta, &mut draining);
            prop_assert_eq!(outcome.is_ok(), expected.is_some(), "{:?}", outcome.err());
            let (Ok(next), Some((next_model, deleted))) = (outcome, expected) else {
                check(&table, &model)?;
                continue;
            };
            check(&before, &model)?; // the table before is as it was
            owed.retain(|key| !next_model.members.contains_key(key));
            owed.extend(deleted);
            (table, model) = (next, next_model);
            check(&table, &model)?;
            if epoch % 3 == 0 {
                let drained: BTreeSet<_> = draining.take_drained(epoch).iter().map(|(key, _)| plain(key)).collect();
                prop_assert_eq!(&drained, &owed, "each deleted member is reported, once");
                owed.clear();
            }
        }
    }

    #[test]
    fn in_flight_counts_survive_deltas(replace in any::<bool>(), again in any::<bool>(), open in 1..4_usize) {
        let mut draining = Draining::default();
        let rung = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let bell = rung.clone();
        let shared = Shared::new(move || _ = bell.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        let key = MemberKey { service: "s".into(), version: "1".into(), pattern: "/*".into(), target: "i:1".into() };
        let put = Delta {
            epoch: 1,
            put_targets: vec![TargetPut { key: "i:1".into(), kind: TargetKind::Instance, address: Address::parse("127.0.0.1:1").unwrap(), protocol: Protocol::Http1 }],
            put_members: vec![MemberPut { key: key.clone(), capacity: 2, last_resort: false, far: false }],
            ..Delta::default()
        };
        let first = Table::new(shared).apply(&put, &mut draining).unwrap();
        let mut picked: Vec<_> =
            (0..open).map(|_| first.stamped(b"s/1 /*").unwrap().pick(&Ask { now_ms: 0, avoid: &[], key: None }, &mut Chance::new(1)).unwrap()).collect();
        let gone = if replace {
            Delta { epoch: 2, replace: true, ..Delta::default() }
        } else {
            Delta { epoch: 2, delete_members: vec![key.clone()], delete_targets: vec!["i:1".into()], ..Delta::default() }
        };
        let second = first.apply(&gone, &mut draining).unwrap();
        prop_assert!(second.stamped(b"s/1 /*").is_none());
        prop_assert!(draining.take_drained(1).is_empty() && draining.take_drained(2).is_empty());
        prop_assert_eq!(draining.counts(), vec![(key.clone(), u32::try_from(open).unwrap())]);
        if again {
            let third = second.apply(&Delta { epoch: 3, ..put }, &mut draining).unwrap();
            prop_assert!(draining.is_empty());
            let member = &third.stamped(b"s/1 /*").unwrap().members()[0];
            prop_assert_eq!(member.in_flight() as usize, open, "put again: it goes on counting");
            picked.clear();
            prop_assert_eq!(member.in_flight(), 0);
            prop_assert_eq!(rung.load(std::sync::atomic::Ordering::SeqCst), 0, "it no longer drains");
        } else {
            picked.clear();
            prop_assert_eq!(rung.load(std::sync::atomic::Ordering::SeqCst), 1);
            prop_assert_eq!(draining.take_drained(2), vec![(key, 2)]);
            prop_assert!(draining.is_empty());
        }
    }
}

#[test]
fn a_delta_with_one_mistake_changes_nothing() {
    let mut draining = Draining::default();
    let target = |key: &str, port: u16| TargetPut {
        key: key.into(),
        kind: TargetKind::Instance,
        address: Address::Tcp(([127, 0, 0, 1], port).into()),
        protocol: Protocol::Http1,
    };
    let key = |target: &str| MemberKey {
        service: "s".into(),
        version: "1".into(),
        pattern: "/*".into(),
        target: target.into(),
    };
    let member = |target: &str| MemberPut { key: key(target), capacity: 1, last_resort: false, far: false };
    let route = |pattern: &str, service: &str| RoutePut {
        pattern: pattern.into(),
        service: service.into(),
        picks: vec![PickPut { version: "1".into(), tier: 0, weight: 0, ends_sessions: false }],
        park: None,
        sticky: Sticky::None,
    };
    let table = Table::new(Shared::new(|| ()))
        .apply(
            &Delta {
                epoch: 5,
                put_targets: vec![target("i:1", 1)],
                put_members: vec![member("i:1")],
                put_routes: vec![route("/*", "s")],
                ..Delta::default()
            },
            &mut draining,
        )
        .unwrap();
    let base = Delta {
        epoch: 6,
        put_targets: vec![target("i:1", 2), target("i:2", 2)],
        delete_members: vec![key("i:1")],
        ..Delta::default()
    };
    let long = "v".repeat(1000);
    let twice = PickPut { version: "1".into(), tier: 1, weight: 0, ends_sessions: false };
    let mut both = route("/a", "s");
    both.picks.push(twice);
    let named = |service: &str, version: &str| MemberPut {
        key: MemberKey { service: service.into(), version: version.into(), ..key("i:1") },
        capacity: 1,
        last_resort: false,
        far: false,
    };
    for (delta, told) in [
        (Delta { epoch: 5, ..base.clone() }, "epoch 5 does not follow 5"),
        (Delta { put_members: vec![member("i:9")], ..base.clone() }, "its target is unknown"),
        (Delta { put_members: vec![MemberPut { capacity: 0, ..member("i:2") }], ..base.clone() }, "at least 1"),
        (Delta { put_members: vec![named("a/b", "1")], ..base.clone() }, "slash"),
        (Delta { put_members: vec![named("a b", "1")], ..base.clone() }, "space"),
        (Delta { put_members: vec![named("", "1")], ..base.clone() }, "empty"),
        (Delta { put_members: vec![named("s", &long)], ..base.clone() }, "longer than"),
        (Delta { put_routes: vec![route("/a*b", "s")], ..base.clone() }, "only valid at the end"),
        (Delta { put_routes: vec![route("*/*", "s")], ..base.clone() }, "means the same as"),
        (Delta { put_routes: vec![both], ..base.clone() }, "twice"),
        (
            Delta { put_members: vec![member("i:2")], delete_targets: vec!["i:2".into()], ..base.clone() },
            "it has 1 members",
        ),
        (Delta { put_targets: vec![TargetPut { kind: TargetKind::Node, ..target("i:1", 3) }], ..base.clone() }, "kind"),
    ] {
        let refused = table.apply(&delta, &mut draining).expect_err(told).to_string();
        assert!(refused.contains(told), "{refused:?} does not say {told:?}");
        assert!(draining.is_empty());
        let group = table.stamped(b"s/1 /*").unwrap();
        assert_eq!(group.members().len(), 1);
        assert_eq!(group.members()[0].target().address().to_string(), "127.0.0.1:1");
    }
    // Without the mistake it does all it says.
    let next = table.apply(&base, &mut draining).unwrap();
    assert!(next.stamped(b"s/1 /*").is_none());
    assert_eq!(next.targets().find(|target| &**target.key() == "i:1").unwrap().address().to_string(), "127.0.0.1:2");
    assert_eq!(draining.take_drained(6), vec![(key("i:1"), 6)]);
}
