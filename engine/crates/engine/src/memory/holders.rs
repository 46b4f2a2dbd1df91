//! Who holds how much on one worker, and whom to end.
//!
//! A holder is a request with its buffers, or an HTTP/2 connection of a client with all of its requests. (A link of a parent
//! carries many clients: there each request is a holder of its own.) The greatest go first, in classes of four times the size each;
//! in one class who has moved nothing for longest. So a slow client that holds an ordinary request's memory stays while
//! any holds more, and a large answer that is well under way stays longer than one that nobody takes.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Waker,
};

use tokio::time::Instant;

use super::pressure::{Level, Pressure};

/// What an ordinary request holds: the first class. Each further one goes up to four times as much.
const ORDINARY: usize = 60 << 10;
/// A worker tells the others when it holds so much more or less.
const TOLD: isize = 64 << 10;
/// What an allocation costs beside its bytes, as a part of them: its size is rounded up, and buffers that grow leave gaps.
const ROUNDING: usize = 4;

/// The holders of one worker.
#[derive(Debug)]
pub struct Memory {
    pressure: Arc<Pressure>,
    worker: usize,
    /// Held, and not told yet.
    untold: Cell<isize>,
    holders: RefCell<Vec<Rc<Holder>>>,
    /// Who wants more, when there is.
    waiting: RefCell<Vec<Waker>>,
}

/// One that holds memory.
#[derive(Debug)]
pub struct Holder {
    /// Where it is among the others.
    place: Cell<usize>,
    own: Cell<usize>,
    /// Of those that are part of it.
    parts: Cell<usize>,
    /// It is part of this one.
    whole: RefCell<Option<Rc<Holder>>>,
    /// Somebody uses it; else it is spare.
    used: Cell<bool>,
    /// When it last moved a byte.
    moved: Cell<Instant>,
    /// It was told to end when it held so much.
    leaving: Cell<usize>,
    ended: Cell<bool>,
    /// It is no more; what is part of it has nobody to answer to.
    gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Holder {
    fn bytes(&self) -> usize {
        self.own.get() + self.parts.get()
    }

    fn may_be_ended(&self) -> bool {
        self.used.get() && !self.ended.get() && self.bytes() > 0 && self.whole.borrow().is_none()
    }

    fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// From 1 on.
fn class(bytes: usize) -> usize {
    let (mut class, mut most) = (1, ORDINARY);
    while bytes > most {
        (class, most) = (class + 1, most.saturating_mul(4));
    }
    class
}

/// One that may be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    bytes: usize,
    moved: Instant,
}

/// Whom to end, as indices, so that so many bytes go; nobody of a lower class than `at_least`.
fn choose(candidates: &[Candidate], surplus: usize, at_least: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| (Reverse(class(candidates[*index].bytes)), candidates[*index].moved));
    let mut left = surplus;
    let more = |index: &usize| {
        let bytes = candidates[*index].bytes;
        let goes = left > 0 && class(bytes) >= at_least;
        left = left.saturating_sub(bytes);
        goes
    };
    order.into_iter().take_while(more).collect()
}

impl Memory {
    /// Of the worker with this index.
    #[must_use]
    pub fn new(pressure: Arc<Pressure>, worker: usize) -> Self {
        Self { pressure, worker, untold: Cell::new(0), holders: RefCell::default(), waiting: RefCell::default() }
    }

    /// What all workers hold.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// How much is in use.
    #[must_use]
    pub fn level(&self) -> Level {
        self.pressure.level_with(self.untold.get())
    }

