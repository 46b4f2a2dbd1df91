//! From one table to the next.
//!
//! Everything is checked and built on a copy (which shares all that the delta does not touch) before anything that lives
//! longer than a table is changed: a refused delta leaves no trace. The cost is that of the delta: each touched group,
//! route, target and the way to it is rebuilt, nothing else is visited, unless `replace` is set.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use smallvec::SmallVec;

use crate::{
    Address, Delta, Draining, Group, HostPattern, Member, MemberKey, MemberPut, PathPattern, Pattern, Pick, Protocol,
    Refused, Route, RoutePut, Sequence, Settings, Table, Target,
    chance::session,
    hash,
    load::Load,
    names::check,
    paths::{Kind, Paths},
    route::Ahead,
    table::{HostPaths, TargetEntry},
};

/// Most versions of one route.
const PICKS_MAX: usize = 64;

/// What becomes of one member. `None`: deleted.
type GroupEdit<'a> = BTreeMap<Arc<str>, Option<&'a MemberPut>>;

struct Step<'a> {
    next: Table,
    draining: &'a Draining,
    /// Carried out at the end.
    addresses: Vec<(Arc<Target>, Address, Protocol)>,
    revived: Vec<MemberKey>,
    deleted: Vec<(MemberKey, Option<Arc<Member>>)>,
    services: Vec<(Arc<str>, Option<Arc<Settings>>)>,
}

pub(crate) fn apply(table: &Table, delta: &Delta, draining: &mut Draining) -> Result<Table, Refused> {
    if delta.epoch <= table.epoch {
        return Err(Refused(format!("epoch {} does not follow {}, the last one applied", delta.epoch, table.epoch)));
    }
    let mut step = Step {
        next: table.clone(),
        draining,
        addresses: Vec::new(),
        revived: Vec::new(),
        deleted: Vec::new(),
        services: Vec::new(),
    };
    step.next.epoch = delta.epoch;
    step.change_services(table, delta)?;
    step.put_targets(delta)?;
    let touched = step.change_members(table, delta)?;
    step.change_routes(table, delta, &touched)?;
    step.delete_targets(table, delta)?;

    // Nothing can fail from here on.
    let Step { next, addresses, revived, deleted, services, .. } = step;
    for (name, settings) in services {
        next.shared.services.get(&name).set(settings.as_ref());
    }
    for (target, address, protocol) in addresses {
        target.set_address(address, protocol);
    }
    for key in &revived {
        draining.remove(key);
    }
    for (key, member) in deleted {
        draining.add(key, member, delta.epoch);
    }
    Ok(next)
}

