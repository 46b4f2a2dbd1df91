//! A request that is slow is asked of a second member as well, and the first answer counts ("hedged requests": Dean and Barroso, "The
//! Tail at Scale", 2013). Only at an entry, once a request, for what may be done twice, if its service wants it, and paid for
//! by the retry budget: so a tree that is slow as a whole is not asked twice as much.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use sdlb_routes::Picked;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Conn,
    buffer::Scratch,
    exchange::End,
    handle::{Attempt, Job, is_small},
};
use crate::{settings::ListenerKind, upstream::Upstream};

/// A request that was sent whole and has no answer yet.
#[derive(Debug)]
pub struct Held {
    pub upstream: Upstream,
    /// When it was sent.
    pub since: Instant,
    /// Where it ends in the client's buffer.
    pub read_at: usize,
}

/// What an exchange comes to.
pub enum Turn {
    Ended(End),
    /// Its request ends at this place of the client's buffer.
    Slow(usize),
    /// The member that was asked before has spoken.
    Overtaken,
}

/// How long to wait for an answer before a second member is asked.
pub type Patience = Option<Pin<Box<Sleep>>>;

/// While an exchange waits at `waits_at` for its answer.
pub fn poll(
    cx: &mut Context<'_>,
    waits_at: Option<usize>,
    held: &mut Option<Box<Held>>,
    patience: &mut Patience,
) -> Poll<Turn> {
    // Gone when the second one is answered; until then also while its request is not through yet.
    if let Some(held) = held {
        return held.upstream.io.poll_readable(cx).map(|_| Turn::Overtaken);
    }
    let (Some(read_at), Some(sleep)) = (waits_at, patience) else { return Poll::Pending };
    ready!(sleep.as_mut().poll(cx));
    Poll::Ready(Turn::Slow(read_at))
}

impl Conn {
    /// Begins when a request is sent.
    pub(super) fn patience(&self, job: &Job<'_>) -> Patience {
        let settings = job.tries.settings.as_ref()?;
        let (facts, tries) = (&job.facts, &job.tries);
        let may = settings.hedge_ms != 0
            && self.listener.kind == ListenerKind::Entry
            && facts.idempotent
            && !facts.upgrade
            && is_small(facts.length)
            && !tries.hedged
            && tries.paid < settings.retries_max;
        may.then(|| Box::pin(sleep(Duration::from_millis(settings.hedge_ms.into()))))
    }

    /// Asks a second member. Gives the one whose answer counts, and what came of it.
    pub(super) async fn hedge(
        &mut self,
        scratch: &mut Scratch,
        job: &mut Job<'_>,
        first: Picked,
        held: Box<Held>,
    ) -> (Picked, Attempt) {
        job.tries.hedged = true;
        job.tries.avoid(first.target().id());
        let mut held = held;
        if let Some(second) = self.second(scratch, job, &first) {
            let counters = &self.worker.counters;
            counters.hedges_total.add();
            counters.retries_total.add();
            second.group().counters().retried();
            job.tries.count += 1;
            let since = held.since;
            job.tries.held = Some(held);
            let attempt = self.attempt(scratch, job, &second, None).await;
            // As long as the second one has no answer, whatever became of it, the first may have one; unless the client is gone.
            let Some(back) = job.tries.held.take().filter(|_| !matches!(attempt, Attempt::Then(_))) else {
                let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
                first.went(self.worker.now_ms(), took, false);
                return (second, attempt);
            };
            held = back;
            job.tries.costs = false;
        }
        let attempt = self.attempt(scratch, job, &first, Some(held)).await;
        (first, attempt)
    }

    fn second(&self, scratch: &Scratch, job: &mut Job<'_>, first: &Picked) -> Option<Picked> {
        let second = self.another(scratch, &job.facts, &mut job.tries, first)?;
        if !self.may_try_again() {
            return None;
        }
        job.tries.paid += 1;
        Some(second)
    }
}
