//! One request sent to one upstream (`request`), and its answer brought back (`heads`, then `response`).
//!
//! Two directions run at once in one task, each with at most one buffer on its way: what the other side does not take is
//! not read either. Heads go out together with as much body as is there.
//!
//! The body of a request stays in the client's buffer while it fits, so that the request can be sent elsewhere when
//! nothing of it was processed. A larger one waits, towards a child node, for its `100 Continue`.

mod heads;
mod pace;
mod request;
mod response;
pub mod splice;

use std::{
    ops::Range,
    task::{Context, Poll},
    time::Duration,
};

use sdlb_http1::{self as http1, Body, Refused};
use sdlb_routes::{Fault, Picked};
use tokio::time::Instant;

use self::{pace::Pace, splice::Pipe};
use super::{buffer::Scratch, facts::Facts, handle::is_small, io::Io, retry::Wrote, timer::Timer, watch::Watch};
use crate::{
    counters::Counter,
    forward::framing::Framing,
    settings::{Limits, ListenerKind},
    upstream::{
        Upstream,
        silence::{self, SILENCE},
    },
    worker::Worker,
};

/// Bytes of a request body that are kept until it is answered.
pub const REPLAY_BYTES: usize = 32 << 10;
/// Interim answers (1xx) before the final one.
const INTERIM_MAX: usize = 64;
/// Content up to this size is copied behind its head; more is written from where it was read.
const COPY_BYTES: usize = 4 << 10;
/// How long a body that its client sends without waiting any longer is held back for a child's `100 Continue`.
const GATE: Duration = Duration::from_secs(1);
/// The size of a chunk and its line ends, at the most.
const CHUNK_FRAME_BYTES: usize = 20;

/// How an exchange ended.
#[derive(Debug)]
pub enum End {
    /// The answer is with the client.
    Done {
        /// The client's connection can take the next request.
        keep_client: bool,
        /// The upstream's connection can.
        keep_upstream: bool,
    },
    /// A valid 101 is with the client; what was read behind it is in the buffers.
    Upgraded,
    /// A child node said that nothing was read.
    NotHere {
        /// The upstream's connection can take another request.
        keep_upstream: bool,
        /// Its `Proxy-Status`.
        below: Vec<u8>,
        /// It has members for it, and none of them could be reached.
        unreachable: bool,
        /// They have all that they may.
        full: bool,
        /// One of them had it, and ended its connection: the one of this name.
        ended: Option<Vec<u8>>,
    },
    /// The connection failed before the answer began.
    Failed {
        /// What became of the request.
        wrote: Wrote,
        /// Bytes came back.
        answered: bool,
        /// Nobody was at the other end any more: the connection was not closed for being idle.
        silent: bool,
        /// What happened.
        reason: &'static str,
    },
    /// The upstream's answer cannot be trusted.
    Malformed(Refused),
    /// The upstream did not answer, or did not take the body, in time.
    Late,
    /// The client went away.
    Gone,
    /// The client did not send its body in time.
    ClientLate,
    /// The client's body is malformed.
    ClientMalformed(Refused),
    /// The client's body is over the limit.
    TooLarge,
    /// Too much memory is in use, and this request holds much of it.
    Ended,
    /// What it was sent to drains, and the time for that is over.
    Drained,
    /// It failed with the answer under way: all that is left is to close. With the upstream's fault, if it was that.
    Cut(Option<Fault>),
}

/// When the body may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// At once.
    Open,
    /// After `100 Continue`.
    Shut,
    /// After `100 Continue`, or a while later: the client does not wait for ever either.
    Timed,
}

/// Whether it is looked whether anybody is at the upstream's end of the connection (`upstream/silence.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    NotYet,
    /// From the time on for which the timer is set; the answer is late at this one.
    Soon(Instant),
    Now,
    /// There is nothing to look at.
    Not,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Up {
    Sending,
    Sent,
    /// The upstream takes no more; it may have answered all the same.
    Broken,
}

