//! Large answers between two plain sockets: moved inside the kernel (splice(2)), never copied into this process.
//!
//! Only content whose length is known, and only behind what was read with the head: so its end is where it was promised, and
//! nothing of it needs to be looked at.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::{End, Exchange};
use crate::{conn::io::Io, forward::framing::Framing, listen::descriptors::Descriptors};

/// Less than this is copied: a pipe costs a few system calls, too.
const SPLICE_BYTES_MIN: u64 = 128 << 10;
/// What a pipe holds. Four times as much is hardly faster.
const PIPE_BYTES: usize = 256 << 10;
/// Pipes of this process, over all workers: 48 MiB. A user without privileges has 64 MiB of pipes before the system gives each new one
/// a page or two (`fs.pipe-user-pages-soft`), which costs five times as much as copying. Other programs of the user need some; and an
/// engine that takes over gets what is left, and copies the rest.
const PIPES_MAX: usize = 192;

static PIPES: AtomicUsize = AtomicUsize::new(0);

/// One of [`PIPES_MAX`]; given back when dropped.
#[derive(Debug)]
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        PIPES.fetch_update(Relaxed, Relaxed, |pipes| (pipes < PIPES_MAX).then_some(pipes + 1)).ok().map(|_| Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Relaxed);
    }
}

/// A pipe between two sockets.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    _slot: Slot,
}

impl Pipe {
    /// `None`: there are enough, descriptors are scarce, or the system gives it too little memory. Then content is copied.
    pub fn new(descriptors: Descriptors) -> Option<Self> {
        let slot = Slot::take()?;
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        if descriptors.are_scarce(&read) || descriptors.are_scarce(&write) {
            return None;
        }
        let bytes = fcntl_setpipe_size(&write, PIPE_BYTES).ok()?;
        (bytes >= PIPE_BYTES).then_some(Self { read, write, held: 0, _slot: slot })
    }

    /// Bytes in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }
}

impl Exchange<'_> {
    /// Whether what comes now can be moved without looking at it.
    pub(super) fn may_splice(&self) -> bool {
        let Some(answer) = &self.answer else { return false };
        !self.copies
            && matches!(answer.framing, Framing::Length(_))
            && answer.body.left().is_some_and(|left| left >= SPLICE_BYTES_MIN)
            && self.scratch.from_upstream.is_empty()
            && matches!(self.client, Io::Tcp(_))
            && matches!(self.upstream.io, Io::Tcp(_) | Io::Unix(_))
    }

    /// A pipe, if there is one for this answer. Asked once.
    pub(super) fn take_pipe(&mut self) {
        let kept = self.worker.local.pipes.borrow_mut().pop();
        self.pipe = kept.or_else(|| Pipe::new(self.worker.descriptors));
        self.copies = self.pipe.is_none();
        let counters = &self.worker.counters;
        if self.copies {
            counters.pipes_refused_total.add();
        }
    }

    /// Moves content until nothing more can be done. Ready: all of it is with the client.
    pub(super) fn poll_splice(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        loop {
            let (Some(pipe), Some(answer)) = (&mut self.pipe, &mut self.answer) else { return Ok(Poll::Ready(())) };
            let left = usize::try_from(answer.body.left().unwrap_or(0)).unwrap_or(usize::MAX);
            if pipe.held > 0 {
                match self.client.poll_splice_out(cx, &pipe.read, pipe.held, left > 0) {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(Ok(count)) if count > 0 => {
                        pipe.held -= count;
                        self.content_bytes += count as u64;
                        self.moved = true;
                        self.pace.moved(count);
                    }
                    Poll::Ready(_) => return Err(End::Gone),
                }
                continue;
            }
            if left == 0 {
                answer.done = true;
                self.pipe.take().into_iter().for_each(|pipe| self.worker.local.pipes.borrow_mut().push(pipe));
                return Ok(Poll::Ready(()));
            }
            match self.upstream.io.poll_splice_in(cx, &pipe.write, left.min(PIPE_BYTES)) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(count)) if count > 0 => {
                    pipe.held = count;
                    answer.body.skip(count as u64);
                    self.moved = true;
                }
                Poll::Ready(ended) => self.upstream_ended(ended)?,
            }
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

macro_rules! sockets {
    ($io:expr, $stream:ident => $act:expr) => {
        match $io {
            Io::Tcp($stream) => $act,
            Io::Unix($stream) => $act,
            _ => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    };
}

impl Io {
    /// Moves what has come into an empty pipe. 0: the end.
    fn poll_splice_in(&self, cx: &mut Context<'_>, pipe: &OwnedFd, bytes: usize) -> Poll<io::Result<usize>> {
        sockets!(self, stream => loop {
            ready!(stream.poll_read_ready(cx))?;
            let moved = stream.try_io(Interest::READABLE, || Ok(splice(stream.as_fd(), None, pipe, None, bytes, FLAGS)?));
            if !is_blocked(&moved) {
                break Poll::Ready(moved);
            }
        })
    }

    /// Moves what a pipe holds on its way.
    fn poll_splice_out(
        &self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        bytes: usize,
        more: bool,
    ) -> Poll<io::Result<usize>> {
        let flags = if more { FLAGS | SpliceFlags::MORE } else { FLAGS };
        sockets!(self, stream => loop {
            ready!(stream.poll_write_ready(cx))?;
            let moved = stream.try_io(Interest::WRITABLE, || Ok(splice(pipe, None, stream.as_fd(), None, bytes, flags)?));
            if !is_blocked(&moved) {
                break Poll::Ready(moved);
            }
        })
    }
}

fn is_blocked(moved: &io::Result<usize>) -> bool {
    matches!(moved, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
