//! What becomes of requests in flight: deleted members, shutting down, the access log. Real engine, real HTTP.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use sdlb_engine::proto::{self, from_engine, to_engine};
use support::{
    Control, Engine, PATIENCE, entry,
    http::{Backend, Client},
    instance, member, member_key, node, route,
};

const PATTERN: &str = "*/*";

/// An engine with one route to one member, behind an entry and a node listener.
fn engine_with(backend: &Backend) -> (Engine, Control, SocketAddr, SocketAddr) {
    let engine = Engine::start();
    let (mut control, _) = engine.attach();
    let bound = control.listen(vec![entry("http", "127.0.0.1:0"), node("node", "127.0.0.1:0")]).unwrap();
    let address = |key: &str| bound.iter().find(|(held, _)| held == key).unwrap().1;
    let delta = proto::Delta {
        put_targets: vec![instance("i:1", backend.address)],
        put_members: vec![member(key())],
        put_routes: vec![route(PATTERN, "catalog", &["1.0.1"])],
        ..Default::default()
    };
    control.apply(delta).unwrap();
    (engine, control, address("http"), address("node"))
}

fn key() -> proto::MemberKey {
    member_key("catalog", "1.0.1", PATTERN, "i:1")
}

fn delete() -> proto::Delta {
    proto::Delta {
        delete_members: vec![key()],
        delete_targets: vec!["i:1".into()],
        delete_routes: vec![PATTERN.into()],
        ..Default::default()
    }
}

#[test]
fn a_deleted_member_is_drained_when_its_last_answer_is_through() {
    let backend = Backend::start();
    for stamped in [false, true] {
        let (engine, mut control, http, node) = engine_with(&backend);
        let mut client = match stamped {
            false => Client::send(http, ""),
            true => Client::send(node, &format!("sdlb-to: catalog/1.0.1 {PATTERN}\r\n")),
        };
        backend.arrived();
        let epoch = control.apply(delete()).unwrap();
        let progress = control.until(|kind| match kind {
            from_engine::Kind::InFlight(progress) => Some(progress.draining),
            from_engine::Kind::Drained(drained) => panic!("{drained:?} while a request is in flight"),
            _ => None,
        });
        let counts = vec![proto::MemberCount { key: Some(key()), in_flight: 1 }];
        assert_eq!(progress, counts);
        // Control that comes back learns of it.
        drop(control);
        let (mut control, attached) = engine.attach();
        assert_eq!(attached.draining, counts);
        assert_eq!((attached.members, attached.routes), (0, 0));
        backend.answer();
        let (head, body) = client.answer();
        assert!(head[0].starts_with("http/1.1 200") && body == "hello", "{head:?}");
        assert_eq!(control.drained(), proto::Drained { key: Some(key()), epoch });
    }
}

#[test]
fn a_member_put_again_meanwhile_is_not_reported() {
    let backend = Backend::start();
    let (_engine, mut control, http, _) = engine_with(&backend);
    let mut client = Client::send(http, "");
    backend.arrived();
    control.apply(delete()).unwrap();
    let again = proto::Delta {
        put_targets: vec![instance("i:1", backend.address)],
        put_members: vec![member(key())],
        put_routes: vec![route(PATTERN, "catalog", &["1.0.1"])],
        ..Default::default()
    };
    control.apply(again).unwrap();
    backend.answer();
    client.answer();
    // Deleted for good now: the first report is of this epoch.
    let epoch = control.apply(delete()).unwrap();
    assert_eq!(control.drained().epoch, epoch);
}

#[test]
fn shutting_down_answers_what_is_in_flight_and_takes_nothing_new() {
    for by_signal in [true, false] {
        let backend = Backend::start();
        let (mut engine, mut control, http, _) = engine_with(&backend);
        let mut idle = Client::send(http, "");
        backend.arrived();
        backend.answer();
        idle.answer();
        let mut busy = Client::send(http, "");
        backend.arrived();
        if by_signal {
            engine.signal("-TERM");
        } else {
            control.send(to_engine::Kind::Shutdown(proto::Shutdown { deadline_ms: 20_000 }));
        }
        assert!(idle.ended(), "an idle connection is closed");
        let refused = Instant::now() + PATIENCE;
        while TcpStream::connect(http).is_ok() {
            assert!(Instant::now() < refused, "it still accepts");
            thread::sleep(Duration::from_millis(5));
        }
        backend.answer();
        let (head, body) = busy.answer();
        assert!(head[0].starts_with("http/1.1 200") && body == "hello");
        assert!(head.contains(&"connection: close".to_owned()), "{head:?}");
        assert!(busy.ended());
        assert_eq!(engine.wait(), Some(0));
    }
}

