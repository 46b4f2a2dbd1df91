//! Looks at the memory of the process, for the workers and for control.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    counters::Counters,
    memory::{Level, Looks, Pressure, machine},
    proto,
};

/// Between two looks ...
const LOOK: Duration = Duration::from_millis(100);
/// ... while much is in use, or connections hold this part of the limit.
const LOOK_CLOSELY: Duration = Duration::from_millis(10);
const MUCH: usize = 4;
/// Control hears of the same level again after this time at the earliest.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Figures are rounded down to this: what moves by less is not worth a message a second.
const ROUND_BYTES: usize = 1 << 20;

/// The looks of one process.
pub struct Memory {
    pressure: Arc<Pressure>,
    looks: Looks,
    level: Level,
    /// When control was last told of each level.
    told: [Option<Instant>; 2],
}

impl Memory {
    /// With the limit that holds unless one is set.
    #[must_use]
    pub fn new(pressure: Arc<Pressure>) -> Self {
        pressure.set_limit(machine::default_limit());
        Self { pressure, looks: Looks::default(), level: Level::Low, told: [None; 2] }
    }

    /// `None`: a part of what the machine has.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.pressure.set_limit(limit.unwrap_or_else(machine::default_limit));
    }

    /// How long until the next look.
    #[must_use]
    pub fn next(&self) -> Duration {
        let quiet = self.level == Level::Low && self.pressure.held() < self.pressure.limit() / MUCH;
        if quiet { LOOK } else { LOOK_CLOSELY }
    }

    /// A look. Gives what control is to be told.
    pub fn look(&mut self, counters: &Counters, now: Instant) -> Option<proto::MemoryShort> {
        let resident = machine::resident();
        let level = self.looks.look(&self.pressure, resident, counters.connections_open.get());
        let (limit, held) = (self.pressure.limit(), self.pressure.held());
        let rounded = |bytes: usize| (bytes / ROUND_BYTES * ROUND_BYTES) as u64;
        counters.memory_limit_bytes.set(limit as u64);
        counters.memory_resident_bytes.set(rounded(resident));
        counters.memory_held_bytes.set(rounded(held));
        // It may have been full and not be any more since the last look.
        let filled = self.pressure.was_full();
        let level = if filled { Level::Full } else { level };
        let before = std::mem::replace(&mut self.level, level);
        if level <= before {
            return None;
        }
        if before == Level::Low {
            counters.memory_high_total.add();
        }
        if level == Level::Full {
            counters.memory_full_total.add();
        }
        let told = &mut self.told[usize::from(level == Level::Full)];
        if told.is_some_and(|told| now.saturating_duration_since(told) < TELL_AGAIN) {
            return None;
        }
        *told = Some(now);
        Some(proto::MemoryShort {
            full: level == Level::Full,
            limit_bytes: limit as u64,
            resident_bytes: resident as u64,
            held_bytes: held as u64,
        })
    }
}
