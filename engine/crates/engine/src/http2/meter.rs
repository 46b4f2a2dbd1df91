//! Counts the frames that a peer sends beside requests and bodies, so that a flood of them ends its connection.
//!
//! `h2` bounds what such frames cost in memory, but answers as many as come. Here every kind has an allowance for each
//! period; what no client in use comes near is a flood: `ENHANCE_YOUR_CALM` (RFC 9113, 10.5). Rapid resets
//! (CVE-2023-44487) are told by the share of streams that are reset soon after they were opened. A client that gives up
//! after its deadline, or cancels what it has begun to receive, does not gain a place by that which it had not waited
//! for: the limit on streams at once bounds what it can ask for. (Envoy counts premature resets in the same way.)

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::connection::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::{
    counters::{Counter, Counters},
    memory::{Account, Memory},
};

/// Of HTTP/2 itself (RFC 9113, 6.9.1).
const WINDOW_MAX: u32 = u32::MAX >> 1;
/// Allowances count for this long.
const PERIOD: Duration = Duration::from_secs(10);
/// `PING`, each of which is answered. gRPC clients measure with some hundred a second while they receive.
const PINGS_MAX: u32 = 5_000;
/// `SETTINGS`, each of which is answered. Clients send one or two in all.
const SETTINGS_MAX: u32 = 100;
/// `PRIORITY`, `PRIORITY_UPDATE`, and frames of unknown kinds.
const OTHERS_MAX: u32 = 2_000;
/// `WINDOW_UPDATE`: some clients send two for each frame of a body.
const WINDOW_UPDATES_MAX: u32 = 200_000;
/// `DATA` without content that does not end its stream.
const EMPTY_MAX: u32 = 200;
/// `CONTINUATION`; `h2` bounds those of one head.
const CONTINUATIONS_MAX: u32 = 1_000;
/// A stream that is reset so soon after it was opened is reset prematurely.
const PREMATURE: Duration = Duration::from_millis(100);
/// Streams that were opened within this time count as of one age.
const AGE_STEP: Duration = Duration::from_millis(10);
/// Premature resets, whatever was opened ...
const RESETS_MIN: u32 = 200;
/// ... and beyond that this share of the streams opened, in percent.
const RESETS_PERCENT: u64 = 50;

/// Before the first frame.
const PREFACE_BYTES: usize = super::PREFACE.len();
const HEAD_BYTES: usize = 9;

#[derive(Debug, Default)]
struct Counts {
    headers: u32,
    pings: u32,
    settings: u32,
    others: u32,
    window_updates: u32,
    empty: u32,
    continuations: u32,
    resets: u32,
}

impl Counts {
    fn flood(&self) -> Option<Flood> {
        let resets_max = u64::from(RESETS_MIN).max(u64::from(self.headers) * RESETS_PERCENT / 100);
        let over = [
            (self.pings > PINGS_MAX, Flood::Ping),
            (self.settings > SETTINGS_MAX, Flood::Settings),
            (self.others > OTHERS_MAX, Flood::Priority),
            (self.window_updates > WINDOW_UPDATES_MAX, Flood::WindowUpdate),
            (self.empty > EMPTY_MAX, Flood::EmptyData),
            (self.continuations > CONTINUATIONS_MAX, Flood::Continuation),
            (u64::from(self.resets) > resets_max, Flood::Reset),
        ];
        over.into_iter().find_map(|(over, kind)| over.then_some(kind))
    }
}

/// What came too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    Ping,
    Settings,
    Priority,
    WindowUpdate,
    EmptyData,
    Continuation,
    Reset,
}

impl Flood {
    /// Its counter.
    pub fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Self::Ping => &counters.http2_flood_ping_total,
            Self::Settings => &counters.http2_flood_settings_total,
            Self::Priority => &counters.http2_flood_priority_total,
            Self::WindowUpdate => &counters.http2_flood_window_update_total,
            Self::EmptyData => &counters.http2_flood_empty_data_total,
            Self::Continuation => &counters.http2_flood_continuation_total,
            Self::Reset => &counters.http2_flood_reset_total,
        }
    }
}

/// Reads along: where frames begin, and of what kind they are.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next frame begins.
    skip: usize,
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are there.
    held: usize,
    counts: Counts,
    since: Instant,
    /// Bytes of `DATA` that were announced since somebody asked.
    data: usize,
    ages: Ages,
}

/// Which streams are young: their numbers only grow.
#[derive(Debug, Default)]
struct Ages {
    /// The highest number of a stream.
    last: u32,
    /// Times, and the number of the first stream that was opened from then on. No more than of one [`PREMATURE`].
    marks: VecDeque<(Instant, u32)>,
}

