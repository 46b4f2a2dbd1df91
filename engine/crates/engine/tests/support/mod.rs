//! A running engine and a control client, for tests. Real process, real sockets.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod http;

use std::{
    fs,
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use prost::Message;
use sdlb_engine::{
    frame,
    proto::{self, FromEngine, ToEngine, from_engine, listener, target, to_engine},
};

/// Nothing in these tests takes that long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An engine process; killed when dropped.
pub struct Engine {
    pub process: Child,
    pub folder: PathBuf,
}

impl Engine {
    /// Starts one with two workers and waits for its control socket.
    pub fn start() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("sdlb-engine-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let engine = Self { process: spawn(&folder.join("engine.sock")), folder };
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(engine.socket()).is_err() {
            assert!(Instant::now() < deadline, "the engine did not open its socket");
            thread::sleep(Duration::from_millis(10));
        }
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("engine.sock")
    }

    /// A control connection; its first message has been read.
    pub fn attach(&self) -> (Control, proto::Attached) {
        let mut control = Control::connect(&self.socket());
        match control.receive().expect("attached") {
            from_engine::Kind::Attached(attached) => (control, attached),
            other => panic!("the first message is {other:?}"),
        }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Waits for the process to end; gives its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the engine did not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(socket: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sdlb-engine"))
        .arg("--socket")
        .arg(socket)
        .args(["--workers", "2"])
        .stdin(Stdio::null())
        .spawn()
        .expect("the engine starts")
}

/// Runs the engine's command line to its end: exit code, standard output, standard error.
pub fn command(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sdlb-engine")).args(arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A control client.
pub struct Control {
    pub stream: UnixStream,
    epoch: u64,
}

impl Control {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out set");
        Self { stream, epoch: 0 }
    }

    pub fn send(&mut self, kind: to_engine::Kind) {
        self.stream.write_all(&frame::encode(&ToEngine { kind: Some(kind) })).expect("sent");
    }

    /// The next message. An error when the engine closed.
    pub fn receive(&mut self) -> io::Result<from_engine::Kind> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(FromEngine::decode(&body[..]).expect("decodes").kind.expect("of a known kind"))
    }

    /// The first message for which `choose` gives something; others are passed over.
    pub fn until<T>(&mut self, choose: impl Fn(from_engine::Kind) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the message did not come");
            if let Some(chosen) = choose(self.receive().expect("a message")) {
                return chosen;
            }
        }
    }

    pub fn configured(&mut self) -> proto::Configured {
        self.until(|kind| match kind {
            from_engine::Kind::Configured(configured) => Some(configured),
            _ => None,
        })
    }

    /// Configures listeners by key and address; gives where each is bound.
    pub fn listen(&mut self, listeners: Vec<proto::Listener>) -> Result<Vec<(String, SocketAddr)>, String> {
        self.send(to_engine::Kind::Configure(proto::Configure {
            node: "edge-1".into(),
            listeners,
            ..Default::default()
        }));
        let configured = self.configured();
        if !configured.error.is_empty() {
            return Err(configured.error);
        }
        let bound = |bound: proto::configured::Bound| (bound.key, bound.address.parse().expect("an address"));
        Ok(configured.listeners.into_iter().map(bound).collect())
    }

    /// Sends a delta under the next epoch; gives the epoch, or why it was refused.
    pub fn apply(&mut self, mut delta: proto::Delta) -> Result<u64, String> {
        if delta.epoch == 0 {
            delta.epoch = self.epoch + 1;
        }
        self.epoch = delta.epoch;
        self.send(to_engine::Kind::Delta(delta));
        self.until(|kind| match kind {
            from_engine::Kind::Applied(applied) => Some(Ok(applied.epoch)),
            from_engine::Kind::Rejected(rejected) => Some(Err(rejected.reason)),
            _ => None,
        })
    }

    pub fn drained(&mut self) -> proto::Drained {
        self.until(|kind| match kind {
            from_engine::Kind::Drained(drained) => Some(drained),
            _ => None,
        })
    }

    /// Waits until the engine closes this connection.
    pub fn closed(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.receive().is_ok() {
            assert!(Instant::now() < deadline, "the engine keeps the connection");
        }
    }
}

pub fn entry(key: &str, address: impl ToString) -> proto::Listener {
    proto::Listener {
        key: key.into(),
        address: address.to_string(),
        kind: listener::Kind::Entry.into(),
        ..Default::default()
    }
}

pub fn node(key: &str, address: impl ToString) -> proto::Listener {
    proto::Listener { kind: listener::Kind::Node.into(), ..entry(key, address) }
}

pub fn instance(key: &str, address: impl ToString) -> proto::Target {
    proto::Target {
        key: key.into(),
        kind: target::Kind::Instance.into(),
        address: address.to_string(),
        ..Default::default()
    }
}

pub fn member_key(service: &str, version: &str, pattern: &str, target: &str) -> proto::MemberKey {
    proto::MemberKey {
        service: service.into(),
        version: version.into(),
        pattern: pattern.into(),
        target: target.into(),
    }
}

pub fn member(key: proto::MemberKey) -> proto::Member {
    proto::Member { key: Some(key), capacity: 100, last_resort: false, far: false }
}

pub fn route(pattern: &str, service: &str, versions: &[&str]) -> proto::Route {
    let pick = |version: &&str| proto::Pick { version: (*version).into(), tier: 0, weight: 0, ends_sessions: false };
    proto::Route {
        pattern: pattern.into(),
        service: service.into(),
        picks: versions.iter().map(pick).collect(),
        ..Default::default()
    }
}
