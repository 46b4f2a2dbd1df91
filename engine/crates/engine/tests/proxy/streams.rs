//! Answers that fall silent in the middle: for how long is set apart from all other time-outs, and longer for event streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::Limits;

use super::{
    support::route,
    wire::{Backend, Client, get, until},
    world::{PATTERN, World, child},
};

const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: Text/Event-Stream;charset=utf-8\r\n";

fn brief() -> Limits {
    Limits {
        body_timeout_ms: 150,
        response_timeout_ms: 150,
        response_idle_timeout_ms: 700,
        event_stream_idle_timeout_ms: 3_000,
        ..Limits::default()
    }
}

/// Begins each answer with `head` and one piece, ends it with another after `silence`. Counts connections that the engine
/// ends before that.
fn pausing(head: &'static str, silence: Duration) -> (Backend, Arc<AtomicUsize>) {
    let left: Arc<AtomicUsize> = Arc::default();
    let count = left.clone();
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say(format!("{head}\r\n5\r\nfirst\r\n"));
            thread::sleep(silence);
            peer.say("4\r\nlast\r\n0\r\n\r\n");
        }
        count.fetch_add(1, SeqCst);
    });
    (backend, left)
}

/// What of the content arrives, and after how long.
fn content(world: &World, extra: &str) -> (String, Duration) {
    let begin = Instant::now();
    let mut client = Client::connect(world.http);
    client.say(get("/", &format!("Connection: close\r\n{extra}")));
    assert!(client.head().unwrap().contains(" 200 "));
    (client.rest(), begin.elapsed())
}

#[test]
fn each_kind_of_answer_has_its_own_patience() {
    const WHOLE: &str = "5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n";
    let (short, _) = pausing(HEAD, Duration::from_millis(350));
    let world = World::named("edge-1", brief(), true).serving(&[&short.address]);
    assert_eq!(content(&world, "").0, WHOLE, "longer than the time-out of a client's body");
    let (long, _) = pausing(HEAD, Duration::from_millis(2_000));
    let mut world = World::named("edge-1", brief(), true).serving(&[&long.address]);
    let (cut, took) = content(&world, "");
    assert_eq!(cut, "5\r\nfirst\r\n");
    assert!(took >= Duration::from_millis(700) && took < Duration::from_millis(1_900), "{took:?}");
    assert_eq!(world.counted("timeout_response_idle_total"), 1);
    // Through two tiers, each with its own time-outs.
    let (events, _) = pausing(EVENTS, Duration::from_millis(1_500));
    let host = World::named("host-1", brief(), false).serving(&[&events.address]);
    let mut edge = World::named("edge-1", brief(), true);
    edge.put(vec![child("host-1", host.node)], Some(route(PATTERN, "web", &["1.0.0"])));
    assert_eq!(content(&edge, "").0, WHOLE);
}

#[test]
fn a_silent_stream_does_not_outlive_its_reader() {
    let limits = Limits { event_stream_idle_timeout_ms: 60_000, ..brief() };
    let left: Arc<AtomicUsize> = Arc::default();
    let count = left.clone();
    let backend = Backend::start(move |mut peer| {
        peer.request();
        peer.say(format!("{EVENTS}\r\n5\r\nfirst\r\n"));
        peer.request();
        count.fetch_add(1, SeqCst);
    });
    let mut world = World::named("edge-1", limits, true).serving(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", ""));
    client.head().unwrap();
    assert_eq!(client.exactly(10).unwrap(), "5\r\nfirst\r\n");
    drop(client);
    until("the stream is ended", || left.load(SeqCst) == 1);
    assert_eq!(world.counted("client_gone_total"), 1);
}
