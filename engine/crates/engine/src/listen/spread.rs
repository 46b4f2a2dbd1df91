//! Which worker serves a link of a parent.
//!
//! The kernel spreads connections over the workers' sockets by a hash of their addresses. That evens out for thousands of clients,
//! not for the few links that a parent opens and keeps for days: one worker of four would serve half of all requests, and
//! another none. So who accepts a link gives it to the worker that has the fewest.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

use crate::{settings::ListenerConfig, workers::Command};

/// Links by worker; shared by all of them.
#[derive(Debug)]
pub struct Spread {
    links: Vec<AtomicUsize>,
    ways: OnceLock<Vec<mpsc::UnboundedSender<Command>>>,
}

/// A link on its way to its worker.
#[derive(Debug)]
pub struct Given {
    /// What was connected to.
    pub config: ListenerConfig,
    /// The connection.
    pub stream: TcpStream,
    /// The parent.
    pub peer: SocketAddr,
    /// Its place.
    pub place: Place,
}

/// One link of a worker, until dropped.
#[derive(Debug)]
pub struct Place {
    spread: Arc<Spread>,
    worker: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.spread.links[self.worker].fetch_sub(1, Relaxed);
    }
}

impl Spread {
    /// Of so many workers.
    #[must_use]
    pub fn of(workers: usize) -> Arc<Self> {
        Arc::new(Self { links: (0..workers).map(|_| AtomicUsize::new(0)).collect(), ways: OnceLock::new() })
    }

    /// How each of them is told.
    pub fn open(&self, ways: Vec<mpsc::UnboundedSender<Command>>) {
        // Once, before any worker accepts.
        let _ = self.ways.set(ways);
    }

    /// A place for one more link, accepted by this worker. It stays where it is if that has as few as any.
    #[must_use]
    pub fn place(self: &Arc<Self>, accepted_by: usize) -> Place {
        let links = |worker: usize| self.links[worker].load(Relaxed);
        let least = (0..self.links.len()).min_by_key(|worker| (links(*worker), *worker != accepted_by));
        let worker = least.unwrap_or(accepted_by);
        self.links[worker].fetch_add(1, Relaxed);
        Place { spread: self.clone(), worker }
    }
}

impl Place {
    /// Whose it is.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }
}

/// Gives a link to its worker.
pub fn give(given: Given) {
    let spread = given.place.spread.clone();
    let way = spread.ways.get().and_then(|ways| ways.get(given.place.worker));
    // Without one the engine ends, and the parent connects again.
    if let Some(way) = way {
        let _ = way.send(Command::Link(Box::new(given)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_gets_as_many_links_wherever_they_come_in() {
        for came_in in [0, 3] {
            let spread = Spread::of(4);
            let mut places: Vec<_> = (0..8).map(|_| spread.place(came_in)).collect();
            let count = |places: &[Place], worker| places.iter().filter(|place| place.worker() == worker).count();
            assert!((0..4).all(|worker| count(&places, worker) == 2));
            assert_eq!(places[0].worker(), came_in, "no link is moved for nothing");
            places.retain(|place| place.worker() != 2);
            assert_eq!(spread.place(came_in).worker(), 2);
        }
    }
}
