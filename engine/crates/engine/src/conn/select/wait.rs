//! A request waits when there is no member for it: parked, until the table changes; or for room.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use sdlb_routes::{Park, Service, ServiceLimits, Waiter};
use tokio::time::{Instant, timeout};

use super::{RETRY_AFTER_S, Tries, Unserved, overloaded};
use crate::{
    answer::{Answer, FULL},
    conn::{Conn, buffer::Scratch},
    counters::{Counter, Counters, Gauged},
    settings::ListenerKind,
};

/// A group that is gone below is a moment away from being gone here, or back: so long a request waits for it, even when
/// its route does not park. Control tells within milliseconds while it runs; this is the time in which a control that was
/// killed is back and knows again (a lease).
const SETTLE: Park = Park { requests_max: 4096, timeout_ms: 10_000 };
/// A node that has just started has its first table a moment later; if not, its control is in trouble.
const TABLE_WITHIN: Duration = Duration::from_secs(30);
/// While it waits for what children say, or for members that could not be reached, it asks them again after this time and
/// then after twice the time, besides after every change of the table.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// So often that time is doubled for members that could not be reached: a program that starts may be there any moment.
const UNREACHED_DOUBLED_MAX: u32 = 5;
const NOT_HERE_DOUBLED_MAX: u32 = 8;
/// Who waits for room looks again after this time, besides when it is woken.
const ROOM_LOOK: Duration = Duration::from_millis(50);

/// One of the requests that wait for room. Gives its place back when dropped.
pub(super) struct Queued {
    waiter: Waiter,
    until: Instant,
    _now: Gauged<fn(&Counters) -> &Counter>,
}

/// One of the requests that wait. Gives its place back when dropped.
pub(super) struct Parked {
    place: Arc<AtomicU32>,
    _now: Gauged<fn(&Counters) -> &Counter>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.place.fetch_sub(1, Relaxed);
    }
}