    /// Whether more may be held. If not, somebody is about to be ended for it; [`Self::wait`] for that.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        let may = self.level() != Level::Full;
        if !may {
            self.pressure.full();
        }
        may
    }

    /// Wakes this one when it may try again.
    pub fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.last().is_none_or(|last| !last.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until somebody finds that there is too much, or the control thread that there is much.
    pub(super) async fn rung(&self) {
        self.pressure.rung(self.worker).await;
    }

    /// Somebody who waited may go on.
    pub(super) fn go_on(&self) {
        if self.level() != Level::Full {
            self.wake_waiting();
        }
    }

    fn changed(&self, change: isize) {
        let untold = self.untold.get() + change;
        if untold.abs() < TOLD {
            return self.untold.set(untold);
        }
        self.untold.set(0);
        self.pressure.tell(untold);
        if change > 0 && self.level() == Level::Full {
            self.pressure.full();
        }
        if change < 0 && !self.waiting.borrow().is_empty() {
            self.go_on();
        }
    }

    /// Ends those that hold most, unless others on another worker hold more. Gives how many were told.
    pub(super) fn end_worst(&self) -> usize {
        let surplus = self.pressure.surplus();
        if surplus == 0 {
            return 0;
        }
        let all = self.holders.borrow().clone();
        let may: Vec<_> = all.iter().filter(|holder| holder.may_be_ended()).collect();
        let candidates: Vec<_> =
            may.iter().map(|holder| Candidate { bytes: holder.bytes(), moved: holder.moved.get() }).collect();
        let elsewhere = self.pressure.worst_elsewhere(self.worker);
        let chosen = choose(&candidates, surplus, elsewhere);
        for index in &chosen {
            self.end(may[*index], &all);
        }
        let rest = may.iter().filter(|holder| !holder.ended.get());
        let worst = rest.map(|holder| class(holder.bytes())).max().unwrap_or(0);
        self.pressure.worst_of(self.worker).store(worst, Relaxed);
        if elsewhere > worst && self.pressure.surplus() > 0 {
            self.pressure.ring();
        }
        chosen.len()
    }

    /// Wakes all that use memory now: whether one has to end, it looks itself.
    pub fn wake_all(&self) {
        let all = self.holders.borrow().clone();
        all.iter().filter(|holder| holder.used.get()).for_each(|holder| holder.wake());
    }

    fn end(&self, holder: &Rc<Holder>, all: &[Rc<Holder>]) {
        holder.leaving.set(holder.bytes());
        self.pressure.leave(holder.bytes());
        holder.end();
        if holder.parts.get() > 0 {
            parts(holder, all).for_each(|part| part.end());
        }
    }
}

fn parts<'a>(whole: &'a Rc<Holder>, all: &'a [Rc<Holder>]) -> impl Iterator<Item = &'a Rc<Holder>> {
    all.iter().filter(|part| part.whole.borrow().as_ref().is_some_and(|of| Rc::ptr_eq(of, whole)))
}

/// A holder's entry among the others, until it is dropped.
#[derive(Debug)]
pub struct Account {
    memory: Rc<Memory>,
    holder: Rc<Holder>,
}

impl Account {
    /// Holds nothing yet, and nobody uses it.
    #[must_use]
    pub fn open(memory: &Rc<Memory>) -> Self {
        let mut holders = memory.holders.borrow_mut();
        let holder = Rc::new(Holder {
            place: Cell::new(holders.len()),
            own: Cell::new(0),
            parts: Cell::new(0),
            whole: RefCell::new(None),
            used: Cell::new(false),
            moved: Cell::new(Instant::now()),
            leaving: Cell::new(0),
            ended: Cell::new(false),
            gone: Cell::new(false),
            waker: RefCell::new(None),
        });
        holders.push(holder.clone());
        drop(holders);
        Self { memory: memory.clone(), holder }
    }

    /// The holder, for those that are part of it.
    #[must_use]
    pub fn holder(&self) -> &Rc<Holder> {
        &self.holder
    }

    /// Somebody uses it from now on, as a part of `whole`.
    pub fn begin(&self, whole: Option<&Rc<Holder>>) {
        let holder = &*self.holder;
        holder.used.set(true);
        if let Some(whole) = whole {
            whole.parts.set(whole.parts.get() + holder.own.get());
            *holder.whole.borrow_mut() = Some(whole.clone());
        }
    }

    /// Nobody uses it any more; it goes on to hold what it holds.
    pub fn end(&self) {
        let holder = &*self.holder;
        holder.used.set(false);
        self.leave();
        if let Some(whole) = holder.whole.take() {
            whole.parts.set(whole.parts.get().saturating_sub(holder.own.get()));
        }
        holder.ended.set(false);
    }

