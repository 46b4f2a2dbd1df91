//! Counts the frames that a peer sends beside requests and bodies, so that a flood of them ends its connection.
//!
//! `h2` bounds what such frames cost in memory, but answers as many as come. Here every kind has an allowance for each
//! period; what no client in use comes near is a flood: `ENHANCE_YOUR_CALM` (RFC 9113, 10.5). Rapid resets
//! (CVE-2023-44487) are told by the share of streams that are reset: a client that cancels now and then is none.

use std::{
    cell::{Cell, RefCell},
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

use super::connection::CONNECTION_WINDOW;
use crate::{
    counters::{Counter, Counters},
    memory::{Account, Memory},
};

/// What `h2` holds of bodies, at the most.
const WINDOW_MAX: usize = CONNECTION_WINDOW as usize;
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
/// `RST_STREAM`, whatever was opened ...
const RESETS_MIN: u32 = 200;
/// ... and beyond that this share of the streams opened, in percent.
const RESETS_PERCENT: u64 = 50;

/// Bytes of the connection preface, before the first frame.
const PREFACE_BYTES: usize = 24;
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
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self { skip: PREFACE_BYTES, head: [0; HEAD_BYTES], held: 0, counts: Counts::default(), since: now, data: 0 }
    }

    fn read(&mut self, mut bytes: &[u8]) {
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
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                self.count(kind, flags);
            }
        }
    }

    fn count(&mut self, kind: u8, flags: u8) {
        const END_STREAM: u8 = 1;
        let counts = &mut self.counts;
        let counted = match kind {
            0 if self.skip == 0 && flags & END_STREAM == 0 => &mut counts.empty,
            0 => return self.data += self.skip,
            1 => &mut counts.headers,
            3 => &mut counts.resets,
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
#[derive(Debug, Default)]
pub struct Reading {
    flood: Cell<Option<Flood>>,
    /// Bytes of bodies that were read and not taken, or more: of padding and of streams that were broken off it does not hear.
    untaken: Cell<usize>,
    /// Bytes of answers that `h2` was given and has not written.
    unsent: Cell<usize>,
    /// The wire took no more.
    blocked: Cell<bool>,
    /// Of a client's connection, with all that its streams hold.
    account: RefCell<Option<Account>>,
}

impl Reading {
    /// Of a client's connection: what is read and given is noted there.
    pub fn of(account: Option<Account>) -> Self {
        Self { account: account.into(), ..Self::default() }
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

    /// So much of an answer was given to `h2`.
    pub fn given(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() + bytes);
        // At once: many streams may give much before their connection is polled.
        self.note(0);
    }

    /// Accounts for what the connection holds, its streams apart: of bodies not more than its window.
    pub fn note(&self, more: usize) {
        if let Some(account) = &*self.account.borrow() {
            account.hold(more + self.untaken.get().min(WINDOW_MAX) + self.unsent.get());
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
        frames.read(bytes);
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
