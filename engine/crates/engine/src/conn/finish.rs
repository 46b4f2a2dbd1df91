//! The end of a request: counted, logged, and answered by ourselves where nobody else does.

use std::{future::poll_fn, task::Poll};

use sdlb_routes::{Bound, Picked};
use tokio::time::Instant;

use super::{
    Conn, Then,
    buffer::Scratch,
    handle::{Attempt, Job, body_in},
    log::{Line, Outcome},
    select::RETRY_AFTER_S,
};
use crate::{
    answer::{Answer, Form},
    front::Added,
};

impl Conn {
    /// Counts and logs a request. To be called once for each.
    pub(super) fn finish(
        &self,
        job: &mut Job<'_>,
        picked: Option<&Picked>,
        status: u16,
        bytes: u64,
        error: &str,
        now: Instant,
    ) {
        picked.into_iter().for_each(Picked::read_ahead);
        let took = now.saturating_duration_since(job.facts.started);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // What was tried and failed is a failure of the version that was tried.
        let tried = || job.tries.last.as_ref().map(Bound::counters);
        let counters = picked.map(|picked| picked.group().counters()).or_else(tried).or(job.tries.unserved.as_ref());
        if let Some(counters) = counters {
            counters.finished(status, took_us);
            if job.facts.grpc {
                counters.grpc_finished(job.grpc_status);
            }
            if !error.is_empty() && matches!(status, 502..=504) {
                counters.failed();
            }
        }
        if let Some(line) = job.line.take() {
            let tries = &job.tries;
            let picked = picked
                .map(|picked| (&**picked.group().service(), &**picked.group().version(), &**picked.target().key()));
            let unserved = || tries.unserved.as_ref().map(|unserved| (&*unserved.name().0, "", ""));
            let member = picked.or_else(|| tries.last.as_ref().map(Bound::names)).or_else(unserved);
            let outcome = Outcome { status, bytes, took_us, member, tries: tries.count, error };
            self.worker.access_log.write(line.end(&outcome));
        }
    }

    /// The answer was under way, or nobody is there to have one.
    pub(super) fn cut(&self, job: &mut Job<'_>, picked: &Picked, status: u16, bytes: u64, error: &str) -> Attempt {
        self.finish(job, Some(picked), status, bytes, error, Instant::now());
        Attempt::Then(Then::Close)
    }

    /// Answers in the service's place.
    pub(super) async fn own_answer(
        &mut self,
        scratch: &mut Scratch,
        job: &mut Job<'_>,
        picked: Option<&Picked>,
        mut answer: Answer,
    ) -> Then {
        if answer.not_here.is_some() && job.facts.retries_425 {
            answer.status = 425;
        }
        job.facts.added.session = None; // it begins with an answer of the service
        // A body that is here already is skipped; one that is still to come may be anything.
        let data = scratch.from_client.data();
        let whole = if job.consumed { None } else { body_in(&job.facts, data, &job.config.limits) };
        let fault = matches!(answer.status, 400 | 408 | 413);
        let keep = job.facts.keep
            && whole.is_some()
            && !fault
            && !job.facts.upgrade
            && !self.worker.is_draining(self.listener.kind);
        if let Some(length) = whole {
            scratch.from_client.consume(length);
        }
        let grpc = (job.facts.grpc && answer.not_here.is_none()).then(|| answer.grpc_status());
        job.grpc_status = grpc;
        let form = Form {
            grpc,
            node: &job.config.name,
            head: job.facts.head,
            html: job.facts.html,
            added: &job.facts.added,
            page: job.facts.page,
            close: !keep,
            keep_old: keep && job.facts.old,
            request_id: &job.facts.request_id,
            date: b"",
        };
        self.worker.local.with_date(|date| answer.write(Form { date, ..form }, &mut scratch.to_client));
        let written = self.write_out(scratch).await;
        let now = Instant::now();
        self.finish(job, picked, answer.status, 0, answer.error, now);
        match (written, keep) {
            (false, _) => Then::Close,
            (true, false) => {
                if whole.is_some() {
                    Then::Last
                } else {
                    Then::Linger
                }
            }
            (true, true) => self.next(scratch, &job.config.limits, now),
        }
    }

    /// Answers a request that is ended for its memory: with what the client takes at once, for nothing is to be kept for it.
    pub(super) async fn answer_briefly(
        &mut self,
        scratch: &mut Scratch,
        job: &mut Job<'_>,
        picked: Option<&Picked>,
    ) -> Then {
        let detail = "The request was cancelled under memory pressure because it held much memory.";
        let answer = Answer {
            retry_after_s: Some(RETRY_AFTER_S),
            ..Answer::new(503, "memory-limit", "connection_limit_reached", detail)
        };
        let grpc = job.facts.grpc.then(|| answer.grpc_status());
        job.grpc_status = grpc;
        let form = Form {
            grpc,
            node: &job.config.name,
            head: job.facts.head,
            html: false,
            added: &job.facts.added,
            page: false,
            close: true,
            keep_old: false,
            request_id: &job.facts.request_id,
            date: b"",
        };
        self.worker.local.with_date(|date| answer.write(Form { date, ..form }, &mut scratch.to_client));
        let out = scratch.to_client.get(scratch.ahead..).unwrap_or_default();
        // Whether it was taken makes no difference.
        let _ = poll_fn(|cx| Poll::Ready(self.io.poll_write(cx, out, &[]))).await;
        self.finish(job, picked, answer.status, 0, answer.error, Instant::now());
        Then::Close
    }

    /// What is added to an answer to a request that could not be read: of its host no more is known than the handshake said.
    fn added_unread(&self) -> Added {
        let Some(handshake) = self.io.handshake() else { return Added::default() };
        Added { hsts_s: self.listener.hardening.hsts_s, front: handshake.site.front.clone(), session: None }
    }

    /// Answers a request that cannot be read, or is not worth reading on; the connection is closed. `head`: it was a HEAD.
    pub(super) async fn answer_unread(&mut self, scratch: &mut Scratch, answer: &Answer, head: bool) -> Then {
        let config = self.worker.config();
        let added = self.added_unread();
        self.worker.local.with_date(|date| {
            let form = Form {
                grpc: None,
                node: &config.name,
                head,
                html: false,
                added: &added,
                page: true,
                close: true,
                keep_old: false,
                request_id: b"",
                date,
            };
            answer.write(form, &mut scratch.to_client);
        });
        if self.worker.access_log.is_on() {
            let line = Line::unread(&self.listener.key, &self.peer.address, &config.name, scratch.from_client.data());
            let outcome = Outcome { status: answer.status, error: answer.error, ..Outcome::default() };
            self.worker.access_log.write(line.end(&outcome));
        }
        if self.write_out(scratch).await { Then::Linger } else { Then::Close }
    }
}