impl Ages {
    /// A head has come. Whether it opens the stream.
    fn opened(&mut self, stream: u32, now: Instant) -> bool {
        if stream <= self.last {
            return false;
        }
        self.last = stream;
        if self.marks.back().is_none_or(|(since, _)| now.saturating_duration_since(*since) >= AGE_STEP) {
            self.forget(now);
            self.marks.push_back((now, stream));
        }
        true
    }

    /// Whether the stream was opened a moment ago.
    fn is_young(&mut self, stream: u32, now: Instant) -> bool {
        self.forget(now);
        self.marks.front().is_some_and(|(_, first)| stream >= *first)
    }

    fn forget(&mut self, now: Instant) {
        while self.marks.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= PREMATURE) {
            self.marks.pop_front();
        }
    }
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            held: 0,
            counts: Counts::default(),
            since: now,
            data: 0,
            ages: Ages::default(),
        }
    }

    /// `clock`: asked at most once, and only when it matters.
    fn read(&mut self, mut bytes: &[u8], clock: impl Fn() -> Instant) {
        let mut now = None;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let count = bytes.len().min(HEAD_BYTES - self.held);
            self.head[self.held..self.held + count].copy_from_slice(&bytes[..count]);
            self.held += count;
            bytes = &bytes[count..];
            if self.held == HEAD_BYTES {
                self.held = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                self.count(kind, flags, stream, || *now.get_or_insert_with(&clock));
            }
        }
    }

    fn count(&mut self, kind: u8, flags: u8, stream: u32, mut now: impl FnMut() -> Instant) {
        const END_STREAM: u8 = 1;
        let counts = &mut self.counts;
        let counted = match kind {
            0 if self.skip == 0 && flags & END_STREAM == 0 => &mut counts.empty,
            0 => return self.data += self.skip,
            1 if self.ages.opened(stream, now()) => &mut counts.headers,
            // Trailers.
            1 => return,
            3 if self.ages.is_young(stream, now()) => &mut counts.resets,
            3 => return,
            4 => &mut counts.settings,
            6 => &mut counts.pings,
            8 => &mut counts.window_updates,
            9 => &mut counts.continuations,
            _ => &mut counts.others,
        };
        *counted = counted.saturating_add(1);
    }
}

/// What a connection's meter says; shared with the task that serves it.
#[derive(Debug)]
pub struct Reading {
    flood: Cell<Option<Flood>>,
    /// Bytes of bodies that were read and not taken, or more: of padding and of streams that were broken off it does not hear.
    untaken: Cell<usize>,
    /// Bytes of answers that `h2` was given and has not written.
    unsent: Cell<usize>,
    /// What `h2` holds of bodies, at the most.
    window: Cell<u32>,
    /// The wire took no more.
    blocked: Cell<bool>,
    /// Of a client's connection, with all that its streams hold.
    account: RefCell<Option<Account>>,
}

impl Reading {
    /// Of a client's connection: what is read and given is noted there.
    pub fn of(account: Option<Account>) -> Self {
        Self {
            flood: Cell::default(),
            untaken: Cell::default(),
            unsent: Cell::default(),
            window: CONNECTION_WINDOW.into(),
            blocked: Cell::default(),
            account: account.into(),
        }
    }

    /// The connection is no more; its streams are about to hear of it.
    pub fn over(&self) {
        drop(self.account.take());
    }

    /// Looks at the connection's account, if it has one.
    pub fn with_account<T>(&self, look: impl FnOnce(&Account) -> T) -> Option<T> {
        self.account.borrow().as_ref().map(look)
    }

    /// So much of a body was taken.
    pub fn taken(&self, bytes: usize) {
        self.untaken.set(self.untaken.get().saturating_sub(bytes));
    }

    /// The connection's window, if it is to be another one. Bodies that nobody takes do not use up what others are sent in: the
    /// window grows by them, in steps, for as many streams as there may be. `more`: there is memory for it.
    pub fn next_window(&self, streams_max: u32, more: bool) -> Option<u32> {
        let held = u32::try_from(self.untaken.get()).unwrap_or(u32::MAX).div_ceil(STREAM_WINDOW);
        let steps = if more { held.min(streams_max) } else { 0 };
        let window = CONNECTION_WINDOW.saturating_add(steps.saturating_mul(STREAM_WINDOW)).min(WINDOW_MAX);
        // It shrinks only when it has become much too large: what has been announced cannot be taken back.
        let shrinks = window < self.window.get() / 2;
        (window > self.window.get() || shrinks).then(|| {
            self.window.set(window);
            window
        })
    }

