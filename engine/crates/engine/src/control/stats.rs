//! Which rows of the statistics changed since they were last sent.

use std::{collections::HashMap, sync::Arc};

use sdlb_routes::{Shared, Table, VersionSnapshot};

use crate::{convert, counters::Counters, proto};

/// Rows of one message; more go into further ones.
const ROWS_MAX: usize = 10_000;

/// What one session was sent.
#[derive(Default)]
pub struct Sent {
    groups: HashMap<(Arc<str>, Arc<str>), VersionSnapshot>,
    targets: HashMap<Arc<str>, proto::TargetStats>,
    counters: HashMap<&'static str, u64>,
    /// Calls since there was any sign of traffic.
    quiet: u32,
}

/// The versions, of which there may be many, are looked through only while there are signs of traffic, and so often more:
/// a request may be counted for its version a moment after everything else.
const QUIET_MAX: u32 = 3;

impl Sent {
    /// The rows that changed, as messages; none when nothing did.
    pub fn changes(&mut self, shared: &Shared, table: &Table, counters: &Counters) -> Vec<proto::Stats> {
        let mut changed = proto::Stats::default();
        let mut named = 0;
        for target in table.targets() {
            named += 1;
            let row = convert::to_target_stats(target.key(), &target.counters);
            let nothing = || proto::TargetStats { target: row.target.clone(), ..Default::default() };
            if self.targets.get(target.key()).map_or_else(|| row != nothing(), |sent| *sent != row) {
                changed.targets.push(row.clone());
                self.targets.insert(target.key().clone(), row);
            }
        }
        if self.targets.len() > named {
            let kept: std::collections::HashSet<_> = table.targets().map(|target| target.key().clone()).collect();
            self.targets.retain(|key, _| kept.contains(key));
        }
        for (name, value) in counters.values() {
            if self.counters.insert(name, value).unwrap_or(0) != value {
                changed.counters.push(proto::Counter { name: name.to_owned(), value });
            }
        }
        // Whatever counts for a version also moves a counter of the engine or a gauge of a target.
        let quiet = changed.counters.is_empty() && changed.targets.is_empty();
        self.quiet = if quiet { self.quiet.saturating_add(1) } else { 0 };
        if self.quiet < QUIET_MAX {
            shared.for_each_version(|service, version, counted| {
                let counted = counted.snapshot();
                let key = (service.clone(), version.clone());
                if self.groups.get(&key).map_or(counted != VersionSnapshot::default(), |sent| *sent != counted) {
                    changed.groups.push(convert::to_group_stats(service, version, &counted));
                    self.groups.insert(key, counted);
                }
            });
        }
        in_messages(changed)
    }
}

fn in_messages(mut changed: proto::Stats) -> Vec<proto::Stats> {
    let mut messages = Vec::new();
    while changed.groups.len() + changed.targets.len() + changed.counters.len() > 0 {
        let take = |length: usize| length.saturating_sub(ROWS_MAX);
        messages.push(proto::Stats {
            groups: changed.groups.split_off(take(changed.groups.len())),
            targets: changed.targets.split_off(take(changed.targets.len())),
            counters: std::mem::take(&mut changed.counters),
        });
    }
    messages
}
