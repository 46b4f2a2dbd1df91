//! One client connection, from its first byte to its last.
//!
//! `serve` reads heads; `facts` judges a request; `handle` finds it a member and a connection, again and again where
//! nothing was lost yet; `exchange` moves the bytes. The rest is what they stand on.

pub mod buffer;
mod exchange;
pub(crate) mod facts;
mod finish;
mod handle;
mod head;
mod hedge;
pub mod io;
pub mod local;
mod log;
pub(crate) mod resting;
mod retry;
mod select;
pub mod timer;
mod watch;

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use sdlb_http1::{Kind, Refused};
use tokio::{net::TcpStream, time::Instant};

use self::{
    buffer::{BUFFER_BYTES, Scratch},
    io::{Io, Replayed},
    local::Local,
    resting::Place,
    timer::Timer,
    watch::Watch,
};
use crate::{
    answer::Answer,
    http2,
    settings::{Limits, ListenerConfig, ListenerKind},
    worker::Worker,
};

/// How long a connection that is closed after a refusal is still read from, so that the answer is not reset away.
const LINGER: Duration = Duration::from_secs(1);
/// And how much is read.
const LINGER_BYTES: usize = 256 << 10;
/// When the engine shuts down, connections that have rested for less stay that long: their client may be about to speak,
/// and would not know whether a request that met the end was read. Longer than what a node above takes for sure
/// (`SURE_AGE` in `handle.rs`), so that none of its requests does.
pub(crate) const DRAIN_REST: Duration = Duration::from_millis(1_500);

/// A client's connection in clear text that has rested for so long is given back by its task.
const SLEEPS_AFTER: Duration = Duration::from_secs(1);

/// Serves the connection until it ends. Called once for each accepted connection, on its worker's thread.
pub async fn serve(io: Io, peer: SocketAddr, listener: Rc<ListenerConfig>, worker: Rc<Worker>) {
    Local::start(&worker);
    drop(run(Conn::new(io, Peer::of(peer), listener, worker), peer).await);
}

/// Serves the request of one stream. `peer`: of its connection.
pub async fn serve_stream(stream: Io, peer: Peer, listener: Rc<ListenerConfig>, worker: Rc<Worker>) {
    let mut conn = Conn::new(stream, peer, listener, worker);
    let then = conn.requests().await;
    if matches!(then, Then::Linger | Then::Last) {
        Box::pin(conn.linger(then)).await;
    }
    conn.give_back();
}

/// Puts a future on the heap where it is made. `Box::pin` would make it on the stack and copy all the room for its states.
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Who is at the other end: the client, a proxy in front of it, or a node.
#[derive(Debug, Clone)]
pub struct Peer {
    /// As text.
    pub address: Rc<str>,
    /// Of its end.
    pub port: u16,
}

impl Peer {
    /// Of a connection.
    pub fn of(peer: SocketAddr) -> Self {
        Self { address: peer.ip().to_string().into(), port: peer.port() }
    }
}

/// The same for a client's connection in clear text. It is given back when it has rested for a while. `rested`: what was given
/// with it then.
pub async fn serve_plain(
    stream: TcpStream,
    rested: Option<Rested>,
    peer: SocketAddr,
    listener: Rc<ListenerConfig>,
    worker: Rc<Worker>,
) -> Option<Nap> {
    Local::start(&worker);
    // Who is behind a proxy is not to be read from the socket again, and so does not go to another engine with it.
    let own = listener.trusted.is_empty()
        || stream
            .peer_addr()
            .is_ok_and(|socket| socket.ip().to_canonical() == peer.ip() && socket.port() == peer.port());
    let mut conn = Conn::new(Io::Tcp(stream), Peer::of(peer), listener, worker);
    conn.may_sleep = own;
    conn.resume(rested);
    run(conn, peer).await
}

async fn run(mut conn: Conn, peer: SocketAddr) -> Option<Nap> {
    let then = conn.requests().await;
    match then {
        Then::Next | Then::Close => {}
        Then::Linger | Then::Last => Box::pin(conn.linger(then)).await,
        Then::Sleep => return conn.sleep(),
        Then::Http2 => {
            Box::pin(conn.go_on_with_http2(peer)).await;
            return None;
        }
    }
    conn.give_back();
    None
}

/// A connection that is given back because it rests.
pub struct Nap {
    socket: std::net::TcpStream,
    rested: Rested,
}

/// What is known of it.
pub struct Rested {
    place: Place,
    idle_until: Instant,
    may_be_http2: bool,
}

