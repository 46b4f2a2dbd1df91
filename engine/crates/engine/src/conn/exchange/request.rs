//! The request, from the client to the upstream.

use std::task::{Context, Poll};

use sdlb_http1::{Kind, Piece, Refused};

use super::{COPY_BYTES, End, Exchange, Gate, REPLAY_BYTES, Up, write_chunk, write_last_chunk};
use crate::conn::buffer::{STREAM_BYTES, Scratch};

impl Exchange<'_> {
    pub(super) fn has_pending_up(&self) -> bool {
        self.sent_up < self.scratch.to_upstream.len() || !self.direct_up.is_empty()
    }

    pub(super) fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
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
            if self.must_wait(cx) {
                return Ok(());
            }
            self.make_room_for_body();
            match self.client.poll_read(cx, &mut self.scratch.from_client) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0) | Err(_)) => return Err(End::Gone),
                Poll::Ready(Ok(count)) => {
                    self.moved = true;
                    self.pace.moved(count);
                }
            }
        }
    }

    /// Takes of the body what is there, up to what is to be sent next.
    fn fill_up(&mut self) -> Result<(), End> {
        let chunked = self.facts.framing(self.to_node, self.upstream.io.is_stream()).is_chunked();
        while !self.body.is_complete() && self.direct_up.is_empty() && self.scratch.to_upstream.len() < STREAM_BYTES {
            let Scratch { from_client, to_upstream, .. } = &mut *self.scratch;
            let data = &from_client.data()[self.read_at..];
            match self.body.next(data).map_err(End::ClientMalformed)? {
                Piece::More => {
                    self.read_at += data.len();
                    break;
                }
                Piece::End(_) if self.facts.told.is_some_and(|told| told != self.body_bytes) => {
                    return Err(not_as_told());
                }
                Piece::End(count) => self.read_at += count,
                Piece::Data(piece) => {
                    self.body_bytes += piece.len() as u64;
                    if self.body_bytes_max.is_some_and(|bytes_max| self.body_bytes > bytes_max) {
                        return Err(End::TooLarge);
                    }
                    if self.facts.told.is_some_and(|told| told < self.body_bytes) {
                        return Err(not_as_told());
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
}

fn not_as_told() -> End {
    End::ClientMalformed(Refused {
        kind: Kind::Malformed,
        reason: "the length of the content does not match sdlb-length",
    })
}
