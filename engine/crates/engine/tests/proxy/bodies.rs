//! Bodies both ways, keep-alive, pipelining, interim answers.

use std::{sync::atomic::Ordering::SeqCst, thread, time::Duration};

use super::{
    wire::{Backend, Client, answer, ask, field, get, post},
    world::World,
};

#[test]
fn connections_are_kept_and_shared() {
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    for number in 0..20 {
        client.say(get(&format!("/{number}"), ""));
        assert!(client.answer().unwrap().body.starts_with(&format!("GET /{number} ")));
    }
    for _ in 0..20 {
        ask(world.http, get("/", ""));
    }
    assert!(backend.connections() <= 2, "two workers, one connection each: {}", backend.connections());
}

#[test]
fn pipelined_requests_are_answered_in_order_and_once() {
    let backend = Backend::start(|mut peer| {
        while let Some(request) = peer.request() {
            if request.contains("/0 ") {
                thread::sleep(Duration::from_millis(50));
            }
            peer.say(answer(request.split(' ').nth(1).unwrap()));
        }
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    let pipeline: String = (0..50)
        .map(|number| match number % 3 {
            0 => get(&format!("/{number}"), ""),
            1 => post(&format!("/{number}"), "", "body"),
            _ => format!(
                "PUT /{number} HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.say(pipeline + &get("/last", "Connection: close\r\n") + &get("/behind", ""));
    for number in 0..50 {
        assert_eq!(client.answer().unwrap().body, format!("/{number}"));
    }
    assert_eq!(client.answer().unwrap().body, "/last");
    assert!(client.is_closed());
    assert_eq!(backend.seen().len(), 51);
}

#[test]
fn big_bodies_pass_whole_both_ways() {
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    let body: String = (0..400_000).map(|number: u32| char::from(b'a' + (number % 23) as u8)).collect();
    let echoed = ask(world.http, post("/", "", &body)).body;
    assert_eq!(echoed.split_once("\r\n\r\n").unwrap().1, body);
    let mut chunked = "POST / HTTP/1.1\r\nHost: www.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    for piece in body.as_bytes().chunks(7001) {
        chunked += &format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap());
    }
    let mut client = Client::connect(world.http);
    client.say(chunked + "0\r\n\r\n");
    let echoed = client.answer().unwrap().body;
    let raw = echoed.split_once("\r\n\r\n").unwrap().1;
    assert!(raw.len() > body.len() && raw.ends_with("\r\n0\r\n\r\n"), "it is chunked again");
}

#[test]
fn trailers_pass_both_ways_without_what_does_not_belong_there() {
    let backend = Backend::start(|mut peer| {
        while let Some(request) = peer.request() {
            let content = request.split_once("\r\n\r\n").unwrap().1.to_owned();
            peer.say(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{:x}\r\n{content}\r\n0\r\nX-Sum: 42\r\nSet-Cookie: no\r\n\r\n",
                content.len()
            ));
        }
    });
    let world = World::with(&[&backend.address]);
    let raw = "POST / HTTP/1.1\r\nHost: www.example\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;ext=1\r\nhello\r\n0\r\nX-Mine: 1\r\nHost: evil\r\nContent-Length: 3\r\n\r\n";
    let answer = ask(world.http, raw);
    assert_eq!(answer.body, "5\r\nhello\r\n0\r\nX-Mine: 1\r\n\r\nX-Sum: 42\r\n");
    assert_eq!(field(&backend.seen()[0], "te"), Some("trailers"));
}

#[test]
fn an_answer_that_ends_with_its_connection_is_chunked_for_the_client() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\n\r\nuntil the end");
        peer.stream.end();
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    for _ in 0..2 {
        client.say(get("/", ""));
        let answer = client.answer().unwrap();
        assert_eq!((answer.body.as_str(), answer.field("transfer-encoding")), ("until the end", Some("chunked")));
    }
    let old = ask(world.http, "GET / HTTP/1.0\r\nHost: www.example\r\n\r\n");
    assert_eq!((old.body.as_str(), old.field("transfer-encoding")), ("until the end", None));
    assert_eq!(old.field("connection"), Some("close"));
}

#[test]
fn an_old_client_gets_old_answers() {
    let backend = Backend::fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n");
    let world = World::with(&[&backend.address]);
    let answer = ask(world.http, "GET / HTTP/1.0\r\nHost: www.example\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((answer.body.as_str(), answer.field("transfer-encoding")), ("ok", None));
    let backend = Backend::echo();
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    for _ in 0..2 {
        client.say("GET / HTTP/1.0\r\nHost: www.example\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.answer().unwrap().field("connection"), Some("keep-alive"));
    }
    client.say("GET / HTTP/1.0\r\nHost: www.example\r\n\r\n");
    assert_eq!(client.answer().unwrap().field("connection"), Some("close"));
    assert!(client.is_closed());
}

#[test]
fn head_and_304_have_a_length_and_no_body() {
    let backend = Backend::start(|mut peer| {
        while let Some(request) = peer.request() {
            let status = if request.starts_with("HEAD") { "200 OK" } else { "304 Not Modified" };
            peer.say(format!("HTTP/1.1 {status}\r\nContent-Length: 1000\r\n\r\n"));
        }
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say("HEAD / HTTP/1.1\r\nHost: www.example\r\n\r\n".to_owned() + &get("/", ""));
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && field(&head, "content-length") == Some("1000"));
    assert!(client.head().unwrap().starts_with("HTTP/1.1 304"));
    assert_eq!(backend.connections(), 1);
}

#[test]
fn an_expectation_reaches_the_endpoint_and_its_consent_the_client() {
    let backend = Backend::start(|mut peer| {
        while let Some(head) = peer.head() {
            if field(&head, "expect").is_some() {
                peer.say("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = peer.exactly(field(&head, "content-length").unwrap().parse().unwrap()).unwrap();
            peer.say(answer(&body));
        }
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say("POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.say("hello");
    assert_eq!(client.answer().unwrap().body, "hello");
    client.say(post("/", "", "again"));
    assert_eq!(client.answer().unwrap().body, "again");
}

#[test]
fn an_early_answer_ends_both_connections() {
    let backend = Backend::start(|mut peer| {
        peer.head();
        peer.say("HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\n\r\nmuch");
        thread::sleep(Duration::from_secs(5));
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say("POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 1000000\r\n\r\nsome");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
    client.say(get("/smuggled", ""));
    assert_eq!(client.rest(), "");
    ask(world.http, get("/after", "Connection: close\r\n"));
    assert_eq!(backend.connections.load(SeqCst), 2, "never used again");
}

#[test]
fn interim_answers_pass_to_those_who_know_them() {
    let backend =
        Backend::fixed("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say(get("/", ""));
    assert_eq!(client.head().unwrap(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "ok");
    assert_eq!(ask(world.http, "GET / HTTP/1.0\r\nHost: www.example\r\n\r\n").status, 200);
}

#[test]
fn an_answer_is_passed_on_while_it_comes() {
    let backend = Backend::start(|mut peer| {
        peer.request();
        peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        // The second part only when the first is with the client, which then asks for it.
        peer.head();
        peer.say("6\r\nsecond\r\n0\r\n\r\n");
    });
    let world = World::with(&[&backend.address]);
    let mut client = Client::connect(world.http);
    client.say("POST / HTTP/1.1\r\nHost: www.example\r\nContent-Length: 0\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.exactly(10).unwrap(), "5\r\nfirst\r\n");
}
