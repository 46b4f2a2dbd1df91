//! Byte buffers of a fixed place, and the memory of a request, which is lent by the worker.
//!
//! An idle connection owns no buffer: it takes a [`Scratch`] when something arrives and gives it back when nothing is
//! left to do. So memory follows the number of requests in flight, not the number of connections.

use std::cell::{Cell, RefCell};

use sdlb_http1::{Host, Request, Response};

/// A buffer begins with this size ...
pub const BUFFER_BYTES: usize = 16 << 10;
/// ... and a stream of bytes gets one of this size.
pub const STREAM_BYTES: usize = 64 << 10;
/// Scratches kept for the next requests of a worker; each holds two buffers. Those that a while has not needed go.
const KEPT_MAX: usize = 1024;

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
}

/// The scratches of one worker that nobody uses now.
#[derive(Debug, Default)]
pub struct Scratches {
    #[expect(clippy::vec_box, reason = "it goes from hand to hand with every request: a pointer, not 500 bytes")]
    kept: RefCell<Vec<Box<Scratch>>>,
    /// The fewest that were there since the last look: nobody needed those.
    spare: Cell<usize>,
}

impl Scratches {
    /// One that is empty.
    pub fn take(&self) -> Box<Scratch> {
        let mut kept = self.kept.borrow_mut();
        let scratch = kept.pop().unwrap_or_default();
        self.spare.set(self.spare.get().min(kept.len()));
        scratch
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
