//! Passive health: what takes a target out, for how long, and what never does.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use sdlb_engine::proto::{Limits, TargetHealth, from_engine};

use super::{
    support::route,
    wire::{Backend, Client, QUIET, ask, get},
    world::{PATTERN, World, child},
};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad";

fn health(kind: from_engine::Kind) -> Option<TargetHealth> {
    match kind {
        from_engine::Kind::TargetHealth(health) => Some(health),
        _ => None,
    }
}

/// The bodies that so many requests get.
fn bodies(world: &World, requests: usize) -> BTreeSet<String> {
    (0..requests).map(|_| ask(world.http, get("/", "")).body).collect()
}

/// Asks until a target is taken out; gives what control is told.
fn until_out(world: &mut World) -> TargetHealth {
    let (http, stop) = (world.http, Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let asking = thread::spawn(move || {
        while !stopped.load(SeqCst) {
            ask(http, get("/", ""));
        }
    });
    let out = world.control.until(health);
    stop.store(true, SeqCst);
    asking.join().unwrap();
    out
}

#[test]
fn errors_in_a_row_take_out_for_longer_each_time() {
    let (good, bad) = (Backend::fixed(GOOD), Backend::fixed(BAD));
    let mut world = World::with(&[&good.address, &bad.address]);
    let out = until_out(&mut world);
    assert_eq!((out.target.as_str(), out.ejected, out.for_ms), ("i:1", true, 1_000), "{out:?}");
    assert_eq!(bodies(&world, 30), BTreeSet::from(["good".to_owned()]));
    assert!(!world.control.until(health).ejected, "it is back");
    let again = until_out(&mut world);
    assert_eq!((again.target.as_str(), again.ejected, again.for_ms), ("i:1", true, 2_000), "{again:?}");
}

#[test]
fn an_instance_that_is_late_is_taken_out() {
    let good = Backend::fixed(GOOD);
    let late = Backend::start(|mut peer| {
        peer.request();
        thread::sleep(Duration::from_secs(10));
    });
    let limits = Limits { response_timeout_ms: 200, ..Limits::default() };
    let mut world = World::named("edge-1", limits, true).serving(&[&good.address, &late.address]);
    let http = world.http;
    let asking = thread::spawn(move || (0..40).filter(|_| ask(http, get("/", "")).status == 504).count());
    let out = world.control.until(health);
    assert_eq!((out.target.as_str(), out.ejected), ("i:1", true), "{out:?}");
    assert!(asking.join().unwrap() >= 3);
}

#[test]
fn errors_and_slowness_never_take_out_most_of_a_group() {
    let bad = [(); 3].map(|()| Backend::fixed(BAD));
    let mut world = World::with(&bad.each_ref().map(|bad| bad.address.as_str()));
    until_out(&mut world);
    thread::sleep(QUIET / 4);
    let before = bad.each_ref().map(Backend::requests);
    // Two of three are out by now: the errors are not theirs alone, and each gets its share.
    assert_eq!(bodies(&world, 60), BTreeSet::from(["bad".to_owned()]));
    for (bad, before) in bad.iter().zip(before) {
        assert!(bad.requests() > before + 3, "{} after {before}", bad.requests());
    }
}

#[test]
fn a_node_is_not_blamed_for_an_instance_below() {
    let bad = Backend::fixed(BAD);
    let late = Backend::start(|mut peer| {
        let request = peer.request().unwrap();
        if request.contains("/cut") {
            return peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        }
        thread::sleep(Duration::from_secs(10));
    });
    // The child has a tenth less, and shall be first on a busy machine, too.
    let limits = Limits { response_timeout_ms: 1_500, ..Limits::default() };
    let not_blamed = |address: &String, path: &str| {
        let host = World::named("host-1", Limits::default(), false).serving(&[address]);
        let mut edge = World::named("edge-1", limits, true);
        edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
        // One that is late is taken out after three in a row, one that answers with errors after five.
        let times = if path == "/late" { 4 } else { 8 };
        for _ in 0..times {
            let mut client = Client::connect(edge.http);
            client.say(get(path, "Connection: close\r\n"));
            let raw = client.rest();
            match path {
                "/late" => assert!(raw.starts_with("HTTP/1.1 504") && raw.contains("host-1; error="), "{raw}"),
                "/cut" => assert!(raw.ends_with("half"), "{raw}"),
                _ => assert!(raw.ends_with("bad"), "{raw}"),
            }
        }
        // What would have been told is told before the statistics.
        edge.control.until(|kind| match kind {
            from_engine::Kind::TargetHealth(health) => panic!("{path}: {health:?}"),
            from_engine::Kind::Stats(stats) => stats
                .counters
                .iter()
                .any(|counter| counter.name == "requests_total" && counter.value == times)
                .then_some(()),
            _ => None,
        });
    };
    thread::scope(|scope| {
        for (address, path) in [(&bad.address, "/"), (&late.address, "/late"), (&late.address, "/cut")] {
            scope.spawn(move || not_blamed(address, path));
        }
    });
}