    fn leave(&self) {
        let leaving = self.holder.leaving.replace(0);
        if leaving > 0 {
            self.memory.pressure.left(leaving);
        }
    }

    /// It holds so many bytes now.
    pub fn hold(&self, bytes: usize) {
        let bytes = bytes + bytes / ROUNDING;
        let holder = &*self.holder;
        let before = holder.own.replace(bytes);
        if before == bytes {
            return;
        }
        let mut all = bytes;
        if let Some(whole) = &*holder.whole.borrow() {
            whole.parts.set((whole.parts.get() + bytes).saturating_sub(before));
            all = whole.bytes();
        }
        if holder.used.get() {
            let worst = self.memory.pressure.worst_of(self.memory.worker);
            if class(all) > worst.load(Relaxed) {
                worst.store(class(all), Relaxed);
            }
        }
        self.memory.changed(bytes as isize - before as isize);
    }

    /// It has moved a byte.
    pub fn moved(&self, now: Instant) {
        self.holder.moved.set(now);
        if let Some(whole) = &*self.holder.whole.borrow() {
            whole.moved.set(now);
        }
    }

    /// Who is to be woken when it has to end.
    pub fn wakes(&self, waker: &Waker) {
        let mut held = self.holder.waker.borrow_mut();
        if held.as_ref().is_none_or(|held| !held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }

    /// Whether it has to end.
    #[must_use]
    pub fn must_end(&self) -> bool {
        self.holder.ended.get() || self.holder.whole.borrow().as_ref().is_some_and(|whole| whole.ended.get())
    }

    /// Whether it is part of what is no more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.holder.whole.borrow().as_ref().is_some_and(|whole| whole.gone.get())
    }

