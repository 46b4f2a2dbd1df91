//! The main loop: what control asks for goes to the workers, what they report goes to control.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs,
    io::{self, Read},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use sdlb_routes::{Draining, Outliers, Refused, Shared, Table, Target};
use tokio::{
    net::UnixListener,
    runtime::{Builder, LocalOptions},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    listeners::Listeners,
    memory::Memory,
    session::{Arrival, Session},
    socket::{self, ControlSocket},
    stats::Sent,
};
use crate::{
    access_log::{self, Sink},
    convert,
    counters::Counters,
    listen::{
        descriptors::Descriptors,
        handover::{self, Passed},
        idle,
    },
    memory::Pressure,
    proto::{self, from_engine::Kind, sites_applied::State, to_engine},
    settings::NodeConfig,
    tls::sites::{Registry, Told},
    worker::{TargetEjected, WorkerShared},
    workers::{self, Command, Event, Handle},
};

/// Statistics, progress of drains, the stall watch.
const TICK: Duration = Duration::from_secs(1);
/// From the start of a take-over until control has configured this engine.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// How long open requests may take after SIGTERM.
const SIGTERM_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at the number of open connections while shutting down.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(20);
/// Tokens go into headers: `Via`, `Proxy-Status`.
const NODE_NAME_BYTES_MAX: usize = 255;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Worker threads.
    pub workers: usize,
    /// Where a running engine hands its listening sockets over; none: this is the only engine.
    pub take_over: Option<PathBuf>,
}

/// Runs the engine until it is told to end and is drained, or its deadline has passed.
///
/// # Errors
/// One sentence when it cannot start.
pub fn run(options: &Options) -> Result<(), String> {
    let started = |error: io::Error| format!("cannot start: {error}");
    let inherited = options.take_over.as_deref().map(handover::receive).transpose()?;
    let (listener, socket) = socket::create(&options.socket)?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).map_err(started)?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(listener).map_err(started)?;
        let (engine, inbox) = Engine::start(options, socket, inherited).map_err(started)?;
        engine.run(&listener, inbox).await.map_err(started)
    })
}

struct Engine {
    workers: Vec<Handle>,
    worker_events: mpsc::UnboundedReceiver<Event>,
    tables: watch::Sender<Arc<Table>>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    access_log: Sink,
    ejected: mpsc::UnboundedReceiver<TargetEjected>,
    drained: Arc<Notify>,
    started: Instant,
    boot_id: String,
    _socket: ControlSocket,

    /// The newest table; workers may be one behind.
    table: Arc<Table>,
    /// The epoch by which each worker picks.
    applied: Vec<u64>,
    /// Applied here, not yet by all workers.
    applying: VecDeque<u64>,
    draining: Draining,
    listeners: Listeners,
    hand_over: mpsc::UnboundedSender<HandedOver>,
    handed_over: mpsc::UnboundedReceiver<HandedOver>,
    /// The engine that was taken over from, while idle connections may come from it, and how many have come.
    before: Option<idle::Taker>,
    inherited: usize,
    /// The engine that has got the listening sockets.
    next: Option<OwnedFd>,
    clients_max: usize,
    /// A take-over that control has not carried through: the process ends then, for nobody may know of it.
    unconfirmed: Option<Instant>,
    sites: Registry,
    memory: Memory,
    access_log_path: Option<PathBuf>,
    /// Answers to `Configure` that wait for the workers to have done it.
    configured: VecDeque<Configured>,
    done_number: u64,
    /// Targets that are ejected now, and until when on the engine's clock.
    out: Vec<(u64, Arc<Target>)>,
    /// When each worker was asked to turn, while it has not.
    asked: Vec<Option<Instant>>,
    outliers: Outliers,
    session: Option<Session>,
    sessions: u64,
    arrivals: mpsc::Sender<Arrival>,
    sent: Sent,
    shutdown: Option<Instant>,
    /// Workers that may still take connections from the queues of sockets that they are to close; `number` of their `Done`.
    closing: (u64, usize),
}

/// An answer to control, and the connection to the engine that has got the sockets.
type HandedOver = (proto::HandedOver, Option<OwnedFd>);

struct Configured {
    number: u64,
    waiting: usize,
    answer: proto::Configured,
}