impl Nap {
    /// Of a connection that has rested in the engine before. `is_new`: nothing has come from it yet.
    pub(crate) fn new(
        socket: std::net::TcpStream,
        worker: &Rc<Worker>,
        since: Instant,
        idle_until: Instant,
        is_new: bool,
    ) -> Self {
        let rested = Rested { place: Place::new(worker.clone(), since), idle_until, may_be_http2: is_new };
        Self { socket, rested }
    }

    pub(crate) fn is_new(&self) -> bool {
        self.rested.may_be_http2
    }

    pub(crate) fn socket(&self) -> &std::net::TcpStream {
        &self.socket
    }

    pub(crate) fn since(&self) -> Instant {
        self.rested.place.since()
    }

    pub(crate) fn idle_until(&self) -> Instant {
        self.rested.idle_until
    }

    pub(crate) fn falls_asleep(&self, number: u64) {
        self.rested.place.falls_asleep(number);
    }

    pub(crate) fn wakes_up(self) -> (std::net::TcpStream, Rested) {
        self.rested.place.wakes_up();
        (self.socket, self.rested)
    }
}

/// What becomes of the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Next,
    Close,
    /// Close, but read a while longer what the client is still sending.
    Linger,
    /// The same behind a request that came whole: nothing more is to come.
    Last,
    /// It rests.
    Sleep,
    /// It speaks HTTP/2, and knows that we do.
    Http2,
}

/// What arrived.
enum Arrived {
    /// A head of this length.
    Head(usize),
    /// The beginning of HTTP/2.
    Preface,
    Refused(Refused),
    /// Part of a head, and then nothing for too long.
    Late,
    /// Nothing for a while.
    Rest,
    /// Nothing, or the end.
    Nothing,
}

struct Conn {
    io: Io,
    peer: Peer,
    listener: Rc<ListenerConfig>,
    worker: Rc<Worker>,
    timer: Timer,
    watch: Watch,
    /// Ends when the engine begins to shut down; polled once, so that it wakes this task. `None`: it has not rested yet.
    draining: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Nothing has arrived yet, on a listener where it may be HTTP/2 in clear text.
    may_be_http2: bool,
    /// It is given back when it has rested for a while.
    may_sleep: bool,
    /// The end of the last request.
    rests_since: Instant,
    idle_until: Instant,
    /// Only of clients: nodes are few and must get through.
    rest: Option<Place>,
    /// Memory, while there is anything to do.
    scratch: Option<Box<Scratch>>,
}

impl Conn {
    fn new(io: Io, peer: Peer, listener: Rc<ListenerConfig>, worker: Rc<Worker>) -> Self {
        let now = Instant::now();
        let idle_until = now + worker.config().limits.idle_timeout;
        Self {
            peer,
            // A stream's connection rests, not the stream.
            rest: (listener.kind == ListenerKind::Entry && !io.is_stream()).then(|| Place::new(worker.clone(), now)),
            may_be_http2: listener.kind == ListenerKind::Entry && matches!(io, Io::Tcp(_)),
            timer: Timer::new(idle_until),
            watch: Watch::default(),
            draining: None,
            may_sleep: false,
            rests_since: now,
            idle_until,
            scratch: None,
            io,
            listener,
            worker,
        }
    }

    /// `None`: a new connection.
    fn resume(&mut self, rested: Option<Rested>) {
        if let Some(rested) = rested {
            self.rests_since = rested.place.since();
            self.rest = Some(rested.place);
            self.idle_until = rested.idle_until;
            self.may_be_http2 = rested.may_be_http2;
        }
        self.set_idle(Instant::now());
    }

    fn give_back(&mut self) {
        self.worker.local.scratches.give_box(&mut self.scratch);
    }

    /// `None`: it can't be kept.
    fn sleep(self) -> Option<Nap> {
        let Self { io: Io::Tcp(stream), rest: Some(place), idle_until, may_be_http2, .. } = self else {
            return None;
        };
        let rested = Rested { place, idle_until, may_be_http2 };
        Some(Nap { socket: stream.into_std().ok()?, rested })
    }

    /// The timer of a rest, seen from `now` on.
    fn set_idle(&mut self, now: Instant) {
        let left = self.idle_until.saturating_duration_since(now);
        self.timer.set(now, if self.may_sleep { left.min(SLEEPS_AFTER) } else { left });
    }

