//! Engines with routes and members, wired as control would.

use std::net::SocketAddr;

use sdlb_engine::proto::{self, to_engine};

use super::support::{Control, Engine, entry, instance, member, member_key, node, route};

pub const PATTERN: &str = "www.example/*";
pub const STAMP: &str = "sdlb-to: web/1.0.0 www.example/*\r\n";

/// An engine with an entry and a node listener.
pub struct World {
    pub engine: Engine,
    pub control: Control,
    pub http: SocketAddr,
    pub node: SocketAddr,
}

impl World {
    pub fn named(name: &str, limits: proto::Limits, public: bool) -> Self {
        let engine = Engine::start();
        let (mut control, _) = engine.attach();
        let listeners = vec![proto::Listener { public, ..entry("http", "127.0.0.1:0") }, node("node", "127.0.0.1:0")];
        control.send(to_engine::Kind::Configure(proto::Configure {
            node: name.into(),
            listeners,
            limits: Some(limits),
            ..Default::default()
        }));
        let configured = control.configured();
        assert_eq!(configured.error, "");
        let bound = |key: &str| {
            let found = configured.listeners.iter().find(|bound| bound.key == key);
            found.map(|bound| bound.address.parse().unwrap()).unwrap()
        };
        Self { http: bound("http"), node: bound("node"), engine, control }
    }

    pub fn new() -> Self {
        Self::named("edge-1", proto::Limits::default(), true)
    }

    /// One version of one service on endpoints at these addresses, named `i:0`, `i:1`, ...
    pub fn with(addresses: &[&str]) -> Self {
        Self::new().serving(addresses)
    }

    pub fn serving(mut self, addresses: &[&str]) -> Self {
        let targets = addresses.iter().enumerate().map(|(n, address)| instance(&format!("i:{n}"), address)).collect();
        self.put(targets, Some(route(PATTERN, "web", &["1.0.0"])));
        self
    }

    /// Members of version 1.0.0 on these targets.
    pub fn put(&mut self, targets: Vec<proto::Target>, route: Option<proto::Route>) {
        let members = targets.iter().map(|target| member(key(&target.key))).collect();
        let delta = proto::Delta {
            put_targets: targets,
            put_members: members,
            put_routes: route.into_iter().collect(),
            ..Default::default()
        };
        self.control.apply(delta).unwrap();
    }

    /// Takes these members away.
    pub fn delete(&mut self, targets: &[&str]) {
        let delete_members = targets.iter().map(|target| key(target)).collect();
        self.control.apply(proto::Delta { delete_members, ..Default::default() }).unwrap();
    }

    /// The value of a named counter once it is at least one.
    pub fn counted(&mut self, name: &str) -> u64 {
        self.control.until(|kind| match kind {
            proto::from_engine::Kind::Stats(stats) => stats
                .counters
                .iter()
                .find(|counter| counter.name == name && counter.value > 0)
                .map(|counter| counter.value),
            _ => None,
        })
    }
}

pub fn key(target: &str) -> proto::MemberKey {
    member_key("web", "1.0.0", PATTERN, target)
}

/// A child node as a target.
pub fn child(name: &str, address: impl ToString) -> proto::Target {
    proto::Target { kind: proto::target::Kind::Node.into(), ..instance(&format!("n:{name}"), address) }
}

pub fn parking(timeout_ms: u32, requests_max: u32) -> proto::Route {
    proto::Route { park: Some(proto::Park { requests_max, timeout_ms }), ..route(PATTERN, "web", &["1.0.0"]) }
}
