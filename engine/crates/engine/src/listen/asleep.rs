//! Client connections in clear text that have rested for a while: kept as little more than their sockets.
//!
//! A connection in use has a task and is known to the runtime. Thousands that rest need neither: they leave both, and their
//! sockets wait in an epoll of their own, which the runtime watches as one descriptor. The first byte, or the end, brings a
//! connection back into a task. So one that is busy never pays for this, and one that is not pays a few system calls a rest.
//!
//! What holds for a connection at rest holds for one asleep: it is counted, it times out, it makes room for a new one when it
//! has rested longest, and it ends with the engine, or goes to the next one.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    pin::pin,
    rc::{Rc, Weak},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    net::{RecvFlags, recv},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::accept::{self, Open};
use crate::{
    conn::{DRAIN_REST, Nap},
    settings::{ListenerConfig, ListenerKind},
    supervise,
    worker::Worker,
};

/// Connections that are woken or ended in one turn; others have theirs in between.
const TURN_MAX: usize = 256;

/// Those of one worker. They belong to the task that watches them, and end with it.
#[derive(Default)]
pub struct Asleep(RefCell<Weak<Watched>>);

struct Watched {
    epoll: AsyncFd<OwnedFd>,
    sleepers: RefCell<Sleepers<Sleeper>>,
    /// There is a time-out before all others.
    sooner: Notify,
    worker: Rc<Worker>,
    /// The engine ends.
    ending: Cell<bool>,
    /// And those that are here end with it.
    hurried: Cell<bool>,
}

struct Sleeper {
    nap: Nap,
    peer: SocketAddr,
    listener: Rc<ListenerConfig>,
    open: Open,
}

impl Asleep {
    /// Takes a connection in. What can't be watched is closed.
    pub(super) fn put(worker: &Rc<Worker>, nap: Nap, peer: SocketAddr, listener: Rc<ListenerConfig>, open: Open) {
        let watched = worker.asleep.0.borrow().upgrade();
        let watched = match watched {
            Some(watched) => watched,
            None => match Watched::start(worker) {
                Ok(watched) => watched,
                // Out of descriptors or memory.
                Err(_) => return worker.counters.accept_failures_total.add(),
            },
        };
        watched.put(Sleeper { nap, peer, listener, open });
    }

    /// Ends this one. False: there is a request from it, for which it was woken.
    pub fn end(&self, number: u64) -> bool {
        self.0.borrow().upgrade().is_some_and(|watched| watched.end(number))
    }
}