impl Engine {
    fn start(
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
            configured: VecDeque::new(),
            done_number: 0,
            out: Vec::new(),
            outliers: Outliers::default(),
            session: None,
            sessions: 0,
            arrivals,
            sent: Sent::default(),
            shutdown: None,
            closing: (0, 0),
        };
        Ok((engine, inbox))
    }
}

impl Engine {
    async fn run(mut self, listener: &UnixListener, mut inbox: mpsc::Receiver<Arrival>) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut look = Box::pin(sleep(self.memory.next()));
        let drained = self.drained.clone();
        loop {
            if self.shutdown.is_some_and(|deadline| self.is_over(deadline)) {
                break;
            }
            let back_in = self.next_back();
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.attach(stream),
                    Err(_) => sleep(SHUTDOWN_LOOK).await,
                },
                Some(arrival) = inbox.recv() => self.arrived(arrival),
                Some(event) = self.worker_events.recv() => self.worker_event(event),
                Some(ejected) = self.ejected.recv() => self.target_ejected(ejected),
                Some((answer, next)) = self.handed_over.recv() => {
                    self.next = next;
                    self.send(Kind::HandedOver(answer));
                }
                passed = next_of(self.before.as_ref()), if self.before.is_some() => self.inherit(passed),
                () = drained.notified() => self.report_drained(),
                () = sleep(back_in.unwrap_or_default()), if back_in.is_some() => self.report_back(),
                () = sleep(SHUTDOWN_LOOK), if self.shutdown.is_some() => {}
                _ = tick.tick() => self.tick(),
                () = &mut look => {
                    self.look_at_memory();
                    look.set(sleep(self.memory.next()));
                }
                Some(()) = hang_up.recv() => self.access_log.reopen(),
                Some(()) = terminate.recv() => self.shut_down(SIGTERM_DEADLINE),
                Some(()) = interrupt.recv() => self.shut_down(SIGTERM_DEADLINE),
            }
        }
        self.finish().await;
        Ok(())
    }

    // ------------------------------------------------------------------ sessions

    fn attach(&mut self, stream: tokio::net::UnixStream) {
        if !socket::may_control(&stream) {
            eprintln!("sdlb-engine: a process of another user was turned away from the control socket");
            return;
        }
        self.sessions += 1;
        self.sent = Sent::default();
        self.session = Some(Session::start(self.sessions, stream, self.arrivals.clone()));
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.send(Kind::Attached(proto::Attached {
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            boot_id: self.boot_id.clone(),
            epoch: self.table.epoch(),
            routes: count(self.table.route_count()),
            members: count(self.table.member_count()),
            draining: convert::to_counts(self.draining.counts()),
            serving: self.listeners.any(),
            ending: self.shutdown.is_some(),
        }));
        let now_ms = self.now_ms();
        let out: Vec<_> = self.out.iter().filter(|(until, _)| *until > now_ms).cloned().collect();
        for (until, target) in out {
            self.send(Kind::TargetHealth(proto::TargetHealth {
                target: target.key().to_string(),
                ejected: true,
                for_ms: u32::try_from(until - now_ms).unwrap_or(u32::MAX),
                reason: "failed repeatedly before control attached".to_owned(),
            }));
        }
    }

    fn send(&mut self, kind: Kind) {
        if self.session.as_ref().is_some_and(|session| !session.send(kind)) {
            eprintln!("sdlb-engine: control does not read; its connection is closed");
            self.session = None;
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        if self.session.as_ref().is_none_or(|session| session.number != arrival.session) {
            return;
        }
        match arrival.message {
            Ok(Some(message)) => match message.kind {
                Some(to_engine::Kind::Configure(configure)) => self.configure(configure),
                Some(to_engine::Kind::Delta(delta)) => self.change(delta),
                Some(to_engine::Kind::Shutdown(shutdown)) => {
                    self.shut_down(Duration::from_millis(shutdown.deadline_ms.into()));
                }
                Some(to_engine::Kind::HandOver(asked)) => self.give_sockets(asked.path),
                Some(to_engine::Kind::Sites(sites)) => self.put_sites(sites),
                Some(to_engine::Kind::TicketKeys(keys)) => self.ticket_keys(&keys),
                None => eprintln!("sdlb-engine: control sent a message of a kind that this version does not know"),
            },
            Ok(None) => self.session = None,
            Err(error) => {
                eprintln!("sdlb-engine: control connection closed: {error}");
                self.session = None;
            }
        }
    }

    // ------------------------------------------------------------------ the table

    fn change(&mut self, delta: proto::Delta) {
        let epoch = delta.epoch;
        let next = convert::delta(delta).and_then(|delta| self.table.apply(&delta, &mut self.draining));
        match next {
            Ok(table) => {
                self.table = Arc::new(table);
                self.applying.push_back(epoch);
                self.tables.send_replace(self.table.clone());
            }
            Err(Refused(reason)) => self.send(Kind::Rejected(proto::Rejected { epoch, reason })),
        }
    }

    fn worker_event(&mut self, event: Event) {
        match event {
            Event::Applied { worker, epoch, old } => {
                drop(old);
                self.applied[worker] = epoch;
                let applied = self.applied_by_all();
                while let Some(epoch) = self.applying.pop_front_if(|epoch| *epoch <= applied) {
                    self.send(Kind::Applied(proto::Applied { epoch }));
                }
                self.report_drained();
            }
            Event::Done(number) => self.worker_done(number),
            Event::Turned { worker } => self.asked[worker] = None,
            Event::Late { worker, by } => self.report_stall(worker, by),
        }
    }

    fn applied_by_all(&self) -> u64 {
        self.applied.iter().copied().min().unwrap_or(0)
    }

    fn report_drained(&mut self) {
        for (key, epoch) in self.draining.take_drained(self.applied_by_all()) {
            self.send(Kind::Drained(proto::Drained { key: Some(convert::to_key(&key)), epoch }));
        }
    }

    // ------------------------------------------------------------------ health of targets

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn target_ejected(&mut self, ejected: TargetEjected) {
        self.out.retain(|(_, target)| target.id() != ejected.target.id());
        self.out.push((self.now_ms() + u64::from(ejected.for_ms), ejected.target.clone()));
        self.send(Kind::TargetHealth(proto::TargetHealth {
            target: ejected.target.key().to_string(),
            ejected: true,
            for_ms: ejected.for_ms,
            reason: ejected.reason,
        }));
    }

    /// How long until the first ejected target is back.
    fn next_back(&self) -> Option<Duration> {
        let first = self.out.iter().map(|(until, _)| *until).min()?;
        Some(Duration::from_millis(first.saturating_sub(self.now_ms())))
    }

    fn report_back(&mut self) {
        let now_ms = self.now_ms();
        let back: Vec<_> = self.out.extract_if(.., |(until, _)| *until <= now_ms).collect();
        for (_, target) in back {
            self.send(Kind::TargetHealth(proto::TargetHealth {
                target: target.key().to_string(),
                ejected: false,
                for_ms: 0,
                reason: String::new(),
            }));
        }
    }

    // ------------------------------------------------------------------ configuration

    fn configure(&mut self, asked: proto::Configure) {
        match self.try_configure(asked) {
            Ok(answer) => {
                self.done_number += 1;
                for worker in &self.workers {
                    worker.tell(Command::Done(self.done_number));
                }
                let waiting = self.workers.len();
                self.configured.push_back(Configured { number: self.done_number, waiting, answer });
            }
            Err(error) => self.send(Kind::Configured(proto::Configured { error, ..Default::default() })),
        }
    }

    fn try_configure(&mut self, asked: proto::Configure) -> Result<proto::Configured, String> {
        if self.shutdown.is_some() {
            return Err("the engine shuts down".to_owned());
        }
        if asked.node.is_empty() || asked.node.len() > NODE_NAME_BYTES_MAX || !asked.node.bytes().all(is_name_byte) {
            return Err(format!("node name {:?}: expected 1 to 255 letters, digits, dots, - or _", asked.node));
        }
        let control_socket = PathBuf::from(asked.control_socket);
        if !control_socket.as_os_str().is_empty() && !control_socket.is_absolute() {
            return Err(format!("control socket {:?}: expected an absolute path", control_socket.display()));
        }
        let log = asked.access_log.filter(|log| log.enabled);
        let path = log.map(|log| PathBuf::from(log.path));
        let file = match &path {
            Some(path) if self.access_log_path.as_ref() != Some(path) => {
                let file =
                    access_log::open(path).map_err(|error| format!("access log {:?}: {error}", path.display()))?;
                Some((file, path.clone()))
            }
            _ => None,
        };
        let identity = convert::identity(asked.identity, &asked.node, now_unix_s())?;
        let listeners = convert::listeners(asked.listeners, identity.is_some())?;
        let plan = self.listeners.plan(listeners, self.workers.len())?;

        let mut configured = convert::to_configured(identity.as_ref());
        let (limits, identity) = (convert::limits(asked.limits), identity.map(Arc::new));
        self.memory.set_limit(limits.memory_bytes);
        let clients_max = limits.connections.min(Descriptors::now().clients());
        let config = NodeConfig { name: asked.node, control_socket, limits, identity };
        for worker in &self.workers {
            worker.tell(Command::Configure(config.clone()));
        }
        if path != self.access_log_path {
            self.access_log.configure(file);
            self.access_log_path = path;
        }
        let bound = self.listeners.carry_out(plan, &self.workers);
        self.unconfirmed = None;
        self.clients_max = clients_max;
        configured.listeners = bound
            .into_iter()
            .map(|(key, address)| proto::configured::Bound { key, address: address.to_string() })
            .collect();
        Ok(configured)
    }

    /// `None`: no more will come.
    fn inherit(&mut self, passed: Option<idle::Passed>) {
        let Some(passed) = passed else {
            self.before = None;
            return;
        };
        let worker = passed.worker(self.workers.len(), self.inherited);
        self.inherited += 1;
        if let Some(inherited) = idle::Inherited::new(passed, &self.table) {
            self.workers[worker].tell(Command::Inherit(inherited));
        }
    }

    /// On a thread of its own: the other engine may take its time.
    fn give_sockets(&mut self, path: String) {
        let failed = |error: String| proto::HandedOver { sockets: 0, error };
        if self.shutdown.is_some() {
            return self.send(Kind::HandedOver(failed("the engine shuts down".to_owned())));
        }
        let passed = match self.listeners.copies() {
            Ok(passed) => passed,
            Err(error) => return self.send(Kind::HandedOver(failed(format!("listening sockets: {error}")))),
        };
        let answers = self.hand_over.clone();
        let sender = std::thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            let outcome = handover::send(path.as_ref(), &passed);
            let sockets = u32::try_from(passed.len()).unwrap_or(u32::MAX);
            // The receiver lives as long as the engine.
            let _ = answers.send(match outcome {
                Ok(next) => (proto::HandedOver { sockets, ..Default::default() }, Some(next)),
                Err(error) => (failed(format!("{path}: {error}")), None),
            });
        });
        if let Err(error) = sender {
            self.send(Kind::HandedOver(failed(format!("no thread: {error}"))));
        }
    }

    fn put_sites(&mut self, asked: proto::Sites) {
        let now_unix_s = now_unix_s();
        let put = |site: proto::Site| {
            let key = site.key.clone();
            match self.sites.put(convert::site(site), now_unix_s) {
                Ok(Told { not_after_unix_s, warnings }) => {
                    State { key, error: String::new(), not_after_unix_s, warnings }
                }
                Err(error) => {
                    let not_after_unix_s = self.sites.not_after_unix_s(&key);
                    State { key, error, not_after_unix_s, ..State::default() }
                }
            }
        };
        let states = asked.put.into_iter().map(put).collect();
        if asked.prune {
            self.sites.keep(&asked.keep);
        }
        self.sites.publish();
        self.send(Kind::SitesApplied(proto::SitesApplied { sites: states }));
    }

    fn ticket_keys(&mut self, keys: &proto::TicketKeys) {
        if let Err(error) = self.sites.keys.replace(keys.keys.iter().map(|key| (&key.name[..], &key.secret[..]))) {
            eprintln!("sdlb-engine: {error}; the keys of session tickets stay as they are");
        }
    }

    fn worker_done(&mut self, number: u64) {
        if self.closing.0 == number {
            self.closing.1 = self.closing.1.saturating_sub(1);
        }
        if let Some(configured) = self.configured.iter_mut().find(|configured| configured.number == number) {
            configured.waiting -= 1;
        }
        while let Some(configured) = self.configured.pop_front_if(|configured| configured.waiting == 0) {
            // Before control hears of it, and tells the other one to end.
            if let Some(before) = &self.before {
                let open = usize::try_from(self.counters.connections_open.get()).unwrap_or(usize::MAX);
                before.say_ready(self.clients_max.saturating_sub(open));
            }
            self.send(Kind::Configured(configured.answer));
        }
    }

    // ------------------------------------------------------------------ once a second

    fn tick(&mut self) {
        if self.unconfirmed.take_if(|until| Instant::now() >= *until).is_some() {
            eprintln!("sdlb-engine: control did not carry the take-over through; ending");
            self.shut_down(Duration::ZERO);
        }
        // One that stands still now is reported from here; one that did so, by itself.
        for worker in 0..self.workers.len() {
            match self.asked[worker] {
                Some(asked) => self.report_stall(worker, asked.elapsed()),
                None => {
                    self.asked[worker] = Some(Instant::now());
                    self.workers[worker].tell(Command::Turn);
                }
            }
        }
        let now_ms = self.now_ms();
        for (target, ejected, reason) in self.outliers.look(&self.table, now_ms) {
            self.counters.outliers_total.add();
            self.target_ejected(TargetEjected { target, for_ms: ejected.for_ms, reason });
        }
        if self.session.is_none() {
            return;
        }
        if !self.draining.is_empty() {
            let draining = convert::to_counts(self.draining.counts());
            self.send(Kind::InFlight(proto::InFlight { draining }));
        }
        for stats in self.sent.changes(&self.shared, &self.table, &self.counters) {
            self.send(Kind::Stats(stats));
        }
    }

    fn look_at_memory(&mut self) {
        let Some(short) = self.memory.look(&self.counters, Instant::now()) else { return };
        let mib = |bytes: u64| bytes >> 20;
        let (level, limit) = (if short.full { "80 %" } else { "65 %" }, mib(short.limit_bytes));
        let (resident, held) = (mib(short.resident_bytes), mib(short.held_bytes));
        eprintln!("sdlb-engine: memory above {level} of {limit} MiB: {resident} resident, {held} held by connections");
        self.send(Kind::MemoryShort(short));
    }

    fn report_stall(&mut self, worker: usize, after: Duration) {
        if after >= workers::STALL {
            let number = |value: u128| u32::try_from(value).unwrap_or(u32::MAX);
            self.send(Kind::Stalled(proto::Stalled {
                worker: number(worker as u128),
                for_ms: number(after.as_millis()),
            }));
        }
    }

    // ------------------------------------------------------------------ the end

    /// The nearest deadline counts when asked twice; a second signal ends at once.
    fn shut_down(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        if self.shutdown.is_none() {
            self.listeners.let_go();
            self.before = None;
            let way = self.next.take().and_then(|next| idle::Way::open(next, self.workers.len(), within));
            self.done_number += 1;
            self.closing = (self.done_number, self.workers.len());
            for worker in &self.workers {
                worker.tell(Command::Drain(way.clone()));
                worker.tell(Command::Done(self.done_number));
            }
        }
        self.shutdown = Some(self.shutdown.map_or(deadline, |held| held.min(deadline)));
    }

    fn is_over(&self, deadline: Instant) -> bool {
        (self.closing.1 == 0 && self.counters.connections_open.get() == 0) || Instant::now() >= deadline
    }

    /// Last statistics and log lines.
    async fn finish(&mut self) {
        let left = self.counters.connections_open.get();
        if left > 0 {
            eprintln!("sdlb-engine: the deadline has passed; {left} connections are cut off");
        }
        self.done_number += 1;
        let mut waiting = self.workers.len();
        self.workers.iter().for_each(|worker| worker.tell(Command::Done(self.done_number)));
        let _ = tokio::time::timeout(TICK, async {
            while waiting > 0 {
                match self.worker_events.recv().await {
                    Some(Event::Done(number)) if number == self.done_number => waiting -= 1,
                    Some(_) => {}
                    None => break,
                }
            }
        })
        .await;
        self.access_log.flush();
        self.report_drained();
        self.tick();
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }
}

async fn next_of(before: Option<&idle::Taker>) -> Option<idle::Passed> {
    before?.next().await
}

fn now_unix_s() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
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
