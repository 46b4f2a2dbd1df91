//! Byte streams to clients and endpoints, polled without allocating.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::buffer::Buffer;
use crate::{
    http2,
    memory::Holder,
    tls::{self, sites::Handshake},
};

/// A connected stream.
#[derive(Debug)]
pub enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<tls::Stream>),
    /// One request of a client's HTTP/2 connection.
    Stream(Box<http2::server::Stream>),
    /// One request on a link to an endpoint.
    Link(Box<http2::client::Stream>),
}

impl Io {
    /// Waits until there is something to read, or the end.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_readable(cx),
            // It begins with a head.
            Self::Stream(_) => Poll::Ready(Ok(())),
            Self::Link(stream) => stream.poll_readable(cx).map(Ok),
        }
    }

    /// How much of what is written went on its way since this was asked, where a write is all or nothing.
    pub fn passed(&mut self) -> Option<usize> {
        match self {
            Self::Stream(stream) => Some(stream.passed()),
            _ => None,
        }
    }

    /// Reads once into the buffer's space, which must not be empty. 0: the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => read(Pin::new(stream), cx, buffer),
            Self::Unix(stream) => read(Pin::new(stream), cx, buffer),
            Self::Tls(stream) => read(Pin::new(&mut **stream), cx, buffer),
            Self::Stream(stream) => stream.poll_read(cx, buffer),
            Self::Link(stream) => stream.poll_read(cx, buffer),
        }
    }

    /// Writes once: of `first`, then of `second`. Who is told to wait writes the same bytes again.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Tcp(stream) => ready!(write(Pin::new(stream), cx, first, second))?,
            Self::Unix(stream) => ready!(write(Pin::new(stream), cx, first, second))?,
            Self::Tls(stream) => ready!(write(Pin::new(&mut **stream), cx, first, second))?,
            Self::Stream(stream) => ready!(stream.poll_write(cx, if first.is_empty() { second } else { first }))?,
            Self::Link(stream) => ready!(stream.poll_write(cx, if first.is_empty() { second } else { first }))?,
        };
        match written {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    /// The same for the last that is written to a connection. [`Self::poll_shutdown`] is still to be called.
    pub fn poll_write_last(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        if let Self::Tls(stream) = self
            && let Some(written) = stream.write_last(cx, first, second)
        {
            return Poll::Ready(written);
        }
        self.poll_write(cx, first, second)
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Stream(stream) => stream.poll_shutdown(cx),
            Self::Link(stream) => stream.poll_shutdown(cx),
        }
    }

    /// The socket; a stream has none of its own.
    fn socket(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Tcp(stream) => Some(SockRef::from(stream)),
            Self::Unix(stream) => Some(SockRef::from(stream)),
            Self::Tls(stream) => Some(SockRef::from(stream.socket())),
            Self::Stream(_) | Self::Link(_) => None,
        }
    }

    /// Looks whether a connection at rest is still good: neither ended nor spoken on. `sure`: asks the system; else only
    /// what it has told by itself since, which costs nothing and may be a moment old.
    #[must_use]
    pub fn rest(&self, sure: bool) -> Rest {
        let mut byte = [MaybeUninit::uninit()];
        let mut peek = || self.socket().map_or(Ok(0), |socket| socket.peek(&mut byte));
        let seen = match self {
            Self::Tcp(stream) if !sure => stream.try_io(Interest::READABLE, &mut peek),
            Self::Unix(stream) if !sure => stream.try_io(Interest::READABLE, &mut peek),
            _ => peek(),
        };
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Rest::Good,
            Ok(0) | Err(_) => Rest::Ended,
            Ok(_) => Rest::Spoke,
        }
    }

    /// What the TLS handshake was for; `None`: it is in plaintext.
    #[must_use]
    pub fn handshake(&self) -> Option<&Handshake> {
        match self {
            Self::Tls(stream) => Some(stream.handshake()),
            Self::Stream(stream) => stream.handshake(),
            Self::Tcp(_) | Self::Unix(_) | Self::Link(_) => None,
        }
    }

    /// The address that its client has connected to.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Tls(stream) => stream.socket().local_addr().ok(),
            Self::Unix(_) | Self::Stream(_) | Self::Link(_) => None,
        }
    }

    /// What its memory counts as a part of.
    #[must_use]
    pub fn whole(&self) -> Option<&Rc<Holder>> {
        match self {
            Self::Stream(stream) => stream.whole(),
            _ => None,
        }
    }

    /// Bytes that it holds beside our own buffers, roughly. `unread`: what comes is not read now; `unsent`: what was written
    /// is not taken by the other side now. What may come or go by itself counts as if it had.
    #[must_use]
    pub fn held(&self, unread: bool, unsent: bool) -> usize {
        match self {
            // The kernel's: bounded by the system.
            Self::Tcp(_) | Self::Unix(_) => 0,
            Self::Tls(stream) => stream.held(),
            Self::Stream(stream) => stream.held(unread, unsent),
            Self::Link(stream) => stream.held(unread, unsent),
        }
    }

    /// Whether it carries one request and ends.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Link(_))
    }

    /// Whether the other side has ended this request only, and goes on with others.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        matches!(self, Self::Link(stream) if stream.was_reset())
    }

    /// Whether the other side has said that it did not process this request, and goes on with others.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        matches!(self, Self::Link(stream) if stream.was_refused())
    }

    /// The length of a client's body that is read in chunks, for trailers may follow.
    #[must_use]
    pub fn told_length(&self) -> Option<u64> {
        match self {
            Self::Stream(stream) => stream.told_length(),
            _ => None,
        }
    }

    /// Trailers of the answer can be passed on behind a body of a told length.
    pub fn keep_trailers(&mut self) {
        if let Self::Link(stream) = self {
            stream.keep_trailers();
        }
    }

    /// No answer came in time.
    pub fn is_late(&self) {
        if let Self::Link(stream) = self {
            stream.is_late();
        }
    }

    /// Whether a link has ended because nobody was at its other end any more.
    #[must_use]
    pub fn was_silent(&self) -> bool {
        matches!(self, Self::Link(stream) if stream.was_silent())
    }

    /// Whether the request was not processed, for its connection has ended, or was about to, before it.
    #[must_use]
    pub fn was_unprocessed(&self) -> bool {
        matches!(self, Self::Link(stream) if stream.was_unprocessed())
    }

    /// Whether the other side has reset the connection. (A stream says so when it is read.)
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.socket().is_some_and(|socket| !matches!(socket.take_error(), Ok(None)))
    }

    /// Makes the close a reset: the other side shall not take what it has for the whole.
    pub fn reset_on_close(&mut self) {
        if let Self::Stream(stream) = self {
            stream.break_off();
        } else if let Some(socket) = self.socket() {
            // Without it the close is an ordinary one.
            let _ = socket.set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

/// A stream of which the beginning was read already.
#[derive(Debug)]
pub struct Replayed {
    read: Bytes,
    stream: TcpStream,
}

impl Replayed {
    /// `read`: what was read of it.
    #[must_use]
    pub fn new(read: Bytes, stream: TcpStream) -> Self {
        Self { read, stream }
    }
}

impl AsyncRead for Replayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn read(stream: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
    let mut space = ReadBuf::new(buffer.space());
    ready!(stream.poll_read(cx, &mut space))?;
    let count = space.filled().len();
    buffer.filled(count);
    Poll::Ready(Ok(count))
}

fn write(
    stream: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    first: &[u8],
    second: &[u8],
) -> Poll<io::Result<usize>> {
    if second.is_empty() {
        stream.poll_write(cx, first)
    } else if first.is_empty() {
        stream.poll_write(cx, second)
    } else {
        stream.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)])
    }
}

/// What a connection at rest did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: it can be used.
    Good,
    /// It ended or failed.
    Ended,
    /// It sent what nobody asked for.
    Spoke,
}
