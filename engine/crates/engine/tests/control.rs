//! What control and the engine say to each other, on a real engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixListener,
    time::Duration,
};

use sdlb_engine::proto::{self, from_engine, to_engine};
use support::{Control, Engine, PATIENCE, command, entry, instance, member, member_key, node, route};

fn connects(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
}

#[test]
fn the_command_line_names_its_mistakes_in_one_line() {
    let (code, out, _) = command(&["--version"]);
    assert_eq!((code, out), (Some(0), format!("sdlb-engine {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(command(&["--help"]).1.contains("--socket PATH"));
    for arguments in [&["--socket"][..], &["--sokcet", "/x"], &["--socket", "/x", "--workers", "no"], &[]] {
        let (code, out, error) = command(arguments);
        assert_eq!((code, out.as_str(), error.lines().count()), (Some(2), "", 1), "{arguments:?}: {error}");
    }
    let (code, _, error) = command(&["--socket", "/proc/none/e.sock"]);
    assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("/proc/none/e.sock"));
}

#[test]
fn one_engine_a_socket() {
    let mut first = Engine::start();
    let path = first.socket();
    let (mut control, _) = first.attach();
    let (code, _, error) = command(&["--socket", path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(error.contains("another engine listens"), "{error}");
    assert_eq!(control.apply(proto::Delta::default()), Ok(1), "the one that runs keeps its control");
    // Killed, it leaves its file behind, which is no obstacle.
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    assert!(path.exists());
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_sdlb-engine")).arg("--socket").arg(&path).spawn();
    first.process = second.unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(&path).is_err() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(first.attach().1.epoch, 0);
}

#[test]
fn listeners_change_as_a_whole_or_not_at_all() {
    let engine = Engine::start();
    let (mut control, attached) = engine.attach();
    assert_eq!((attached.epoch, attached.pid), (0, engine.process.id()));
    let bound = control.listen(vec![entry("http", "127.0.0.1:0"), entry("other", "127.0.0.1:0")]).unwrap();
    let address = |key: &str| bound.iter().find(|(held, _)| held == key).unwrap().1;
    let (http, other) = (address("http"), address("other"));
    assert!(http.port() != 0 && connects(http) && connects(other));

    // One that can't be bound leaves everything as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    for (bad, told) in [
        (entry("third", taken), "in use"),
        (entry("third", "nonsense"), "expected IP:port"),
        (entry("http", "127.0.0.1:0"), "two listeners have the key"),
        (entry("", "127.0.0.1:0"), "no key"),
    ] {
        let error = control.listen(vec![entry("http", http), bad]).unwrap_err();
        assert!(error.contains(told), "{error:?} does not say {told:?}");
        assert!(connects(http) && connects(other));
    }
    drop(holder);
    let configure = |node: &str, path: &str| proto::Configure {
        node: node.into(),
        access_log: Some(proto::AccessLog { enabled: true, path: path.into() }),
        ..Default::default()
    };
    for (configure, told) in
        [(configure("edge-1", "/none/access.log"), "/none/access.log"), (configure("a b", "/tmp/x"), "node name")]
    {
        control.send(to_engine::Kind::Configure(configure));
        assert!(control.configured().error.contains(told));
        assert!(connects(http) && connects(other));
    }

    // The same address is kept, named by the port it got or as it was asked for; what is not named is closed.
    assert_eq!(control.listen(vec![entry("http", "127.0.0.1:0")]).unwrap(), [("http".to_owned(), http)]);
    assert!(connects(http) && !connects(other));
    assert_eq!(control.listen(vec![node("renamed", http)]).unwrap(), [("renamed".to_owned(), http)]);
    assert!(connects(http));
}

#[test]
fn two_engines_do_not_share_a_port_by_mistake() {
    let (one, other) = (Engine::start(), Engine::start());
    let bound = one.attach().0.listen(vec![entry("http", "127.0.0.1:0")]).unwrap();
    let error = other.attach().0.listen(vec![entry("http", bound[0].1)]).unwrap_err();
    assert!(error.contains("in use"), "{error}");
}

#[test]
fn deltas_are_applied_or_refused_and_deleted_members_drain() {
    let engine = Engine::start();
    let (mut control, attached) = engine.attach();
    let key = |target: &str| member_key("catalog", "1.0.1", "example.com/catalog*", target);
    let delta = proto::Delta {
        epoch: 7,
        replace: true,
        put_targets: vec![instance("i:1", "127.0.0.1:8001"), instance("i:2", "unix:/tmp/x.sock")],
        put_members: vec![member(key("i:1")), member(key("i:2"))],
        put_routes: vec![route("example.com/catalog*", "catalog", &["1.0.1"])],
        ..Default::default()
    };
    assert_eq!(control.apply(delta.clone()), Ok(7));
    for (bad, told) in [
        (proto::Delta { epoch: 7, ..Default::default() }, "epoch 7"),
        (proto::Delta { put_members: vec![member(key("i:9"))], ..Default::default() }, "unknown"),
        (
            proto::Delta {
                put_members: vec![proto::Member { capacity: 1, ..Default::default() }],
                ..Default::default()
            },
            "no key",
        ),
        (proto::Delta { put_routes: vec![route("Example.com/", "s", &[])], ..Default::default() }, "lower case"),
        (proto::Delta { delete_targets: vec!["i:1".into()], ..Default::default() }, "has 1 members"),
    ] {
        let refused = control.apply(bad).unwrap_err();
        assert!(refused.contains(told), "{refused:?} does not say {told:?}");
    }
    let target = |kind: i32| proto::Target { kind, ..instance("i:3", "127.0.0.1:1") };
    for (bad, told) in [
        (
            instance("i:3", "localhost:80"),
            "put_targets[1]: target \"i:3\": address \"localhost:80\": \
             expected IP:port, [IPv6]:port or unix:/path; names are not resolved",
        ),
        (
            instance("i:3", "[::1]:0"),
            "put_targets[1]: target \"i:3\": address \"[::1]:0\": expected a port from 1 to 65535",
        ),
        (
            instance("i:3", "unix:relative.sock"),
            "put_targets[1]: target \"i:3\": address \"unix:relative.sock\": \
             expected unix: and an absolute path of at most 107 bytes",
        ),
        (instance("", ""), "put_targets[1]: target \"\": address \"\": expected IP:port"),
        (instance("", "127.0.0.1:1"), "target \"\" at 127.0.0.1:1: target is empty"),
        (target(7), "put_targets[1]: target \"i:3\": kind 7 is not supported in this version"),
    ] {
        let put_targets = vec![instance("i:4", "127.0.0.1:8004"), bad];
        let refused = control.apply(proto::Delta { put_targets, ..Default::default() }).unwrap_err();
        assert!(refused.starts_with(told), "{refused:?} does not say {told:?}");
    }
    let bad = proto::Delta { put_members: vec![member(member_key("a b", "1", "/*", "i:1"))], ..Default::default() };
    let refused = control.apply(bad).unwrap_err();
    assert!(refused.starts_with("member \"i:1\" of a b/1 \"/*\": service \"a b\" contains a space"), "{refused}");
    let bad = proto::Delta { put_members: vec![member(key("i:4"))], ..Default::default() };
    assert!(control.apply(bad).unwrap_err().contains("unknown"), "no part of a refused delta was applied");
    // Right behind `Applied`: nothing was in flight. A member that never was is as good as drained.
    let delta = proto::Delta { delete_members: vec![key("i:2"), key("i:5")], ..Default::default() };
    let epoch = control.apply(delta).unwrap();
    for target in ["i:2", "i:5"] {
        assert_eq!(control.drained(), proto::Drained { key: Some(key(target)), epoch });
    }
    drop(control);

    // Control comes back to what it left.
    let (mut control, again) = engine.attach();
    assert_eq!((again.epoch, again.routes, again.members), (epoch, 1, 1));
    assert_eq!(again.boot_id, attached.boot_id);
    assert_eq!(again.draining, []);
    let late = control.apply(proto::Delta { epoch: epoch + 1, replace: true, ..Default::default() });
    assert_eq!(late, Ok(epoch + 1));
    assert_eq!(control.drained().key, Some(key("i:1")));
}

#[test]
fn a_newer_control_replaces_the_older_and_bad_frames_end_only_their_own() {
    let engine = Engine::start();
    let (mut first, _) = engine.attach();
    let address = first.listen(vec![entry("http", "127.0.0.1:0")]).unwrap()[0].1;
    let (mut second, _) = engine.attach();
    first.closed();
    assert_eq!(second.apply(proto::Delta::default()), Ok(1));
    for garbage in [&[0xff, 0xff, 0xff, 0xff][..], &[0x01, 0x00, 0x00, 0x01], &[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]] {
        let (mut control, _) = engine.attach();
        control.stream.write_all(garbage).unwrap();
        control.closed();
    }
    // Half a frame is waited for, and gone with its connection.
    let (mut control, _) = engine.attach();
    control.stream.write_all(&[0, 0, 1, 0, 1]).unwrap();
    drop(control);
    assert!(connects(address), "it serves on");
    assert_eq!(engine.attach().1.epoch, 1);
}

#[test]
fn control_streams_on_a_node_listener_reach_control_untouched() {
    let engine = Engine::start();
    let (mut control, _) = engine.attach();
    let inner = engine.folder.join("control.sock");
    let listener = UnixListener::bind(&inner).unwrap();
    control.send(to_engine::Kind::Configure(proto::Configure {
        node: "edge-1".into(),
        listeners: vec![node("node", "127.0.0.1:0")],
        control_socket: inner.to_str().unwrap().into(),
        ..Default::default()
    }));
    let address = control.configured().listeners[0].address.clone();

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut child = TcpStream::connect(&address).unwrap();
    child.set_read_timeout(Some(PATIENCE)).unwrap();
    // In pieces, as slow links bring it.
    for piece in PREFACE.chunks(3) {
        child.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let (mut parent, _) = listener.accept().unwrap();
    let mut seen = [0; PREFACE.len()];
    parent.read_exact(&mut seen).unwrap();
    assert_eq!(seen, PREFACE);
    let payload: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    let sent = payload.clone();
    let writer = std::thread::spawn(move || {
        parent.write_all(&sent).unwrap();
        parent
    });
    let mut received = vec![0; payload.len()];
    child.read_exact(&mut received).unwrap();
    assert!(received == payload);
    drop(child);
    let mut parent = writer.join().unwrap();
    assert_eq!(parent.read(&mut seen).unwrap(), 0, "the end of one side is the end of the other");

    // Without control the child is turned away and may try again.
    drop((parent, listener));
    std::fs::remove_file(&inner).unwrap();
    let mut child = TcpStream::connect(&address).unwrap();
    child.set_read_timeout(Some(PATIENCE)).unwrap();
    child.write_all(PREFACE).unwrap();
    assert!(matches!(child.read(&mut seen), Ok(0) | Err(_)));
}

#[test]
fn an_idle_engine_ends_at_once_when_told_to() {
    for by_signal in [true, false] {
        let mut engine = Engine::start();
        let (mut control, _) = engine.attach();
        let address = control.listen(vec![entry("http", "127.0.0.1:0")]).unwrap()[0].1;
        if by_signal {
            engine.signal("-TERM");
        } else {
            control.send(to_engine::Kind::Shutdown(proto::Shutdown { deadline_ms: 10_000 }));
        }
        assert_eq!(engine.wait(), Some(0));
        assert!(!connects(address) && !engine.socket().exists());
        control.closed();
    }
}

#[test]
fn statistics_tell_what_changed_and_nothing_else() {
    let engine = Engine::start();
    let (mut control, _) = engine.attach();
    let address = control.listen(vec![entry("http", "127.0.0.1:0")]).unwrap()[0].1;
    assert!(connects(address));
    let counters = control.until(|kind| match kind {
        from_engine::Kind::Stats(stats) if !stats.counters.is_empty() => Some(stats),
        _ => None,
    });
    assert!(counters.counters.iter().any(|row| row.name == "connections_total" && row.value == 1), "{counters:?}");
    assert!(counters.groups.is_empty() && counters.targets.is_empty());
}

#[test]
fn a_control_that_does_not_read_holds_nothing_up() {
    let engine = Engine::start();
    let mut silent = Control::connect(&engine.socket());
    // Answers pile up until the engine gives up on it.
    let refused = sdlb_engine::frame::encode(&proto::ToEngine {
        kind: Some(to_engine::Kind::Delta(proto::Delta { epoch: 0, ..Default::default() })),
    });
    silent.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let many = refused.repeat(1000);
    for _ in 0..200 {
        if silent.stream.write_all(&many).is_err() {
            break;
        }
    }
    assert_eq!(engine.attach().0.apply(proto::Delta::default()), Ok(1));
}

#[test]
fn workers_that_stood_still_are_reported() {
    let engine = Engine::start();
    let (mut control, _) = engine.attach();
    // Both run by now.
    assert_eq!(control.apply(proto::Delta::default()), Ok(1));
    engine.signal("-STOP");
    // Longer than between two looks at the clock, so that one falls into it.
    std::thread::sleep(Duration::from_millis(1_500));
    engine.signal("-CONT");
    let mut missing = vec![0, 1];
    while !missing.is_empty() {
        let stalled = control.until(|kind| match kind {
            from_engine::Kind::Stalled(stalled) => Some(stalled),
            _ => None,
        });
        assert!((50..30_000).contains(&stalled.for_ms), "{stalled:?}");
        missing.retain(|worker| *worker != stalled.worker);
    }
}
