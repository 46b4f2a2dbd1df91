//! Byte buffers of a fixed place, and the memory of a request, which is lent by the worker.
//!
//! An idle connection owns no buffer: it takes a [`Scratch`] when something arrives and gives it back when nothing is
//! left to do. So memory follows the number of requests in flight, not the number of connections.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Context,
};

use sdlb_http1::{Host, Request, Response};
use tokio::time::Instant;

use crate::memory::{Account, Holder, Memory};

/// A buffer begins with this size ...
pub const BUFFER_BYTES: usize = 16 << 10;
/// ... and a stream of bytes gets one of this size.
pub const STREAM_BYTES: usize = 64 << 10;
/// Scratches kept for the next requests of a worker; each holds two buffers. Those that a while has not needed go.
const KEPT_MAX: usize = 1024;
/// Of these, when memory is short.
const KEPT_MIN: usize = 16;
/// A scratch without its buffers, and what a task has beside it, roughly.
const BARE_BYTES: usize = 8 << 10;

/// Bytes that were read and not consumed yet. The memory is written to once, when it is taken.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// What was read and not consumed.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room to read into. May be empty: then [`Self::make_room`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(BUFFER_BYTES, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were read into [`Self::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Makes room by moving what is there to the front, else by growing up to `bytes_max`. False: it is full.
    pub fn make_room(&mut self, bytes_max: usize) -> bool {
        if self.end < self.bytes.len() || self.bytes.is_empty() {
            return true;
        }
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            return true;
        }
        self.grow(bytes_max)
    }

    /// Grows to twice its size, at most to `bytes_max`.
    pub fn grow(&mut self, bytes_max: usize) -> bool {
        let size = (self.bytes.len() * 2).max(BUFFER_BYTES).min(bytes_max);
        if size <= self.bytes.len() {
            return false;
        }
        self.bytes.resize(size, 0);
        true
    }

    /// Whether the last read filled it: there is likely more to come than its size.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.end == self.bytes.len() && !self.bytes.is_empty()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn reset(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.bytes.len() > BUFFER_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// The memory that one request needs.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The request's head.
    pub request: Request,
    /// The response's head.
    pub response: Response,
    /// The canonical host.
    pub host: Host,
    /// The canonical target: path and query.
    pub target: Vec<u8>,
    /// For building the canonical path.
    pub path: Vec<u8>,
    /// Read from the client and not consumed.
    pub from_client: Buffer,
    /// Read from the upstream and not consumed.
    pub from_upstream: Buffer,
    /// To be written to the client.
    pub to_client: Vec<u8>,
    /// So many bytes of what comes next into `to_client`, the start of an answer, are with the client already.
    pub ahead: usize,
    /// To be written to the upstream.
    pub to_upstream: Vec<u8>,
    account: Option<Account>,
}

impl Scratch {
    /// Makes it ready for the next request; what the client has sent already stays.
    pub fn next_request(&mut self) {
        self.request.reset();
        self.from_upstream.reset();
        self.to_client.clear();
        self.to_upstream.clear();
        self.ahead = 0;
    }

    /// To be called by who begins to wait with it in hand: notes what it holds, and `more` bytes that are held for the same
    /// request elsewhere, and whom to wake when it has to end. `moved`: something was read or written now.
    pub fn waits(&self, cx: &Context<'_>, more: usize, moved: Option<Instant>) {
        let Some(account) = &self.account else { return };
        account.hold(self.bytes() + more);
        account.wakes(cx.waker());
        if let Some(now) = moved {
            account.moved(now);
        }
    }

    /// Whether too much memory is in use, and this is where it is.
    #[must_use]
    pub fn must_end(&self) -> bool {
        self.account.as_ref().is_some_and(Account::must_end)
    }

    /// Whether the connection of which this is a request is no more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.account.as_ref().is_some_and(Account::is_gone)
    }

    fn bytes(&self) -> usize {
        // What was not grown is as good as its content: it is lent to many.
        let of = |vec: &Vec<u8>| if vec.capacity() > BUFFER_BYTES { vec.capacity() } else { vec.len() };
        BARE_BYTES + self.from_client.size() + self.from_upstream.size() + of(&self.to_client) + of(&self.to_upstream)
    }
}

/// The scratches of one worker that nobody uses now.
#[derive(Debug, Default)]
pub struct Scratches {
    #[expect(clippy::vec_box, reason = "it goes from hand to hand with every request: a pointer, not 500 bytes")]
    kept: RefCell<Vec<Box<Scratch>>>,
    /// The fewest that were there since the last look: nobody needed those.
    spare: Cell<usize>,
    /// Where they are accounted for.
    memory: Option<Rc<Memory>>,
}