/// The exchange. The request's head is in `scratch.to_upstream`.
pub struct Exchange<'a> {
    client: &'a mut Io,
    upstream: &'a mut Upstream,
    watch: &'a mut Watch,
    timer: &'a mut Timer,
    scratch: &'a mut Scratch,
    facts: &'a Facts,
    limits: &'a Limits,
    worker: &'a Worker,
    picked: &'a Picked,
    began: Instant,
    response_timeout: Duration,
    to_node: bool,

    up: Up,
    gate: Gate,
    body: Body,
    /// Bytes of the body so far.
    body_bytes: u64,
    body_bytes_max: Option<u64>,
    /// Where the body goes on in the client's buffer.
    read_at: usize,
    /// What is sent from the client's buffer behind `to_upstream`.
    direct_up: Range<usize>,
    sent_up: usize,
    wrote: bool,
    /// All of the request is still in the client's buffer.
    pub replayable: bool,

    answer: Option<Answer>,
    pipe: Option<Pipe>,
    /// There was no pipe for it.
    copies: bool,
    direct_down: Range<usize>,
    sent_down: usize,
    answered: bool,
    interims: usize,
    continued: bool,
    moved: bool,
    pace: Pace,
    /// For the first deadline: to send a request takes no time to speak of.
    now: Option<Instant>,
    watching: Watching,
    /// The final status; 0: none came.
    pub status: u16,
    /// Bytes of content sent to the client.
    pub content_bytes: u64,
    /// Of a gRPC answer, if it has a valid one.
    pub grpc_status: Option<u8>,
    /// For how long the upstream keeps its connection, as it says.
    pub keep_alive: Option<Duration>,
    watched: bool,
    /// When the final head came, if anybody wants to know.
    pub head_at: Option<Instant>,
}

/// The final answer, from its head on.
#[derive(Debug)]
struct Answer {
    body: Body,
    framing: Framing,
    /// The length that a chunked body must have.
    told: Option<u64>,
    keep_client: bool,
    keep_upstream: bool,
    /// For how long the upstream may be silent.
    idle_timeout: Duration,
    /// Of events or messages.
    is_stream: bool,
    done: bool,
}

/// What an exchange needs to know.
pub struct Terms<'a> {
    /// The request.
    pub facts: &'a Facts,
    /// Bounds and time-outs.
    pub limits: &'a Limits,
    /// The least that the client must send or take of a body; 0: no matter how little.
    pub bytes_per_s: u32,
    /// The worker.
    pub worker: &'a Worker,
    /// Where it goes.
    pub picked: &'a Picked,
    /// The upstream is a child node.
    pub to_node: bool,
    /// When the body may be sent.
    pub gate: Gate,
    /// `100 Continue` was sent already.
    pub continued: bool,
    /// The time.
    pub now: Instant,
    /// The service's own limit on the time until the answer begins.
    pub within: Option<Duration>,
    /// Bytes that the body may have. `None`: no limit.
    pub body_bytes_max: Option<u64>,
    /// Somebody wants to know how it went.
    pub watched: bool,
}

impl<'a> Exchange<'a> {
    /// Ready to be polled.
    pub fn new(
        client: &'a mut Io,
        upstream: &'a mut Upstream,
        watch: &'a mut Watch,
        timer: &'a mut Timer,
        scratch: &'a mut Scratch,
        terms: &Terms<'a>,
    ) -> Self {
        let Terms {
            facts,
            limits,
            bytes_per_s,
            worker,
            picked,
            to_node,
            gate,
            continued,
            now,
            within,
            body_bytes_max,
            watched,
        } = *terms;
        let trailers = limits.of_requests(facts.from);
        let own = facts.response_timeout(limits);
        scratch.response.reset();
        if matches!(client, Io::Stream(_)) || (facts.wants_trailers && !facts.old) {
            upstream.io.keep_trailers();
        }
        Self {
            client,
            upstream,
            watch,
            timer,
            facts,
            limits,
            worker,
            picked,
            began: now,
            response_timeout: facts
                .timeout_ms
                .map_or(own, |left| own.min(Duration::from_millis(left)))
                .min(within.unwrap_or(Duration::MAX)),
            to_node,
            up: Up::Sending,
            gate,
            body: Body::new(facts.length, trailers).without_underscores(facts.drops_underscores),
            body_bytes: 0,
            body_bytes_max,
            read_at: facts.head_bytes,
            direct_up: 0..0,
            sent_up: 0,
            wrote: false,
            replayable: true,
            answer: None,
            pipe: None,
            copies: false,
            direct_down: 0..0,
            sent_down: 0,
            answered: false,
            interims: 0,
            continued,
            moved: true,
            pace: Pace::new(limits.body_timeout, bytes_per_s),
            now: Some(now),
            watching: Watching::NotYet,
            status: 0,
            content_bytes: 0,
            grpc_status: None,
            keep_alive: None,
            watched,
            head_at: None,
            scratch,
        }
    }

