//! From HTTP/2 to HTTP/1.1: a head that was translated already, then `DATA` and trailers as they are read.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use sdlb_http1::hex;

use super::{failed, translate};
use crate::conn::buffer::Buffer;

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
}

impl Inbound {
    /// Begins with `head`; the body follows.
    pub fn new(head: Vec<u8>, recv: RecvStream, framing: Framing) -> Self {
        let state = if framing == Framing::Plain && recv.is_end_stream() { State::End } else { State::Data };
        Self { head, at: 0, data: Bytes::new(), recv: Some(recv), framing, state }
    }

    /// Whether everything was read.
    pub fn is_over(&self) -> bool {
        self.state == State::End && self.at == self.head.len() && self.data.is_empty()
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
            self.head.clear();
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