    async fn requests(&mut self) -> Then {
        loop {
            let arrived = poll_fn(|cx| self.poll_head(cx)).await;
            let then = match arrived {
                Arrived::Nothing => return Then::Close,
                Arrived::Rest => return Then::Sleep,
                Arrived::Preface => return Then::Http2,
                Arrived::Head(length) => {
                    let Some(mut scratch) = self.scratch.take() else { return Then::Close };
                    self.may_be_http2 = false;
                    // On its own: its many states are kept for as long as the request, not for as long as the connection.
                    let then = boxed(|| self.handle(&mut scratch, length)).await;
                    scratch.next_request();
                    self.scratch = Some(scratch);
                    then
                }
                Arrived::Refused(refused) => {
                    let counters = &self.worker.counters;
                    match refused.kind {
                        Kind::TargetBytes | Kind::HeadBytes => counters.limit_head_bytes_total.add(),
                        Kind::Fields => counters.limit_fields_total.add(),
                        _ => counters.refused_malformed_total.add(),
                    }
                    self.refuse(Answer::refused(refused)).await
                }
                Arrived::Late => {
                    self.worker.counters.timeout_head_total.add();
                    let detail = "The request did not arrive in time.";
                    self.refuse(Answer::new(408, "head-timeout", "connection_read_timeout", detail)).await
                }
            };
            if then != Then::Next {
                return then;
            }
        }
    }

    async fn go_on_with_http2(self, peer: SocketAddr) {
        let Self { io: Io::Tcp(stream), scratch: Some(scratch), listener, worker, rest, .. } = self else { return };
        // It has a place of its own.
        drop(rest);
        let read = Bytes::copy_from_slice(scratch.from_client.data());
        worker.local.scratches.give(scratch);
        http2::connection::serve(Replayed::new(read, stream), peer, listener, worker, None).await;
    }

