//! Time-outs and bounds, each with its answer and its counter.

use std::{
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::{Limits, from_engine};

use super::{
    wire::{Backend, Client, answer, ask, get, post},
    world::World,
};

fn brief() -> Limits {
    Limits {
        head_timeout_ms: 200,
        idle_timeout_ms: 300,
        body_timeout_ms: 250,
        response_timeout_ms: 350,
        body_bytes: 10_000,
        head_bytes: 2_000,
        fields: 10,
        ..Limits::default()
    }
}

#[test]
fn every_phase_has_its_time_out() {
    let backend = Backend::start(|mut peer| {
        peer.head();
        thread::sleep(Duration::from_secs(20));
    });
    let mut world = World::named("edge-1", brief(), true).serving(&[&backend.address]);
    let begin = Instant::now();
    let mut idle = Client::connect(world.http);
    assert_eq!(idle.rest(), "", "nobody asked for anything");
    let mut head = Client::connect(world.http);
    head.say("GET / HTTP/1.1\r\nHost: ");
    assert!(head.rest().starts_with("HTTP/1.1 408"));
    let mut body = Client::connect(world.http);
    body.say("POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 100\r\n\r\nsome");
    assert!(body.rest().starts_with("HTTP/1.1 408"));
    let answer = ask(world.http, get("/", ""));
    assert_eq!(answer.status, 504);
    assert!(answer.field("proxy-status").unwrap().contains("http_response_timeout"));
    assert!(begin.elapsed() >= Duration::from_millis(1050));
    let names = ["timeout_idle_total", "timeout_head_total", "timeout_body_total", "timeout_response_total"];
    let mut missing = names.to_vec();
    while !missing.is_empty() {
        let counted = world.control.until(|kind| match kind {
            from_engine::Kind::Stats(stats) => Some(stats.counters),
            _ => None,
        });
        missing.retain(|name| !counted.iter().any(|counter| counter.name == *name && counter.value == 1));
    }
}

#[test]
fn a_slow_head_is_late_however_steadily_it_drips() {
    let world = World::named("edge-1", brief(), true).serving(&[]);
    let mut client = Client::connect(world.http);
    client.say("GET / HTTP/1.1\r\n");
    let begin = Instant::now();
    for _ in 0..10 {
        client.say("X: y\r\n");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(client.rest().starts_with("HTTP/1.1 408"));
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        peer.say(vec![b'x'; 100_000_000]);
        // The engine has closed: no more can be written.
        peer.request();
    });
    let mut world = World::named("edge-1", brief(), true).serving(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", ""));
    assert!(world.counted("timeout_body_total") >= 1);
    client.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(client.rest().len() < 100_000_000);
}

#[test]
fn sizes_are_bounded() {
    let backend = Backend::echo();
    let world = World::named("edge-1", brief(), true).serving(&[&backend.address]);
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(4)
    );
    for (raw, status) in [
        (get(&format!("/{}", "x".repeat(3000)), ""), 414),
        (get("/", &format!("X: {}\r\n", "y".repeat(3000))), 431),
        (get("/", &"X: y\r\n".repeat(10)), 431),
        ("POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 10001\r\n\r\n".to_owned(), 413),
        (chunked, 413),
    ] {
        let mut client = Client::connect(world.http);
        client.say(raw);
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.field("connection")), (status, Some("close")));
        assert!(client.is_closed());
    }
    assert_eq!(ask(world.http, post("/", "", &"x".repeat(10_000))).status, 200);
    assert_eq!(ask(world.http, get("/", &"X: y\r\n".repeat(9))).status, 200);
}

#[test]
fn a_refusal_arrives_although_the_client_is_still_sending() {
    let world = World::new().serving(&[]);
    for _ in 0..20 {
        let mut client = Client::connect(world.http);
        client.say(b"GET / HTTP/1.1\nHost: x\r\n\r\n");
        client.say(vec![b'x'; 50_000]);
        assert!(client.rest().starts_with("HTTP/1.1 400"));
    }
}

#[test]
fn at_the_limit_connections_at_rest_make_room_and_busy_ones_stay() {
    let backend = Backend::start(|mut peer| {
        while let Some(request) = peer.request() {
            if request.contains("/busy ") {
                thread::sleep(Duration::from_secs(3));
            }
            peer.say(answer(request.split(" ").nth(1).unwrap()));
        }
    });
    let limits = Limits { connections: 4, ..Limits::default() };
    let mut world = World::named("edge-1", limits, true).serving(&[&backend.address]);
    let mut busy = Client::connect(world.http);
    busy.say(get("/busy", ""));
    let ask_on = |client: &mut Client| {
        client.say(get("/", ""));
        client.answer().map(|answer| answer.status)
    };
    let mut resting = [(); 3].map(|()| Client::connect(world.http));
    assert!(resting.iter_mut().all(|client| ask_on(client) == Some(200)));
    // Long enough that they are not taken for about to speak.
    thread::sleep(Duration::from_millis(1_200));
    let begin = Instant::now();
    let mut new = [(); 2].map(|()| Client::connect(world.http));
    assert!(new.iter_mut().all(|client| ask_on(client) == Some(200)));
    assert!(begin.elapsed() < Duration::from_millis(1_500), "long before the busy one is done");
    let evicted = world.counted("connections_evicted_total");
    assert!((1..=3).contains(&evicted), "{evicted}");
    assert_eq!(busy.answer().unwrap().body, "/busy");
    assert!(resting.iter_mut().filter_map(ask_on).count() <= 1, "two at least have ended");
}