#[test]
fn who_speaks_again_while_it_shuts_down_is_answered() {
    let backend = Backend::start();
    let (mut engine, _control, http, node) = engine_with(&backend);
    let stamp = format!("sdlb-to: catalog/1.0.1 {PATTERN}\r\n");
    let mut clients = [(http, ""), (node, &*stamp)].map(|(address, extra)| {
        let mut client = Client::send(address, extra);
        backend.arrived();
        backend.answer();
        client.answer();
        client
    });
    engine.signal("-TERM");
    // It has been told by now, and takes nothing new.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(http).is_ok() {
        assert!(Instant::now() < deadline, "it still accepts");
        thread::sleep(Duration::from_millis(5));
    }
    for (client, extra) in clients.iter_mut().zip(["", &stamp]) {
        client.again(extra);
        backend.arrived();
        backend.answer();
        let (head, body) = client.answer();
        assert!(head[0].contains("200") && body == "hello", "{head:?}");
        assert!(head.contains(&"connection: close".to_owned()), "{head:?}");
    }
    assert_eq!(engine.wait(), Some(0));
}

#[test]
fn the_deadline_ends_what_does_not_end_by_itself() {
    let backend = Backend::start();
    let (mut engine, mut control, http, _) = engine_with(&backend);
    let mut client = Client::send(http, "");
    backend.arrived();
    control.send(to_engine::Kind::Shutdown(proto::Shutdown { deadline_ms: 200 }));
    assert_eq!(engine.wait(), Some(0));
    assert!(client.ended());
}

#[test]
fn the_access_log_is_json_lines_and_is_reopened_on_sighup() {
    let backend = Backend::start();
    let (mut engine, mut control, http, _) = engine_with(&backend);
    let path = engine.folder.join("access.log");
    let configure = |enabled| {
        to_engine::Kind::Configure(proto::Configure {
            node: "edge-1".into(),
            listeners: vec![entry("http", http)],
            access_log: Some(proto::AccessLog { enabled, path: path.to_str().unwrap().into() }),
            ..Default::default()
        })
    };
    control.send(configure(true));
    assert_eq!(control.configured().error, "");
    let request = || {
        let mut client = Client::send(http, "");
        backend.arrived();
        backend.answer();
        client.answer();
    };
    let lines = |path: &std::path::Path, number: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= number {
                return text;
            }
            assert!(Instant::now() < deadline, "{number} lines in {path:?}: {text:?}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    request();
    let text = lines(&path, 1);
    assert!(text.ends_with("}\n") && text.starts_with('{') && text.contains("catalog"), "{text:?}");
    let moved = engine.folder.join("access.log.1");
    std::fs::rename(&path, &moved).unwrap();
    engine.signal("-HUP");
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "the log is not opened anew");
        thread::sleep(Duration::from_millis(10));
    }
    request();
    lines(&path, 1);
    assert_eq!(lines(&moved, 1).lines().count(), 1);
    // What was gathered is written at the end.
    request();
    control.send(to_engine::Kind::Shutdown(proto::Shutdown { deadline_ms: 5_000 }));
    assert_eq!(engine.wait(), Some(0));
    lines(&path, 2);
}

#[test]
fn requests_are_counted_for_their_version_and_target() {
    let backend = Backend::start();
    let (_engine, mut control, http, _) = engine_with(&backend);
    for _ in 0..3 {
        let mut client = Client::send(http, "");
        backend.arrived();
        backend.answer();
        client.answer();
    }
    let (mut groups, mut targets) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while !groups.iter().any(|row: &proto::GroupStats| row.requests == 3) {
        assert!(Instant::now() < deadline, "{groups:?}");
        let stats = control.until(|kind| match kind {
            from_engine::Kind::Stats(stats) => Some(stats),
            _ => None,
        });
        groups.extend(stats.groups);
        targets.extend(stats.targets);
    }
    let row = groups.last().unwrap();
    assert_eq!((row.service.as_str(), row.version.as_str()), ("catalog", "1.0.1"));
    assert_eq!((row.status_2xx, row.failed, row.retries), (3, 0, 0));
    assert_eq!(row.latency_buckets.iter().sum::<u64>(), 3);
    let row = targets.last().unwrap();
    assert_eq!((row.target.as_str(), row.requests, row.in_flight), ("i:1", 3, 0));
}
