//! An HTTP/2 connection of a client or, as a link, of a parent node: its streams are taken from it and each served by a task of its own.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};

use super::{
    meter::{Metered, Reading},
    outbound::SEND_BUFFER,
    server::Stream,
    wire::{Flush, Wire, wire},
};
use crate::{
    conn::{self, Peer, io::Io, local::Local, resting::Place, timer::Timer},
    memory::{Account, Level},
    settings::{Limits, ListenerConfig, ListenerKind, header_list_bytes},
    tls::sites::Handshake,
    worker::Worker,
};

/// What a client may send of one body, and of all of them, before it is taken from us. One buffer's worth each, and enough
/// for a fast upload over a long way.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
pub(super) const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that we break off because of what the peer sent on them (CVE-2025-8671) before the connection is.
const ERRORS_MAX: usize = 256;
/// Streams that were reset before they were taken (CVE-2023-44487); `h2` holds memory for them.
const RESETS_WAITING_MAX: usize = 64;
/// Parents close links that they don't need; this is for those that forgot to.
const NODE_IDLE_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Requests at once on a link: of many clients, and more than a parent puts on one.
const NODE_STREAMS: u32 = 256;
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves the connection until it ends. Not an `async fn`: that would keep room for `io` beside the wire that it goes into.
pub fn serve<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    peer: SocketAddr,
    listener: Rc<ListenerConfig>,
    worker: Rc<Worker>,
    handshake: Option<Rc<Handshake>>,
) -> impl Future<Output = ()> {
    let (wire, flush) = wire(io);
    let is_client = listener.kind == ListenerKind::Entry;
    let account = is_client.then(|| Account::open(&worker.local.memory));
    account.iter().for_each(|account| account.begin(None));
    let reading = Rc::new(Reading::of(account));
    let wire = Metered::new(wire, reading.clone(), is_client.then(|| worker.local.memory.clone()));
    serve_wire(wire, flush, Opener { peer: Peer::of(peer), listener, worker, handshake, reading })
}

async fn serve_wire<T: AsyncRead + AsyncWrite + Unpin>(wire: Metered<Wire<T>>, flush: Flush<T>, opener: Opener) {
    let worker = opener.worker.clone();
    let from_node = opener.listener.kind == ListenerKind::Node;
    let mut limits = worker.config().limits.clone();
    if from_node {
        limits.idle_timeout = NODE_IDLE_TIMEOUT;
    }
    // On its own: it is over soon.
    let Some(connection) = Box::pin(shake(wire, &flush, &limits, from_node)).await else {
        worker.counters.http2_failed_total.add();
        return;
    };
    Local::start(&worker);
    if !from_node {
        worker.counters.http2_connections_total.add();
    }
    let now = Instant::now();
    let rest = (!from_node).then(|| Place::new(worker.clone(), now));
    let mut served = Served {
        connection,
        flush,
        open: Rc::default(),
        opener,
        idle_timeout: limits.idle_timeout,
        timer: Timer::new(now),
        rest,
        phase: Phase::Open,
        busy: false,
        from_node,
        streams_max: limits.http2_streams,
    };
    served.timer.set(now, served.idle_timeout);
    let mut draining = Box::pin(worker.ends(served.opener.listener.kind));
    let mut drained = false;
    poll_fn(|cx| {
        drained = drained || draining.as_mut().poll(cx).is_ready();
        let over = served.poll(cx, drained);
        // As above; and what is sent when it is over is a goodbye.
        let _ = served.flush.poll(cx);
        over
    })
    .await;
}

/// `None`: it failed, or took too long.
async fn shake<T: AsyncRead + AsyncWrite + Unpin>(
    io: Metered<Wire<T>>,
    flush: &Flush<T>,
    limits: &Limits,
    from_node: bool,
) -> Option<Connection<T>> {
    let mut handshake = pin!(builder(limits, from_node).handshake::<_, Bytes>(io));
    let handshake = poll_fn(|cx| {
        let shaken = handshake.as_mut().poll(cx);
        // What can't be sent now is sent later, or shows when something is read.
        let _ = flush.poll(cx);
        shaken
    });
    timeout(limits.head_timeout, handshake).await.ok()?.ok()
}

fn builder(limits: &Limits, from_node: bool) -> server::Builder {
    let mut builder = server::Builder::new();
    let head_bytes = u32::try_from(limits.head_bytes).unwrap_or(u32::MAX);
    builder.initial_window_size(STREAM_WINDOW).max_send_buffer_size(SEND_BUFFER).enable_connect_protocol();
    if from_node {
        // A link carries the requests of many clients: one that cancels or stalls what it has asked for must not take the
        // others' link away or fill its window. Each of them was held to the limits at the entry.
        builder
            .initial_connection_window_size(STREAM_WINDOW * NODE_STREAMS)
            .max_concurrent_streams(NODE_STREAMS)
            .max_header_list_size(header_list_bytes(Limits::of_nodes()))
            .max_local_error_reset_streams(None)
            .max_pending_accept_reset_streams(NODE_STREAMS as usize);
    } else {
        builder
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(head_bytes)
            .max_local_error_reset_streams(Some(ERRORS_MAX))
            .max_pending_accept_reset_streams(RESETS_WAITING_MAX);
    }
    builder
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// `GOAWAY` was sent: what is open is finished, nothing new is taken.
    Leaving,
    /// It is given a moment to hear why.
    Broken,
}