impl Watched {
    fn start(worker: &Rc<Worker>) -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        #[expect(deprecated, reason = "for types that may lie about their descriptor; this one owns it")]
        let epoll = AsyncFd::with_interest(epoll, Interest::READABLE)?;
        let watched = Rc::new(Self {
            epoll,
            sleepers: RefCell::default(),
            sooner: Notify::new(),
            worker: worker.clone(),
            ending: Cell::new(false),
            hurried: Cell::new(false),
        });
        *worker.asleep.0.borrow_mut() = Rc::downgrade(&watched);
        tokio::task::spawn_local(supervise::task("the idle connection watcher", watched.clone().watch()));
        Ok(watched)
    }

    async fn watch(self: Rc<Self>) {
        let mut ends = pin!(self.worker.ends(ListenerKind::Entry));
        let mut events = Vec::with_capacity(TURN_MAX);
        loop {
            let due = self.sleepers.borrow().due();
            tokio::select! {
                ready = self.epoll.readable() => {
                    let Ok(mut ready) = ready else { return };
                    events.clear();
                    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                    let waited = epoll::wait(self.epoll.get_ref(), spare_capacity(&mut events), Some(&now));
                    if waited.is_ok() && events.is_empty() {
                        ready.clear_ready();
                    }
                    events.iter().for_each(|event: &epoll::Event| self.wake(event.data.u64()));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.end_due(),
                () = self.sooner.notified() => {}
                () = &mut ends, if !self.ending.get() => {
                    self.ending.set(true);
                    tokio::task::spawn_local(self.clone().end_all());
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Gives those to the next engine that it takes; the others end.
    async fn end_all(self: Rc<Self>) {
        while let Some(giver) = self.worker.giver() {
            let Some(number) = self.sleepers.borrow().first() else { break };
            let Some(Sleeper { nap, peer, listener, open }) = self.take(number) else { break };
            if let Some(nap) = giver.give_client(&self.worker, nap, listener.bound).await {
                self.put(Sleeper { nap, peer, listener, open });
            }
        }
        self.hurried.set(true);
        self.sleepers.borrow_mut().hurry(|sleeper| sleeper.nap.since() + DRAIN_REST);
        self.sooner.notify_one();
    }

    fn put(&self, sleeper: Sleeper) {
        let mut due = sleeper.nap.idle_until();
        if self.hurried.get() {
            due = due.min(sleeper.nap.since() + DRAIN_REST);
        }
        let mut sleepers = self.sleepers.borrow_mut();
        let number = sleepers.put(due, sleeper);
        let Some(sleeper) = sleepers.get(number) else { return };
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        let data = epoll::EventData::new_u64(number);
        if epoll::add(self.epoll.get_ref(), sleeper.nap.socket(), data, wanted).is_err() {
            sleepers.take(number);
            return;
        }
        sleeper.nap.falls_asleep(number);
        self.worker.counters.connections_asleep.add();
        if sleepers.due() == Some(due) {
            self.sooner.notify_one();
        }
    }

    fn take(&self, number: u64) -> Option<Sleeper> {
        let sleeper = self.sleepers.borrow_mut().take(number)?;
        self.worker.counters.connections_asleep.sub();
        // What can't be taken out goes when the socket is closed.
        let _ = epoll::delete(self.epoll.get_ref(), sleeper.nap.socket());
        Some(sleeper)
    }

    /// Brings one back into a task.
    fn wake(&self, number: u64) {
        let Some(sleeper) = self.take(number) else { return };
        let Sleeper { nap, peer, listener, open } = sleeper;
        let (socket, rested) = nap.wakes_up();
        let Ok(stream) = TcpStream::from_std(socket) else { return };
        tokio::task::spawn_local(async move {
            // It is, as soon as the runtime has asked for it: no time-out comes in between.
            if stream.readable().await.is_ok() {
                accept::plain(stream, Some(rested), peer, listener, open).await;
            }
        });
    }

    /// False: it has just spoken, and goes on.
    fn end(&self, number: u64) -> bool {
        let silent = self.sleepers.borrow().get(number).is_some_and(|sleeper| {
            let mut byte = [0_u8; 1];
            recv(sleeper.nap.socket(), &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_err()
        });
        if silent {
            self.take(number);
        } else {
            self.wake(number);
        }
        silent
    }

    fn end_due(&self) {
        let now = Instant::now();
        for _ in 0..TURN_MAX {
            let Some(number) = self.sleepers.borrow().overdue(now) else { return };
            if self.end(number) && !self.hurried.get() {
                self.worker.counters.timeout_idle_total.add();
            }
        }
    }
}

/// Found by number, and in the order in which their time is over.
struct Sleepers<T> {
    /// In boxes: the nodes of the tree are half empty.
    by_number: BTreeMap<u64, (Instant, Box<T>)>,
    by_due: BTreeSet<(Instant, u64)>,
    /// Numbers are not used again: nobody means another one by them.
    numbers: u64,
}

impl<T> Default for Sleepers<T> {
    fn default() -> Self {
        Self { by_number: BTreeMap::new(), by_due: BTreeSet::new(), numbers: 0 }
    }
}

impl<T> Sleepers<T> {
    fn put(&mut self, due: Instant, sleeper: T) -> u64 {
        self.numbers += 1;
        self.by_number.insert(self.numbers, (due, Box::new(sleeper)));
        self.by_due.insert((due, self.numbers));
        self.numbers
    }

    fn get(&self, number: u64) -> Option<&T> {
        self.by_number.get(&number).map(|(_, sleeper)| &**sleeper)
    }

    fn take(&mut self, number: u64) -> Option<T> {
        let (due, sleeper) = self.by_number.remove(&number)?;
        self.by_due.remove(&(due, number));
        Some(*sleeper)
    }

    /// The one whose time is over first.
    fn first(&self) -> Option<u64> {
        self.by_due.first().map(|(_, number)| *number)
    }

    /// When the first one's time is over.
    fn due(&self) -> Option<Instant> {
        self.by_due.first().map(|(due, _)| *due)
    }

    /// One whose time is over, the longest first.
    fn overdue(&self, now: Instant) -> Option<u64> {
        self.by_due.first().filter(|(due, _)| *due <= now).map(|(_, number)| *number)
    }

    /// Gives each the time that `due` says, if that is sooner.
    fn hurry(&mut self, due: impl Fn(&T) -> Instant) {
        for (number, (at, sleeper)) in &mut self.by_number {
            let sooner = due(sleeper).min(*at);
            self.by_due.remove(&(*at, *number));
            self.by_due.insert((sooner, *number));
            *at = sooner;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        /// Beside a list that is searched from end to end.
        #[test]
        fn they_are_found_and_their_times_are_over_in_order(steps in vec((0..4_u8, 0..50_u64, 0..50_usize), 0..200)) {
            let begin = Instant::now();
            let at = |seconds: u64| begin + Duration::from_secs(seconds);
            let mut sleepers = Sleepers::default();
            let mut model: Vec<(u64, Instant, u64)> = Vec::new();
            for (step, seconds, index) in steps {
                match step {
                    0 | 1 => {
                        let number = sleepers.put(at(seconds), seconds);
                        prop_assert!(model.iter().all(|(taken, ..)| *taken < number));
                        model.push((number, at(seconds), seconds));
                    }
                    2 if !model.is_empty() => {
                        let (number, _, value) = model.swap_remove(index % model.len());
                        prop_assert_eq!(sleepers.get(number), Some(&value));
                        prop_assert_eq!(sleepers.take(number), Some(value));
                        prop_assert_eq!(sleepers.take(number), None);
                    }
                    _ => {
                        let sooner = |value: u64| at(value / 2 + seconds);
                        sleepers.hurry(|value| sooner(*value));
                        model.iter_mut().for_each(|(_, due, value)| *due = sooner(*value).min(*due));
                    }
                }
                let first = model.iter().map(|(number, due, _)| (*due, *number)).min();
                prop_assert_eq!(sleepers.due(), first.map(|(due, _)| due));
                prop_assert_eq!(sleepers.first(), first.map(|(_, number)| number));
                let over = first.filter(|(due, _)| *due <= at(seconds)).map(|(_, number)| number);
                prop_assert_eq!(sleepers.overdue(at(seconds)), over);
            }
        }
    }
}