impl Step<'_> {
    fn change_services(&mut self, table: &Table, delta: &Delta) -> Result<(), Refused> {
        let mut gone: BTreeSet<Arc<str>> = delta.delete_services.iter().map(|name| name.as_str().into()).collect();
        if delta.replace {
            gone.extend(table.services.keys().cloned());
        }
        for put in &delta.put_services {
            check("service", &put.name, false)?;
            let name: Arc<str> = put.name.as_str().into();
            gone.remove(&name);
            if self.next.services.get(&name).is_some_and(|held| **held == put.settings) {
                continue;
            }
            let settings = Arc::new(put.settings.clone());
            self.next.services.insert(name.clone(), settings.clone());
            self.services.push((name, Some(settings)));
        }
        for name in gone {
            if self.next.services.remove(&name).is_some() {
                self.services.push((name, None));
            }
        }
        Ok(())
    }

    fn put_targets(&mut self, delta: &Delta) -> Result<(), Refused> {
        for put in &delta.put_targets {
            check("target", &put.key, true)
                .map_err(|refused| refused.at(format_args!("target {:?} at {}", put.key, put.address)))?;
            if let Some(entry) = self.next.targets.get(put.key.as_str()) {
                if entry.target.kind() != put.kind {
                    return Err(Refused(format!("target {:?} cannot change its kind", put.key)));
                }
                self.addresses.push((entry.target.clone(), put.address.clone(), put.protocol));
            } else {
                let key: Arc<str> = put.key.as_str().into();
                let id = self.next.shared.next_target_id.fetch_add(1, Relaxed);
                let (address, shared) = (put.address.clone(), self.next.shared.clone());
                let target = Arc::new(Target::new(key.clone(), put.kind, id, address, put.protocol, shared));
                self.next.targets.insert(key, TargetEntry { target, members: 0 });
            }
        }
        Ok(())
    }

    /// Rebuilds the touched groups. Gives their patterns.
    fn change_members(&mut self, table: &Table, delta: &Delta) -> Result<BTreeSet<Arc<str>>, Refused> {
        let mut edits: BTreeMap<(&str, &str, &str), GroupEdit<'_>> = BTreeMap::new();
        if delta.replace {
            for group in table.groups.values() {
                let edit = edits.entry((&group.service, &group.version, &group.pattern)).or_default();
                edit.extend(group.members.iter().map(|member| (member.key.target.clone(), None)));
            }
        }
        let named: BTreeSet<&str> = delta.put_targets.iter().map(|put| put.key.as_str()).collect();
        for put in &delta.put_members {
            let key = &put.key;
            check_key(key).map_err(|refused| refused.at(format_args!("member {}", describe(key))))?;
            if put.capacity == 0 {
                return Err(Refused(format!("member {}: the capacity must be at least 1", describe(key))));
            }
            if !self.next.targets.contains_key(&key.target) || (delta.replace && !named.contains(&*key.target)) {
                return Err(Refused(format!("member {}: its target is unknown", describe(key))));
            }
            edits.entry((&key.service, &key.version, &key.pattern)).or_default().insert(key.target.clone(), Some(put));
        }
        for key in &delta.delete_members {
            edits.entry((&key.service, &key.version, &key.pattern)).or_default().insert(key.target.clone(), None);
        }
        let mut touched = BTreeSet::new();
        for ((service, version, pattern), edit) in edits {
            touched.insert(self.rebuild_group(service, version, pattern, edit));
        }
        Ok(touched)
    }

    fn rebuild_group(&mut self, service: &str, version: &str, pattern: &str, edit: GroupEdit<'_>) -> Arc<str> {
        let stamp: Arc<str> = format!("{service}/{version} {pattern}").into();
        let old = self.next.groups.get(&stamp).cloned();
        let empty = match &old {
            Some(group) => emptied(group),
            None => self.empty_group(&service.into(), &version.into(), &pattern.into(), stamp),
        };
        let (mut kept, mut gone) = (Vec::new(), BTreeMap::new());
        for member in old.iter().flat_map(|group| &group.members) {
            match edit.get(&member.key.target) {
                None => kept.push(member.clone()),
                Some(_) => drop(gone.insert(member.key.target.clone(), member.clone())),
            }
        }
        for (target, put) in edit {
            let held = gone.remove(&target);
            let key = MemberKey {
                service: empty.service.clone(),
                version: empty.version.clone(),
                pattern: empty.pattern.clone(),
                target,
            };
            match put {
                Some(put) => kept.extend(self.put_member(key, put, held)),
                None => self.delete_member(key, held),
            }
        }
        kept.sort_by(|one, other| (one.last_resort, &one.key.target).cmp(&(other.last_resort, &other.key.target)));
        let pattern = empty.pattern.clone();
        if kept.is_empty() {
            self.next.groups.remove(&empty.stamp);
        } else {
            let ordinary = kept.partition_point(|member| !member.last_resort);
            let ordinary_capacity = kept[..ordinary].iter().map(|member| u64::from(member.capacity)).sum();
            let any_far = kept.iter().any(|member| member.far);
            let since = self.next.epoch;
            let group = Group { members: kept.into(), ordinary, ordinary_capacity, any_far, since, ..empty };
            self.next.groups.insert(group.stamp.clone(), Arc::new(group));
        }
        pattern
    }

    /// `None` only for a target that went missing, which was checked before.
    fn put_member(&mut self, key: MemberKey, put: &MemberPut, held: Option<Arc<Member>>) -> Option<Arc<Member>> {
        let entry = self.next.targets.get(&key.target)?;
        let target = entry.target.clone();
        let load = match held {
            Some(member)
                if (member.capacity, member.last_resort, member.far) == (put.capacity, put.last_resort, put.far) =>
            {
                return Some(member);
            }
            Some(member) => member.load.clone(),
            None => {
                self.count_member(&key.target, true);
                self.draining
                    .get(&key)
                    .map_or_else(|| Arc::new(Load::new(self.next.shared.clone())), |member| member.load.clone())
            }
        };
        // Also when it was deleted and nothing by its name was there: then it must not be reported as drained.
        self.revived.push(key.clone());
        let key = MemberKey { target: target.key().clone(), ..key };
        let place = hash(key.target.as_bytes());
        let MemberPut { capacity, last_resort, far, .. } = *put;
        Some(Arc::new(Member { key, capacity, last_resort, far, place, target, load }))
    }

    fn delete_member(&mut self, key: MemberKey, held: Option<Arc<Member>>) {
        if held.is_some() {
            self.count_member(&key.target, false);
        }
        self.deleted.push((key, held));
    }

    fn count_member(&mut self, target: &Arc<str>, added: bool) {
        let step = |count: usize| if added { count + 1 } else { count.saturating_sub(1) };
        self.next.members = step(self.next.members);
        if let Some(entry) = self.next.targets.get_mut(target) {
            entry.members = step(entry.members);
        }
    }

    fn empty_group(&self, service: &Arc<str>, version: &Arc<str>, pattern: &Arc<str>, stamp: Arc<str>) -> Group {
        Group {
            service: service.clone(),
            version: version.clone(),
            session: session(service, version),
            pattern: pattern.clone(),
            stamp,
            members: SmallVec::new(),
            ordinary: 0,
            any_far: false,
            ordinary_capacity: 0,
            counters: self.next.shared.versions.get(service, version),
            terms: self.next.shared.services.get(service),
            sequence: Arc::default(),
            since: self.next.epoch,
        }
    }

    fn change_routes(&mut self, table: &Table, delta: &Delta, touched: &BTreeSet<Arc<str>>) -> Result<(), Refused> {
        let mut deleted: BTreeSet<&str> = delta.delete_routes.iter().map(String::as_str).collect();
        let mut puts: BTreeMap<&str, &RoutePut> = BTreeMap::new();
        for put in &delta.put_routes {
            check_route(put)?;
            puts.insert(&put.pattern, put);
        }
        puts.retain(|pattern, _| !deleted.contains(pattern));
        if delta.replace {
            deleted.extend(table.routes.keys().map(|pattern| &**pattern).filter(|pattern| !puts.contains_key(pattern)));
        }
        for pattern in deleted {
            // A pattern that is not there is as good as deleted.
            if self.next.routes.remove(pattern).is_some() {
                let parsed = Pattern::parse(pattern)?;
                self.change_paths(&parsed.host, |paths, kind, text| drop(paths.remove(kind, text)), &parsed.path);
            }
        }
        for pattern in touched {
            let Some(route) = self.next.routes.get(pattern).filter(|_| !puts.contains_key(&**pattern)).cloned() else {
                continue;
            };
            let service = route.service.clone();
            let mut renewed = Route::clone(&route);
            for pick in &mut renewed.picks {
                pick.group = self.group(&service, &pick.version, pattern);
            }
            renewed.ahead = Ahead::of(&renewed.picks);
            renewed.since = self.next.epoch;
            self.put_route(renewed, &Pattern::parse(pattern)?)?;
        }
        for (pattern, put) in puts {
            let route = self.build_route(put);
            self.put_route(route, &Pattern::parse(pattern)?)?;
        }
        Ok(())
    }

    fn build_route(&self, put: &RoutePut) -> Route {
        let old = self.next.routes.get(put.pattern.as_str());
        let pattern = old.map_or_else(|| put.pattern.as_str().into(), |route| route.pattern.clone());
        let service: Arc<str> = put.service.as_str().into();
        let pick = |pick: &crate::PickPut| {
            let version: Arc<str> = pick.version.as_str().into();
            let group = self.group(&service, &version, &pattern);
            Pick { version, tier: pick.tier, weight: pick.weight, group, ends_sessions: pick.ends_sessions }
        };
        let mut picks: SmallVec<[Pick; 1]> = put.picks.iter().map(pick).collect();
        picks.sort_by(|one, other| (one.tier, &one.version).cmp(&(other.tier, &other.version)));
        Route {
            ahead: Ahead::of(&picks),
            picks,
            park: put.park,
            sticky: put.sticky.clone(),
            terms: self.next.shared.services.get(&service),
            unserved: self.next.shared.versions.get(&service, &"".into()),
            sequence: old.map_or_else(|| Arc::new(Sequence::default()), |route| route.sequence.clone()),
            parked: old.map_or_else(Arc::default, |route| route.parked.clone()),
            since: self.next.epoch,
            pattern,
            service,
        }
    }

    fn group(&self, service: &Arc<str>, version: &Arc<str>, pattern: &Arc<str>) -> Arc<Group> {
        let stamp = format!("{service}/{version} {pattern}");
        match self.next.groups.get(stamp.as_str()) {
            Some(group) => group.clone(),
            None => Arc::new(self.empty_group(service, version, pattern, stamp.into())),
        }
    }

    fn put_route(&mut self, route: Route, pattern: &Pattern) -> Result<(), Refused> {
        let route = Arc::new(route);
        let mut other = None;
        self.change_paths(
            &pattern.host,
            |paths, kind, text| other = paths.insert(kind, text, route.clone()),
            &pattern.path,
        );
        // Two texts of one meaning would hide each other.
        if let Some(other) = other.filter(|other| other.pattern != route.pattern) {
            return Err(Refused(format!("pattern {:?} means the same as {:?}", route.pattern, other.pattern)));
        }
        self.next.routes.insert(route.pattern.clone(), route);
        Ok(())
    }

    fn change_paths(
        &mut self,
        host: &HostPattern,
        change: impl FnOnce(&mut Paths<Arc<Route>>, Kind, &[u8]),
        path: &PathPattern,
    ) {
        let (kind, text) = match path {
            PathPattern::Exact(text) => (Kind::Exact, text.as_bytes()),
            PathPattern::Prefix(text) => (Kind::Prefix, text.as_bytes()),
        };
        let (hosts, name) = match host {
            HostPattern::Any => return change(Arc::make_mut(&mut self.next.any_host), kind, text),
            HostPattern::Exact(name) => (&mut self.next.exact_hosts, &**name),
            HostPattern::Wildcard(name) => (&mut self.next.wildcard_hosts, &**name),
        };
        if let Some(paths) = hosts.get_mut(name) {
            change(Arc::make_mut(paths), kind, text);
            if paths.is_empty() {
                hosts.remove(name);
            }
        } else {
            let mut paths = HostPaths::default();
            change(Arc::make_mut(&mut paths), kind, text);
            hosts.insert(name.into(), paths);
        }
    }

    fn delete_targets(&mut self, table: &Table, delta: &Delta) -> Result<(), Refused> {
        let named: BTreeSet<&str> = delta.put_targets.iter().map(|put| put.key.as_str()).collect();
        let unnamed = table.targets.keys().map(|key| &**key).filter(|key| delta.replace && !named.contains(key));
        for key in delta.delete_targets.iter().map(String::as_str).chain(unnamed) {
            if let Some(entry) = self.next.targets.get(key) {
                if entry.members > 0 {
                    return Err(Refused(format!("target {key:?} cannot be deleted: it has {} members", entry.members)));
                }
                self.next.targets.remove(key);
            }
        }
        Ok(())
    }
}

