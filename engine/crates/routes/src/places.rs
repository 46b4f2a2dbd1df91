//! Members that a thread gave requests to, each with its group: so that a request holds both by a reference count that no
//! other thread touches. Those of the table's own objects would be written by every thread with every request.

use std::sync::Arc;

use crate::{Group, Member, chance::mix};

/// Places that are kept, at most.
const PLACES: usize = 1024;
/// One newcomer in so many takes the place of what is kept: with more members than places, to let go of one that has long left
/// the processor's cache costs more than it brings. One that is asked for often comes in soon.
const REPLACED_ONE_IN: u32 = 32;

/// A member and the group it was taken from.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) group: Arc<Group>,
    pub(crate) member: Arc<Member>,
}

/// The places of one thread. What is kept is kept alive: [`Self::forget`] with each new table.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By the member's address. Empty until the first is asked for.
    kept: Vec<Option<Arc<Place>>>,
    /// Which of them there are.
    at: Vec<u16>,
    newcomers: u32,
}

impl Places {
    pub(crate) fn get(&mut self, group: &Arc<Group>, member: &Arc<Member>) -> Arc<Place> {
        if self.kept.is_empty() {
            self.kept.resize(PLACES, None);
        }
        let at = mix(Arc::as_ptr(member) as u64) as usize % PLACES;
        let kept = &mut self.kept[at];
        match kept {
            // A member is in one group, and what is kept cannot have been freed and its address used again.
            Some(place) if Arc::ptr_eq(&place.member, member) && Arc::ptr_eq(&place.group, group) => place.clone(),
            _ => {
                let place = Arc::new(Place { group: group.clone(), member: member.clone() });
                self.newcomers = self.newcomers.wrapping_add(1);
                if kept.is_none() {
                    self.at.push(at as u16);
                    *kept = Some(place.clone());
                } else if self.newcomers.is_multiple_of(REPLACED_ONE_IN) {
                    *kept = Some(place.clone());
                }
                place
            }
        }
    }

    /// Costs at most as much as the requests since the last call.
    pub(crate) fn forget(&mut self) {
        for at in self.at.drain(..) {
            self.kept[usize::from(at)] = None;
        }
    }
}