impl Scratches {
    /// Accounts for them there.
    #[must_use]
    pub fn new(memory: Rc<Memory>) -> Self {
        Self { memory: Some(memory), ..Self::default() }
    }

    /// One that is empty.
    pub fn take(&self) -> Box<Scratch> {
        self.take_for(None)
    }

    /// One that is empty; what it holds counts as a part of `whole`.
    pub fn take_for(&self, whole: Option<&Rc<Holder>>) -> Box<Scratch> {
        let mut kept = self.kept.borrow_mut();
        let scratch = kept.pop().unwrap_or_else(|| {
            let account = self.memory.as_ref().map(Account::open);
            Box::new(Scratch { account, ..Scratch::default() })
        });
        self.spare.set(self.spare.get().min(kept.len()));
        if let Some(account) = &scratch.account {
            account.begin(whole);
        }
        scratch
    }

    /// Whether one is there, or may be made now.
    pub fn may_take(&self) -> bool {
        !self.kept.borrow().is_empty() || self.memory.as_ref().is_none_or(|memory| memory.may_grow())
    }

    /// Takes one back, if it is there.
    pub fn give_box(&self, scratch: &mut Option<Box<Scratch>>) {
        if let Some(scratch) = scratch.take() {
            self.give(scratch);
        }
    }

    /// Takes one back.
    pub fn give(&self, mut scratch: Box<Scratch>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            scratch.next_request();
            scratch.from_client.reset();
            for vec in [&mut scratch.to_client, &mut scratch.to_upstream, &mut scratch.target, &mut scratch.path] {
                vec.shrink_to(BUFFER_BYTES);
            }
            if let Some(account) = &scratch.account {
                account.end();
                account.hold(scratch.bytes());
            }
            kept.push(scratch);
        }
    }
}

impl Scratches {
    /// Frees those that nobody has needed since the last look. To be called every few seconds.
    pub fn sweep(&self) {
        let mut kept = self.kept.borrow_mut();
        let left = kept.len() - self.spare.get().min(kept.len());
        kept.truncate(left);
        self.spare.set(left);
    }

    /// Frees all but a few.
    pub fn free(&self) {
        let mut kept = self.kept.borrow_mut();
        kept.truncate(KEPT_MIN);
        self.spare.set(self.spare.get().min(kept.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_while_has_not_needed_is_freed() {
        let all = Scratches::default();
        let taken: Vec<_> = (0..5).map(|_| all.take()).collect();
        taken.into_iter().for_each(|scratch| all.give(scratch));
        all.sweep();
        assert_eq!(all.kept.borrow().len(), 5, "they were needed");
        let taken: Vec<_> = (0..2).map(|_| all.take()).collect();
        taken.into_iter().for_each(|scratch| all.give(scratch));
        all.sweep();
        assert_eq!(all.kept.borrow().len(), 2);
        all.sweep();
        assert_eq!(all.kept.borrow().len(), 0);
    }

    fn put(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.space()[..bytes.len()].copy_from_slice(bytes);
        buffer.filled(bytes.len());
    }

    #[test]
    fn room_is_made_by_moving_then_by_growing_then_not_at_all() {
        let mut buffer = Buffer::default();
        put(&mut buffer, &[1; BUFFER_BYTES]);
        assert!(buffer.is_full() && buffer.space().is_empty());
        buffer.consume(10);
        assert!(buffer.make_room(2 * BUFFER_BYTES));
        assert_eq!(buffer.space().len(), 10);
        put(&mut buffer, &[2; 10]);
        assert!(buffer.make_room(2 * BUFFER_BYTES));
        assert_eq!(buffer.space().len(), BUFFER_BYTES);
        put(&mut buffer, &[3; BUFFER_BYTES]);
        assert!(!buffer.make_room(2 * BUFFER_BYTES));
        assert_eq!(buffer.data().len(), 2 * BUFFER_BYTES);
        assert_eq!(&buffer.data()[BUFFER_BYTES - 10..BUFFER_BYTES], &[2; 10]);
    }

    #[test]
    fn a_scratch_is_given_back_empty_and_small() {
        let all = Scratches::default();
        let mut scratch = all.take();
        put(&mut scratch.from_client, b"secret");
        scratch.to_client.extend_from_slice(b"secret");
        scratch.from_upstream.space();
        scratch.from_upstream.grow(STREAM_BYTES);
        all.give(scratch);
        let mut scratch = all.take();
        assert!(scratch.from_client.is_empty() && scratch.to_client.is_empty());
        assert_eq!(scratch.from_upstream.space().len(), BUFFER_BYTES);
    }
}
