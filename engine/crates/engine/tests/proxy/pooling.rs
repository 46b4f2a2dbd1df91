//! Which pooled connection a request may have: none that its server may be about to close.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::{
    wire::{Backend, Client, get, post},
    world::World,
};

/// Connections that two requests need with a pause between them; the answers have these lines.
fn connections(lines: &'static str, pause: Duration, second: String) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let answer: &'static str = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok").leak();
        let backend = Backend::fixed(answer);
        let world = World::with(&[&backend.address]);
        let mut client = Client::connect(world.http);
        client.say(get("/", ""));
        assert_eq!(client.answer().unwrap().body, "ok");
        thread::sleep(pause);
        client.say(second);
        assert_eq!(client.answer().unwrap().body, "ok");
        backend.connections()
    })
}

#[test]
fn it_is_given_up_before_its_server_may_close_it() {
    let milliseconds = Duration::from_millis;
    let get = || get("/", "");
    let post = || post("/", "", "body");
    let cases = [
        ("", 1_300, get(), 1, "nothing is said"),
        ("", 300, post(), 1, "in use a moment ago"),
        ("", 1_300, post(), 2, "a request that can't be sent again"),
        ("", 4_200, get(), 2, "before servers in wide use close it"),
        ("Keep-Alive: timeout=1\r\n", 300, get(), 1, "well before what is announced"),
        ("keep-alive: max=9, Timeout=1\r\n", 850, get(), 2, "shortly before what is announced"),
        ("Keep-Alive: timeout=0\r\n", 1, get(), 2, "not at all"),
        ("Keep-Alive: timeout=18446744073709551615\r\n", 4_200, get(), 1, "longer than by default"),
        ("Keep-Alive: timeout=x\r\n", 1_300, get(), 1, "nonsense is nothing"),
    ];
    let asked =
        cases.map(|(lines, pause, raw, expected, what)| (connections(lines, milliseconds(pause), raw), expected, what));
    for (asked, expected, what) in asked {
        assert_eq!(asked.join().unwrap(), expected, "{what}");
    }
}

#[test]
fn a_server_that_closes_what_is_idle_costs_no_post() {
    let closed: Arc<AtomicUsize> = Arc::default();
    let count = closed.clone();
    let backend = Backend::start(move |mut peer| {
        // As gunicorn and others: without a word, when the time is over.
        while peer.request().is_some() {
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: timeout=1\r\n\r\n");
            peer.patience(Duration::from_millis(1_000));
        }
        count.fetch_add(1, SeqCst);
    });
    let world = World::with(&[&backend.address]);
    let http = world.http;
    let clients = (0..8).map(|number| {
        thread::spawn(move || {
            let mut client = Client::connect(http);
            for step in 0..3 {
                client.say(post("/", "", "body"));
                assert_eq!(client.answer().unwrap().status, 200);
                thread::sleep(Duration::from_millis(600 + 13 * (step * 8 + number)));
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
    assert!(closed.load(SeqCst) > 0, "some were closed meanwhile");
}
