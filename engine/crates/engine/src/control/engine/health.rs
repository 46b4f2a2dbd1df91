//! Targets that were taken out, and when they are back.

use std::time::Duration;

use super::Engine;
use crate::{
    proto::{self, from_engine::Kind},
    worker::TargetEjected,
};

impl Engine {
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn target_ejected(&mut self, ejected: TargetEjected) {
        self.out.retain(|(_, target)| target.id() != ejected.target.id());
        self.out.push((self.now_ms() + u64::from(ejected.for_ms), ejected.target.clone()));
        self.send(Kind::TargetHealth(proto::TargetHealth {
            target: ejected.target.key().to_string(),
            ejected: true,
            for_ms: ejected.for_ms,
            reason: ejected.reason,
        }));
    }

    /// How long until the first ejected target is back.
    pub(super) fn next_back(&self) -> Option<Duration> {
        let first = self.out.iter().map(|(until, _)| *until).min()?;
        Some(Duration::from_millis(first.saturating_sub(self.now_ms())))
    }

    pub(super) fn report_back(&mut self) {
        let now_ms = self.now_ms();
        let back: Vec<_> = self.out.extract_if(.., |(until, _)| *until <= now_ms).collect();
        for (_, target) in back {
            self.send(Kind::TargetHealth(proto::TargetHealth {
                target: target.key().to_string(),
                ejected: false,
                for_ms: 0,
                reason: String::new(),
            }));
        }
    }
}
