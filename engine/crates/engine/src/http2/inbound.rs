//! From HTTP/2 to HTTP/1.1: a head that was translated already, then `DATA` and trailers as they are read.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use sdlb_http1::hex;

use super::{failed, meter::Reading, translate};
use crate::conn::buffer::Buffer;

/// What is written between pieces of a body.
const HEAD_BYTES_KEPT: usize = 1 << 10;

/// How the body is told to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The head says how long it is, or that there is none.
    Plain,
    /// In chunks.
    Chunked,
    /// As it comes, to the end: of a connection that was upgraded.
    Tunnel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    End,
}

/// What is read of one stream.
#[derive(Debug)]
pub struct Inbound {
    /// HTTP/1.1 that waits to be read: a head, the frame of a chunk.
    head: Vec<u8>,
    at: usize,
    /// Content that waits to be read.
    data: Bytes,
    recv: Option<RecvStream>,
    framing: Framing,
    state: State,
    /// Is told what was taken.
    reading: Option<Rc<Reading>>,
}

impl Inbound {
    /// Begins with `head`; the body follows.
    pub fn new(head: Vec<u8>, recv: RecvStream, framing: Framing) -> Self {
        let state = if framing == Framing::Plain && recv.is_end_stream() { State::End } else { State::Data };
        Self { head, at: 0, data: Bytes::new(), recv: Some(recv), framing, state, reading: None }
    }

    /// Tells the meter of its connection what was taken.
    pub fn told(mut self, reading: Rc<Reading>) -> Self {
        self.reading = Some(reading);
        self
    }

    /// The meter of its connection.
    pub fn reading(&self) -> Option<Rc<Reading>> {
        self.reading.clone()
    }

    /// Whether everything was read.
    pub fn is_over(&self) -> bool {
        self.state == State::End && self.at == self.head.len() && self.data.is_empty()
    }

    /// Bytes that it holds; `more`: what `h2` may have for it beside them.
    pub fn held(&self, more: usize) -> usize {
        self.head.len() + self.data.len() + if self.state == State::Data { more } else { 0 }
    }

    /// Reads into the buffer's space, which must not be empty. 0: a tunnel has ended. Not to be called when it
    /// [is over](Self::is_over), but for a tunnel.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let mut total = 0;
        loop {
            let space = buffer.space();
            if space.is_empty() {
                break;
            }
            if self.at < self.head.len() {
                let count = space.len().min(self.head.len() - self.at);
                space[..count].copy_from_slice(&self.head[self.at..self.at + count]);
                buffer.filled(count);
                (self.at, total) = (self.at + count, total + count);
            } else if !self.data.is_empty() {
                let count = space.len().min(self.data.len());
                space[..count].copy_from_slice(&self.data.split_to(count));
                buffer.filled(count);
                total += count;
                // The peer may send more of it only now: memory is bounded by the window and one buffer.
                if let Some(recv) = &mut self.recv {
                    self.reading.iter().for_each(|reading| reading.taken(count));
                    let _ = recv.flow_control().release_capacity(count);
                }
                if self.data.is_empty() && self.framing == Framing::Chunked {
                    self.write(|head| head.extend_from_slice(b"\r\n"));
                }
            } else {
                match self.poll_more(cx)? {
                    Poll::Ready(()) => {}
                    Poll::Pending if total == 0 => return Poll::Pending,
                    Poll::Pending => break,
                }
                if self.is_over() {
                    break;
                }
            }
        }
        Poll::Ready(Ok(total))
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.at == self.head.len() {
            // The head was read, and may have been large.
            self.head.clear();
            self.head.shrink_to(HEAD_BYTES_KEPT);
            self.at = 0;
        }
        write(&mut self.head);
    }

    /// Ready: there is more to read, or nothing will come any more.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(recv) = &mut self.recv else { return Poll::Ready(Ok(())) };
        match self.state {
            State::Data => match ready!(recv.poll_data(cx)) {
                Some(data) => {
                    self.data = data.map_err(failed)?;
                    if self.framing == Framing::Chunked && !self.data.is_empty() {
                        let length = self.data.len() as u64;
                        self.write(|head| {
                            hex(length, head);
                            head.extend_from_slice(b"\r\n");
                        });
                    }
                }
                None => self.state = State::Trailers,
            },
            State::Trailers => {
                let trailers = ready!(recv.poll_trailers(cx)).map_err(failed)?;
                if self.framing == Framing::Chunked {
                    self.write(|head| {
                        head.extend_from_slice(b"0\r\n");
                        trailers.iter().for_each(|trailers| translate::fields(trailers, head));
                        head.extend_from_slice(b"\r\n");
                    });
                }
                self.state = State::End;
            }
            State::End => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        // `h2` forgets with the stream what nobody has taken of it.
        if let (Some(reading), Some(recv)) = (&self.reading, &mut self.recv) {
            reading.taken(recv.flow_control().used_capacity());
        }
    }
}
