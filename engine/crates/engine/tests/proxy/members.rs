//! Which member gets a request, what happens when it cannot take it, and waiting when there is none.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::{self, from_engine};

use super::{
    support::{instance, member, member_key, route},
    wire::{Backend, Client, answer, ask, echo, get, post, refused, until},
    world::{PATTERN, World, parking},
};

#[test]
fn a_unix_socket_is_an_endpoint_like_any_other() {
    let world = World::new();
    let backend = Backend::start_unix(&world.engine.folder.join("web.sock"), echo);
    let world = world.serving(&[&backend.address]);
    assert_eq!(ask(world.http, post("/", "", &"x".repeat(100_000))).status, 200);
    assert_eq!(ask(world.http, get("/", "")).status, 200);
}

#[test]
fn a_refused_connection_costs_no_request_and_ejects_the_target() {
    let good = Backend::echo();
    let dead = refused();
    let mut world = World::with(&[&dead, &good.address]);
    for number in 0..40 {
        let raw = if number % 2 == 0 { get("/", "") } else { post("/", "", "body") };
        assert_eq!(ask(world.http, raw).status, 200);
    }
    let ejected = world.control.until(|kind| match kind {
        from_engine::Kind::TargetHealth(health) => Some(health),
        _ => None,
    });
    assert_eq!(
        (ejected.target.as_str(), ejected.ejected, ejected.reason.as_str()),
        ("i:0", true, "connection refused")
    );
}

#[test]
fn the_last_member_is_tried_even_when_it_is_ejected() {
    let mut world = World::with(&[&refused()]);
    for _ in 0..10 {
        let answer = ask(world.http, get("/", ""));
        assert_eq!(answer.status, 502);
        assert_eq!(answer.field("proxy-status"), Some("edge-1; error=connection_refused"));
    }
    let good = Backend::echo();
    world.put(vec![instance("i:0", &good.address)], None);
    assert_eq!(ask(world.http, get("/", "")).status, 200);
}

#[test]
fn a_pooled_connection_that_was_closed_meanwhile_costs_no_request() {
    // Closes after each answer without a word, as servers do whose keep-alive has run out.
    let backend = Backend::start(|mut peer| {
        let request = peer.request().unwrap();
        peer.say(answer(&request));
        peer.stream.end();
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    for number in 0..50 {
        client.say(if number % 2 == 0 { get("/", "") } else { post("/", "", "body") });
        if number % 5 != 0 {
            thread::sleep(Duration::from_millis(5));
        }
        let answer = client.answer().unwrap();
        // A POST on a connection that ends at that very moment cannot be sent again; that hardly ever happens.
        assert!(answer.status == 200 || (answer.status == 502 && number % 2 == 1), "{answer:?}");
    }
}

#[test]
fn what_may_have_been_processed_is_sent_again_once_if_that_does_no_harm() {
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let backend = Backend::start(move |mut peer| {
        peer.request();
        counted.fetch_add(1, SeqCst);
        peer.stream.end();
    });
    let world = World::with(&[&backend.address, &backend.address, &backend.address]);
    for (raw, times) in [(post("/", "", "body"), 1), (get("/", ""), 2), (get("/", ""), 2)] {
        count.store(0, SeqCst);
        let answer = ask(world.http, raw);
        assert_eq!(answer.status, 502);
        assert!(answer.field("proxy-status").unwrap().contains("connection_terminated"));
        assert_eq!(count.load(SeqCst), times);
    }
}

#[test]
fn a_get_in_flight_when_its_instance_dies_is_answered_by_another() {
    let dying = Backend::start(|mut peer| {
        peer.request();
        peer.stream.end();
    });
    let good = Backend::echo();
    let world = World::with(&[&dying.address, &good.address]);
    for _ in 0..20 {
        assert_eq!(ask(world.http, get("/", "")).status, 200);
    }
    assert!(dying.requests() > 0);
}

#[test]
fn requests_wait_until_something_is_ready() {
    let mut world = World::new();
    world.put(vec![], Some(parking(10_000, 100)));
    let http = world.http;
    let waiting: Vec<_> =
        (0..8).map(|_| thread::spawn(move || ask(http, post("/", "", &"x".repeat(100_000))).status)).collect();
    assert!(world.counted("parked_now") >= 1);
    let backend = Backend::echo();
    world.put(vec![instance("i:0", &backend.address)], None);
    for waited in waiting {
        assert_eq!(waited.join().unwrap(), 200);
    }
}

#[test]
fn waiting_is_bounded_in_time_and_number() {
    let mut world = World::new();
    world.put(vec![], Some(parking(600, 2)));
    let http = world.http;
    let begin = Instant::now();
    let waiting: Vec<_> = (0..5).map(|_| thread::spawn(move || (ask(http, get("/", "")), Instant::now()))).collect();
    let ended: Vec<_> = waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect();
    for (answer, _) in &ended {
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    }
    let waited = ended.iter().filter(|(_, at)| *at - begin >= Duration::from_millis(600)).count();
    assert_eq!(waited, 2);
}

#[test]
fn a_version_keeps_its_requests_while_it_has_a_member() {
    let one = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none");
    let two = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo");
    let mut world = World::new();
    let mut shares = route(PATTERN, "web", &["1.0.0", "1.0.1"]);
    shares.picks.iter_mut().for_each(|pick| pick.weight = 50);
    let put = |version: &str, target: &str| member(member_key("web", version, PATTERN, target));
    world
        .control
        .apply(proto::Delta {
            put_targets: vec![
                instance("i:one", &one.address),
                instance("i:dead", refused()),
                instance("i:two", &two.address),
            ],
            put_members: vec![put("1.0.0", "i:one"), put("1.0.0", "i:dead"), put("1.0.1", "i:two")],
            put_routes: vec![shares],
            ..Default::default()
        })
        .unwrap();
    let mut client = Client::connect(world.http);
    let mut ones = 0;
    for _ in 0..100 {
        client.say(get("/", ""));
        ones += usize::from(client.answer().unwrap().body == "one");
    }
    assert!((48..=52).contains(&ones), "the share of 1.0.0 is exact although one of its members is dead: {ones}");
}

#[test]
fn idle_connections_to_endpoints_are_counted() {
    let backend = Backend::echo();
    let mut world = World::with(&[&backend.address]);
    ask(world.http, get("/", ""));
    let row = world.control.until(|kind| match kind {
        from_engine::Kind::Stats(stats) => {
            stats.targets.into_iter().find(|row| row.target == "i:0" && row.idle_connections > 0)
        }
        _ => None,
    });
    assert_eq!((row.requests, row.connects, row.in_flight), (1, 1, 0));
    until("it is one connection", || backend.connections() == 1);
}
