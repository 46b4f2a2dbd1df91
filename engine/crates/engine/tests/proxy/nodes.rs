//! Requests between nodes: stamps, "not here", bodies that wait for a place.

use std::{
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::Limits;

use super::{
    support::{instance, route},
    wire::{Backend, Client, answer, ask, field, get, post, refused},
    world::{PATTERN, STAMP, World, child, parking},
};

fn host(name: &str) -> World {
    World::named(name, Limits::default(), false)
}

#[test]
fn a_stamped_request_passes_two_tiers() {
    let backend = Backend::echo();
    let host = host("host-1").serving(&[&backend.address]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let seen = ask(edge.http, get("/a/../b?c", "X-Forwarded-For: 6.6.6.6\r\n")).body;
    assert!(seen.starts_with("GET /b?c HTTP/1.1\r\nhost: www.example\r\n"), "{seen}");
    assert!(!seen.contains("sdlb-") && !seen.contains("6.6.6.6"), "{seen}");
    assert_eq!(field(&seen, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&seen, "x-request-id").map(str::len), Some(32));
    assert!(seen.find("via: 1.1 edge-1-") < seen.find("via: 1.1 host-1-"), "{seen}");
    for body in ["small".to_owned(), "x".repeat(32 << 10), "y".repeat(3_000_000)] {
        let echoed = ask(edge.http, post("/", "", &body)).body;
        assert_eq!(echoed.split_once("\r\n\r\n").unwrap().1, body);
        assert!(!echoed.contains("100-continue"), "it is between nodes only");
    }
}

#[test]
fn a_node_listener_takes_stamped_canonical_requests_only() {
    let backend = Backend::echo();
    let world = host("host-1").serving(&[&backend.address]);
    let answer = ask(world.node, get("/", ""));
    assert_eq!((answer.status, answer.field("sdlb-not-here")), (421, None));
    for raw in [
        get("/a/../b", STAMP),
        get("/%61", STAMP),
        format!("GET / HTTP/1.1\r\nHost: WWW.example\r\n{STAMP}\r\n"),
        format!("GET http://www.example/ HTTP/1.1\r\nHost: www.example\r\n{STAMP}\r\n"),
    ] {
        assert_eq!(ask(world.node, raw).status, 400);
    }
    assert_eq!(ask(world.node, get("/", &STAMP.repeat(2))).status, 421);
    assert_eq!(ask(world.node, get("/", STAMP)).status, 200);
}

#[test]
fn not_here_is_said_at_once_and_without_reading() {
    let mut world = host("host-1").serving(&[]);
    for raw in [get("/", STAMP), get("/", "sdlb-to: web/9.9.9 www.example/*\r\n"), post("/", STAMP, "small")] {
        let mut client = Client::connect(world.node);
        client.say(&raw);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.field("sdlb-not-here")), (421, Some("1")));
        client.say(raw);
        assert_eq!(client.answer().unwrap().status, 421, "the connection is kept");
    }
    let mut client = Client::connect(world.node);
    client.say(get("/", &format!("{STAMP}sdlb-not-here: 425\r\n")));
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.field("sdlb-not-here")), (425, Some("1")), "HAProxy retries after 425");
    let mut client = Client::connect(world.node);
    client.say(format!(
        "POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n{STAMP}\r\n"
    ));
    assert_eq!(client.answer().unwrap().status, 421);
    assert!(client.is_closed());
    assert!(world.counted("not_here_total") >= 1);
}

#[test]
fn a_child_that_has_lost_the_group_costs_no_request() {
    let backend = Backend::echo();
    let empty = host("host-1").serving(&[]);
    let dead = host("host-2").serving(&[&refused()]);
    let good = host("host-3").serving(&[&backend.address]);
    let mut edge = World::new();
    let children = vec![child("host-1", empty.node), child("host-2", dead.node), child("host-3", good.node)];
    edge.put(children, Some(route(PATTERN, "web", &["1.0.0"])));
    let big = "z".repeat(1_000_000);
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n",
        big.len()
    );
    for number in 0..30 {
        let raw = match number % 4 {
            0 => get("/", ""),
            1 => post("/", "", "small"),
            2 => post("/", "", &big),
            _ => chunked.clone(),
        };
        let answer = ask(edge.http, raw);
        assert_eq!(answer.status, 200, "{number}: {}", answer.body);
    }
}

#[test]
fn it_waits_a_moment_when_all_children_have_lost_the_group() {
    let backend = Backend::echo();
    let mut host = host("host-1").serving(&[]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let http = edge.http;
    let big = post("/", "", &"x".repeat(500_000));
    let waiting: Vec<_> = [get("/", ""), big].map(|raw| thread::spawn(move || ask(http, raw).status)).into();
    thread::sleep(Duration::from_millis(200));
    host.put(vec![instance("i:0", &backend.address)], None);
    for waited in waiting {
        assert_eq!(waited.join().unwrap(), 200);
    }
}

#[test]
fn the_tier_that_failed_is_named() {
    let host = host("host-1").serving(&[&refused()]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let begin = Instant::now();
    let answer = ask(edge.http, get("/", ""));
    assert_eq!(answer.status, 502);
    let status = answer.field("proxy-status").unwrap();
    assert!(status.starts_with("host-1; error=connection_refused, edge-1; error="), "{status}");
    assert!(begin.elapsed() < Duration::from_secs(1), "there is nothing to wait for");
}

#[test]
fn a_request_finds_its_new_version_when_the_old_one_goes_in_between() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew");
    let host = host("host-1").serving(&[]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(parking(10_000, 100)));
    let http = edge.http;
    let waiting = thread::spawn(move || ask(http, get("/", "")));
    thread::sleep(Duration::from_millis(100));
    edge.delete(&["n:host-1"]);
    let new = super::support::member(super::support::member_key("web", "2.0.0", PATTERN, "i:new"));
    let delta = sdlb_engine::proto::Delta {
        put_targets: vec![instance("i:new", &backend.address)],
        put_members: vec![new],
        put_routes: vec![route(PATTERN, "web", &["2.0.0"])],
        ..Default::default()
    };
    edge.control.apply(delta).unwrap();
    assert_eq!(waiting.join().unwrap().body, "new");
}

#[test]
fn a_clients_expectation_reaches_the_instance_two_tiers_down() {
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.head() {
            assert_eq!(field(&head, "expect"), Some("100-continue"), "{head}");
            if head.starts_with("PUT") {
                peer.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                return;
            }
            peer.say("HTTP/1.1 100 Continue\r\n\r\n");
            let body = peer.exactly(100_000).unwrap();
            peer.say(answer(&body));
        }
    });
    let host = host("host-1").serving(&[&backend.address]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let head = "Host: www.example\r\nContent-Length: 100000\r\nExpect: 100-continue\r\n\r\n";
    let mut client = Client::connect(edge.http);
    client.say(format!("POST / HTTP/1.1\r\n{head}"));
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("x".repeat(100_000));
    assert_eq!(client.answer().unwrap().body.len(), 100_000);
    assert_eq!(ask(edge.http, format!("PUT / HTTP/1.1\r\n{head}")).status, 403);
}

#[test]
fn a_client_that_does_not_wait_for_consent_is_served() {
    let backend = Backend::start(|mut peer| {
        // An old server: it knows nothing of expectations.
        while let Some(request) = peer.request() {
            peer.say(answer(request.split_once("\r\n\r\n").unwrap().1));
        }
    });
    let host = host("host-1").serving(&[&backend.address]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let answer = ask(edge.http, post("/", "Expect: 100-continue\r\n", &"x".repeat(100_000)));
    assert_eq!(answer.body.len(), 100_000);
}
