//! The whole table: what it holds, and look-ups. `apply.rs` makes the next one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    Delta, Draining, Group, MemberKey, Refused, Route, Settings, Target, VersionCounters, apply, counters::Registry,
    paths::Paths, service::Services,
};

/// What all tables of one engine share: the counters, and the bell that rings when a draining member has nothing in
/// flight any more.
pub struct Shared {
    drained: Box<dyn Fn() + Send + Sync>,
    pub(crate) versions: Registry,
    pub(crate) services: Services,
    pub(crate) next_target_id: AtomicU64,
    /// No target is ejected any more from here on, on the engine's clock.
    ejected_until_ms: AtomicU64,
}

impl Shared {
    /// `drained` is called, on any thread, each time the last request of a draining member ends. It must not block.
    #[must_use]
    pub fn new(drained: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            drained: Box::new(drained),
            versions: Registry::default(),
            services: Services::default(),
            next_target_id: 0.into(),
            ejected_until_ms: 0.into(),
        })
    }

    /// The counters of every service version that was ever configured.
    #[must_use]
    pub fn versions(&self) -> Vec<Arc<VersionCounters>> {
        self.versions.all()
    }

    /// Those that something was counted for since the last call. What is counted while this runs may be seen in a snapshot
    /// only a moment later, without being told again: look at each of them once more after the next call.
    #[must_use]
    pub fn changed_versions(&self) -> Vec<Arc<VersionCounters>> {
        self.versions.changed()
    }

    pub(crate) fn none_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms.load(Relaxed) <= now_ms
    }

    pub(crate) fn ejected_until(&self, ends_ms: u64) {
        self.ejected_until_ms.fetch_max(ends_ms, Relaxed);
    }

    pub(crate) fn ring(&self) {
        (self.drained)();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

/// The routes under one host.
pub(crate) type HostPaths = Arc<Paths<Arc<Route>>>;

/// An immutable routing table. A clone is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) shared: Arc<Shared>,
    pub(crate) epoch: u64,
    pub(crate) exact_hosts: imbl::HashMap<Arc<str>, HostPaths>,
    /// By the part behind `*.`.
    pub(crate) wildcard_hosts: imbl::HashMap<Arc<str>, HostPaths>,
    pub(crate) any_host: HostPaths,
    /// By pattern, as control wrote it.
    pub(crate) routes: imbl::HashMap<Arc<str>, Arc<Route>>,
    /// By stamp. A group without members is not here.
    pub(crate) groups: imbl::HashMap<Arc<str>, Arc<Group>>,
    pub(crate) targets: imbl::HashMap<Arc<str>, TargetEntry>,
    pub(crate) members: usize,
    /// Services for which something is set.
    pub(crate) services: imbl::HashMap<Arc<str>, Arc<Settings>>,
}

/// A target and how many members it has.
#[derive(Debug, Clone)]
pub(crate) struct TargetEntry {
    pub(crate) target: Arc<Target>,
    pub(crate) members: usize,
}

impl Table {
    /// The table of a fresh engine: epoch 0, nothing in it.
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            epoch: 0,
            exact_hosts: imbl::HashMap::new(),
            wildcard_hosts: imbl::HashMap::new(),
            any_host: Arc::default(),
            routes: imbl::HashMap::new(),
            groups: imbl::HashMap::new(),
            targets: imbl::HashMap::new(),
            members: 0,
            services: imbl::HashMap::new(),
        }
    }

    /// The last delta applied; 0: none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many routes.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// How many members, over all groups.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members
    }

    /// All targets, in no order.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.targets.values().map(|entry| &entry.target)
    }

    /// The one with this key.
    #[must_use]
    pub fn target(&self, key: &str) -> Option<&Arc<Target>> {
        self.targets.get(key).map(|entry| &entry.target)
    }

    /// Whether this target may get requests by this table; one that was deleted and put again is another.
    #[must_use]
    pub fn has(&self, target: &Arc<Target>) -> bool {
        self.targets.get(target.key()).is_some_and(|entry| Arc::ptr_eq(&entry.target, target))
    }

    /// The most specific route that takes the whole request: exact host, then the longest wildcard, then `*`; under each,
    /// the exact path, then the longest prefix. `host`: canonical (lower case, no port, no dot at the end); `path`:
    /// canonical, without query. `None`: no claim matches.
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        let path = path.as_bytes();
        if let Some(route) = self.exact_hosts.get(host).and_then(|paths| paths.find(path)) {
            return Some(route);
        }
        self.wildcards(host).find_map(|paths| paths.find(path)).or_else(|| self.any_host.find(path))
    }

    /// Whether any path of this host is claimed: decides between 404 and 421.
    #[must_use]
    pub fn serves_host(&self, host: &str) -> bool {
        self.exact_hosts.contains_key(host) || self.wildcards(host).next().is_some() || !self.any_host.is_empty()
    }

    /// The wildcards that take `host`, longest first.
    fn wildcards(&self, host: &str) -> impl Iterator<Item = &HostPaths> {
        // Without any wildcard nothing is looked up; a host has at most 127 labels.
        let labels = if self.wildcard_hosts.is_empty() { "" } else { host };
        labels
            .match_indices('.')
            .filter(|(dot, _)| *dot > 0)
            .filter_map(|(dot, _)| self.wildcard_hosts.get(&labels[dot + 1..]))
    }

    /// The route of exactly this pattern, as control wrote it.
    #[must_use]
    pub fn route_of(&self, pattern: &str) -> Option<&Arc<Route>> {
        self.routes.get(pattern)
    }

    /// The group of a stamped request: `stamp` is the value of `sdlb-to`, `service/version pattern`. `None`: not here.
    #[must_use]
    pub fn stamped(&self, stamp: &[u8]) -> Option<&Arc<Group>> {
        self.groups.get(std::str::from_utf8(stamp).ok()?)
    }

    /// Requests in flight to this member have to end, or only its streams; those that begin later do not. Gives whether it is
    /// there, or drains.
    pub fn cut(&self, draining: &Draining, key: &MemberKey, now_ms: u64, streams_only: bool) -> bool {
        let stamp = format!("{}/{} {}", key.service, key.version, key.pattern);
        let group = self.groups.get(stamp.as_str());
        let there = group.and_then(|group| group.members.iter().find(|member| member.key == *key));
        let found = there.or_else(|| draining.get(key));
        found.into_iter().for_each(|member| member.load.cut(now_ms, streams_only));
        found.is_some()
    }

    /// The next table. What was deleted goes into `draining`, what is put again comes out of it.
    ///
    /// # Errors
    /// [`Refused`]: nothing was changed, neither here nor in `draining`.
    pub fn apply(&self, delta: &Delta, draining: &mut Draining) -> Result<Self, Refused> {
        apply::apply(self, delta, draining)
    }
}