    /// The request was sent by an exchange before, from the client's buffer up to `read_at`; only the answer is to come.
    pub fn go_on(&mut self, read_at: usize) {
        self.scratch.to_upstream.clear();
        (self.up, self.wrote, self.read_at) = (Up::Sent, true, read_at);
    }

    /// The client has sent trailers that are ours to set.
    pub fn has_forged_trailers(&self) -> bool {
        self.facts.from == ListenerKind::Entry && self.body.has_forged_trailers()
    }

    /// All of the request was read and sent.
    pub fn has_sent(&self) -> bool {
        self.up == Up::Sent
    }

    /// Something of an answer has come.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Where the request ends in the client's buffer, if all of it was sent and nothing of an answer has come.
    pub fn waits_at(&self) -> Option<usize> {
        (self.up == Up::Sent && !self.answered && self.replayable).then_some(self.read_at)
    }

    /// Goes on until nothing more can be done.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.scratch.must_end() {
            return Poll::Ready(self.ended(End::Ended));
        }
        if self.scratch.is_gone() {
            return Poll::Ready(self.ended(End::Gone));
        }
        if self.picked.is_cut(self.is_stream(), || self.worker.ms_at(self.began.into_std())) {
            return Poll::Ready(self.ended(End::Drained));
        }
        loop {
            if self.up == Up::Sending
                && let Err(end) = self.poll_up(cx)
            {
                return Poll::Ready(self.ended(end));
            }
            let gate = self.gate;
            match self.poll_down(cx) {
                Ok(None) => {}
                Ok(Some(end)) | Err(end) => return Poll::Ready(self.ended(end)),
            }
            if gate != self.gate {
                continue;
            }
            if self.poll_client(cx).is_ready() {
                return Poll::Ready(self.ended(End::Gone));
            }
            let moved = std::mem::take(&mut self.moved).then(|| self.now.take().unwrap_or_else(Instant::now));
            if let Some(now) = moved {
                let (waits, patience) = (self.waits_for_client(), self.patience());
                let patience = self.pace.turn(now, waits, patience);
                let first = self.until_watching(now, patience);
                self.timer.set(now, first);
            }
            match self.timer.poll(cx) {
                Poll::Pending => {
                    self.scratch.waits(cx, self.held_elsewhere(), moved);
                    return Poll::Pending;
                }
                Poll::Ready(()) if self.gate == Gate::Timed && self.up == Up::Sending => {
                    (self.gate, self.moved) = (Gate::Open, true);
                }
                Poll::Ready(()) if self.begin_watching() => {}
                Poll::Ready(()) => {
                    let end = self.late();
                    return Poll::Ready(self.ended(end));
                }
            }
        }
    }

    /// Whether it may last for hours, as an ordinary request does not.
    fn is_stream(&self) -> bool {
        self.facts.grpc || self.answer.as_ref().is_some_and(|answer| answer.is_stream)
    }

    /// Whether nothing more of a body is read, for too much memory is in use. Wakes this task when it may go on.
    fn must_wait(&self, cx: &Context<'_>) -> bool {
        let memory = &self.worker.local.memory;
        let must = !memory.may_grow();
        if must {
            memory.wait(cx.waker());
        }
        must
    }

    /// Bytes that are held for this request outside of the scratch.
    fn held_elsewhere(&self) -> usize {
        let (up, down) = (self.has_pending_up(), self.has_pending_down());
        let piped = self.pipe.as_ref().map_or(0, Pipe::held);
        self.client.held(up, down) + self.upstream.io.held(down, up) + piped
    }

    /// Ready: the client is gone. Not asked while its body is read anyway.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_clients_turn() {
            return Poll::Pending;
        }
        let Scratch { from_client, to_client, ahead, .. } = &mut *self.scratch;
        let ahead = (self.answer.is_none() && to_client.is_empty()).then_some(ahead);
        let ended = self.watch.has_ended();
        let gone = self.watch.poll(cx, self.client, from_client, ahead);
        self.moved |= ended != self.watch.has_ended();
        gone
    }

    /// Leaves the buffers so that an answer of our own, or the next request, can follow.
    fn ended(&mut self, end: End) -> End {
        let sent = self.sent_down.min(self.scratch.to_client.len());
        self.scratch.to_client.drain(..sent);
        if self.watching == Watching::Now {
            silence::rest(&self.upstream.io);
        }
        if !self.replayable || matches!(end, End::Done { .. } | End::Upgraded) {
            self.scratch.from_client.consume(self.read_at);
        }
        end
    }

    // ------------------------------------------------------------------ time

    fn patience(&self) -> Duration {
        let own = match self.is_clients_turn() && self.facts.grpc {
            // A stream of messages is silent and well; who is gone shows by the connection.
            true => self.limits.event_stream_idle_timeout,
            false => self.limits.body_timeout,
        };
        match (&self.answer, self.up, self.gate) {
            (None, Up::Sending, Gate::Timed) => GATE,
            (None, Up::Sent | Up::Broken, _) | (None, _, Gate::Shut) => self.response_timeout,
            // Nothing can be put into an answer to ask a client that has ended its side whether it is there: silence
            // towards it is short. Who is there and wants an endless answer has no reason to end its side.
            (Some(answer), ..) if self.is_upstreams_turn() && self.watch.has_ended() => own.min(answer.idle_timeout),
            (Some(answer), ..) if self.is_upstreams_turn() => answer.idle_timeout,
            _ => own,
        }
    }

    /// How long to wait at first.
    fn until_watching(&mut self, now: Instant, patience: Duration) -> Duration {
        if self.answer.is_some() || self.up != Up::Sent || matches!(self.watching, Watching::Now | Watching::Not) {
            if let Watching::Soon(_) = self.watching {
                self.watching = Watching::NotYet;
            }
            if self.answer.is_some() && self.watching == Watching::Now {
                // An answer may be silent for as long as it likes, and there may be thousands that are.
                silence::rest(&self.upstream.io);
                self.watching = Watching::Not;
            }
            return patience;
        }
        if !matches!(self.upstream.io, Io::Tcp(_)) || patience <= SILENCE {
            self.watching = Watching::Not;
            return patience;
        }
        self.watching = Watching::Soon(now + patience);
        SILENCE
    }

    /// Whether the timer was for this.
    fn begin_watching(&mut self) -> bool {
        let Watching::Soon(until) = self.watching else { return false };
        let small = is_small(self.facts.length);
        self.watching = if silence::watch(&self.upstream.io, small) { Watching::Now } else { Watching::Not };
        let now = Instant::now();
        self.timer.set(now, until.saturating_duration_since(now));
        true
    }

    /// We wait for more of the request's body.
    fn is_clients_turn(&self) -> bool {
        self.up == Up::Sending && self.gate == Gate::Open && !self.has_pending_up()
    }

    /// We wait for the client to send or to take something; but for a call of gRPC, which may send as seldom as it likes.
    fn waits_for_client(&self) -> bool {
        self.has_pending_down() || (self.is_clients_turn() && !self.facts.grpc)
    }

    /// We wait for more of the answer, and for nothing else.
    fn is_upstreams_turn(&self) -> bool {
        !self.has_pending_down() && !self.is_clients_turn()
    }

    fn late(&self) -> End {
        let counters = &self.worker.counters;
        if self.answer.is_some() {
            if !self.is_upstreams_turn() {
                self.clients_time_out().add();
                return End::Cut(None);
            } else if self.watch.has_ended() {
                return End::Gone;
            }
            counters.timeout_response_idle_total.add();
            return End::Cut(Some(Fault::Late));
        }
        if self.is_clients_turn() {
            self.clients_time_out().add();
            return End::ClientLate;
        }
        counters.timeout_response_total.add();
        End::Late
    }

    fn clients_time_out(&self) -> &Counter {
        let counters = &self.worker.counters;
        if self.pace.is_lost(Instant::now()) { &counters.timeout_body_pace_total } else { &counters.timeout_body_total }
    }
}

fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.len() > COPY_BYTES {
        // Else a large one would leave as much again unused.
        out.reserve_exact(data.len() + CHUNK_FRAME_BYTES);
    }
    http1::hex(data.len() as u64, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn write_last_chunk(body: &Body, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    body.write_trailers(out);
    out.extend_from_slice(b"\r\n");
}
