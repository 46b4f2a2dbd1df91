//! What an endpoint answers wrongly reaches nobody, and its connection is not used again.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use super::{
    wire::{Backend, Client, answer, ask, get, post},
    world::World,
};

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

#[test]
fn an_answer_that_cannot_be_trusted_is_502() {
    let untrusted = |bad| {
        let backend = Backend::fixed(bad);
        let mut world = World::with(&[&backend.address]);
        let answer = ask(world.http, get("/", ""));
        assert_eq!(answer.status, 502, "{bad}");
        assert!(answer.field("proxy-status").unwrap().contains("http_protocol_error"));
        assert_eq!(world.counted("upstream_malformed_total"), 1);
    };
    let all = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\npoison",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ];
    thread::scope(|scope| all.iter().for_each(|bad| drop(scope.spawn(|| untrusted(bad)))));
    let flood: &'static str = Box::leak("HTTP/1.1 103 H\r\n\r\n".repeat(10_000).into_boxed_str());
    let backend = Backend::fixed(flood);
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", "Connection: close\r\n"));
    let raw = client.rest();
    assert!(raw.contains("HTTP/1.1 502") && raw.matches("103 H").count() < 100);
}

#[test]
fn surplus_bytes_are_given_to_nobody() {
    let surplus = |(method, first): (&str, &'static str)| {
        let backend = Backend::start(move |mut peer| {
            peer.request();
            peer.say(format!("{first}{EVIL}"));
            while peer.request().is_some() {
                peer.say(EVIL);
            }
        });
        let mut world = World::with(&[&backend.address]);
        for number in 0..3 {
            let mut client = Client::connect(world.http);
            client.say(format!("{method} /{number} HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n"));
            assert!(!client.rest().contains("poison"), "{first}");
        }
        assert_eq!(backend.connections(), 3);
        assert!(world.counted("upstream_unsolicited_total") >= 1);
    };
    let all = [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 65\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ];
    thread::scope(|scope| all.iter().for_each(|case| drop(scope.spawn(|| surplus(*case)))));
}

#[test]
fn a_pooled_connection_that_speaks_up_is_dropped() {
    let first = AtomicBool::new(true);
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say(answer("ok"));
            if first.swap(false, SeqCst) {
                thread::sleep(Duration::from_millis(100));
                peer.say(EVIL);
            }
        }
    });
    let mut world = World::with(&[&backend.address]);
    assert_eq!(ask(world.http, get("/", "")).body, "ok");
    thread::sleep(Duration::from_millis(300));
    for _ in 0..4 {
        assert_eq!(ask(world.http, get("/", "")).body, "ok");
    }
    assert!(world.counted("upstream_unsolicited_total") >= 1);
}

#[test]
fn an_answer_cut_short_is_cut_short_for_the_client() {
    for (head, rest) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "half"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf", "4\r\nhalf\r\n"),
    ] {
        let backend = Backend::start(move |mut peer| {
            peer.request();
            peer.say(head);
            thread::sleep(Duration::from_millis(50));
            peer.stream.end();
        });
        let world = World::with(&[&backend.address]);
        let mut client = Client::connect(world.http);
        client.say(get("/", "") + &get("/behind", ""));
        assert!(client.rest().ends_with(&format!("\r\n\r\n{rest}")));
        assert_eq!(backend.seen().len(), 1);
    }
}

#[test]
fn a_body_that_breaks_its_framing_is_400_and_never_whole() {
    let backend = Backend::echo();
    let mut world = World::with(&[&backend.address]);
    for body in ["5\r\nhelloX\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "0\r\nX: a\nY: b\r\n\r\n"] {
        let mut client = Client::connect(world.http);
        client.say(format!("POST / HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        client.say(get("/smuggled", ""));
        let raw = client.rest();
        assert!(raw.starts_with("HTTP/1.1 400") && raw.matches("HTTP/1.1").count() == 1, "{raw}");
    }
    assert!(!backend.seen().iter().any(|seen| seen.contains("smuggled") || seen.ends_with("0\r\n\r\n")));
    assert!(world.counted("refused_malformed_total") >= 1);
    assert_eq!(ask(world.http, post("/", "", "fine")).status, 200);
}