    /// Waits for a request head. Holds no memory before its first byte.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        let config = self.worker.config();
        let limits = &config.limits;
        let bounds = limits.of_requests(self.listener.kind);
        let mut moved = None;
        loop {
            if let Some(scratch) = &mut self.scratch {
                if scratch.from_client.is_empty() {
                    self.worker.local.scratches.give_box(&mut self.scratch);
                } else {
                    let data = scratch.from_client.data();
                    if self.may_be_http2 && data.starts_with(http2::PREFACE) {
                        return Poll::Ready(Arrived::Preface);
                    }
                    let may_become_preface = self.may_be_http2 && http2::PREFACE.starts_with(data);
                    match if may_become_preface { Ok(None) } else { scratch.request.advance(data, &bounds) } {
                        Ok(Some(length)) => return Poll::Ready(Arrived::Head(length)),
                        Ok(None) => {}
                        Err(refused) => return Poll::Ready(Arrived::Refused(refused)),
                    }
                    if scratch.must_end() {
                        return Poll::Ready(Arrived::Nothing);
                    }
                    if scratch.from_client.is_full() && !self.worker.local.memory.may_grow() {
                        self.worker.local.memory.wait(cx.waker());
                        return self.poll_late(cx, None);
                    }
                    scratch.from_client.make_room(bounds.head_bytes + BUFFER_BYTES);
                }
            }
            if self.scratch.is_none() {
                match self.io.poll_readable(cx) {
                    Poll::Pending => return self.poll_idle(cx),
                    Poll::Ready(Err(_)) => return Poll::Ready(Arrived::Nothing),
                    Poll::Ready(Ok(())) if !self.worker.local.scratches.may_take() => {
                        self.worker.local.memory.wait(cx.waker());
                        return self.poll_idle(cx);
                    }
                    Poll::Ready(Ok(())) => {
                        self.scratch = Some(self.worker.local.scratches.take_for(self.io.whole()));
                        self.rest.iter().for_each(|rest| rest.end());
                    }
                }
            }
            let Some(scratch) = &mut self.scratch else { return Poll::Ready(Arrived::Nothing) };
            let first = scratch.from_client.is_empty();
            match self.io.poll_read(cx, &mut scratch.from_client) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    let now = Instant::now();
                    moved = Some(now);
                    if first {
                        self.timer.set(now, limits.head_timeout);
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Arrived::Nothing),
                // Readable a moment ago, but not now.
                Poll::Pending if first => {
                    self.worker.local.scratches.give_box(&mut self.scratch);
                    return self.poll_idle(cx);
                }
                Poll::Pending => return self.poll_late(cx, moved),
            }
        }
    }

    /// Part of a head is there.
    fn poll_late(&mut self, cx: &mut Context<'_>, moved: Option<Instant>) -> Poll<Arrived> {
        if let Some(scratch) = &self.scratch {
            scratch.waits(cx, self.io.held(false, false), moved);
        }
        self.timer.poll(cx).map(|()| Arrived::Late)
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        // A stream's connection is told of the end.
        if self.draining.is_none() && !self.io.is_stream() {
            self.rest.iter().for_each(|rest| rest.wakes(cx.waker()));
            let mut draining: Pin<Box<dyn Future<Output = ()>>> = Box::pin(self.worker.ends(self.listener.kind));
            // Ready: as below.
            let _ = draining.as_mut().poll(cx);
            self.draining = Some(draining);
        }
        if self.rest.as_ref().is_some_and(|rest| !rest.goes_on()) {
            self.worker.counters.connections_evicted_total.add();
            return Poll::Ready(Arrived::Nothing);
        }
        if self.worker.is_ending(self.listener.kind) {
            if self.may_sleep && self.worker.giver().is_some() {
                return Poll::Ready(Arrived::Rest);
            }
            self.timer.set(self.rests_since, DRAIN_REST);
            return self.timer.poll(cx).map(|()| Arrived::Nothing);
        }
        if self.timer.poll(cx).is_ready() {
            if Instant::now() < self.idle_until {
                return Poll::Ready(Arrived::Rest);
            }
            self.worker.counters.timeout_idle_total.add();
            return Poll::Ready(Arrived::Nothing);
        }
        Poll::Pending
    }

    /// A request has ended, and the next may come, or be here already.
    fn next(&mut self, scratch: &Scratch, limits: &Limits, now: Instant) -> Then {
        let begun = !scratch.from_client.is_empty();
        self.idle_until = now + limits.idle_timeout;
        if begun {
            self.timer.set(now, limits.head_timeout);
        } else {
            self.set_idle(now);
        }
        self.rest.iter().for_each(|rest| rest.begin(now));
        self.rests_since = now;
        Then::Next
    }

    // ------------------------------------------------------------------ answers of our own

    /// Answers a request that could not be read, and closes.
    async fn refuse(&mut self, answer: Answer) -> Then {
        let Some(mut scratch) = self.scratch.take() else { return Then::Close };
        let then = self.answer_unread(&mut scratch, &answer, false).await;
        self.scratch = Some(scratch);
        then
    }

    /// Writes what is to go to the client. False: it is gone, or takes too long: for all of it, as it is not much.
    async fn write_out(&mut self, scratch: &mut Scratch) -> bool {
        self.timer.set(Instant::now(), self.worker.config().limits.body_timeout);
        let mut sent = std::mem::take(&mut scratch.ahead);
        let (io, timer, out) = (&mut self.io, &mut self.timer, &scratch.to_client);
        let written = poll_fn(|cx| {
            while sent < out.len() && !scratch.must_end() {
                match io.poll_write(cx, &out[sent..], &[]) {
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => {
                        scratch.waits(cx, io.held(false, true), None);
                        return timer.poll(cx).map(|()| false);
                    }
                }
            }
            Poll::Ready(sent >= out.len())
        })
        .await;
        scratch.to_client.clear();
        written
    }

    /// Ends our side and reads away what still comes, for a while: a close with unread bytes would be a reset, which
    /// can destroy the answer on its way (RFC 9112, 9.6).
    async fn linger(&mut self, then: Then) {
        let mut scratch = self.scratch.take().unwrap_or_else(|| self.worker.local.scratches.take());
        let (io, timer) = (&mut self.io, &mut self.timer);
        timer.set(Instant::now(), LINGER);
        let mut left = LINGER_BYTES;
        let mut open = true;
        let mut behind = false;
        poll_fn(|cx| {
            loop {
                if open {
                    match io.poll_shutdown(cx) {
                        Poll::Ready(Ok(())) => open = false,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return timer.poll(cx),
                    }
                }
                let buffer = &mut scratch.from_client;
                if !buffer.is_empty() && then == Then::Last && !std::mem::replace(&mut behind, true) {
                    self.worker.counters.behind_last_request_total.add();
                }
                buffer.consume(buffer.data().len());
                match io.poll_read(cx, buffer) {
                    Poll::Ready(Ok(count)) if count > 0 && count < left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if scratch.must_end() => return Poll::Ready(()),
                    Poll::Pending => {
                        scratch.waits(cx, 0, None);
                        return timer.poll(cx);
                    }
                }
            }
        })
        .await;
        self.scratch = Some(scratch);
    }
}
