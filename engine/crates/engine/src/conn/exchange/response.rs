//! The answer, from the upstream to the client.

use std::{
    io,
    task::{Context, Poll},
};

use sdlb_http1::Piece;
use sdlb_routes::Fault;

use super::heads::{GRPC_STATUS, code};
use super::{COPY_BYTES, End, Exchange, Up, write_chunk, write_last_chunk};
use crate::{
    conn::{
        buffer::{STREAM_BYTES, Scratch},
        retry::Wrote,
    },
    forward::framing::Framing,
};

impl Exchange<'_> {
    pub(super) fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<Option<End>, End> {
        loop {
            if self.answer.is_none()
                && let Some(end) = self.read_heads()?
            {
                return Ok(Some(end));
            }
            self.fill_down()?;
            if self.has_buffered_down() {
                self.sent_down += std::mem::take(&mut self.scratch.ahead);
                let first = &self.scratch.to_client[self.sent_down..];
                let second = &self.scratch.from_upstream.data()[self.direct_down.clone()];
                let last = self.answer.as_ref().is_some_and(|answer| answer.done && !answer.keep_client);
                let written = match last {
                    true => self.client.poll_write_last(cx, first, second),
                    false => self.client.poll_write(cx, first, second),
                };
                match written {
                    Poll::Pending => {
                        // A large write to a slow reader.
                        if let Some(passed) = self.client.passed().filter(|passed| *passed > 0) {
                            self.moved = true;
                            self.pace.moved(passed);
                        }
                        return Ok(None);
                    }
                    Poll::Ready(Ok(count)) => self.written(count),
                    Poll::Ready(Err(_)) => return Err(End::Gone),
                }
                continue;
            }
            if self.pipe.is_none() && self.may_splice() {
                self.take_pipe();
            }
            if self.pipe.is_some() && self.poll_splice(cx)?.is_pending() {
                return Ok(None);
            }
            if let Some(answer) = &self.answer
                && answer.done
            {
                return Ok(Some(self.finished()));
            }
            if self.answer.is_some() && self.must_wait(cx) {
                return Ok(None);
            }
            if self.scratch.from_upstream.is_full() {
                let head_bytes = self.limits.of_answers(self.to_node).head_bytes;
                self.scratch.from_upstream.make_room(head_bytes + STREAM_BYTES);
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

    /// Something is on its way to the client.
    pub(super) fn has_pending_down(&self) -> bool {
        self.has_buffered_down() || self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0)
    }

    fn has_buffered_down(&self) -> bool {
        self.sent_down < self.scratch.to_client.len() || !self.direct_down.is_empty()
    }

    fn written(&mut self, count: usize) {
        let head = count.min(self.scratch.to_client.len() - self.sent_down);
        self.sent_down += head;
        self.direct_down.start += count - head;
        self.moved = true;
        let passed = self.client.passed().unwrap_or(count);
        self.pace.moved(passed);
        if !self.has_buffered_down() {
            self.scratch.from_upstream.consume(self.direct_down.end);
            self.direct_down = 0..0;
            self.scratch.to_client.clear();
            self.sent_down = 0;
        }
    }

    /// Takes of the content what is there, up to what is to be sent next.
    fn fill_down(&mut self) -> Result<(), End> {
        let Some(answer) = &mut self.answer else {
            return Ok(());
        };
        let Scratch { from_upstream, to_client, .. } = &mut *self.scratch;
        while !answer.done && self.direct_down.is_empty() && to_client.len() < STREAM_BYTES {
            let data = from_upstream.data();
            let malformed = || {
                self.worker.counters.upstream_malformed_total.add();
                End::Cut(Some(Fault::Broken))
            };
            let piece = answer.body.next(data).map_err(|refused| {
                if refused.is_limit() {
                    self.worker.counters.upstream_over_limit_total.add();
                    return End::Cut(None);
                }
                malformed()
            })?;
            match piece {
                Piece::More => {
                    let count = data.len();
                    from_upstream.consume(count);
                    break;
                }
                Piece::End(count) => {
                    if answer.told.is_some_and(|told| told != self.content_bytes) {
                        return Err(malformed());
                    }
                    from_upstream.consume(count);
                    if answer.framing.is_chunked() {
                        write_last_chunk(&answer.body, to_client);
                    }
                    answer.done = true;
                }
                Piece::Data(piece) => {
                    self.content_bytes += piece.len() as u64;
                    if answer.told.is_some_and(|told| told < self.content_bytes) {
                        return Err(malformed());
                    }
                    if answer.framing.is_chunked() {
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
    pub(super) fn upstream_ended(&mut self, ended: io::Result<usize>) -> Result<(), End> {
        self.moved = true;
        match &mut self.answer {
            None => Err(End::Failed {
                wrote: match &self.upstream.io {
                    io if io.was_refused() => Wrote::Refused,
                    io if io.was_unprocessed() || !self.wrote => Wrote::Nothing,
                    _ => Wrote::Something,
                },
                answered: self.answered,
                silent: self.is_silent(&ended),
                reason: match ended {
                    _ if self.is_silent(&ended) => "its connection was dead",
                    Ok(_) => "the connection was closed without a response",
                    Err(_) => "the connection was reset without a response",
                },
            }),
            Some(answer) if ended.is_ok() && answer.body.ends_with_connection() => {
                if answer.framing.is_chunked() {
                    write_last_chunk(&answer.body, &mut self.scratch.to_client);
                }
                (answer.done, answer.keep_upstream) = (true, false);
                Ok(())
            }
            Some(answer) => {
                if answer.framing == Framing::Close {
                    self.client.reset_on_close();
                }
                Err(End::Cut(Some(Fault::Broken)))
            }
        }
    }

    fn is_silent(&self, ended: &io::Result<usize>) -> bool {
        let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        ended.as_ref().is_err_and(timed_out) || (ended.is_err() && self.upstream.io.was_silent())
    }

    fn finished(&mut self) -> End {
        let (keep_client, mut keep_upstream) =
            self.answer.as_ref().map_or((false, false), |answer| (answer.keep_client, answer.keep_upstream));
        if self.facts.grpc {
            let trailer = self.answer.as_ref().and_then(|answer| code(answer.body.trailer(GRPC_STATUS)?));
            self.grpc_status = trailer.or(self.grpc_status);
        }
        if keep_upstream && !self.scratch.from_upstream.is_empty() {
            self.worker.counters.upstream_unsolicited_total.add();
            keep_upstream = false;
        }
        End::Done { keep_client, keep_upstream: keep_upstream && self.up == Up::Sent }
    }
}
