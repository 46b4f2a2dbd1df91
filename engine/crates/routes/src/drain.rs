//! Deleted members that still have requests in flight.

use std::{collections::HashMap, sync::Arc};

use crate::{Member, MemberKey};

/// What was deleted and is not yet reported as drained. Owned by the control side; [`crate::Table::apply`] moves members
/// in, and out again when they are put anew meanwhile.
#[derive(Debug, Default)]
pub struct Draining {
    /// The member (`None`: nothing by this name was there) and the epoch that deleted it.
    members: HashMap<MemberKey, (Option<Arc<Member>>, u64)>,
}

impl Draining {
    /// The member by this name, if it drains.
    pub(crate) fn get(&self, key: &MemberKey) -> Option<&Arc<Member>> {
        self.members.get(key).and_then(|(member, _)| member.as_ref())
    }

    /// The member is put again: it no longer drains.
    pub(crate) fn remove(&mut self, key: &MemberKey) {
        if let Some((Some(member), _)) = self.members.remove(key) {
            member.load.set_draining(false);
        }
    }

    /// A member was deleted by `epoch`. One that drains already goes on, under the newer epoch.
    pub(crate) fn add(&mut self, key: MemberKey, member: Option<Arc<Member>>, epoch: u64) {
        let held = self.members.entry(key).or_insert((None, epoch));
        held.1 = epoch;
        if let Some(member) = member {
            member.load.set_draining(true);
            held.0 = Some(member);
        }
    }

    /// Nothing drains.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Removes and returns the members without a request in flight, with the epoch that deleted each, by key. Only those
    /// deleted up to the epoch `applied`, by which every worker picks: the others may still get requests.
    pub fn take_drained(&mut self, applied: u64) -> Vec<(MemberKey, u64)> {
        let idle = |member: &Option<Arc<Member>>| member.as_ref().is_none_or(|member| member.load.is_idle());
        let mut drained: Vec<_> = self
            .members
            .extract_if(|_, (member, epoch)| *epoch <= applied && idle(member))
            .map(|(key, (_, epoch))| (key, epoch))
            .collect();
        drained.sort_unstable();
        drained
    }

    /// The members that still have requests in flight, and how many, by key.
    #[must_use]
    pub fn counts(&self) -> Vec<(MemberKey, u32)> {
        let mut counts: Vec<_> = self
            .members
            .iter()
            .map(|(key, (member, _))| (key.clone(), member.as_ref().map_or(0, |member| member.in_flight())))
            .collect();
        counts.sort_unstable();
        counts
    }
}
