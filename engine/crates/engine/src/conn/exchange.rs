//! One request sent to one upstream, and its answer brought back.
//!
//! Two directions run at once in one task, each with at most one buffer on its way: what the other side does not take is
//! not read either. Heads go out together with as much body as is there.
//!
//! The body of a request stays in the client's buffer while it fits, so that the request can be sent elsewhere when
//! nothing of it was processed. A larger one waits, towards a child node, for its `100 Continue`.

use std::{
    io,
    ops::Range,
    task::{Context, Poll},
    time::Duration,
};

use sdlb_http1::{self as http1, Body, Length, Name, Piece, Refused};
use tokio::time::Instant;

use super::{
    buffer::{STREAM_BYTES, Scratch},
    facts::Facts,
    io::Io,
    timer::Timer,
};
use crate::{
    answer::UNREACHABLE,
    forward::response::{self, After, Framing},
    settings::Limits,
    upstream::Upstream,
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
/// Bytes of trailers.
const TRAILER_BYTES: usize = 8 << 10;

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
    },
    /// The connection failed before the answer began.
    Failed {
        /// Bytes of the request were sent.
        wrote: bool,
        /// Bytes came back.
        answered: bool,
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
    /// It failed with the answer under way: all that is left is to close.
    Cut,
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
    timer: &'a mut Timer,
    scratch: &'a mut Scratch,
    facts: &'a Facts,
    limits: &'a Limits,
    worker: &'a Worker,
    response_timeout: Duration,
    to_node: bool,

    up: Up,
    gate: Gate,
    body: Body,
    /// Bytes of the body so far.
    body_bytes: u64,
    /// Where the body goes on in the client's buffer.
    read_at: usize,
    /// What is sent from the client's buffer behind `to_upstream`.
    direct_up: Range<usize>,
    sent_up: usize,
    wrote: bool,
    /// All of the request is still in the client's buffer.
    pub replayable: bool,

    answer: Option<Answer>,
    direct_down: Range<usize>,
    sent_down: usize,
    answered: bool,
    interims: usize,
    continued: bool,
    moved: bool,
    /// The final status; 0: none came.
    pub status: u16,
    /// Bytes of content sent to the client.
    pub content_bytes: u64,
}

/// The final answer, from its head on.
#[derive(Debug)]
struct Answer {
    body: Body,
    framing: Framing,
    keep_client: bool,
    keep_upstream: bool,
    done: bool,
}

/// What an exchange needs to know.
pub struct Terms<'a> {
    /// The request.
    pub facts: &'a Facts,
    /// Bounds and time-outs.
    pub limits: &'a Limits,
    /// The worker.
    pub worker: &'a Worker,
    /// The upstream is a child node.
    pub to_node: bool,
    /// When the body may be sent.
    pub gate: Gate,
    /// `100 Continue` was sent already.
    pub continued: bool,
}

impl<'a> Exchange<'a> {
    /// Ready to be polled.
    pub fn new(
        client: &'a mut Io,
        upstream: &'a mut Upstream,
        timer: &'a mut Timer,
        scratch: &'a mut Scratch,
        terms: &Terms<'a>,
    ) -> Self {
        let Terms { facts, limits, worker, to_node, gate, continued } = *terms;
        let trailers = http1::Limits { head_bytes: TRAILER_BYTES, fields: limits.fields };
        let own = limits.response_timeout;
        scratch.response.reset();
        Self {
            client,
            upstream,
            timer,
            facts,
            limits,
            worker,
            response_timeout: facts.timeout_ms.map_or(own, |left| own.min(Duration::from_millis(left))),
            to_node,
            up: Up::Sending,
            gate,
            body: Body::new(facts.length, trailers),
            body_bytes: 0,
            read_at: facts.head_bytes,
            direct_up: 0..0,
            sent_up: 0,
            wrote: false,
            replayable: true,
            answer: None,
            direct_down: 0..0,
            sent_down: 0,
            answered: false,
            interims: 0,
            continued,
            moved: true,
            status: 0,
            content_bytes: 0,
            scratch,
        }
    }

