//! Waiting for members that are there and cannot be reached: the moment of a cut-over when the last old process has gone.

use std::{
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::{self, Limits};

use super::{
    support::{instance, member, member_key, route},
    wire::{Answer, Backend, QUIET, answer, ask, get, post, refused},
    world::{PATTERN, World, child, key, parking},
};

/// Asks on threads of their own.
fn ask_all(http: std::net::SocketAddr, number: usize) -> Vec<thread::JoinHandle<Answer>> {
    let raw = |number| if number % 2 == 0 { get("/", "") } else { post("/", "", "body") };
    (0..number).map(|number| thread::spawn(move || ask(http, raw(number)))).collect()
}

#[test]
fn the_next_version_gets_what_the_last_process_of_the_old_one_could_not_take() {
    let mut world = World::new();
    world.put(vec![instance("i:0", refused()), instance("i:1", refused())], Some(parking(20_000, 100)));
    // More than the retry budget pays for.
    let waiting = ask_all(world.http, 60);
    assert!(world.counted("parked_now") >= 1);
    thread::sleep(QUIET);
    let new = Backend::fixed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew");
    let delta = proto::Delta {
        put_targets: vec![instance("i:new", &new.address)],
        put_members: vec![member(member_key("web", "2.0.0", PATTERN, "i:new"))],
        delete_members: vec![key("i:0"), key("i:1")],
        put_routes: vec![route(PATTERN, "web", &["2.0.0"])],
        ..Default::default()
    };
    world.control.apply(delta).unwrap();
    for waited in waiting {
        let answer = waited.join().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "new"));
    }
}

#[test]
fn an_instance_that_starts_again_is_found_without_a_word_from_control() {
    let mut host = World::named("host-1", Limits::default(), false);
    let path = host.engine.folder.join("web.sock");
    host.put(vec![instance("i:0", format!("unix:{}", path.display()))], None);
    let limits = Limits { response_timeout_ms: 800, ..Limits::default() };
    let mut edge = World::named("edge-1", limits, true);
    edge.put(vec![child("host-1", host.node)], Some(parking(20_000, 100)));
    let waiting = ask_all(edge.http, 4);
    thread::sleep(Duration::from_millis(1200));
    // It takes time to answer: what was spent waiting is not taken from that.
    let _backend = Backend::start_unix(&path, |mut peer| {
        while peer.request().is_some() {
            thread::sleep(QUIET);
            peer.say(answer("ok"));
        }
    });
    for waited in waiting {
        assert_eq!(waited.join().unwrap().body, "ok");
    }
}

#[test]
fn waiting_in_vain_ends_with_503_and_says_what_was_wrong() {
    let mut world = World::new();
    world.put(vec![instance("i:0", refused())], Some(parking(600, 2)));
    let begin = Instant::now();
    let ended: Vec<_> = ask_all(world.http, 5).into_iter().map(|waiting| waiting.join().unwrap()).collect();
    assert!(begin.elapsed() >= Duration::from_millis(600));
    for answer in &ended {
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    }
    let told = |answer: &&Answer| answer.field("proxy-status") == Some("edge-1; error=connection_refused");
    assert_eq!(ended.iter().filter(told).count(), 2, "the others found the queue full: {ended:?}");
    // A route that does not park: nothing is expected, nothing is waited for.
    world.put(vec![], Some(route(PATTERN, "web", &["1.0.0"])));
    assert_eq!(ask(world.http, get("/", "")).status, 502);
}
