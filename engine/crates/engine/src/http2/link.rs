//! HTTP/2 connections to endpoints, and over mutual TLS to child nodes: one for each target and worker, more under load.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::{Future, poll_fn},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use sdlb_routes::{Target, TargetKind};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    beat::{Beat, Pace},
    client::Stream,
    outbound::SEND_BUFFER,
    wire::wire,
};
use crate::{
    conn::io::Io,
    settings::header_list_bytes,
    tls::identity::Refused,
    upstream::{ConnectError, Upstream, connect},
    worker::Worker,
};

/// With so many requests on every link another one is opened ...
const STREAMS_FEW: usize = 32;
/// ... up to so many links; then they take what their endpoint allows ...
const LINKS_FEW: usize = 8;
/// ... or this.
const STREAMS_MAX: usize = 100;
/// Links that are opened for one request, or awaited by it, and closed or full before it can use them.
const OPENED_IN_VAIN_MAX: usize = 4;
/// A link without requests is closed after this time.
const IDLE_AGE: Duration = Duration::from_secs(60);
/// One to a node is kept longer: its pings say that it is good, and each new one costs a handshake.
const NODE_IDLE_AGE: Duration = Duration::from_secs(600);
/// What an endpoint may send of one answer before it is taken from us; and of a link, so that clients who take nothing of
/// theirs never stop the answers to the others.
pub(super) const STREAM_WINDOW: u32 = 256 << 10;
const LINK_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;

/// A connection.
#[derive(Debug)]
pub struct Link {
    send: SendRequest<Bytes>,
    streams: Cell<usize>,
    served: Cell<bool>,
    /// It takes nothing new.
    leaving: Cell<bool>,
    /// Nobody was at its other end any more.
    silent: Cell<bool>,
    /// Bytes that have come by it.
    heard: Cell<u64>,
    address_changes: u32,
    idle_age: Duration,
    opened: Instant,
    idle_since: Cell<Instant>,
}

impl Link {
    /// To send a request by.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.send.clone()
    }

    /// Nothing new is sent by it.
    pub fn leave(&self) {
        self.leaving.set(true);
    }

    /// Whether nobody was at its other end any more.
    pub fn is_silent(&self) -> bool {
        self.silent.get()
    }

    /// Bytes that have come by it.
    pub fn heard(&self) -> u64 {
        self.heard.get()
    }

    /// Since it was opened.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    fn is_good(&self, target: &Target) -> bool {
        !self.leaving.get() && self.address_changes == target.address_changes()
    }

    fn streams_max(&self) -> usize {
        self.send.current_max_send_streams().clamp(1, STREAMS_MAX)
    }
}

/// One request's use of a link.
#[derive(Debug)]
pub struct Use(Rc<Link>);

impl Use {
    /// Counts until dropped.
    pub fn new(link: &Rc<Link>) -> Self {
        link.streams.set(link.streams.get() + 1);
        Self(link.clone())
    }

