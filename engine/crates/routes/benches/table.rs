//! What a change and a look-up cost as the table grows. `cargo bench -p sdlb-routes`; prints a table, checks nothing.
#![allow(missing_docs, clippy::unwrap_used, reason = "a measurement")]

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use sdlb_routes::{
    Address, Ask, Chance, Delta, Draining, MemberKey, MemberPut, PickPut, Protocol, RoutePut, Shared, Sticky, Table,
    TargetKind, TargetPut, count_as,
};

/// One service on a path of its own, each tenth on a host of its own.
fn pattern(index: usize) -> String {
    match index % 10 {
        0 => format!("host-{index}.example.com/*"),
        _ => format!("example.com/service-{index}*"),
    }
}

fn member(index: usize, target: &str) -> MemberPut {
    let key = MemberKey {
        service: format!("service-{index}").into(),
        version: "1.0.1".into(),
        pattern: pattern(index).into(),
        target: target.into(),
    };
    MemberPut { key, capacity: 100, last_resort: false, far: false }
}

fn table(services: usize, draining: &mut Draining) -> Table {
    let target = |key: &str| TargetPut {
        key: key.into(),
        kind: TargetKind::Node,
        address: Address::parse("127.0.0.1:9000").unwrap(),
        protocol: Protocol::Http1,
    };
    let route = |index: usize| RoutePut {
        pattern: pattern(index),
        service: format!("service-{index}"),
        picks: vec![PickPut { version: "1.0.1".into(), tier: 0, weight: 0, ends_sessions: false }],
        park: None,
        sticky: Sticky::None,
    };
    let delta = Delta {
        epoch: 1,
        replace: true,
        put_targets: vec![target("n:one"), target("n:other")],
        put_members: (0..services).map(|index| member(index, "n:one")).collect(),
        put_routes: (0..services).map(route).collect(),
        ..Delta::default()
    };
    Table::new(Shared::new(|| ())).apply(&delta, draining).unwrap()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What choosing and counting costs a request when all threads ask for the same service.
fn side_by_side() {
    const REQUESTS: u32 = 1_000_000;
    println!("threads   pick and count ns");
    let current = table(1, &mut Draining::default());
    for threads in [1, 2] {
        let one = |index: usize| {
            count_as(index, threads);
            let mut chance = Chance::new(index as u64);
            let started = Instant::now();
            for _ in 0..REQUESTS {
                let route = current.route("host-0.example.com", "/some/page").unwrap();
                let ask = Ask { now_ms: 0, avoid: &[], key: None };
                let picked = route.pick(Default::default(), &ask, &mut chance).unwrap();
                picked.group().counters().finished(200, 300);
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS)
        };
        let one = &one;
        let took: f64 = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|index| scope.spawn(move || one(index))).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        println!("{threads:7} {:17.0}", took / threads as f64);
    }
}

fn main() {
    side_by_side();
    println!("services   build ms   change us: median    p99     max   look-up ns   stamp ns   pick ns");
    for services in [10, 1_000, 10_000, 100_000] {
        let mut draining = Draining::default();
        let started = Instant::now();
        let mut current = table(services, &mut draining);
        let build = started.elapsed();

        let mut chance = Chance::new(1);
        let mut changes: Vec<_> = (0..2_000_u64)
            .map(|step| {
                // One claim added, then withdrawn again.
                let put = member(chance.below(services), "n:other");
                let change = match step % 2 {
                    0 => Delta { epoch: step + 2, put_members: vec![put], ..Delta::default() },
                    _ => Delta { epoch: step + 2, delete_members: vec![put.key], ..Delta::default() },
                };
                let started = Instant::now();
                let next = current.apply(&change, &mut draining).unwrap();
                drop(std::mem::replace(&mut current, next));
                started.elapsed()
            })
            .collect();
        changes.sort_unstable();

        const LOOKUPS: u32 = 300_000;
        let requests: Vec<_> = (0..4096)
            .map(|_| {
                let index = chance.below(services);
                let (host, path) = match index % 10 {
                    0 => (format!("host-{index}.example.com"), "/some/page".to_owned()),
                    _ => ("example.com".to_owned(), format!("/service-{index}/some/page")),
                };
                (host, path, format!("service-{index}/1.0.1 {}", pattern(index)))
            })
            .collect();
        let measure = |look: &mut dyn FnMut(&(String, String, String))| {
            let started = Instant::now();
            for request in requests.iter().cycle().take(LOOKUPS as usize) {
                look(request);
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(LOOKUPS)
        };
        let route = measure(&mut |(host, path, _)| assert!(black_box(current.route(host, path)).is_some()));
        let stamp = measure(&mut |(_, _, stamp)| assert!(black_box(current.stamped(stamp.as_bytes())).is_some()));
        let pick = measure(&mut |(host, path, _)| {
            let route = current.route(host, path).unwrap();
            drop(black_box(route.pick(route.draw(None), &Ask { now_ms: 0, avoid: &[], key: None }, &mut chance)));
        }) - route;
        println!(
            "{services:8} {:10.1} {:17.1} {:8.1} {:7.1} {route:12.0} {stamp:10.0} {pick:9.0}",
            build.as_secs_f64() * 1e3,
            micros(changes[changes.len() / 2]),
            micros(changes[changes.len() * 99 / 100]),
            micros(changes[changes.len() - 1]),
        );
    }
}
