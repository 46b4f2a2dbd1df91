//! An engine with its workers, before anything is asked of it.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use sdlb_routes::{Draining, Outliers, Shared, Table};
use tokio::sync::{Notify, mpsc, watch};

use super::{Engine, Options};
use crate::{
    access_log::Sink,
    control::{listeners::Listeners, memory::Memory, session::Arrival, socket::ControlSocket, stats::Sent},
    counters::Counters,
    listen::{handover::Passed, idle, spread::Spread},
    memory::Pressure,
    tls::sites::Registry,
    worker::WorkerShared,
    workers,
};

/// From the start of a take-over until control has configured this engine.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

impl Engine {
    pub(super) fn start(
        options: &Options,
        socket: ControlSocket,
        inherited: Option<(Vec<Passed>, OwnedFd)>,
    ) -> io::Result<(Self, mpsc::Receiver<Arrival>)> {
        raise_descriptor_limit();
        let (inherited, before) = inherited.unzip();
        let drained = Arc::new(Notify::new());
        let bell = drained.clone();
        let shared = Shared::new(move || bell.notify_one());
        let table = Arc::new(Table::new(shared.clone()));
        let (tables, _) = watch::channel(table.clone());
        let counters = Arc::new(Counters::default());
        let access_log = Sink::start(counters.clone())?;
        let (report, worker_events) = mpsc::unbounded_channel();
        let (eject, ejected) = mpsc::unbounded_channel();
        let (hand_over, handed_over) = mpsc::unbounded_channel();
        let (opened_sender, opened) = mpsc::unbounded_channel();
        let random = random_bytes()?;
        let started = Instant::now();
        let sites = Registry::default();
        let pressure = Arc::new(Pressure::new(options.workers));
        let worker_shared = WorkerShared {
            counters: counters.clone(),
            access_log: access_log.clone(),
            started,
            seed: u64::from_le_bytes(random[..8].try_into().unwrap_or_default()),
            per_address: Default::default(),
            handshakes: Default::default(),
            rates: Default::default(),
            spread: Spread::of(options.workers),
            sites: sites.shared.clone(),
            ejected: eject,
            crowded: Arc::default(),
            pressure: pressure.clone(),
        };
        let workers = workers::start(options.workers, &worker_shared, &tables, &report)?;
        let (arrivals, inbox) = mpsc::channel(8);
        let engine = Self {
            applied: vec![0; workers.len()],
            asked: vec![None; workers.len()],
            workers,
            worker_events,
            tables,
            shared,
            counters,
            access_log,
            ejected,
            drained,
            started,
            boot_id: random[8..].iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
            _socket: socket,
            table,
            applying: VecDeque::new(),
            draining: Draining::default(),
            listeners: Listeners::new(inherited.unwrap_or_default()),
            hand_over,
            handed_over,
            before: before.map(idle::Taker::new).transpose()?,
            next: None,
            inherited: 0,
            clients_max: 0,
            unconfirmed: options.take_over.is_some().then(|| started + CONFIRM_WITHIN),
            sites,
            memory: Memory::new(pressure),
            access_log_path: None,
            configures: VecDeque::new(),
            opening: false,
            opened,
            opened_sender,
            configured: VecDeque::new(),
            done_number: 0,
            out: Vec::new(),
            outliers: Outliers::default(),
            session: None,
            sessions: 0,
            arrivals,
            sent: Sent::default(),
            shutdown: None,
            parting: None,
            closing: (0, 0),
        };
        Ok((engine, inbox))
    }
}

fn random_bytes() -> io::Result<[u8; 24]> {
    let mut bytes = [0; 24];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Each connection is a descriptor, and most systems give 1024 unless asked.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused: the limit stays, and accepting pauses when it is reached.
    let _ = setrlimit(Resource::Nofile, limit);
}
