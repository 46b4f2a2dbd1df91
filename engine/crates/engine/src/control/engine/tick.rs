//! What is looked at and told once a second, and the looks at memory.

use std::time::{Duration, Instant};

use super::Engine;
use crate::{
    convert,
    proto::{self, from_engine::Kind},
    worker::TargetEjected,
    workers::{self, Command},
};

impl Engine {
    pub(super) fn tick(&mut self) {
        if self.unconfirmed.take_if(|until| Instant::now() >= *until).is_some() {
            eprintln!("sdlb-engine: control did not complete the hot restart; exiting");
            self.shut_down(Duration::ZERO);
        }
        // One that stands still now is reported from here; one that did so, by itself.
        for worker in 0..self.workers.len() {
            match self.asked[worker] {
                Some(asked) => self.report_stall(worker, asked.elapsed()),
                None => {
                    self.asked[worker] = Some(Instant::now());
                    self.workers[worker].tell(Command::Turn);
                }
            }
        }
        let now_ms = self.now_ms();
        for (target, ejected, reason) in self.outliers.look(&self.table, now_ms) {
            self.counters.outliers_total.add();
            self.target_ejected(TargetEjected { target, for_ms: ejected.for_ms, reason });
        }
        if self.session.is_none() {
            return;
        }
        if !self.draining.is_empty() {
            let draining = convert::to_counts(self.draining.counts());
            self.send(Kind::InFlight(proto::InFlight { draining }));
        }
        for stats in self.sent.changes(&self.shared, &self.table, &self.counters) {
            self.send(Kind::Stats(stats));
        }
    }

    pub(super) fn look_at_memory(&mut self) {
        let Some(short) = self.memory.look(&self.counters, Instant::now()) else { return };
        let mib = |bytes: u64| bytes >> 20;
        let (level, limit) = (if short.full { "80 %" } else { "65 %" }, mib(short.limit_bytes));
        let (resident, held) = (mib(short.resident_bytes), mib(short.held_bytes));
        eprintln!(
            "sdlb-engine: memory pressure, above {level} of {limit} MiB: {resident} resident, {held} held by connections"
        );
        self.send(Kind::MemoryShort(short));
    }

    pub(super) fn report_stall(&mut self, worker: usize, after: Duration) {
        if after >= workers::STALL {
            let number = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
            self.send(Kind::Stalled(proto::Stalled {
                worker: number(worker as u128),
                for_ms: number(after.as_millis()),
            }));
        }
    }
}
