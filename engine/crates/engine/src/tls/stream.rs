//! A TLS connection as a byte stream.
//!
//! rustls holds what the socket does not take at once; it goes out with whatever is done next with the stream, and until
//! then the task is woken when the socket takes more.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::sites::Handshake;

/// What rustls holds of what the socket does not take: its own limit, and a record more.
const UNSENT_BYTES_MAX: usize = 80 << 10;

/// Content of one record (RFC 8446, 5.1).
const RECORD_BYTES: usize = 16 << 10;

/// An established connection.
#[derive(Debug)]
pub struct Stream {
    tls: TlsStream<TcpStream>,
    handshake: Rc<Handshake>,
    unflushed: bool,
}

impl Stream {
    pub(super) fn new(tls: TlsStream<TcpStream>, handshake: Handshake) -> Self {
        Self { tls, handshake: Rc::new(handshake), unflushed: false }
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.tls.get_ref().0
    }

    /// What its handshake was for.
    #[must_use]
    pub fn handshake(&self) -> &Rc<Handshake> {
        &self.handshake
    }

    /// Whether the client chose HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        self.tls.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// Whether an earlier session was taken up.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Bytes that it holds, at the most.
    #[must_use]
    pub fn held(&self) -> usize {
        if self.unflushed { UNSENT_BYTES_MAX } else { 0 }
    }

    /// Ready: there may be something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.push(cx)?;
        if self.tls.get_ref().1.wants_read() { self.socket().poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Writes all that is still to come, if it fits into one record, and the end with it: one system call less. `None`: it does not
    /// fit, or something else waits to be sent.
    pub fn write_last(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Option<io::Result<usize>> {
        let bytes = first.len() + second.len();
        if self.unflushed || bytes > RECORD_BYTES {
            return None;
        }
        let session = self.tls.get_mut().1;
        let mut writer = session.writer();
        if let Err(error) = writer.write_all(first).and_then(|()| writer.write_all(second)) {
            return Some(Err(error));
        }
        session.send_close_notify();
        self.unflushed = true;
        Some(self.push(cx).map(|()| bytes))
    }

    /// Sends what rustls still holds; the task is woken when the socket takes more.
    fn push(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.unflushed {
            match Pin::new(&mut self.tls).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.unflushed = false;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) && self.tls.get_ref().1.wants_write() {
            self.unflushed = true;
            self.push(cx)?;
        }
        written
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.push(cx)?;
        match Pin::new(&mut self.tls).poll_read(cx, buffer) {
            // Clients that end without a close_notify are common; HTTP says by itself where a message ends.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write(cx, bytes);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tls).poll_write_vectored(cx, bytes);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.tls).poll_flush(cx);
        self.unflushed &= !matches!(flushed, Poll::Ready(Ok(())));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
