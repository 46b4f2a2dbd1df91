//! Connections of control: what each is told first, and what it asks for.

use std::time::Duration;

use tokio::net::UnixStream;

use super::Engine;
use crate::{
    control::{
        session::{Arrival, Session},
        socket,
        stats::Sent,
    },
    convert,
    proto::{self, from_engine::Kind, to_engine},
};

impl Engine {
    pub(super) fn attach(&mut self, stream: UnixStream) {
        if !socket::may_control(&stream) {
            eprintln!("sdlb-engine: refused a connection to the control socket from a process of another user");
            return;
        }
        self.sessions += 1;
        self.sent = Sent::default();
        self.session = Some(Session::start(self.sessions, stream, self.arrivals.clone()));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.send(Kind::Attached(proto::Attached {
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            boot_id: self.boot_id.clone(),
            epoch: self.table.epoch(),
            routes: count(self.table.route_count()),
            members: count(self.table.member_count()),
            draining: convert::to_counts(self.draining.counts()),
            serving: self.listeners.any(),
            ending: self.shutdown.is_some(),
            answers_pings: true,
        }));
        let now_ms = self.now_ms();
        let out: Vec<_> = self.out.iter().filter(|(until, _)| *until > now_ms).cloned().collect();
        for (until, target) in out {
            self.send(Kind::TargetHealth(proto::TargetHealth {
                target: target.key().to_string(),
                ejected: true,
                for_ms: u32::try_from(until - now_ms).unwrap_or(u32::MAX),
                reason: "failed repeatedly before control attached".to_owned(),
            }));
        }
    }

    pub(super) fn send(&mut self, kind: Kind) {
        if self.session.as_ref().is_some_and(|session| !session.send(kind)) {
            eprintln!("sdlb-engine: closed the control connection because control does not read");
            self.session = None;
        }
    }

    pub(super) fn arrived(&mut self, arrival: Arrival) {
        if self.session.as_ref().is_none_or(|session| session.number != arrival.session) {
            return;
        }
        match arrival.message {
            Ok(Some(message)) => match message.kind {
                Some(to_engine::Kind::Configure(configure)) => self.configure(configure),
                Some(to_engine::Kind::Delta(delta)) => self.change(delta),
                Some(to_engine::Kind::Shutdown(shutdown)) => {
                    self.shut_down(Duration::from_millis(shutdown.deadline_ms.into()));
                }
                Some(to_engine::Kind::DrainClients(asked)) => {
                    self.drain_clients(Duration::from_millis(asked.deadline_ms.into()));
                }
                Some(to_engine::Kind::Cut(cut)) => self.cut(cut),
                Some(to_engine::Kind::Ping(proto::Ping {})) => self.send(Kind::Pong(proto::Pong {})),
                Some(to_engine::Kind::HandOver(asked)) => self.give_sockets(asked.path),
                Some(to_engine::Kind::Sites(sites)) => self.put_sites(sites),
                Some(to_engine::Kind::TicketKeys(keys)) => self.ticket_keys(&keys),
                Some(to_engine::Kind::Challenges(challenges)) => self.challenge(challenges),
                None => eprintln!(
                    "sdlb-engine: ignored a message from control of a kind that this version does not support"
                ),
            },
            Ok(None) => self.session = None,
            Err(error) => {
                eprintln!("sdlb-engine: control connection closed: {error}");
                self.session = None;
            }
        }
    }
}
