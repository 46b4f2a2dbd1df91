//! From HTTP/1.1 to HTTP/2: what is written behind a head becomes `DATA` and trailers.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use sdlb_http1::{Body, Piece};

use super::{failed, meter::Reading, translate};

/// Content that `h2` holds for the peer of one stream.
pub const SEND_BUFFER: usize = 64 << 10;

#[derive(Debug)]
enum End {
    NotYet,
    Plain,
    Trailers(HeaderMap),
}

/// What is written to one stream, behind its head.
#[derive(Debug)]
pub struct Outbound {
    send: SendStream<Bytes>,
    /// Where the body ends; `None`: a tunnel.
    body: Option<Body>,
    /// Content that is not with `h2` yet, and what comes behind it.
    waiting: Bytes,
    end: End,
    ended: bool,
    /// So many bytes of what is written again have become `waiting`.
    taken: usize,
    /// Of these, on their way since somebody asked.
    passed: usize,
    /// Is told what was given to `h2`.
    reading: Option<Rc<Reading>>,
}

impl Outbound {
    /// `ended`: the head was all. `body`: `None` for a tunnel.
    pub fn new(send: SendStream<Bytes>, body: Option<Body>, ended: bool) -> Self {
        Self { send, body, waiting: Bytes::new(), end: End::NotYet, ended, taken: 0, passed: 0, reading: None }
    }

    /// Bytes of content that went on their way since this was asked: of a write that is not done yet as well.
    pub fn passed(&mut self) -> usize {
        std::mem::take(&mut self.passed)
    }

    /// Tells the meter of its connection what was given to `h2`.
    pub fn told(mut self, reading: Option<Rc<Reading>>) -> Self {
        self.reading = reading;
        self
    }

    /// Whether the stream's end was sent.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Ready: the peer has reset the stream.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.send.poll_reset(cx).map(|reset| match reset {
            Ok(reason) => io::Error::new(io::ErrorKind::ConnectionReset, reason.description()),
            Err(error) => failed(error),
        })
    }

    /// Bytes that it holds, and `h2` for it; `unsent`: the peer does not take them now.
    pub fn held(&self, unsent: bool) -> usize {
        self.waiting.len() + if unsent { SEND_BUFFER } else { 0 }
    }

    /// Breaks the stream off.
    pub fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.ended = true;
            self.send.send_reset(reason);
        }
    }

    /// Writes. What the peer's window has no room for is kept, and the same bytes are to be written again: they count as
    /// written only when they are on their way.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.taken == 0 {
            self.taken = self.take(bytes)?;
        }
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.taken)))
    }

    /// Ends a tunnel.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !std::mem::replace(&mut self.ended, true) {
            self.send.send_data(Bytes::new(), true).map_err(failed)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes of the body what is there, all but what is behind its end. Gives how many bytes that were.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(body) = &mut self.body else {
            self.waiting = Bytes::copy_from_slice(bytes);
            return Ok(bytes.len());
        };
        let mut content = Vec::with_capacity(bytes.len());
        let mut at = 0;
        loop {
            let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
            match body.next(&bytes[at..]).map_err(malformed)? {
                Piece::More => {
                    at = bytes.len();
                    break;
                }
                Piece::End(count) => {
                    at += count;
                    break;
                }
                Piece::Data(piece) => {
                    content.extend_from_slice(&bytes[at + piece.start..at + piece.end]);
                    at += piece.end;
                }
            }
        }
        self.waiting = content.into();
        if body.is_complete() {
            self.end = translate::trailers(body).map_or(End::Plain, End::Trailers);
        }
        Ok(at)
    }

    /// Gives what waits to `h2`, as far as the peer takes it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            self.send.reserve_capacity(self.waiting.len());
            if self.send.capacity() == 0 {
                match ready!(self.send.poll_capacity(cx)) {
                    Some(capacity) => drop(capacity.map_err(failed)?),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            let room = self.send.capacity().min(self.waiting.len());
            self.passed += room;
            let part = self.waiting.split_to(room);
            let last = self.waiting.is_empty() && matches!(self.end, End::Plain);
            self.reading.iter().for_each(|reading| reading.given(room));
            self.send.send_data(part, last).map_err(failed)?;
            self.ended |= last;
        }
        if !self.ended {
            match std::mem::replace(&mut self.end, End::NotYet) {
                End::NotYet => return Poll::Ready(Ok(())),
                End::Plain => self.send.send_data(Bytes::new(), true).map_err(failed)?,
                End::Trailers(trailers) => self.send.send_trailers(trailers).map_err(failed)?,
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}
