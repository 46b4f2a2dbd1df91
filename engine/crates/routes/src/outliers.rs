//! Who does worse than the others: members that are compared, not counted. (Failures in a row are `target.rs`.)
//!
//! Looked at once a second from outside the path of requests. Success rates as Envoy compares them: below the mean of the group
//! by so many standard deviations. Latencies: above the median of the group by a factor.

use std::{collections::HashMap, sync::Arc};

use crate::{Ejected, Group, Outlier, Service, Table, Target, group::Member, load::Window};

/// With fewer that can be compared, a mean says nothing.
const COMPARED_MIN: usize = 3;
/// Success rates that differ by less are alike, however small the deviation is.
const RATE_APART: f64 = 0.05;
/// The least time between two comparisons.
const INTERVAL_MS_MIN: u32 = 1_000;

/// Of one engine, from look to look.
#[derive(Debug, Default)]
pub struct Outliers {
    /// When each service was compared last.
    compared_ms: HashMap<Arc<str>, u64>,
}

impl Outliers {
    /// To be called about once a second. Takes members out, gives which, for how long and why; and lets the limits that follow
    /// the latency follow it. Looks at groups of services only for which something is set.
    pub fn look(&mut self, table: &Table, now_ms: u64) -> Vec<(Arc<Target>, Ejected, String)> {
        let mut ejected = Vec::new();
        if table.services.is_empty() {
            self.compared_ms.clear();
            return ejected;
        }
        self.compared_ms.retain(|name, _| table.services.contains_key(name));
        let mut due: HashMap<Arc<str>, Outlier> = HashMap::new();
        for (name, settings) in &table.services {
            let service: Arc<Service> = table.shared.services.get(name);
            service.adapt(settings);
            let rules = settings.outlier;
            let last = *self.compared_ms.entry(name.clone()).or_insert(now_ms);
            let any = rules.success_deviations_percent != 0 || rules.latency_factor_percent != 0;
            if any && now_ms.saturating_sub(last) >= u64::from(rules.interval_ms.max(INTERVAL_MS_MIN)) {
                self.compared_ms.insert(name.clone(), now_ms);
                due.insert(name.clone(), rules);
            }
        }
        if !due.is_empty() {
            for group in table.groups.values() {
                if let Some(rules) = due.get(&group.service) {
                    compare(group, rules, now_ms, &mut ejected);
                }
            }
        }
        ejected
    }
}

struct Row<'a> {
    member: &'a Member,
    rate: f64,
    latency_us: f64,
}

fn row_of(member: &Member, window: Window) -> Row<'_> {
    let requests = f64::from(window.requests);
    Row { member, rate: 1.0 - f64::from(window.failures) / requests, latency_us: window.latency_us as f64 / requests }
}

fn compare(group: &Group, rules: &Outlier, now_ms: u64, ejected: &mut Vec<(Arc<Target>, Ejected, String)>) {
    let rows: Vec<Row<'_>> = group
        .members
        .iter()
        .map(|member| (member, member.load.take_window()))
        .filter(|(_, window)| window.requests >= rules.requests_min.max(1))
        .map(|(member, window)| row_of(member, window))
        .collect();
    if rows.len() < COMPARED_MIN {
        return;
    }
    let out = group.members.iter().filter(|member| member.target.is_ejected(now_ms)).count();
    let most = group.members.len() * rules.ejected_percent_max.min(100) as usize / 100;
    let mut left = most.saturating_sub(out);
    // The worst first, as far as the cap allows.
    let mut worse: Vec<(f64, &Member, String)> = Vec::new();
    if rules.success_deviations_percent != 0 {
        let mean = rows.iter().map(|row| row.rate).sum::<f64>() / rows.len() as f64;
        let deviation = (rows.iter().map(|row| (row.rate - mean).powi(2)).sum::<f64>() / rows.len() as f64).sqrt();
        let least = mean - deviation * f64::from(rules.success_deviations_percent) / 100.0;
        for row in rows.iter().filter(|row| row.rate < least && row.rate < mean - RATE_APART) {
            let text = format!(
                "{:.0} % of its responses succeed; the average of all endpoints is {:.0} %",
                row.rate * 100.0,
                mean * 100.0
            );
            worse.push((2.0 - row.rate, row.member, text));
        }
    }
    if rules.latency_factor_percent != 0 {
        let mut latencies: Vec<f64> = rows.iter().map(|row| row.latency_us).collect();
        latencies.sort_by(f64::total_cmp);
        let median = latencies[(latencies.len() - 1) / 2];
        let most_us = median * f64::from(rules.latency_factor_percent) / 100.0;
        for row in rows.iter().filter(|row| row.latency_us > most_us && row.latency_us > 1_000.0) {
            let (own, all) = (row.latency_us / 1000.0, median / 1000.0);
            let text = format!("its latency is {own:.1} ms, the median of the others {all:.1} ms");
            worse.push((1.0 - median / row.latency_us, row.member, text));
        }
    }
    worse.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (_, member, reason) in worse {
        if left == 0 {
            break;
        }
        if let Some(for_long) = member.target.outdone(now_ms) {
            left -= 1;
            ejected.push((member.target.clone(), for_long, reason));
        }
    }
}
