//! Upgrades: only when asked for, and nothing passes before both sides agree.

use std::{thread, time::Duration};

use sdlb_engine::proto::{Limits, from_engine};

use super::{
    support::route,
    wire::{Backend, Client, Peer, QUIET, answer, field, get},
    world::{PATTERN, World, child, key},
};

const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
const AGREE: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

/// Agrees after a moment, then gives back in capitals what it gets.
fn shout(mut peer: Peer) {
    let head = peer.head().unwrap();
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    thread::sleep(QUIET / 4);
    peer.say(format!("{AGREE}hello"));
    while let Some(byte) = peer.exactly(1) {
        peer.say(byte.to_uppercase());
    }
    peer.say("bye");
}

#[test]
fn bytes_pass_both_ways_through_two_tiers_and_count_as_in_flight() {
    let backend = Backend::start(shout);
    let mut host = World::named("host-1", Limits::default(), false).serving(&[&backend.address]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let mut client = Client::connect(edge.http);
    client.say(get("/", ASK) + "early");
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && field(&head, "upgrade") == Some("websocket"), "{head}");
    assert_eq!(client.exactly(10).unwrap(), "helloEARLY");
    client.say("later");
    assert_eq!(client.exactly(5).unwrap(), "LATER");
    host.delete(&["i:0"]);
    let draining = host.control.until(|kind| match kind {
        from_engine::Kind::InFlight(in_flight) => in_flight.draining.first().cloned(),
        from_engine::Kind::Drained(drained) => panic!("{drained:?}"),
        _ => None,
    });
    assert_eq!((draining.key, draining.in_flight), (Some(key("i:0")), 1));
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "bye", "one direction may end before the other");
    assert_eq!(host.control.drained().key, Some(key("i:0")));
}

#[test]
fn a_refused_upgrade_is_an_answer_and_what_came_behind_it_is_nothing() {
    let backend = Backend::start(|mut peer| {
        while let Some(request) = peer.request() {
            peer.say(answer(&request));
        }
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", ASK) + &get("/smuggled", ""));
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    assert_eq!(client.rest(), "");
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn another_protocol_than_asked_for_is_502() {
    let backend = Backend::fixed("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: smtp\r\n\r\n");
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", ASK));
    assert!(client.rest().starts_with("HTTP/1.1 502"));
}

#[test]
fn h2c_is_never_passed_on() {
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    for upgrade in ["h2c", "H2C", "h2c, websocket", "HTTP/2.0"] {
        let mut client = Client::connect(world.http);
        client.say(get(
            "/",
            &format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAM\r\n"),
        ));
        let seen = client.answer().unwrap().body.to_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{seen}");
    }
}

#[test]
fn an_upgraded_connection_without_traffic_ends() {
    let backend = Backend::start(shout);
    let limits = Limits { upgrade_idle_timeout_ms: 300, ..Limits::default() };
    let world = World::named("edge-1", limits, true).serving(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", ASK));
    client.head().unwrap();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(150));
        client.say("x");
    }
    assert!(client.rest().starts_with("helloXXX"));
}
