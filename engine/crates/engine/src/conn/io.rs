//! Byte streams to clients and endpoints, polled without allocating.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use super::buffer::Buffer;
use crate::tls;

/// A connected stream.
#[derive(Debug)]
pub enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<tls::Stream>),
}

macro_rules! each {
    ($io:expr, $stream:ident => $act:expr) => {
        match $io {
            Io::Tcp($stream) => $act,
            Io::Unix($stream) => $act,
            Io::Tls($stream) => $act,
        }
    };
}

/// Asks the socket below.
macro_rules! socket {
    ($io:expr, $stream:ident => $act:expr) => {
        match $io {
            Io::Tcp($stream) => $act,
            Io::Unix($stream) => $act,
            Io::Tls(tls) => {
                let $stream = tls.socket();
                $act
            }
        }
    };
}

impl Io {
    /// Waits until there is something to read, or the end.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.poll_readable(cx),
        }
    }

    /// Reads once into the buffer's space, which must not be empty. 0: the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let mut space = ReadBuf::new(buffer.space());
        ready!(each!(self, stream => Pin::new(stream).poll_read(cx, &mut space)))?;
        let count = space.filled().len();
        buffer.filled(count);
        Poll::Ready(Ok(count))
    }

    /// Writes once: of `first`, then of `second`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let written = if second.is_empty() {
            ready!(each!(self, stream => Pin::new(stream).poll_write(cx, first)))?
        } else if first.is_empty() {
            ready!(each!(self, stream => Pin::new(stream).poll_write(cx, second)))?
        } else {
            let both = [IoSlice::new(first), IoSlice::new(second)];
            ready!(each!(self, stream => Pin::new(stream).poll_write_vectored(cx, &both)))?
        };
        match written {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => Poll::Ready(Ok(written)),
        }
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    /// Looks whether a connection at rest is still good, with one system call: neither ended nor spoken on.
    #[must_use]
    pub fn rest(&self) -> Rest {
        let mut byte = [MaybeUninit::uninit()];
        match socket!(self, stream => SockRef::from(stream).peek(&mut byte)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Rest::Good,
            Ok(0) | Err(_) => Rest::Ended,
            Ok(_) => Rest::Spoke,
        }
    }

    /// The host name that the TLS handshake was for.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        if let Self::Tls(stream) = self { stream.server_name() } else { None }
    }

    /// Whether the other side has reset the connection.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !matches!(socket!(self, stream => stream.take_error()), Ok(None))
    }

    /// Makes the close a reset: the other side shall not take what it has for the whole.
    pub fn reset_on_close(&self) {
        // Without it the close is an ordinary one.
        let _ = socket!(self, stream => SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)));
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
