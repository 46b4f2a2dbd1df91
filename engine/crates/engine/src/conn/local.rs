//! What the connections of one worker share.

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sdlb_routes::Target;
use tokio::time::{Instant, sleep};

use super::{buffer::Scratches, exchange::splice::Pipe, resting::Resting};
use crate::{
    http2::link::Links,
    memory::{Memory, keeper},
    supervise,
    upstream::{Budget, Pool},
    worker::Worker,
};

/// Pipes that wait for another large answer.
const PIPES_KEPT_MAX: usize = 16;
/// Between two looks through the pools.
const SWEEP: Duration = Duration::from_secs(2);
/// Larger than what the allocator keeps in pages with others.
const PIECE_BYTES: usize = 1 << 20;

/// Pools, memory, budget of one worker.
#[derive(Debug)]
pub struct Local {
    /// What they hold.
    pub memory: Rc<Memory>,
    /// Memory of requests.
    pub scratches: Scratches,
    /// Upstream connections.
    pub pool: Pool,
    /// Empty ones, for large answers.
    pub pipes: RefCell<Vec<Pipe>>,
    /// HTTP/2 connections to endpoints.
    pub links: Links,
    /// Retries.
    pub budget: Budget,
    /// Client connections that could make room for others.
    pub resting: Resting,
    date: RefCell<(u64, Vec<u8>)>,
    swept: Cell<bool>,
}

impl Local {
    /// Accounts for memory there.
    #[must_use]
    pub fn new(memory: Rc<Memory>) -> Self {
        Self {
            scratches: Scratches::new(memory.clone()),
            memory,
            pool: Pool::default(),
            pipes: RefCell::default(),
            links: Links::default(),
            budget: Budget::default(),
            resting: Resting::default(),
            date: RefCell::default(),
            swept: Cell::default(),
        }
    }

    /// Starts sweeping the pools, once. Ends with the worker.
    pub fn start(worker: &Rc<Worker>) {
        if !worker.local.swept.replace(true) {
            tokio::task::spawn_local(supervise::task("the memory trimmer", keeper::run(Rc::downgrade(worker))));
            tokio::task::spawn_local(supervise::task("the pool sweeper", sweep(Rc::downgrade(worker))));
        }
    }

    /// Runs `act` with the value of `Date` now.
    pub fn with_date<T>(&self, act: impl FnOnce(&[u8]) -> T) -> T {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut date = self.date.borrow_mut();
        if date.0 != now_s || date.1.is_empty() {
            *date = (now_s, http_date(now_s).into_bytes());
        }
        act(&date.1)
    }
}

async fn sweep(worker: Weak<Worker>) {
    loop {
        sleep(SWEEP).await;
        let Some(worker) = worker.upgrade() else { return };
        let now = Instant::now();
        let in_use = |target: &Arc<Target>| worker.with_table(|table| table.has(target));
        worker.local.pool.sweep(now, &worker.counters, in_use);
        worker.local.links.sweep(now, in_use);
        worker.local.scratches.sweep();
        worker.local.pipes.borrow_mut().truncate(PIPES_KEPT_MAX);
        // The allocator gives memory back to the system only when large pieces of it come and go. Nothing is written to this one.
        drop(black_box(Vec::<u8>::with_capacity(PIECE_BYTES)));
    }
}

/// IMF-fixdate (RFC 9110, 5.6.7) of a Unix time.
fn http_date(unix_s: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Days to civil date, by eras of 400 years that begin on 1 March (H. Hinnant, "chrono-compatible algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_rfc() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_399), "Mon, 28 Feb 2000 23:59:59 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
