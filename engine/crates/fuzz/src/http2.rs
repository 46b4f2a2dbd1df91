//! An HTTP/2 connection that says anything: it ends, nothing panics, and an endpoint only sees requests of one reading.
//!
//! The whole way is run: the meter of frames, `h2`, the translation, the request path, and an endpoint that checks what it
//! is sent. Time is paused, so that every time-out passes at once.

use std::{
    cell::{Cell, RefCell},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use sdlb_engine::{
    access_log::Sink,
    convert,
    counters::Counters,
    http2::connection,
    networks::Networks,
    proto,
    settings::{Hardening, ListenerConfig, ListenerKind, NodeConfig},
    worker::{Worker, WorkerShared},
};
use sdlb_http1::{Body, Limits, Piece, Request};
use sdlb_routes::{Draining, Shared, Table};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{LocalSet, spawn_local},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LIMITS: Limits = Limits { head_bytes: 1 << 20, fields: 1_000 };
/// Of paused time: far beyond all time-outs together.
const PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// What follows the preface. The first byte says into how many pieces it is cut.
pub fn run(raw: &[u8]) {
    let _ = requests(raw);
}

/// The same; how many requests the endpoint was sent whole.
#[must_use]
pub fn requests(raw: &[u8]) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, play(raw))
}

async fn play(raw: &[u8]) -> usize {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let broken = Rc::new(RefCell::new(None));
    let seen = Rc::new(Cell::new(0));
    let (told, counted) = (broken.clone(), seen.clone());
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (told, counted) = (told.clone(), counted.clone());
            spawn_local(async move {
                if let Err(problem) = endpoint(stream, &counted).await {
                    told.replace(Some(problem));
                }
            });
        }
    });
    let (worker, counters) = worker(address);
    let (near, far) = duplex(32 << 10);
    let steps = usize::from(raw.first().copied().unwrap_or_default() % 5) + 1;
    let said = raw.get(1..).unwrap_or_default().to_vec();
    let client = spawn_local(client(near, said, steps));
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let ended = tokio::time::timeout(PATIENCE, connection::serve(far, peer, public(), worker, None)).await;
    assert!(ended.is_ok(), "the connection does not end");
    client.abort();
    // The tasks of its streams end by themselves.
    tokio::time::sleep(PATIENCE).await;
    assert_eq!(counters.faults_total.get(), 0);
    assert!(broken.borrow().is_none(), "the endpoint was sent {:?}", broken.borrow());
    seen.get()
}

/// Says all it has, reads all that comes, and never closes.
async fn client(stream: DuplexStream, said: Vec<u8>, steps: usize) {
    let (mut read, mut write) = split(stream);
    spawn_local(async move {
        let _ = write.write_all(PREFACE).await;
        for piece in said.chunks((said.len() / steps).max(1)) {
            if write.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        std::future::pending::<()>().await;
    });
    let mut sink = vec![0; 16 << 10];
    while read.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}

/// Answers requests; gives the first head that has more than one reading, or none.
async fn endpoint(mut stream: TcpStream, seen: &Cell<usize>) -> Result<(), String> {
    let mut held = Vec::new();
    loop {
        let mut request = Request::default();
        let head = loop {
            let advanced = request.advance(&held, &LIMITS);
            match advanced.map_err(|refused| format!("{refused:?}: {}", held.escape_ascii()))? {
                Some(length) => break length,
                None if stream.read_buf(&mut held).await.unwrap_or(0) == 0 => return Ok(()),
                None => {}
            }
        };
        super::request::has_one_reading(&held[..head], &request);
        let mut body = Body::new(request.length(), LIMITS);
        held.drain(..head);
        loop {
            let piece = body.next(&held).map_err(|refused| format!("{refused:?}: {}", held.escape_ascii()))?;
            match piece {
                Piece::Data(range) => drop(held.drain(..range.end)),
                Piece::End(count) => {
                    held.drain(..count);
                    break;
                }
                Piece::More => {
                    held.clear();
                    if stream.read_buf(&mut held).await.unwrap_or(0) == 0 {
                        return Ok(());
                    }
                }
            }
        }
        seen.set(seen.get() + 1);
        if stream.write_all(OK).await.is_err() {
            return Ok(());
        }
    }
}

fn public() -> Rc<ListenerConfig> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let (key, kind) = ("http".to_owned(), ListenerKind::Entry);
    Rc::new(ListenerConfig {
        key,
        address,
        bound: address,
        kind,
        public: true,
        hardening: Hardening::of(true),
        tls: false,
        trusted: Networks::default(),
    })
}

/// A worker with one route, to the endpoint.
fn worker(endpoint: SocketAddr) -> (Rc<Worker>, Arc<Counters>) {
    thread_local! {
        /// Its thread is started once.
        static LOG: Sink = Sink::start(Arc::default()).unwrap();
    }
    let counters = Arc::new(Counters::default());
    let shared = WorkerShared {
        counters: counters.clone(),
        access_log: LOG.with(Sink::clone),
        started: Instant::now(),
        seed: 1,
        per_address: Default::default(),
        handshakes: Default::default(),
        rates: Default::default(),
        spread: sdlb_engine::listen::spread::Spread::of(1),
        sites: Default::default(),
        ejected: mpsc::unbounded_channel().0,
        crowded: Arc::default(),
        pressure: Arc::new(sdlb_engine::memory::Pressure::new(1)),
    };
    let config = NodeConfig { name: "edge".to_owned(), pseudonym: "edge-1".to_owned(), ..Default::default() };
    (Rc::new(Worker::new(0, &shared, Arc::new(table(endpoint)), config)), counters)
}

fn table(endpoint: SocketAddr) -> Table {
    let key = proto::MemberKey {
        service: "web".to_owned(),
        version: "1.0".to_owned(),
        pattern: "www.example/*".to_owned(),
        target: "i:1".to_owned(),
    };
    let delta = proto::Delta {
        epoch: 1,
        put_targets: vec![proto::Target { key: "i:1".to_owned(), address: endpoint.to_string(), ..Default::default() }],
        put_members: vec![proto::Member { key: Some(key), capacity: 1, last_resort: false, far: false }],
        put_routes: vec![proto::Route {
            pattern: "www.example/*".to_owned(),
            service: "web".to_owned(),
            picks: vec![proto::Pick { version: "1.0".to_owned(), ..proto::Pick::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    Table::new(Shared::new(|| {})).apply(&convert::delta(delta).unwrap(), &mut Draining::default()).unwrap()
}
