//! The main loop: what control asks for goes to the workers, what they report goes to control.
//!
//! ```text
//! start      the workers, and an engine that nothing was asked of yet
//! sessions   control's connection, and which message goes where
//! table      routes and members: applied, drained
//! health     targets that are out, and back
//! configure  name, listeners, limits, the access log
//! sites      certificates and ticket keys
//! hand_over  sockets for the engine that takes over, and what rests from the one before
//! tick       once a second: statistics, stalls, outliers; memory
//! end        draining, and the deadline
//! ```

mod configure;
mod end;
mod hand_over;
mod health;
mod sessions;
mod sites;
mod start;
mod table;
mod tick;

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use sdlb_routes::{Draining, Outliers, Shared, Table, Target};
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
    access_log::Sink,
    counters::Counters,
    listen::{handover, idle},
    proto::{self, from_engine::Kind},
    tls::sites::Registry,
    worker::TargetEjected,
    workers::{Event, Handle},
};

/// Statistics, progress of drains, the stall watch.
const TICK: Duration = Duration::from_secs(1);
/// How long open requests may take after SIGTERM.
const SIGTERM_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at the number of open connections while shutting down.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(20);

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
    /// What is to be configured when the log for the one before is open.
    configures: VecDeque<proto::Configure>,
    opening: bool,
    opened: mpsc::UnboundedReceiver<configure::Opened>,
    opened_sender: mpsc::UnboundedSender<configure::Opened>,
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
    /// Clients are to go by then, and control waits for it.
    parting: Option<Instant>,
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
                Some(opened) = self.opened.recv() => self.log_opened(opened),
                Some(ejected) = self.ejected.recv() => self.target_ejected(ejected),
                Some((answer, next)) = self.handed_over.recv() => {
                    self.next = next;
                    self.send(Kind::HandedOver(answer));
                }
                passed = hand_over::next_of(self.before.as_ref()), if self.before.is_some() => self.inherit(passed),
                () = drained.notified() => self.report_drained(),
                () = sleep(back_in.unwrap_or_default()), if back_in.is_some() => self.report_back(),
                () = sleep(SHUTDOWN_LOOK), if self.shutdown.is_some() => {}
                () = sleep(SHUTDOWN_LOOK), if self.parting.is_some() => self.look_at_clients(),
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
}

fn now_unix_s() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
