//! Limits on connections, and passive health as control hears of it. Real engine, real HTTP.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::{self, from_engine, to_engine};
use support::{
    Control, Engine, PATIENCE, entry,
    http::{Backend, Client},
    instance, member, member_key, node, route,
};

/// Limits, an entry and a node listener, and one route to these upstreams.
fn engine_with(limits: proto::Limits, upstreams: &[SocketAddr]) -> (Engine, Control, SocketAddr, SocketAddr) {
    let engine = Engine::start();
    let (mut control, _) = engine.attach();
    control.send(to_engine::Kind::Configure(proto::Configure {
        node: "edge-1".into(),
        listeners: vec![entry("http", "127.0.0.1:0"), node("node", "127.0.0.1:0")],
        limits: Some(limits),
        ..Default::default()
    }));
    let bound = control.configured().listeners;
    let address = |key: &str| bound.iter().find(|held| held.key == key).unwrap().address.parse().unwrap();
    let target = |index: usize| format!("i:{index}");
    let delta = proto::Delta {
        put_targets: upstreams.iter().enumerate().map(|(index, at)| instance(&target(index), at)).collect(),
        put_members: (0..upstreams.len())
            .map(|index| member(member_key("catalog", "1.0.1", "*/*", &target(index))))
            .collect(),
        put_routes: vec![route("*/*", "catalog", &["1.0.1"])],
        ..Default::default()
    };
    control.apply(delta).unwrap();
    (engine, control, address("http"), address("node"))
}

/// Reads statistics until this counter has a value.
fn counter(control: &mut Control, name: &str) -> u64 {
    control.until(|kind| match kind {
        from_engine::Kind::Stats(stats) => stats.counters.iter().find(|row| row.name == name).map(|row| row.value),
        _ => None,
    })
}

#[test]
fn past_the_limit_a_connection_waits_for_a_place_and_nodes_do_not() {
    let backend = Backend::start();
    let limits = proto::Limits { connections: 2, ..Default::default() };
    let (_engine, mut control, http, node) = engine_with(limits, &[backend.address]);
    let mut held: Vec<_> = (0..2).map(|_| Client::send(http, "")).collect();
    backend.arrived();
    backend.arrived();
    let mut waiting = Client::send(http, "");
    let mut parent = Client::send(node, "sdlb-to: catalog/1.0.1 */*\r\n");
    backend.arrived();
    assert_eq!(counter(&mut control, "limit_connections_total"), 1);
    assert!(!backend.has_arrived(), "two clients and a node: the third client waits");
    for _ in 0..3 {
        backend.answer();
    }
    assert!(parent.answer().0[0].contains("200"));
    held.iter_mut().for_each(|client| drop(client.answer()));
    drop((held, parent));
    backend.arrived();
    backend.answer();
    assert!(waiting.answer().0[0].contains("200"));
}

#[test]
fn one_address_gets_its_share_of_connections() {
    let backend = Backend::start();
    let limits = proto::Limits { connections_per_address: 2, ..Default::default() };
    let (_engine, mut control, http, _) = engine_with(limits, &[backend.address]);
    let mut held: Vec<_> = (0..2).map(|_| Client::send(http, "")).collect();
    backend.arrived();
    backend.arrived();
    assert!(Client::send(http, "").ended());
    assert_eq!(counter(&mut control, "limit_connections_per_address_total"), 1);
    backend.answer();
    backend.answer();
    held.iter_mut().for_each(|client| drop(client.answer()));
    drop(held);
    // The places are free again as soon as the engine has seen the connections end.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::send(http, "");
        if backend.arrived_within(Duration::from_millis(100)) {
            backend.answer();
            assert!(client.answer().0[0].contains("200"));
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn a_failing_target_is_taken_out_and_taken_back_and_control_hears_of_both() {
    let backend = Backend::start();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (engine, mut control, http, _) = engine_with(proto::Limits::default(), &[backend.address, dead]);
    let address = http;
    let requests = thread::spawn(move || {
        for _ in 0..40 {
            let mut client = Client::send(address, "");
            backend.arrived();
            backend.answer();
            let (head, _) = client.answer();
            assert!(head[0].contains("200"), "{head:?}");
        }
    });
    let health = |kind| match kind {
        from_engine::Kind::TargetHealth(health) => Some(health),
        _ => None,
    };
    let out = control.until(health);
    assert_eq!((out.target.as_str(), out.ejected), ("i:1", true));
    assert!(out.for_ms > 0 && !out.reason.is_empty(), "{out:?}");
    requests.join().unwrap();
    // Whoever attaches now is told too, and hears of its return.
    let (mut control, _) = engine.attach();
    let told = control.until(health);
    assert_eq!((told.target.as_str(), told.ejected), ("i:1", true));
    let back = control.until(health);
    assert_eq!((back.target.as_str(), back.ejected), ("i:1", false));
}
