//! The end: what is open is finished, until a deadline.

use std::time::{Duration, Instant};

use super::{Engine, TICK};
use crate::{
    listen::idle,
    proto::{self, from_engine::Kind},
    workers::{Command, Event},
};

impl Engine {
    /// The nearest deadline counts when asked twice; a second signal ends at once.
    pub(super) fn shut_down(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        if self.shutdown.is_none() {
            self.listeners.let_go();
            self.before = None;
            let way = self.next.take().and_then(|next| idle::Way::open(next, self.workers.len(), within));
            self.done_number += 1;
            self.closing = (self.done_number, self.workers.len());
            for worker in &self.workers {
                worker.tell(Command::Drain(way.clone()));
                worker.tell(Command::Done(self.done_number));
            }
        }
        self.shutdown = Some(self.shutdown.map_or(deadline, |held| held.min(deadline)));
    }

    /// Clients first: the node goes on for those above and below it.
    pub(super) fn drain_clients(&mut self, within: Duration) {
        let closed = self.listeners.let_go_of_clients();
        self.done_number += 1;
        self.closing = (self.done_number, self.workers.len());
        for worker in &self.workers {
            closed.iter().for_each(|bound| worker.tell(Command::Close(*bound)));
            worker.tell(Command::DrainClients);
            worker.tell(Command::Done(self.done_number));
        }
        self.parting = Some(Instant::now() + within);
    }

    /// Tells control when the last client has gone, or the time is up.
    pub(super) fn look_at_clients(&mut self) {
        let open = self.counters.connections_of_clients.get();
        let gone = self.closing.1 == 0 && open == 0;
        if self.parting.take_if(|until| gone || Instant::now() >= *until).is_some() {
            let left = u32::try_from(open).unwrap_or(u32::MAX);
            self.send(Kind::ClientsDrained(proto::ClientsDrained { left }));
        }
    }

    pub(super) fn is_over(&self, deadline: Instant) -> bool {
        (self.closing.1 == 0 && self.counters.connections_open.get() == 0) || Instant::now() >= deadline
    }

    /// Last statistics and log lines.
    pub(super) async fn finish(&mut self) {
        let left = self.counters.connections_open.get();
        if left > 0 {
            eprintln!("sdlb-engine: the drain deadline has passed; closing {left} connections");
        }
        self.done_number += 1;
        let mut waiting = self.workers.len();
        self.workers.iter().for_each(|worker| worker.tell(Command::Done(self.done_number)));
        let _ = tokio::time::timeout(TICK, async {
            while waiting > 0 {
                match self.worker_events.recv().await {
                    Some(Event::Done(number)) if number == self.done_number => waiting -= 1,
                    Some(_) => {}
                    None => break,
                }
            }
        })
        .await;
        self.access_log.flush();
        self.report_drained();
        self.tick();
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }
}