    /// The link.
    pub fn link(&self) -> &Rc<Link> {
        &self.0
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

type Opened = Option<Result<Rc<Link>, ConnectError>>;

#[derive(Debug)]
struct OfTarget {
    target: Arc<Target>,
    links: Vec<Rc<Link>>,
    /// One is being opened: all wait for the same.
    opening: Option<watch::Receiver<Opened>>,
}

impl OfTarget {
    /// The link with the fewest streams, if it may have another one.
    fn room(&mut self, target: &Target) -> Option<Rc<Link>> {
        self.links.retain(|link| link.is_good(target));
        let least = self.links.iter().min_by_key(|link| link.streams.get())?;
        let few = least.streams.get() < STREAMS_FEW || self.links.len() >= LINKS_FEW;
        // While another one is opened, this one still takes some.
        let takes = (few || self.opening.is_some()) && least.streams.get() < least.streams_max();
        takes.then(|| least.clone())
    }
}

/// All links of one worker, by target.
#[derive(Debug, Default)]
pub struct Links(RefCell<HashMap<u64, OfTarget>>);

enum Found {
    Link(Rc<Link>),
    Opening(watch::Receiver<Opened>),
    None(watch::Sender<Opened>),
}

impl Links {
    /// A place for a request.
    ///
    /// # Errors
    /// [`ConnectError`]: a link was opened in vain.
    pub async fn get(
        &self,
        target: &Arc<Target>,
        within: Duration,
        worker: &Rc<Worker>,
    ) -> Result<Upstream, ConnectError> {
        for _ in 0..OPENED_IN_VAIN_MAX {
            let opened = match self.find(target) {
                Found::Link(link) => return Ok(upstream(&link, target)),
                Found::Opening(opened) => opened,
                Found::None(sender) => {
                    let opened = sender.subscribe();
                    // Whoever asked first may go away; the others wait on.
                    tokio::task::spawn_local(open(sender, target.clone(), within, worker.clone()));
                    opened
                }
            };
            if let Some(result) = wait(opened).await {
                let link = result?;
                if link.is_good(target) && link.streams.get() < link.streams_max() {
                    return Ok(upstream(&link, target));
                }
            }
        }
        Err(no_http2())
    }

    /// The same, on a link that is open and has room.
    pub fn kept(&self, target: &Arc<Target>) -> Option<Upstream> {
        let mut all = self.0.borrow_mut();
        let held = all.get_mut(&target.id())?;
        held.room(target).map(|link| upstream(&link, target))
    }

    fn find(&self, target: &Arc<Target>) -> Found {
        let mut all = self.0.borrow_mut();
        let new = || OfTarget { target: target.clone(), links: Vec::new(), opening: None };
        let held = all.entry(target.id()).or_insert_with(new);
        if let Some(link) = held.room(target) {
            return Found::Link(link);
        }
        // Who opened it may have failed without a word.
        let alive = |opening: &&watch::Receiver<Opened>| opening.has_changed().is_ok() || opening.borrow().is_some();
        match held.opening.as_ref().filter(alive) {
            Some(opening) => Found::Opening(opening.clone()),
            None => {
                let (sender, receiver) = watch::channel(None);
                held.opening = Some(receiver);
                Found::None(sender)
            }
        }
    }

    fn opened(&self, target: &Target, link: Option<Rc<Link>>) {
        if let Some(held) = self.0.borrow_mut().get_mut(&target.id()) {
            held.opening = None;
            held.links.extend(link);
        }
    }

    /// Closes links that nobody needs. To be called every few seconds.
    pub fn sweep(&self, now: Instant, in_use: impl Fn(&Arc<Target>) -> bool) {
        self.0.borrow_mut().retain(|_, held| {
            let gone = !in_use(&held.target);
            held.links.retain(|link| {
                let old = now.saturating_duration_since(link.idle_since.get()) > link.idle_age;
                let idle = link.streams.get() == 0 && (old || gone);
                !idle && !link.leaving.get()
            });
            !held.links.is_empty() || held.opening.is_some()
        });
    }
}

fn upstream(link: &Rc<Link>, target: &Arc<Target>) -> Upstream {
    let reused = link.served.replace(true);
    let rested = if link.streams.get() == 0 { link.idle_since.get().elapsed() } else { Duration::ZERO };
    let io = Io::Link(Box::new(Stream::new(link)));
    let mut upstream = Upstream::new(io, target.clone(), link.address_changes);
    (upstream.reused, upstream.rested) = (reused, rested);
    upstream
}

/// A link for one request, of which no other knows. It ends with the request. `header`: goes ahead of everything.
///
/// # Errors
/// [`ConnectError`]
pub async fn open_one(
    target: &Arc<Target>,
    within: Duration,
    worker: &Rc<Worker>,
    header: &[u8],
) -> Result<Upstream, ConnectError> {
    let mut connection = connect(target, within, worker.descriptors).await?;
    let mut sent = 0;
    while sent < header.len() {
        let written = poll_fn(|cx| connection.io.poll_write(cx, &header[sent..], &[])).await;
        sent += written.map_err(|_| no_http2())?;
    }
    let link = start(connection, target, within, worker).await?;
    Ok(upstream(&link, target).counted())
}

/// `None`: it was given up; somebody else may open one.
async fn wait(mut opened: watch::Receiver<Opened>) -> Opened {
    opened.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone())
}

async fn open(sender: watch::Sender<Opened>, target: Arc<Target>, within: Duration, worker: Rc<Worker>) {
    let result = match connect(&target, within, worker.descriptors).await {
        Ok(connection) => start(connection, &target, within, &worker).await,
        Err(error) => Err(error),
    };
    worker.local.links.opened(&target, result.as_ref().ok().cloned());
    sender.send_replace(Some(result));
}

async fn start(
    connection: Upstream,
    target: &Target,
    within: Duration,
    worker: &Worker,
) -> Result<Rc<Link>, ConnectError> {
    let config = worker.config();
    let head_bytes = header_list_bytes(config.limits.of_answers(target.kind() == TargetKind::Node));
    let terms = Terms { head_bytes, address_changes: connection.address_changes(), node: false, answers: false };
    let io = connection.into_io();
    if target.kind() == TargetKind::Node {
        let identity = config.identity.as_deref().ok_or_else(no_http2)?;
        let Io::Tcp(stream) = io else { return Err(no_http2()) };
        let opening = async {
            let name = target.key().strip_prefix("n:").unwrap_or(target.key());
            let opened = identity.connect(stream, name).await.map_err(|refused| not_taken(refused, worker));
            let (secured, answers) = opened?;
            shake(secured, Terms { node: true, answers, ..terms }, worker).await
        };
        let late = || ConnectError {
            error: "connection_timeout",
            reason: "the HTTP/2 handshake timed out".to_owned(),
            late: true,
            ours: false,
        };
        return timeout(within, Box::pin(opening)).await.unwrap_or_else(|_| Err(late()));
    }
    match io {
        Io::Tcp(stream) => shake(stream, terms, worker).await,
        Io::Unix(stream) => shake(stream, terms, worker).await,
        Io::Tls(stream) => shake(*stream, terms, worker).await,
        Io::Stream(_) | Io::Link(_) => Err(no_http2()),
    }
}

/// Of one link.
struct Terms {
    head_bytes: u32,
    address_changes: u32,
    /// To a child node.
    node: bool,
    /// To one that may still refuse us: nothing is sent but the preface before it has answered that.
    answers: bool,
}

async fn shake<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: T,
    terms: Terms,
    worker: &Worker,
) -> Result<Rc<Link>, ConnectError> {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(LINK_WINDOW)
        .max_header_list_size(terms.head_bytes)
        .max_send_buffer_size(SEND_BUFFER);
    let (wire, flush) = wire(io);
    let (send, connection) = builder.handshake(wire).await.map_err(|_| no_http2())?;
    let mut connection = Box::pin(connection);
    if terms.answers {
        let answered = poll_fn(|cx| {
            let over = connection.as_mut().poll(cx).is_ready() || matches!(flush.poll(cx), Poll::Ready(Err(_)));
            if over || flush.heard() > 0 { Poll::Ready(!over) } else { Poll::Pending }
        });
        if !answered.await {
            return Err(no_http2());
        }
    }
    let pace = if terms.node { Pace::NODE } else { Pace::INSTANCE };
    let mut beat = connection.ping_pong().map(|pings| Beat::new(pings, pace));
    if terms.node {
        worker.counters.links_total.add();
    }
    let now = Instant::now();
    let link = Rc::new(Link {
        send,
        streams: Cell::new(0),
        served: Cell::new(false),
        leaving: Cell::new(false),
        silent: Cell::new(false),
        heard: Cell::new(0),
        address_changes: terms.address_changes,
        idle_age: if terms.node { NODE_IDLE_AGE } else { IDLE_AGE },
        opened: now,
        idle_since: Cell::new(now),
    });
    let (driven, counters) = (Rc::downgrade(&link), worker.counters.clone());
    tokio::task::spawn_local(async move {
        // How it ended shows at its streams, and so does what can't be sent.
        poll_fn(|cx| {
            let over = connection.as_mut().poll(cx);
            let _ = flush.poll(cx);
            if over.is_ready() {
                return Poll::Ready(());
            }
            let Some(link) = driven.upgrade() else { return Poll::Pending };
            link.heard.set(flush.heard());
            let waits = link.streams.get() > 0;
            let silent = beat.as_mut().is_some_and(|beat| beat.poll(cx, waits, flush.heard()).is_ready());
            if silent {
                counters.timeout_link_total.add();
                // Before its streams hear that it has ended.
                link.silent.set(true);
                return Poll::Ready(());
            }
            // What it was made to ask goes out now.
            let _ = connection.as_mut().poll(cx);
            let _ = flush.poll(cx);
            Poll::Pending
        })
        .await;
        if let Some(link) = driven.upgrade() {
            link.leave();
        }
    });
    Ok(link)
}

fn not_taken(refused: Refused, worker: &Worker) -> ConnectError {
    refused.counter(&worker.counters).add();
    ConnectError {
        error: if refused == Refused::Other { "tls_protocol_error" } else { "tls_certificate_error" },
        reason: refused.reason().to_owned(),
        late: false,
        ours: false,
    }
}

fn no_http2() -> ConnectError {
    ConnectError {
        error: "connection_terminated",
        reason: "the connection was closed before HTTP/2 started".to_owned(),
        late: false,
        ours: false,
    }
}
