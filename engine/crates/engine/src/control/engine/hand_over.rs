//! Listening sockets for the engine that takes over, and connections at rest from the one before.

use super::Engine;
use crate::{
    listen::{handover, idle},
    proto::{self, from_engine::Kind},
    workers::Command,
};

impl Engine {
    /// A connection at rest of the engine before. `None`: no more will come.
    pub(super) fn inherit(&mut self, passed: Option<idle::Passed>) {
        let Some(passed) = passed else {
            self.before = None;
            return;
        };
        let worker = passed.worker(self.workers.len(), self.inherited);
        self.inherited += 1;
        if let Some(inherited) = idle::Inherited::new(passed, &self.table) {
            self.workers[worker].tell(Command::Inherit(inherited));
        }
    }

    /// On a thread of its own: the other engine may take its time.
    pub(super) fn give_sockets(&mut self, path: String) {
        let failed = |error: String| proto::HandedOver { sockets: 0, error };
        if self.shutdown.is_some() {
            return self.send(Kind::HandedOver(failed("the engine is shutting down".to_owned())));
        }
        let passed = match self.listeners.copies() {
            Ok(passed) => passed,
            Err(error) => return self.send(Kind::HandedOver(failed(format!("listening sockets: {error}")))),
        };
        let answers = self.hand_over.clone();
        let sender = std::thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            let outcome = handover::send(path.as_ref(), &passed);
            let sockets = u32::try_from(passed.len()).unwrap_or(u32::MAX);
            // The receiver lives as long as the engine.
            let _ = answers.send(match outcome {
                Ok(next) => (proto::HandedOver { sockets, ..Default::default() }, Some(next)),
                Err(error) => (failed(format!("{path}: {error}")), None),
            });
        });
        if let Err(error) = sender {
            self.send(Kind::HandedOver(failed(format!("no thread: {error}"))));
        }
    }
}

/// The next connection of the engine before.
pub(super) async fn next_of(before: Option<&idle::Taker>) -> Option<idle::Passed> {
    before?.next().await
}
