//! The end: what is open is finished, until a deadline.

use std::time::{Duration, Instant};

use super::{Engine, TICK};
use crate::{
    listen::idle,
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

    pub(super) fn is_over(&self, deadline: Instant) -> bool {
        (self.closing.1 == 0 && self.counters.connections_open.get() == 0) || Instant::now() >= deadline
    }

    /// Last statistics and log lines.
    pub(super) async fn finish(&mut self) {
        let left = self.counters.connections_open.get();
        if left > 0 {
            eprintln!("sdlb-engine: the deadline has passed; {left} connections are cut off");
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
