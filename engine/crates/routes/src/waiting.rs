//! Requests that wait for one of their service's to end: in turn, and each with one place, however often it looks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use crate::Service;

/// What one of them waits with.
#[derive(Debug)]
enum Place {
    /// It does not wait just now.
    Looks,
    Waits(Waker),
    /// It has been told to look, and has not yet.
    Told,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// By number: who came first is told first.
    places: BTreeMap<u64, Place>,
}

/// The queue of one service.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    places: Mutex<Places>,
    /// Somebody waits. Asked at the end of each request, so without the lock.
    any: AtomicBool,
}

impl Waiting {
    fn with<T>(&self, act: impl FnOnce(&mut Places) -> T) -> T {
        let mut held = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut held);
        self.any.store(!held.places.is_empty(), Relaxed);
        result
    }

    /// One of the service's requests has ended.
    pub(crate) fn tell_if_any(&self) {
        if self.any.load(Relaxed) {
            self.tell_one();
        }
    }

    /// `None`: `most` wait already.
    pub(crate) fn enter(&self, most: u32) -> Option<u64> {
        self.with(|held| {
            if held.places.len() >= most as usize {
                return None;
            }
            held.next += 1;
            held.places.insert(held.next, Place::Looks);
            Some(held.next)
        })
    }

    /// Tells the first that waits to look. False: nobody waits.
    pub(crate) fn tell_one(&self) -> bool {
        let waker = self.with(|held| {
            held.places.values_mut().find_map(|place| match std::mem::replace(place, Place::Told) {
                Place::Waits(waker) => Some(waker),
                other => {
                    *place = other;
                    None
                }
            })
        });
        waker.map(Waker::wake).is_some()
    }

    /// Tells all of them.
    pub(crate) fn tell_all(&self) {
        while self.tell_one() {}
    }
}

/// A place in the queue of a service; given back when dropped.
#[derive(Debug)]
pub struct Waiter {
    service: Arc<Service>,
    number: u64,
}

impl Waiter {
    pub(crate) fn new(service: Arc<Service>, number: u64) -> Self {
        Self { service, number }
    }

    /// Ready: it is worth a look. A look in vain is followed by another wait, in the same place.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.service.waiting().with(|held| {
            let Some(place) = held.places.get_mut(&self.number) else { return Poll::Ready(()) };
            match place {
                Place::Told => {
                    *place = Place::Looks;
                    return Poll::Ready(());
                }
                Place::Waits(waker) => waker.clone_from(cx.waker()),
                Place::Looks => *place = Place::Waits(cx.waker().clone()),
            }
            Poll::Pending
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let waiting = self.service.waiting();
        // It may have been told and have no use for it.
        let place = waiting.with(|held| held.places.remove(&self.number));
        if matches!(place, Some(Place::Told)) {
            waiting.tell_one();
        }
    }
}
