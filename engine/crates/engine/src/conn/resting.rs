//! The client connections of one worker by how long they have rested, so that at the limit the one that has rested longest
//! makes room for a new one.
//!
//! A connection begins and ends a rest with every request, and must pay nothing for it: it only notes the time. Its place in
//! the order is set right when somebody looks for the oldest; a place is never later than the truth, so the first one that is
//! in its right place is the oldest.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::Deref,
    rc::Rc,
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::worker::Worker;

/// Who has rested for less may be about to speak: a new connection rather waits.
const REST_MIN: Duration = Duration::from_secs(1);
/// Places that are set right in one look.
const LOOKS_MAX: usize = 256;

/// All of them, by the start of their rest as it was when their place was set.
#[derive(Debug, Default)]
pub struct Resting {
    places: RefCell<BTreeMap<(Instant, u64), Rc<Rest>>>,
    numbers: Cell<u64>,
}

/// One connection's rest.
#[derive(Debug)]
pub struct Rest {
    since: Cell<Instant>,
    busy: Cell<bool>,
    leave: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Its number among those asleep; 0: it is awake.
    asleep: Cell<u64>,
    place: Cell<(Instant, u64)>,
}

/// The connection that has rested longest.
#[derive(Debug, PartialEq, Eq)]
pub enum Oldest {
    /// It was asked to end.
    Asked,
    /// It is asleep, and to be ended by this number.
    Asleep(u64),
}

impl Resting {
    /// Takes a connection in, resting from now on.
    pub fn enter(&self, now: Instant) -> Rc<Rest> {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        let rest = Rc::new(Rest {
            since: Cell::new(now),
            busy: Cell::new(false),
            leave: Cell::new(false),
            waker: RefCell::new(None),
            asleep: Cell::new(0),
            place: Cell::new((now, number)),
        });
        self.places.borrow_mut().insert((now, number), rest.clone());
        rest
    }

    /// A connection has ended.
    pub fn forget(&self, rest: &Rest) {
        self.places.borrow_mut().remove(&rest.place.get());
    }

    /// Asks the connection that has rested longest to end. `None`: no one has rested long enough.
    pub fn end_oldest(&self, now: Instant) -> Option<Oldest> {
        let mut places = self.places.borrow_mut();
        for _ in 0..LOOKS_MAX {
            let first = places.first_entry()?;
            let (since, number) = *first.key();
            if now.saturating_duration_since(since) < REST_MIN {
                return None;
            }
            let rest = first.remove();
            let oldest = !rest.busy.get() && rest.since.get() == since;
            // One that is asked may just have got a request, and stay.
            let since = if oldest || rest.busy.get() { now } else { rest.since.get() };
            rest.place.set((since, number));
            places.insert((since, number), rest.clone());
            if oldest && rest.asleep.get() != 0 {
                return Some(Oldest::Asleep(rest.asleep.get()));
            }
            if oldest {
                rest.leave.set(true);
                if let Some(waker) = &*rest.waker.borrow() {
                    waker.wake_by_ref();
                }
                return Some(Oldest::Asked);
            }
        }
        None
    }
}

/// A connection's place among them, until it is dropped.
pub struct Place {
    rest: Rc<Rest>,
    worker: Rc<Worker>,
}

impl Place {
    /// Resting from now on.
    pub fn new(worker: Rc<Worker>, now: Instant) -> Self {
        Self { rest: worker.local.resting.enter(now), worker }
    }
}

impl Deref for Place {
    type Target = Rest;

    fn deref(&self) -> &Rest {
        &self.rest
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.local.resting.forget(&self.rest);
    }
}

impl Rest {
    /// A request has begun.
    pub fn end(&self) {
        self.busy.set(true);
        self.leave.set(false);
    }

    /// When the last request ended.
    pub fn since(&self) -> Instant {
        self.since.get()
    }

    /// The last request has ended.
    pub fn begin(&self, now: Instant) {
        self.since.set(now);
    }

    /// Nothing has arrived. False: the connection is asked to end.
    pub fn goes_on(&self) -> bool {
        self.busy.set(false);
        !self.leave.get()
    }

    /// It has no task any more. `number`: not 0.
    pub fn falls_asleep(&self, number: u64) {
        self.asleep.set(number);
        *self.waker.borrow_mut() = None;
    }

    /// It has one again, and most likely a request.
    pub fn wakes_up(&self) {
        self.asleep.set(0);
        self.end();
    }

    /// Who is to be woken when it is asked to end.
    pub fn wakes(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_rested_longest_is_asked_first_and_nobody_who_has_a_request() {
        let all = Resting::default();
        let at = |seconds: u64| Duration::from_secs(seconds);
        let begin = Instant::now();
        let held: Vec<_> = (0..5).map(|number| all.enter(begin + at(number))).collect();
        // 0 speaks again and rests, 1 has a request, 3 has ended.
        held[0].end();
        held[0].begin(begin + at(10));
        assert!(held[0].goes_on());
        held[1].end();
        all.forget(&held[3]);
        let asked = || -> Vec<_> { (0..5).filter(|number| held[*number].leave.get()).collect() };
        assert_eq!(all.end_oldest(begin + at(20)), Some(Oldest::Asked));
        assert_eq!(asked(), [2]);
        assert!(!held[2].goes_on());
        assert!(all.end_oldest(begin + at(20)).is_some() && all.end_oldest(begin + at(20)).is_some());
        assert_eq!(asked(), [0, 2, 4]);
        assert_eq!(all.end_oldest(begin + at(20)), None, "one is busy, the others were asked");
        // A request that came first keeps its connection.
        held[2].end();
        assert_eq!(asked(), [0, 4]);
        held[2].begin(begin + at(21));
        assert!(held[2].goes_on() && all.end_oldest(begin + at(20)).is_none());
    }

    #[test]
    fn a_short_rest_is_left_alone() {
        let all = Resting::default();
        let begin = Instant::now();
        all.enter(begin);
        assert_eq!(all.end_oldest(begin + REST_MIN / 2), None);
        assert_eq!(all.end_oldest(begin + REST_MIN), Some(Oldest::Asked));
    }

    #[test]
    fn one_asleep_has_its_place_among_the_others() {
        let all = Resting::default();
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let held: Vec<_> = (0..3).map(|number| all.enter(at(number))).collect();
        held[1].falls_asleep(7);
        held[2].falls_asleep(8);
        held[2].wakes_up();
        assert_eq!(all.end_oldest(at(20)), Some(Oldest::Asked));
        assert!(held[0].leave.get());
        assert_eq!(all.end_oldest(at(20)), Some(Oldest::Asleep(7)));
        assert_eq!(all.end_oldest(at(20)), None, "it has a request, and the others were told");
    }
}
