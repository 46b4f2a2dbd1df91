//! Which rows of the statistics changed since they were last sent.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sdlb_routes::{Shared, Table, VersionCounters, VersionSnapshot};

use crate::{convert, counters::Counters, proto};

/// Rows of one message; more go into further ones.
const ROWS_MAX: usize = 10_000;

/// What one session was sent.
#[derive(Default)]
pub struct Sent {
    /// All that was counted before this session has been.
    begun: bool,
    /// Versions that were looked at the last time, and what was seen: they are looked at once more (`changed_versions`).
    again: Vec<(Arc<VersionCounters>, VersionSnapshot)>,
    targets: HashMap<Arc<str>, proto::TargetStats>,
    counters: HashMap<&'static str, u64>,
}

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
            let kept: HashSet<_> = table.targets().map(|target| target.key().clone()).collect();
            self.targets.retain(|key, _| kept.contains(key));
        }
        for (name, value) in counters.values() {
            if self.counters.insert(name, value).unwrap_or(0) != value {
                changed.counters.push(proto::Counter { name: name.to_owned(), value });
            }
        }
        self.versions(shared, &mut changed.groups);
        in_messages(changed)
    }

    fn versions(&mut self, shared: &Shared, rows: &mut Vec<proto::GroupStats>) {
        let mut row = |version: &VersionCounters, counted: &VersionSnapshot| {
            let (service, name) = version.name();
            rows.push(convert::to_group_stats(service, name, counted));
        };
        let mut changed = shared.changed_versions();
        if !std::mem::replace(&mut self.begun, true) {
            changed = shared.versions();
            changed.retain(|version| version.snapshot() != VersionSnapshot::default());
        }
        let new: HashSet<_> = changed.iter().map(Arc::as_ptr).collect();
        for (version, before) in std::mem::take(&mut self.again) {
            let counted = version.snapshot();
            if counted != before && !new.contains(&Arc::as_ptr(&version)) {
                row(&version, &counted);
            }
        }
        self.again = changed.into_iter().map(|version| (version.clone(), version.snapshot())).collect();
        for (version, counted) in &self.again {
            row(version, counted);
        }
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

#[cfg(test)]
mod tests {
    use std::thread;

    use sdlb_routes::{Delta, Draining, MemberKey, MemberPut, TargetKind, TargetPut};

    use super::*;

    const VERSIONS: usize = 40;

    fn world() -> (Arc<Shared>, Table) {
        let shared = Shared::new(|| {});
        let target = TargetPut {
            key: "i:1".into(),
            kind: TargetKind::Instance,
            address: sdlb_routes::Address::parse("127.0.0.1:1").expect("an address"),
            protocol: sdlb_routes::Protocol::Http1,
        };
        let key = |number: usize| MemberKey {
            service: format!("s{number}").into(),
            version: "1".into(),
            pattern: format!("h/{number}/*").into(),
            target: "i:1".into(),
        };
        let put_members =
            (0..VERSIONS).map(|number| MemberPut { key: key(number), capacity: 1, last_resort: false, far: false });
        let delta =
            Delta { epoch: 1, put_targets: vec![target], put_members: put_members.collect(), ..Delta::default() };
        let table = Table::new(shared.clone()).apply(&delta, &mut Draining::default()).expect("a table");
        (shared, table)
    }

    fn of(table: &Table, number: usize) -> Arc<VersionCounters> {
        let stamp = format!("s{number}/1 h/{number}/*");
        table.stamped(stamp.as_bytes()).expect("a group").counters().clone()
    }

    fn take(sent: &mut Sent, shared: &Shared, table: &Table, seen: &mut HashMap<String, u64>) -> usize {
        let messages = sent.changes(shared, table, &Counters::default());
        let rows: Vec<_> = messages.into_iter().flat_map(|stats| stats.groups).collect();
        for row in &rows {
            let before = seen.insert(row.service.clone(), row.requests).unwrap_or(0);
            assert!(row.requests >= before, "a counter went back");
        }
        rows.len()
    }

    #[test]
    fn only_what_has_changed_is_told_and_a_new_session_is_told_all() {
        let (shared, table) = world();
        let (mut sent, mut seen) = (Sent::default(), HashMap::new());
        assert_eq!(take(&mut sent, &shared, &table, &mut seen), 0);
        of(&table, 3).finished(200, 5);
        of(&table, 3).finished(200, 5);
        of(&table, 9).parked();
        assert_eq!(take(&mut sent, &shared, &table, &mut seen), 2);
        assert_eq!(take(&mut sent, &shared, &table, &mut seen), 0, "looked at once more, and nothing new");
        of(&table, 3).finished(200, 5);
        assert_eq!(take(&mut sent, &shared, &table, &mut seen), 1);
        assert_eq!(seen["s3"], 3);
        let (mut another, mut seen) = (Sent::default(), HashMap::new());
        assert_eq!(take(&mut another, &shared, &table, &mut seen), 2);
        assert_eq!((seen["s3"], seen["s9"]), (3, 0));
    }

    #[test]
    fn nothing_is_lost_that_is_counted_while_it_is_read() {
        const EACH: usize = 50_000;
        let (shared, table) = world();
        let (mut sent, mut seen) = (Sent::default(), HashMap::new());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|worker| {
                    let table = &table;
                    scope.spawn(move || {
                        let counters: Vec<_> = (0..VERSIONS).map(|number| of(table, number)).collect();
                        for turn in 0..EACH {
                            counters[(turn * 7 + worker) % VERSIONS].finished(200, 1);
                        }
                    })
                })
                .collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                take(&mut sent, &shared, &table, &mut seen);
            }
        });
        for _ in 0..2 {
            take(&mut sent, &shared, &table, &mut seen);
        }
        assert_eq!(seen.values().sum::<u64>(), 3 * EACH as u64);
    }
}