fn emptied(group: &Group) -> Group {
    Group {
        service: group.service.clone(),
        version: group.version.clone(),
        session: group.session,
        pattern: group.pattern.clone(),
        stamp: group.stamp.clone(),
        members: SmallVec::new(),
        ordinary: 0,
        any_far: false,
        ordinary_capacity: 0,
        counters: group.counters.clone(),
        terms: group.terms.clone(),
        sequence: group.sequence.clone(),
        since: group.since,
    }
}

fn check_key(key: &MemberKey) -> Result<(), Refused> {
    check("service", &key.service, false)?;
    check("version", &key.version, true)?;
    Pattern::parse(&key.pattern).map(|_| ())
}

fn check_route(put: &RoutePut) -> Result<(), Refused> {
    Pattern::parse(&put.pattern)?;
    let at = |refused: Refused| refused.at(format_args!("route {:?}", put.pattern));
    check("service", &put.service, false).map_err(at)?;
    if put.picks.len() > PICKS_MAX {
        return Err(Refused(format!("route {:?} has more than {PICKS_MAX} versions", put.pattern)));
    }
    let mut seen = BTreeSet::new();
    for pick in &put.picks {
        check("version", &pick.version, true).map_err(at)?;
        if !seen.insert(&pick.version) {
            return Err(Refused(format!("route {:?} names version {:?} twice", put.pattern, pick.version)));
        }
    }
    Ok(())
}

fn describe(key: &MemberKey) -> String {
    format!("{:?} of {}/{} {:?}", key.target, key.service, key.version, key.pattern)
}