    /// So much of an answer was given to `h2`.
    pub fn given(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() + bytes);
        // At once: many streams may give much before their connection is polled.
        self.note(0);
    }

    /// Accounts for what the connection holds, its streams apart: of bodies not more than its window.
    pub fn note(&self, more: usize) {
        if let Some(account) = &*self.account.borrow() {
            account.hold(more + self.untaken.get().min(self.window.get() as usize) + self.unsent.get());
        }
    }

    /// `h2` was polled. With a wire that took all there is nothing left, for it is given no more than the peer's window has
    /// room for; and without a stream it holds no body. `more`: what the connection holds beside.
    pub fn polled(&self, no_stream: bool, more: usize) {
        if !self.blocked.replace(false) {
            self.unsent.set(0);
        }
        if no_stream {
            self.untaken.set(0);
        }
        self.note(more);
    }

    /// The kind of frame that came too often.
    pub fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }
}

/// A byte stream that is read along with.
#[derive(Debug)]
pub struct Metered<T> {
    io: T,
    frames: RefCell<Frames>,
    reading: Rc<Reading>,
    /// What is read is held there.
    memory: Option<Rc<Memory>>,
}

impl<T> Metered<T> {
    /// Around the stream of a connection that begins now, with its preface.
    /// `memory`: nothing is read while too much of it is in use.
    pub fn new(io: T, reading: Rc<Reading>, memory: Option<Rc<Memory>>) -> Self {
        Self { io, frames: RefCell::new(Frames::new(Instant::now())), reading, memory }
    }

    fn saw(&self, bytes: &[u8]) {
        let mut frames = self.frames.borrow_mut();
        frames.read(bytes, Instant::now);
        if frames.data > 0 {
            self.reading.untaken.set(self.reading.untaken.get() + std::mem::take(&mut frames.data));
        }
        if let Some(kind) = frames.counts.flood() {
            // The clock is asked only here: a period may have ended long ago.
            let now = Instant::now();
            if now.saturating_duration_since(frames.since) < PERIOD {
                self.reading.flood.set(Some(kind));
            }
            (frames.since, frames.counts) = (now, Counts::default());
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(memory) = self.memory.as_ref().filter(|memory| !memory.may_grow()) {
            memory.wait(cx.waker());
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.saw(&buffer.filled()[before..]);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(count)) => self.reading.unsent.set(self.reading.unsent.get().saturating_sub(*count)),
            _ => self.reading.blocked.set(true),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;

    fn frame(kind: u8, stream: u32) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, kind, 0];
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes
    }

    /// Opens `per_s` streams a second for 20 s, and resets each after `lives`. Whether that is a flood.
    fn floods(per_s: u32, lives: Duration) -> bool {
        let begin = Instant::now();
        let mut frames = Frames::new(begin);
        frames.read(&[0; PREFACE_BYTES], || begin);
        let mut events = Vec::new();
        for number in 0..20 * per_s {
            let opened = Duration::from_secs(1) * number / per_s;
            events.push((opened, HEADERS, 2 * number + 1));
            events.push((opened + lives, RST_STREAM, 2 * number + 1));
        }
        events.sort_by_key(|(at, _, stream)| (*at, *stream));
        for (at, kind, stream) in events {
            frames.read(&frame(kind, stream), || begin + at);
            if frames.counts.flood().is_some() {
                return true;
            }
        }
        assert!(frames.ages.marks.len() <= 11, "no more than of one age");
        false
    }

    #[test]
    fn only_premature_resets_are_a_flood() {
        for (per_s, lives_ms, flood) in
            [(40, 200, false), (500, 200, false), (10_000, 0, true), (1_000, 5, true), (2_000, 60, true)]
        {
            assert_eq!(floods(per_s, Duration::from_millis(lives_ms)), flood, "{per_s} a second, {lives_ms} ms each");
        }
    }

    #[test]
    fn trailers_open_nothing_and_old_streams_are_not_young() {
        let now = Instant::now();
        let mut ages = Ages::default();
        assert!(ages.opened(1, now) && !ages.opened(1, now) && ages.opened(3, now + AGE_STEP));
        assert!(ages.is_young(1, now + AGE_STEP) && ages.is_young(3, now + AGE_STEP));
        assert!(!ages.is_young(1, now + PREMATURE) && ages.is_young(3, now + PREMATURE));
        assert!(!ages.is_young(3, now + 2 * PREMATURE));
    }
}
