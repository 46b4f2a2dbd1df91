//! The table of routes: changed here, taken over by the workers, told when all of them have it.

use std::sync::Arc;

use sdlb_routes::Refused;

use super::Engine;
use crate::{
    convert,
    proto::{self, from_engine::Kind},
    workers::{Command, Event},
};

impl Engine {
    pub(super) fn change(&mut self, delta: proto::Delta) {
        let epoch = delta.epoch;
        let next = convert::delta(delta).and_then(|delta| self.table.apply(&delta, &mut self.draining));
        match next {
            Ok(table) => {
                self.table = Arc::new(table);
                self.applying.push_back(epoch);
                self.tables.send_replace(self.table.clone());
            }
            Err(Refused(reason)) => self.send(Kind::Rejected(proto::Rejected { epoch, reason })),
        }
    }

    /// Ends requests in flight, also those to members that are still in the table.
    pub(super) fn cut(&mut self, cut: proto::Cut) {
        let now_ms = self.now_ms();
        let mut any = false;
        for key in cut.members.into_iter().map(convert::member_key) {
            any |= self.table.cut(&self.draining, &key, now_ms, cut.streams_only);
        }
        if any {
            self.workers.iter().for_each(|worker| worker.tell(Command::Cut));
        }
    }

    pub(super) fn worker_event(&mut self, event: Event) {
        match event {
            Event::Applied { worker, epoch, old } => {
                drop(old);
                self.applied[worker] = epoch;
                let applied = self.applied_by_all();
                while let Some(epoch) = self.applying.pop_front_if(|epoch| *epoch <= applied) {
                    self.send(Kind::Applied(proto::Applied { epoch }));
                }
                self.report_drained();
            }
            Event::Done(number) => self.worker_done(number),
            Event::Turned { worker } => self.asked[worker] = None,
            Event::Late { worker, by } => self.report_stall(worker, by),
        }
    }

    pub(super) fn applied_by_all(&self) -> u64 {
        self.applied.iter().copied().min().unwrap_or(0)
    }

    pub(super) fn report_drained(&mut self) {
        for (key, epoch) in self.draining.take_drained(self.applied_by_all()) {
            self.send(Kind::Drained(proto::Drained { key: Some(convert::to_key(&key)), epoch }));
        }
    }
}