impl Conn {
    /// Until when a route may still come: the node has just started.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        let settles = Instant::from_std(self.worker.config().settles?);
        let without_table = self.worker.with_table(|table| table.epoch() == 0);
        let until = if without_table { settles + TABLE_WITHIN } else { settles };
        (Instant::now() < until).then_some(until)
    }

    /// Waits for another table, with a request that nothing matches.
    pub(super) async fn wait_for_routes(
        &mut self,
        scratch: &mut Scratch,
        until: Instant,
        tries: &mut Tries,
    ) -> Result<(), Unserved> {
        let counters = &self.worker.counters;
        if counters.parked_now.get() >= SETTLE.requests_max.into() {
            counters.limit_parked_total.add();
            return Err(
                nothing_ready(tries, "The node has just started, and its queue of parked requests is full.").into()
            );
        }
        let _now: Gauged<fn(&Counters) -> &Counter> = Gauged::new(counters.clone(), |counters| &counters.parked_now);
        self.next_table(scratch, tries, until.saturating_duration_since(Instant::now())).await
    }

    /// Waits until it is worth another look.
    pub(super) async fn wait(
        &mut self,
        scratch: &mut Scratch,
        park: Option<Park>,
        place: &Arc<AtomicU32>,
        tries: &mut Tries,
    ) -> Result<(), Unserved> {
        let counters = &self.worker.counters;
        let until = match (&tries.parked, tries.until) {
            (Some(_), Some(until)) => until,
            _ => self.park(park, place, tries)?,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            counters.timeout_parked_total.add();
            if let Some(failure) = tries.failure.take() {
                return Err(if park.is_some() { unreached(failure).into() } else { failure.into() });
            }
            return Err(nothing_ready(tries, "No instance became ready in time.").into());
        }
        let turn = match (tries.not_here, &tries.failure) {
            (true, _) => left.min(ASK_AGAIN * (1 << tries.asked.min(NOT_HERE_DOUBLED_MAX))),
            (false, Some(_)) => left.min(ASK_AGAIN * (1 << tries.asked.min(UNREACHED_DOUBLED_MAX))),
            (false, None) => left,
        };
        tries.asked += 1;
        self.next_table(scratch, tries, turn).await?;
        tries.forget();
        Ok(())
    }

    /// Takes a place among those that wait for the route. Gives until when.
    fn park(&self, park: Option<Park>, place: &Arc<AtomicU32>, tries: &mut Tries) -> Result<Instant, Unserved> {
        let counters = &self.worker.counters;
        // In a cut-over the last old process is gone a moment before its member is: a request that nobody has
        // read waits for the new version like those that come a moment later. Its route parks only while
        // something is expected; else there is nothing to wait for.
        if park.is_none()
            && let Some(failure) = tries.failure.take_if(|_| !tries.not_here)
        {
            return Err(failure.into());
        }
        let Some(terms) = park.or(tries.not_here.then_some(SETTLE)) else {
            return Err(nothing_ready(tries, "No instance is ready.").into());
        };
        let waiting = place.fetch_add(1, Relaxed);
        let parked =
            Parked { place: place.clone(), _now: Gauged::new(counters.clone(), |counters| &counters.parked_now) };
        if waiting >= terms.requests_max {
            counters.limit_parked_total.add();
            drop(parked);
            return Err(nothing_ready(tries, "No instance is ready, and the queue of parked requests is full.").into());
        }
        if tries.until.is_none() {
            counters.parked_total.add();
            tries.unserved.iter().for_each(|unserved| unserved.parked());
        }
        tries.parked = Some(parked);
        Ok(*tries.until.get_or_insert_with(|| Instant::now() + Duration::from_millis(terms.timeout_ms.into())))
    }

    /// Waits for another table, for so long at most.
    async fn next_table(&mut self, scratch: &mut Scratch, tries: &mut Tries, within: Duration) -> Result<(), Unserved> {
        let Some(changes) = &mut tries.changes else { return Ok(()) };
        tokio::select! {
            biased;
            // An error means that the worker ends.
            _ = timeout(within, changes.changed()) => Ok(()),
            left = self.left(scratch) => Err(left),
        }
    }

    /// Waits until one of the service's requests has ended, if there is a place in the queue.
    pub(super) async fn wait_for_room(
        &mut self,
        scratch: &mut Scratch,
        service: &Arc<Service>,
        limits: &ServiceLimits,
        tries: &mut Tries,
    ) -> Result<(), Unserved> {
        let counters = &self.worker.counters;
        let below = self.listener.kind == ListenerKind::Node;
        let refused = |detail: &str| {
            if below { Answer::not_here(FULL, Vec::new(), "connection_limit_reached") } else { overloaded(detail) }
        };
        let Some(queued) = &tries.queued else {
            if limits.pending == 0 {
                counters.limit_in_flight_total.add();
                return Err(refused("The service is at its limit of requests in flight.").into());
            }
            let Some(waiter) = service.enter_queue(limits.pending) else {
                counters.limit_pending_total.add();
                return Err(refused("The service's queue is full.").into());
            };
            tries.queued = Some(Queued {
                waiter,
                until: Instant::now() + Duration::from_millis(limits.pending_timeout_ms.into()),
                _now: Gauged::new(counters.clone(), |counters| &counters.pending_now),
            });
            // Once more: one may have ended since.
            return Ok(());
        };
        let left = queued.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            counters.timeout_pending_total.add();
            tries.queued = None;
            return Err(refused("The service had no capacity for the request in time.").into());
        }
        tokio::select! {
            biased;
            // Room that nobody was told of: below, or that of an endpoint which is back.
            _ = timeout(left.min(ROOM_LOOK), poll_fn(|cx| queued.waiter.poll(cx))) => {}
            left = self.left(scratch) => return Err(left),
        }
        tries.full = false;
        tries.forget();
        Ok(())
    }

    /// Waits until the client is gone, or the request has to end for its memory.
    pub(in crate::conn) async fn left(&mut self, scratch: &mut Scratch) -> Unserved {
        poll_fn(|cx| {
            if scratch.must_end() {
                return Poll::Ready(Unserved::Ended);
            }
            let Scratch { from_client, to_client, ahead, .. } = &mut *scratch;
            let ahead = to_client.is_empty().then_some(ahead);
            if self.watch.poll(cx, &mut self.io, from_client, ahead).is_ready() {
                return Poll::Ready(Unserved::Gone);
            }
            scratch.waits(cx, self.io.held(false, false), None);
            Poll::Pending
        })
        .await
    }
}

/// There were members all the time, and none of them could be reached.
fn unreached(failure: Answer) -> Answer {
    let detail = "No instance could be reached in time.";
    let below = failure.below;
    Answer { retry_after_s: Some(RETRY_AFTER_S), below, ..Answer::new(503, "nothing-ready", failure.error, detail) }
}

fn nothing_ready(tries: &mut Tries, detail: &str) -> Answer {
    Answer {
        retry_after_s: Some(RETRY_AFTER_S),
        below: std::mem::take(&mut tries.below),
        ..Answer::new(503, "nothing-ready", "destination_unavailable", detail)
    }
}
