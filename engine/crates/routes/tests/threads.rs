//! Several threads give requests to the same member.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use sdlb_routes::{
    Address, Ask, Chance, Delta, Draining, MemberKey, MemberPut, PickPut, Picked, Protocol, RoutePut, Shared, Sticky,
    Table, TargetKind, TargetPut, count_as,
};

const THREADS: usize = 4;

fn key() -> MemberKey {
    MemberKey { service: "s".into(), version: "1".into(), pattern: "/*".into(), target: "i:1".into() }
}

fn table(shared: Arc<Shared>) -> Table {
    let delta = Delta {
        epoch: 1,
        put_targets: vec![TargetPut {
            key: "i:1".into(),
            kind: TargetKind::Instance,
            address: Address::parse("127.0.0.1:1").unwrap(),
            protocol: Protocol::Http1,
        }],
        put_members: vec![MemberPut { key: key(), capacity: 9, last_resort: false, far: false }],
        put_routes: vec![RoutePut {
            pattern: "/*".into(),
            service: "s".into(),
            picks: vec![PickPut { version: "1".into(), tier: 0, weight: 0, ends_sessions: false }],
            park: None,
            sticky: Sticky::None,
        }],
        ..Delta::default()
    };
    Table::new(shared).apply(&delta, &mut Draining::default()).unwrap()
}

fn pick(table: &Table, chance: &mut Chance) -> Picked {
    let route = table.route("example.com", "/").unwrap();
    route.pick(route.draw(None), &Ask { now_ms: 0, avoid: &[], key: None }, chance).unwrap()
}

/// Each thread ends requests that others began, so that no stripe is ever right for itself.
#[test]
fn what_begins_on_one_thread_and_ends_on_another_is_counted_once() {
    let table = table(Shared::new(|| ()));
    let begun: Vec<Picked> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|index| {
                let table = &table;
                scope.spawn(move || {
                    count_as(index, THREADS);
                    let mut chance = Chance::new(index as u64);
                    (0..50).map(|_| pick(table, &mut chance)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let target = begun[0].target().clone();
    let member = begun[0].member().clone();
    assert_eq!((member.in_flight(), target.counters.in_flight()), (200, 200));
    let mut begun = begun.into_iter();
    drop(begun.by_ref().take(30).collect::<Vec<_>>());
    assert_eq!((member.in_flight(), target.counters.in_flight()), (170, 170));
    drop(begun);
    assert_eq!((member.in_flight(), target.counters.in_flight()), (0, 0));
}

#[test]
fn the_last_of_many_threads_rings_for_a_member_that_drains() {
    for _ in 0..200 {
        let rung = Arc::new(AtomicUsize::new(0));
        let ring = rung.clone();
        let before = table(Shared::new(move || _ = ring.fetch_add(1, SeqCst)));
        let mut draining = Draining::default();
        let (begun, go) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
        thread::scope(|scope| {
            for index in 0..THREADS {
                let (before, begun, go) = (&before, &begun, &go);
                scope.spawn(move || {
                    count_as(index, THREADS);
                    let held = pick(before, &mut Chance::new(1));
                    begun.wait();
                    go.wait();
                    drop(held);
                });
            }
            begun.wait();
            let delta = Delta { epoch: 2, delete_members: vec![key()], ..Delta::default() };
            let after = before.apply(&delta, &mut draining).unwrap();
            assert!(draining.take_drained(2).is_empty(), "requests are in flight");
            assert_eq!(draining.counts(), [(key(), THREADS as u32)]);
            go.wait();
            drop(after);
        });
        assert_ne!(rung.load(SeqCst), 0, "nobody rang");
        assert_eq!(draining.take_drained(2), [(key(), 2)]);
    }
}

#[test]
fn a_thread_lets_go_of_what_it_chose_when_it_is_told_to() {
    let table = table(Shared::new(|| ()));
    let mut chance = Chance::new(1);
    let picked = pick(&table, &mut chance);
    let (member, again) = (Arc::downgrade(picked.member()), pick(&table, &mut chance));
    assert!(Arc::ptr_eq(picked.member(), again.member()));
    drop((picked, again, table));
    assert!(member.upgrade().is_some(), "kept for the next request");
    chance.forget_places();
    assert!(member.upgrade().is_none());
}