    /// Whether it holds more than an ordinary request, several times over.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        class(self.holder.bytes()) > 2
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.end();
        self.hold(0);
        if self.holder.parts.get() > 0 {
            // Who waits for something else than its client would not notice.
            self.holder.gone.set(true);
            for part in parts(&self.holder, &self.memory.holders.borrow()) {
                // Its memory is on its way, too: nobody else is to be ended for it.
                if part.leaving.get() == 0 {
                    part.leaving.set(part.own.get());
                    self.memory.pressure.leave(part.own.get());
                }
                part.wake();
            }
        }
        let mut holders = self.memory.holders.borrow_mut();
        let place = self.holder.place.get();
        holders.swap_remove(place);
        if let Some(moved) = holders.get(place) {
            moved.place.set(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const KIB: usize = 1 << 10;

    /// Of a limit of `limit`.
    fn memories(limit: usize, workers: usize) -> Vec<Rc<Memory>> {
        let pressure = Arc::new(Pressure::new(workers));
        pressure.set_limit(limit);
        (0..workers).map(|worker| Rc::new(Memory::new(pressure.clone(), worker))).collect()
    }

    fn held(memory: &Rc<Memory>, bytes: usize) -> Account {
        let account = Account::open(memory);
        account.begin(None);
        account.hold(bytes);
        account
    }

    proptest! {
        #[test]
        fn whoever_is_ended_holds_no_less_than_whoever_stays(
            all in prop::collection::vec((1usize..1 << 22, 0u64..60), 0..60),
            surplus in 0usize..1 << 24,
            at_least in 0usize..6,
        ) {
            let now = Instant::now();
            let candidates: Vec<_> = all
                .iter()
                .map(|(bytes, age)| Candidate { bytes: *bytes, moved: now + Duration::from_secs(*age) })
                .collect();
            let chosen = choose(&candidates, surplus, at_least);
            let goes: Vec<_> = chosen.iter().map(|index| candidates[*index]).collect();
            let stays: Vec<_> = (0..candidates.len()).filter(|index| !chosen.contains(index)).map(|index| candidates[index]).collect();
            for gone in &goes {
                prop_assert!(class(gone.bytes) >= at_least);
                for other in &stays {
                    let (gone_class, class) = (class(gone.bytes), class(other.bytes));
                    prop_assert!(gone_class > class || (gone_class == class && gone.moved <= other.moved));
                }
            }
            // Enough go, and no more than that.
            let bytes: usize = goes.iter().map(|gone| gone.bytes).sum();
            let possible: usize = candidates.iter().map(|all| all.bytes).filter(|bytes| class(*bytes) >= at_least).sum();
            prop_assert!(bytes >= surplus.min(possible));
            if let Some(last) = goes.last() {
                prop_assert!(bytes - last.bytes < surplus);
            }
        }

        #[test]
        fn what_is_held_is_the_sum_of_what_each_holds(
            steps in prop::collection::vec((0usize..8, 0usize..300_000, 0usize..4), 0..200),
        ) {
            let memory = memories(usize::MAX, 1).remove(0);
            let whole = held(&memory, 0);
            let mut parts: Vec<Option<Account>> = (0..8).map(|_| None).collect();
            for (index, bytes, step) in steps {
                match (step, &parts[index]) {
                    (0, _) => parts[index] = None,
                    (_, None) => {
                        let account = Account::open(&memory);
                        account.begin((index % 2 == 0).then(|| whole.holder()));
                        parts[index] = Some(account);
                    }
                    (1, Some(account)) => {
                        account.end();
                        account.begin((bytes % 2 == 0).then(|| whole.holder()));
                    }
                    (_, Some(account)) => account.hold(bytes),
                }
                let own = |of_whole: bool| {
                    let all = parts.iter().flatten().filter(move |part| !of_whole || part.holder.whole.borrow().is_some());
                    all.map(|part| part.holder.own.get()).sum::<usize>()
                };
                prop_assert_eq!(whole.holder.parts.get(), own(true));
                let told = memory.pressure.held().wrapping_add_signed(memory.untold.get());
                prop_assert_eq!(told, own(false));
            }
        }
    }

    #[test]
    fn the_worst_go_and_the_small_stay() {
        let memory = memories(1000 * KIB, 1).remove(0);
        let small: Vec<_> = (0..10).map(|_| held(&memory, 16 * KIB)).collect();
        let large: Vec<_> = (0..10).map(|_| held(&memory, 70 * KIB)).collect();
        let moving = &large[0];
        moving.moved(Instant::now() + Duration::from_secs(1));
        assert_eq!(memory.level(), Level::Full);
        assert!(!memory.may_grow());
        let told = memory.end_worst();
        assert_eq!(large.iter().filter(|large| large.must_end()).count(), told);
        assert!((1..10).contains(&told) && !moving.must_end());
        assert!(small.iter().all(|small| !small.must_end()));
        assert_eq!(memory.end_worst(), 0, "they are on their way");
        drop(large);
        assert!(memory.may_grow() && memory.pressure.leaving() == 0);
    }

    #[test]
    fn a_connection_counts_with_all_of_its_requests_and_takes_them_along() {
        let memory = memories(1000 * KIB, 1).remove(0);
        let alone: Vec<_> = (0..4).map(|_| held(&memory, 100 * KIB)).collect();
        let connection = held(&memory, 0);
        let request = || {
            let account = Account::open(&memory);
            account.begin(Some(connection.holder()));
            account.hold(30 * KIB);
            account
        };
        let requests: Vec<_> = (0..10).map(|_| request()).collect();
        assert_eq!(memory.end_worst(), 1);
        assert!(connection.must_end() && requests.iter().all(Account::must_end));
        assert!(alone.iter().all(|alone| !alone.must_end()));
        drop(connection);
        assert!(requests.iter().all(Account::is_gone) && memory.pressure.leaving() > 0);
        drop(requests);
        assert_eq!(memory.pressure.leaving(), 0);
    }

    #[test]
    fn a_worker_ends_nobody_while_another_has_worse_ones() {
        let [here, there] = <[_; 2]>::try_from(memories(1000 * KIB, 2)).unwrap_or_else(|_| unreachable!());
        let small: Vec<_> = (0..20).map(|_| held(&here, 30 * KIB)).collect();
        let large: Vec<_> = (0..3).map(|_| held(&there, 100 * KIB)).collect();
        assert_eq!(here.end_worst(), 0);
        assert!(there.end_worst() > 0 && large.iter().any(Account::must_end));
        drop(large);
        assert!(small.iter().all(|small| !small.must_end()));
    }
}
