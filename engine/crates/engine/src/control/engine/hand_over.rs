//! Listening sockets for the engine that takes over.

use super::Engine;
use crate::{
    listen::handover,
    proto::{self, from_engine::Kind},
};

impl Engine {
    /// On a thread of its own: the other engine may take its time.
    pub(super) fn give_sockets(&mut self, path: String) {
        let failed = |error: String| proto::HandedOver { sockets: 0, error };
        if self.shutdown.is_some() {
            return self.send(Kind::HandedOver(failed("the engine shuts down".to_owned())));
        }
        let passed = match self.listeners.copies() {
            Ok(passed) => passed,
            Err(error) => return self.send(Kind::HandedOver(failed(format!("listening sockets: {error}")))),
        };
        let answers = self.hand_over.clone();
        let sender = std::thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            let outcome = handover::send(path.as_ref(), &passed);
            // The receiver lives as long as the engine.
            let _ = answers.send(match outcome {
                Ok(()) => {
                    proto::HandedOver { sockets: u32::try_from(passed.len()).unwrap_or(u32::MAX), ..Default::default() }
                }
                Err(error) => failed(format!("{path}: {error}")),
            });
        });
        if let Err(error) = sender {
            self.send(Kind::HandedOver(failed(format!("no thread: {error}"))));
        }
    }
}
