//! What a worker does when there is much in use, or too much.

use std::{hint::black_box, rc::Weak};

use super::Level;
use crate::worker::Worker;

/// Connections at rest that are closed in one look.
const RESTS: usize = 16;

/// The allocator gives pages back to the system only when it is asked for large pieces.
const LARGE: usize = 8 << 20;

/// Looks whenever it is rung. Ends with the worker.
pub async fn run(worker: Weak<Worker>) {
    loop {
        let Some(memory) = worker.upgrade().map(|worker| worker.local.memory.clone()) else { return };
        memory.rung().await;
        let Some(worker) = worker.upgrade() else { return };
        relieve(&worker);
    }
}

fn relieve(worker: &Worker) {
    let memory = &worker.local.memory;
    let level = memory.level();
    if level != Level::Low || memory.pressure().is_tight() {
        worker.local.scratches.free();
        worker.local.pipes.borrow_mut().clear();
    }
    if memory.pressure().is_tight() {
        let ended = (0..RESTS).take_while(|_| worker.make_room()).count();
        worker.counters.memory_rests_ended_total.add_many(ended as u64);
    }
    if level == Level::Full {
        worker.counters.memory_ended_total.add_many(memory.end_worst() as u64);
    }
    drop(black_box(Vec::<u8>::with_capacity(LARGE)));
    memory.go_on();
}
