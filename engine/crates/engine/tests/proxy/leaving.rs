//! A client that leaves before its answer is there, and one that has only ended its own side.

use std::{
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::Limits;

use super::{
    support::{instance, route},
    wire::{Backend, Client, Peer, QUIET, answer, ask, get, post, until},
    world::{PATTERN, World, child, key, parking},
};

/// Takes a request and answers never; counts connections that the engine ends.
fn silent(left: &Arc<AtomicUsize>) -> Backend {
    let left = left.clone();
    Backend::start(move |mut peer: Peer| {
        peer.request();
        if peer.request().is_none() {
            left.fetch_add(1, SeqCst);
        }
    })
}

/// Takes its time over every answer.
fn slow(mut peer: Peer) {
    while let Some(request) = peer.request() {
        thread::sleep(QUIET);
        peer.say(answer(request.split(' ').nth(1).unwrap()));
    }
}

fn reset(client: &Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn its_request_is_given_up_and_nothing_is_in_flight_any_more() {
    for by_reset in [false, true] {
        let left = Arc::default();
        let backend = silent(&left);
        let mut world = World::with(&[&backend.address]);
        let mut client = Client::connect(world.http);
        client.say(post("/", "", "body"));
        until("the request arrives", || backend.seen().len() == 1);
        world.delete(&["i:0"]);
        if by_reset {
            reset(&client);
        }
        let begin = Instant::now();
        drop(client);
        until("the exchange is dropped", || left.load(SeqCst) == 1);
        assert_eq!(world.control.drained().key, Some(key("i:0")));
        assert!(begin.elapsed() < Duration::from_secs(5), "long before the time-out of 60 s");
        assert_eq!(world.counted("client_gone_total"), 1);
    }
}

#[test]
fn its_leaving_reaches_the_instance_two_tiers_down() {
    let left = Arc::default();
    let backend = silent(&left);
    let mut host = World::named("host-1", Limits::default(), false).serving(&[&backend.address]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    let mut client = Client::connect(edge.http);
    client.say(get("/", ""));
    until("the request arrives", || backend.seen().len() == 1);
    drop(client);
    until("the instance hears of it", || left.load(SeqCst) == 1);
    assert_eq!((edge.counted("client_gone_total"), host.counted("client_gone_total")), (1, 1));
}

#[test]
fn a_parked_request_gives_its_place_back() {
    let mut world = World::new();
    world.put(vec![], Some(parking(60_000, 1)));
    let mut client = Client::connect(world.http);
    client.say(get("/", ""));
    assert_eq!(world.counted("parked_now"), 1);
    assert_eq!(ask(world.http, get("/", "")).status, 503, "there is one place");
    drop(client);
    assert_eq!(world.counted("client_gone_total"), 1);
    let mut next = Client::connect(world.http);
    next.say(get("/", ""));
    let backend = Backend::echo();
    thread::sleep(QUIET / 4);
    world.put(vec![instance("i:0", &backend.address)], None);
    assert_eq!(next.answer().unwrap().status, 200);
}

#[test]
fn who_has_only_ended_its_side_gets_the_whole_answer() {
    let backend = Backend::start(slow);
    let host = World::named("host-1", Limits::default(), false).serving(&[&backend.address]);
    let mut edge = World::new();
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    for http in [World::with(&[&backend.address]), edge].iter().map(|world| world.http) {
        let mut client = Client::connect(http);
        client.say(get("/first", ""));
        client.stream.shutdown(Shutdown::Write).unwrap();
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "/first"));
        assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
        assert!(client.is_closed());
    }
}

#[test]
fn pipelined_requests_are_kept_while_the_first_waits() {
    let backend = Backend::start(slow);
    let world = World::with(&[&backend.address]);
    for ends in [false, true] {
        let mut client = Client::connect(world.http);
        client.say(get("/0", ""));
        thread::sleep(QUIET / 4);
        client.say(get("/1", "") + &post("/2", "", &"x".repeat(50_000)));
        if ends {
            client.stream.shutdown(Shutdown::Write).unwrap();
        }
        for number in 0..3 {
            let answer = client.answer().unwrap();
            assert_eq!((answer.status, answer.body), (200, format!("/{number}")));
        }
    }
}

#[test]
fn an_answer_of_our_own_is_whole_as_well() {
    let left = Arc::default();
    let backend = silent(&left);
    let limits = Limits { response_timeout_ms: 400, ..Limits::default() };
    let mut world = World::named("edge-1", limits, true).serving(&[&backend.address]);
    let ask_and_end = |http| {
        let mut client = Client::connect(http);
        client.say(get("/", ""));
        client.stream.shutdown(Shutdown::Write).unwrap();
        client.answer().unwrap()
    };
    let late = ask_and_end(world.http);
    assert!(late.head.starts_with("HTTP/1.1 504 ") && late.body.contains("endpoint-timeout"), "{late:?}");
    world.put(vec![], Some(parking(400, 1)));
    world.delete(&["i:0"]);
    let unserved = ask_and_end(world.http);
    assert!(unserved.head.starts_with("HTTP/1.1 503 ") && unserved.body.contains("nothing-ready"), "{unserved:?}");
}