/// Streams that are open; the last one to end wakes the connection.
#[derive(Debug, Default)]
struct Open {
    streams: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

type Connection<T> = server::Connection<Metered<Wire<T>>, Bytes>;

struct Served<T> {
    connection: Connection<T>,
    flush: Flush<T>,
    open: Rc<Open>,
    opener: Opener,
    idle_timeout: Duration,
    timer: Timer,
    rest: Option<Place>,
    phase: Phase,
    busy: bool,
    from_node: bool,
    streams_max: u32,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Served<T> {
    fn poll(&mut self, cx: &mut Context<'_>, drained: bool) -> Poll<()> {
        let counters = self.opener.worker.counters.clone();
        if self.opener.reading.with_account(Account::must_end) == Some(true) {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            // What of it can be sent now is sent; nothing waits for the rest.
            let _ = self.connection.poll_closed(cx);
            return Poll::Ready(());
        }
        loop {
            let accepted = self.connection.poll_accept(cx);
            if self.phase != Phase::Broken
                && !self.from_node
                && let Some(kind) = self.opener.reading.flood()
            {
                kind.counter(&counters).add();
                self.break_off();
                continue;
            }
            match accepted {
                Poll::Ready(Some(Ok((request, respond)))) if self.phase != Phase::Broken => self.open(request, respond),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    if error.is_go_away() && error.is_library() {
                        counters.http2_failed_total.add();
                        if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                            counters.http2_flood_other_total.add();
                        }
                    }
                    // What it still has to say goes out with `poll_closed`.
                    self.phase = Phase::Broken;
                    return self.connection.poll_closed(cx).map(drop);
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if drained {
            self.leave();
        }
        let none = self.open.streams.get() == 0;
        self.account(cx, none);
        if !none {
            *self.open.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if std::mem::replace(&mut self.busy, !none) && none {
            let now = Instant::now();
            self.rest.iter().for_each(|rest| rest.begin(now));
            self.flush.rest();
            self.timer.set(now, if self.phase == Phase::Open { self.idle_timeout } else { GOODBYE });
        }
        if none
            && self.phase != Phase::Broken
            && let Some(rest) = &self.rest
        {
            rest.wakes(cx.waker());
            if !rest.goes_on() {
                counters.connections_evicted_total.add();
                return Poll::Ready(());
            }
        }
        while (none || self.phase == Phase::Broken) && self.timer.poll(cx).is_ready() {
            match self.phase {
                Phase::Open => {
                    counters.timeout_idle_total.add();
                    self.leave();
                }
                Phase::Leaving | Phase::Broken => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Notes what the connection holds. One that holds much is told to go while memory is short.
    fn account(&mut self, cx: &Context<'_>, none: bool) {
        let reading = &self.opener.reading;
        reading.polled(none, self.flush.held());
        reading.with_account(|account| account.wakes(cx.waker()));
        let heavy = reading.with_account(Account::is_heavy) == Some(true);
        let worker = &self.opener.worker;
        if !self.from_node {
            let low = worker.local.memory.level() == Level::Low;
            if let Some(window) = self.opener.reading.next_window(self.streams_max, low) {
                self.connection.set_target_window_size(window);
            }
        }
        if heavy && self.phase == Phase::Open && worker.local.memory.level() != Level::Low {
            worker.counters.memory_told_to_go_total.add();
            self.leave();
        }
    }

    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.rest.iter().for_each(|rest| rest.end());
        self.busy = true;
        self.opener.open(request, respond, &self.open);
    }

    /// Lets what is open finish, and takes nothing new.
    fn leave(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Leaving;
            self.connection.graceful_shutdown();
            self.timer.set(Instant::now(), GOODBYE);
        }
    }

    fn break_off(&mut self) {
        self.phase = Phase::Broken;
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        self.timer.set(Instant::now(), GOODBYE);
    }
}

/// Opens streams.
struct Opener {
    peer: Peer,
    listener: Rc<ListenerConfig>,
    worker: Rc<Worker>,
    handshake: Option<Rc<Handshake>>,
    reading: Rc<Reading>,
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.reading.over();
    }
}

impl Opener {
    fn open(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>, open: &Rc<Open>) {
        let random = self.worker.with_chance(|chance| [chance.next_u64(), chance.next_u64()]);
        let whole = self.reading.with_account(|account| account.holder().clone());
        let from_node = self.listener.kind == ListenerKind::Node;
        let stream =
            Stream::new(request, respond, self.handshake.clone(), random, from_node, whole, self.reading.clone());
        let one = One::new(open.clone());
        let (peer, listener, worker) = (self.peer.clone(), self.listener.clone(), self.worker.clone());
        if listener.kind == ListenerKind::Entry {
            worker.counters.http2_streams_total.add();
        }
        let stream = Io::Stream(Box::new(stream));
        tokio::task::spawn_local(async move {
            let _one = one;
            conn::serve_stream(stream, peer, listener, worker).await;
        });
    }
}

/// One open stream.
struct One(Rc<Open>);

impl One {
    fn new(open: Rc<Open>) -> Self {
        open.streams.set(open.streams.get() + 1);
        Self(open)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        if self.0.streams.get() == 0
            && let Some(waker) = self.0.waker.take()
        {
            waker.wake();
        }
    }
}
