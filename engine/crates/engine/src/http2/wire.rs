//! Between `h2` and the socket: what is written in one turn goes out at its end, at once.
//!
//! `h2` flushes after every larger frame, which would be a TLS record and a system call for each answer of many. So here a
//! flush only counts when it is the connection's task that asks for it, with [`Flush`], after `h2` has said all it has.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Past this size what is gathered goes out before more is taken.
const GATHERED_MAX: usize = 64 << 10;

#[derive(Debug)]
struct Inner<T> {
    io: T,
    gathered: Vec<u8>,
    sent: usize,
    /// Bytes that have come.
    heard: u64,
}

/// What `h2` reads from and writes to.
#[derive(Debug)]
pub struct Wire<T>(Rc<RefCell<Inner<T>>>);

/// Sends what was gathered.
#[derive(Debug)]
pub struct Flush<T>(Rc<RefCell<Inner<T>>>);

/// Both ends of a wire on `io`.
pub fn wire<T>(io: T) -> (Wire<T>, Flush<T>) {
    let inner = Rc::new(RefCell::new(Inner { io, gathered: Vec::new(), sent: 0, heard: 0 }));
    (Wire(inner.clone()), Flush(inner))
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.sent = 0;
        if self.gathered.capacity() > GATHERED_MAX {
            self.gathered = Vec::new();
        }
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Flush<T> {
    /// Sends what there is. An error shows at the next write, too.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }

    /// Bytes that wait to be sent, with the memory for them.
    pub fn held(&self) -> usize {
        self.0.borrow().gathered.capacity()
    }

    /// Bytes that have come.
    pub fn heard(&self) -> u64 {
        self.0.borrow().heard
    }

    /// Frees the memory of a connection at rest.
    pub fn rest(&self) {
        let inner = &mut *self.0.borrow_mut();
        if inner.gathered.is_empty() {
            inner.gathered = Vec::new();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut inner.io).poll_read(cx, buffer);
        inner.heard += (buffer.filled().len() - before) as u64;
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.gathered.len() >= GATHERED_MAX {
            ready!(inner.poll_send(cx))?;
        }
        inner.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