    /// Goes on until nothing more can be done.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
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
            if std::mem::take(&mut self.moved) {
                self.timer.set(Instant::now(), self.patience());
            }
            match self.timer.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if self.gate == Gate::Timed && self.up == Up::Sending => {
                    (self.gate, self.moved) = (Gate::Open, true);
                }
                Poll::Ready(()) => {
                    let end = self.late();
                    return Poll::Ready(self.ended(end));
                }
            }
        }
    }

    /// Leaves the buffers so that an answer of our own, or the next request, can follow.
    fn ended(&mut self, end: End) -> End {
        let sent = self.sent_down.min(self.scratch.to_client.len());
        self.scratch.to_client.drain(..sent);
        if !self.replayable || matches!(end, End::Done { .. } | End::Upgraded) {
            self.scratch.from_client.consume(self.read_at);
        }
        end
    }

    // ------------------------------------------------------------------ time

    fn patience(&self) -> Duration {
        match (&self.answer, self.up, self.gate) {
            (None, Up::Sending, Gate::Timed) => GATE,
            (None, Up::Sent | Up::Broken, _) | (None, _, Gate::Shut) => self.response_timeout,
            _ => self.limits.body_timeout,
        }
    }

    fn late(&self) -> End {
        let counters = &self.worker.counters;
        if self.answer.is_some() {
            counters.timeout_body_total.add();
            return End::Cut;
        }
        let waits_for_client = self.up == Up::Sending && self.gate == Gate::Open && !self.has_pending_up();
        if waits_for_client {
            counters.timeout_body_total.add();
            return End::ClientLate;
        }
        counters.timeout_response_total.add();
        End::Late
    }

    // ------------------------------------------------------------------ client to upstream

    fn has_pending_up(&self) -> bool {
        self.sent_up < self.scratch.to_upstream.len() || !self.direct_up.is_empty()
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.gate == Gate::Open {
                self.fill_up()?;
            }
            if self.has_pending_up() {
                let first = &self.scratch.to_upstream[self.sent_up..];
                let second = &self.scratch.from_client.data()[self.direct_up.clone()];
                match self.upstream.io.poll_write(cx, first, second) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(count)) => {
                        let head = count.min(self.scratch.to_upstream.len() - self.sent_up);
                        self.sent_up += head;
                        self.direct_up.start += count - head;
                        (self.wrote, self.moved) = (true, true);
                    }
                    Poll::Ready(Err(_)) => {
                        (self.up, self.moved) = (Up::Broken, true);
                        return Ok(());
                    }
                }
                if !self.has_pending_up() {
                    self.scratch.to_upstream.clear();
                    (self.sent_up, self.direct_up) = (0, 0..0);
                }
                continue;
            }
            if self.body.is_complete() {
                (self.up, self.moved) = (Up::Sent, true);
                return Ok(());
            }
            if self.gate != Gate::Open {
                return Ok(());
            }
            self.make_room_for_body();
            match self.client.poll_read(cx, &mut self.scratch.from_client) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Gone),
                Poll::Ready(Ok(_)) => self.moved = true,
            }
        }
    }

    /// Takes of the body what is there, up to what is to be sent next.
    fn fill_up(&mut self) -> Result<(), End> {
        let chunked = self.facts.length == Length::Chunked;
        while !self.body.is_complete() && self.direct_up.is_empty() && self.scratch.to_upstream.len() < STREAM_BYTES {
            let Scratch { from_client, to_upstream, .. } = &mut *self.scratch;
            let data = &from_client.data()[self.read_at..];
            match self.body.next(data).map_err(End::ClientMalformed)? {
                Piece::More => {
                    self.read_at += data.len();
                    break;
                }
                Piece::End(count) => self.read_at += count,
                Piece::Data(piece) => {
                    self.body_bytes += piece.len() as u64;
                    if self.limits.body_bytes.is_some_and(|bytes_max| self.body_bytes > bytes_max) {
                        return Err(End::TooLarge);
                    }
                    if chunked {
                        write_chunk(&data[piece.clone()], to_upstream);
                    } else if piece.len() <= COPY_BYTES {
                        to_upstream.extend_from_slice(&data[piece.clone()]);
                    } else {
                        self.direct_up = self.read_at + piece.start..self.read_at + piece.end;
                    }
                    self.read_at += piece.end;
                }
            }
            if chunked && self.body.is_complete() {
                write_last_chunk(&self.body, to_upstream);
            }
        }
        Ok(())
    }

    /// Keeps what was sent for another try, while there is room for it.
    fn make_room_for_body(&mut self) {
        let buffer = &mut self.scratch.from_client;
        if buffer.space().is_empty() {
            if self.replayable && buffer.data().len() < self.facts.head_bytes + REPLAY_BYTES {
                let bytes_max = self.facts.head_bytes + REPLAY_BYTES;
                if buffer.make_room(bytes_max) {
                    return;
                }
            }
            self.replayable = false;
            buffer.consume(self.read_at);
            self.read_at = 0;
            buffer.make_room(STREAM_BYTES);
            buffer.grow(STREAM_BYTES);
        }
    }

    // ------------------------------------------------------------------ upstream to client

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<Option<End>, End> {
        loop {
            if self.answer.is_none()
                && let Some(end) = self.read_heads()?
            {
                return Ok(Some(end));
            }
            self.fill_down()?;
            if self.has_pending_down() {
                let first = &self.scratch.to_client[self.sent_down..];
                let second = &self.scratch.from_upstream.data()[self.direct_down.clone()];
                match self.client.poll_write(cx, first, second) {
                    Poll::Pending => return Ok(None),
                    Poll::Ready(Ok(count)) => self.written(count),
                    Poll::Ready(Err(_)) => return Err(End::Gone),
                }
                continue;
            }
            if let Some(answer) = &self.answer
                && answer.done
            {
                return Ok(Some(self.finished()));
            }
            if self.scratch.from_upstream.is_full() {
                self.scratch.from_upstream.make_room(self.limits.head_bytes + STREAM_BYTES);
            }
            match self.upstream.io.poll_read(cx, &mut self.scratch.from_upstream) {
                Poll::Pending => return Ok(None),
                Poll::Ready(Ok(count)) if count > 0 => {
                    (self.answered, self.moved) = (true, true);
                    if self.answer.is_some() && self.scratch.from_upstream.is_full() {
                        // A stream: read more of it at once next time.
                        self.scratch.from_upstream.grow(STREAM_BYTES);
                    }
                }
                Poll::Ready(ended) => self.upstream_ended(ended)?,
            }
        }
    }

    fn has_pending_down(&self) -> bool {
        self.sent_down < self.scratch.to_client.len() || !self.direct_down.is_empty()
    }

    fn written(&mut self, count: usize) {
        let head = count.min(self.scratch.to_client.len() - self.sent_down);
        self.sent_down += head;
        self.direct_down.start += count - head;
        self.moved = true;
        if !self.has_pending_down() {
            self.scratch.from_upstream.consume(self.direct_down.end);
            self.direct_down = 0..0;
            self.scratch.to_client.clear();
            self.sent_down = 0;
        }
    }

    /// Reads heads until the final one.
    fn read_heads(&mut self) -> Result<Option<End>, End> {
        let limits = http1::Limits { head_bytes: self.limits.head_bytes, fields: self.limits.fields.max(256) };
        loop {
            let data = self.scratch.from_upstream.data();
            if data.is_empty() {
                return Ok(None);
            }
            let Some(length) = self.scratch.response.advance(data, &limits).map_err(End::Malformed)? else {
                return Ok(None);
            };
            if self.scratch.response.is_interim() {
                self.interim(length)?;
                continue;
            }
            if self.to_node && self.scratch.response.status == 421 && self.has_field(Name::SdlbNotHere) {
                return Ok(Some(self.not_here(length)));
            }
            if self.scratch.response.status == 101 {
                return self.switch(length).map(Some);
            }
            self.final_head(length);
            return Ok(None);
        }
    }

    fn has_field(&self, name: Name) -> bool {
        self.scratch.response.fields().iter().any(|field| field.name == name)
    }

    fn interim(&mut self, length: usize) -> Result<(), End> {
        self.interims += 1;
        if self.interims > INTERIM_MAX {
            return Err(End::Malformed(Refused {
                kind: http1::Kind::Malformed,
                reason: "there are too many interim answers",
            }));
        }
        let Scratch { from_upstream, response, to_client, .. } = &mut *self.scratch;
        let goes_on = response.status == 100;
        if goes_on {
            self.gate = Gate::Open;
        }
        let wanted = if goes_on { self.facts.expects && !self.continued } else { true };
        if wanted && !self.facts.old {
            self.continued |= goes_on;
            response::write_interim(&from_upstream.data()[..length], response, None, to_client);
        }
        from_upstream.consume(length);
        response.reset();
        Ok(())
    }

    /// `421` with `sdlb-not-here`: it has no content.
    fn not_here(&mut self, length: usize) -> End {
        let Scratch { from_upstream, response, .. } = &mut *self.scratch;
        let data = from_upstream.data();
        let status = |field: &&http1::Field| field.name == Name::ProxyStatus;
        let below = response.fields().iter().find(status).map_or_else(Vec::new, |field| field.value.of(data).to_vec());
        let empty = response.content_length() == Some(0) && data.len() == length;
        let keep_upstream = empty && response.keeps_alive() && self.up == Up::Sent;
        let said = response.fields().iter().find(|field| field.name == Name::SdlbNotHere);
        let unreachable = said.is_some_and(|field| field.value.of(data) == UNREACHABLE.as_bytes());
        let all = data.len();
        from_upstream.consume(all);
        End::NotHere { keep_upstream, below, unreachable }
    }

    /// `101`: only to the protocol that was asked for.
    fn switch(&mut self, length: usize) -> Result<End, End> {
        let Scratch { from_client, from_upstream, request, response, to_client, .. } = &mut *self.scratch;
        let head = &from_upstream.data()[..length];
        let asked = request.single(from_client.data(), Name::Upgrade).unwrap_or_default();
        let mut given = response.fields().iter().filter(|field| field.name == Name::Upgrade);
        let same = given.next().is_some_and(|field| field.value.of(head).eq_ignore_ascii_case(asked));
        if !self.facts.upgrade || !response.upgrades() || !same || given.next().is_some() || self.up != Up::Sent {
            return Err(End::Malformed(Refused {
                kind: http1::Kind::Malformed,
                reason: "it switched to a protocol that nobody asked for",
            }));
        }
        response::write_interim(head, response, Some(asked), to_client);
        from_upstream.consume(length);
        self.status = 101;
        Ok(End::Upgraded)
    }

    fn final_head(&mut self, length: usize) {
        let Scratch { from_upstream, response, to_client, .. } = &mut *self.scratch;
        let body = response.length(self.facts.head);
        let framing = match body {
            Length::None if response.status == 204 => Framing::Empty(None),
            Length::None => Framing::Empty(response.content_length()),
            Length::Known(length) => Framing::Length(length),
            Length::Chunked | Length::UntilClose if self.facts.old => Framing::Close,
            Length::Chunked | Length::UntilClose => Framing::Chunked,
        };
        // An answer while the request is still coming: whatever of it comes now is nobody's.
        let early = self.up != Up::Sent;
        // An upgrade that was refused: what the client has sent behind it may be anything.
        let keep_client =
            self.facts.keep && !early && !self.facts.upgrade && framing != Framing::Close && !self.worker.is_draining();
        let after = match (keep_client, self.facts.old) {
            (true, false) => After::Keep,
            (true, true) => After::KeepOld,
            (false, _) => After::Close,
        };
        let head = &from_upstream.data()[..length];
        self.worker.local.with_date(|date| response::write(head, response, framing, after, date, to_client));
        let trailers = http1::Limits { head_bytes: TRAILER_BYTES, fields: self.limits.fields };
        self.answer = Some(Answer {
            body: Body::new(body, trailers),
            framing,
            keep_client,
            keep_upstream: response.keeps_alive() && !early && body != Length::UntilClose,
            done: false,
        });
        self.status = response.status;
        from_upstream.consume(length);
    }

    /// Takes of the content what is there, up to what is to be sent next.
    fn fill_down(&mut self) -> Result<(), End> {
        let Some(answer) = &mut self.answer else {
            return Ok(());
        };
        let Scratch { from_upstream, to_client, .. } = &mut *self.scratch;
        while !answer.done && self.direct_down.is_empty() && to_client.len() < STREAM_BYTES {
            let data = from_upstream.data();
            let piece = answer.body.next(data).map_err(|_| {
                self.worker.counters.upstream_malformed_total.add();
                End::Cut
            })?;
            match piece {
                Piece::More => {
                    let count = data.len();
                    from_upstream.consume(count);
                    break;
                }
                Piece::End(count) => {
                    from_upstream.consume(count);
                    if answer.framing == Framing::Chunked {
                        write_last_chunk(&answer.body, to_client);
                    }
                    answer.done = true;
                }
                Piece::Data(piece) => {
                    self.content_bytes += piece.len() as u64;
                    if answer.framing == Framing::Chunked {
                        write_chunk(&data[piece.clone()], to_client);
                        from_upstream.consume(piece.end);
                    } else if piece.len() <= COPY_BYTES {
                        to_client.extend_from_slice(&data[piece.clone()]);
                        from_upstream.consume(piece.end);
                    } else {
                        if matches!(answer.body.left(), Some(0)) {
                            // Done with the same write; `End` would wait for another turn.
                            answer.done = true;
                        }
                        self.direct_down = piece;
                    }
                }
            }
        }
        Ok(())
    }

    /// The upstream closed or failed.
    fn upstream_ended(&mut self, ended: io::Result<usize>) -> Result<(), End> {
        self.moved = true;
        match &mut self.answer {
            None => Err(End::Failed {
                wrote: self.wrote,
                answered: self.answered,
                reason: match ended {
                    Ok(_) => "the connection ended without an answer",
                    Err(_) => "the connection was reset without an answer",
                },
            }),
            Some(answer) if ended.is_ok() && answer.body.ends_with_connection() => {
                if answer.framing == Framing::Chunked {
                    write_last_chunk(&answer.body, &mut self.scratch.to_client);
                }
                (answer.done, answer.keep_upstream) = (true, false);
                Ok(())
            }
            Some(answer) => {
                if answer.framing == Framing::Close {
                    self.client.reset_on_close();
                }
                Err(End::Cut)
            }
        }
    }

    fn finished(&mut self) -> End {
        let (keep_client, mut keep_upstream) =
            self.answer.as_ref().map_or((false, false), |answer| (answer.keep_client, answer.keep_upstream));
        if keep_upstream && !self.scratch.from_upstream.is_empty() {
            self.worker.counters.upstream_unsolicited_total.add();
            keep_upstream = false;
        }
        End::Done { keep_client, keep_upstream: keep_upstream && self.up == Up::Sent }
    }
}

fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
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
