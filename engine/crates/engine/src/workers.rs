//! The worker threads: what control tells them, what they tell control.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use sdlb_routes::Table;
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    listen::{
        accept::{self, SharedConfig},
        idle::{self, Inherited, Way},
        spread::Given,
    },
    settings::{ListenerConfig, NodeConfig},
    supervise,
    worker::{Worker, WorkerShared},
};

/// Each worker looks at its clock so often ...
const CLOCK: Duration = Duration::from_secs(1);
/// ... and says when it was late by this much.
pub const STALL: Duration = Duration::from_millis(50);

/// What a worker is told. Tables come by a `watch` of their own: only the newest counts.
pub enum Command {
    /// Name, limits, control socket.
    Configure(Box<NodeConfig>),
    /// Accept from this socket, beside others with the same address.
    Listen(ListenerConfig, TcpListener),
    /// The listener bound to `bound` has another kind or name from now on.
    Relabel(ListenerConfig),
    /// Stop accepting from the listener bound to this address.
    Close(SocketAddr),
    /// Stop accepting from all, let connections end. With a way to another engine, those that rest go there.
    Drain(Option<Way>),
    /// Let the connections of clients end; those of nodes stay.
    DrainClients,
    /// Serve a link that another worker has accepted.
    Link(Box<Given>),
    /// Go on with a connection of the engine before.
    Inherit(Inherited),
    /// Answer [`Event::Done`] with this number: everything before it is carried out.
    Done(u64),
    /// Requests to some members have to end: all look whether theirs does.
    Cut,
    /// Answer [`Event::Turned`].
    Turn,
}

/// What a worker tells.
pub enum Event {
    /// It picks by this epoch. The table before comes back to be freed, which can take milliseconds.
    Applied {
        /// Which worker.
        worker: usize,
        /// The epoch.
        epoch: u64,
        /// The table before.
        old: Arc<Table>,
    },
    /// The answer to [`Command::Done`].
    Done(u64),
    /// The answer to [`Command::Turn`].
    Turned {
        /// Which worker.
        worker: usize,
    },
    /// It came to its own clock so much too late: it, or the whole process, stood still.
    Late {
        /// Which worker.
        worker: usize,
        /// By so much.
        by: Duration,
    },
}

/// Control's end of a worker.
pub struct Handle {
    /// Bounded by what control asks for: few and small.
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Tells the worker. One that has ended does not hear it.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// Starts the threads.
///
/// # Errors
/// A thread or its runtime could not be made.
pub fn start(
    count: usize,
    shared: &WorkerShared,
    tables: &watch::Sender<Arc<Table>>,
    events: &mpsc::UnboundedSender<Event>,
) -> io::Result<Vec<Handle>> {
    let (ways, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::unbounded_channel()).unzip();
    shared.spread.open(ways.clone());
    let each = ways.into_iter().zip(inboxes).enumerate();
    each.map(|(index, (commands, inbox))| {
        let (shared, tables, events) = (shared.clone(), tables.subscribe(), events.clone());
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        supervise::spawn(format!("worker-{index}"), None, move || {
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    sdlb_routes::count_as(index, count);
                    let _ = started.send(Ok(()));
                    runtime.block_on(run(index, shared, tables, inbox, events));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("a worker thread exited at start")))?;
        Ok(Handle { commands })
    })
    .collect()
}

struct Listening {
    config: SharedConfig,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Listening {
    /// Gives what ends when the socket is closed.
    fn stop(self) -> JoinHandle<()> {
        self.stop.send_replace(true);
        self.task
    }
}

async fn run(
    index: usize,
    shared: WorkerShared,
    mut tables: watch::Receiver<Arc<Table>>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<Event>,
) {
    // Not marked as seen: a delta may have come before this thread ran, and its epoch is to be told as applied.
    let first = tables.borrow().clone();
    let worker = Rc::new(Worker::new(index, &shared, first, NodeConfig::default()));
    let mut listeners: HashMap<SocketAddr, Vec<Listening>> = HashMap::new();
    let mut closing: Vec<JoinHandle<()>> = Vec::new();
    let mut clock = interval(CLOCK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let command = tokio::select! {
            biased;
            changed = tables.changed() => {
                if changed.is_err() {
                    break;
                }
                let table = tables.borrow_and_update().clone();
                let epoch = table.epoch();
                let old = worker.set_table(table);
                let _ = events.send(Event::Applied { worker: index, epoch, old });
                continue;
            }
            command = inbox.recv() => command,
            due = clock.tick() => {
                let by = due.elapsed();
                if by >= STALL {
                    let _ = events.send(Event::Late { worker: index, by });
                }
                continue;
            }
        };
        match command {
            None => break,
            Some(Command::Configure(config)) => {
                worker.set_config(*config);
                worker.drain_clients(false);
            }
            Some(Command::Listen(config, socket)) => {
                let bound = config.bound;
                match tokio::net::TcpListener::from_std(socket) {
                    Ok(listener) => {
                        let config = SharedConfig::new(Rc::new(config).into());
                        let stop = watch::Sender::new(false);
                        let task = tokio::task::spawn_local(supervise::task(
                            "an accept loop",
                            accept::run(listener, config.clone(), worker.clone(), stop.subscribe()),
                        ));
                        listeners.entry(bound).or_default().push(Listening { config, stop, task });
                    }
                    Err(error) => eprintln!("sdlb-engine: worker {index} cannot accept on {bound}: {error}"),
                }
            }
            Some(Command::Relabel(config)) => {
                let config = Rc::new(config);
                for listening in listeners.get(&config.bound).into_iter().flatten() {
                    *listening.config.borrow_mut() = config.clone();
                }
            }
            Some(Command::Close(bound)) => {
                closing.extend(listeners.remove(&bound).into_iter().flatten().map(Listening::stop));
            }
            Some(Command::Drain(way)) => {
                closing.extend(listeners.drain().flat_map(|(_, all)| all).map(Listening::stop));
                worker.drain(way);
                if let Some(giver) = worker.giver() {
                    let worker = worker.clone();
                    closing.push(tokio::task::spawn_local(async move { giver.give_upstreams(&worker).await }));
                }
            }
            Some(Command::DrainClients) => worker.drain_clients(true),
            Some(Command::Cut) => worker.local.memory.wake_all(),
            Some(Command::Link(given)) => accept::serve_link(*given, &worker),
            Some(Command::Inherit(inherited)) => {
                let listening = inherited.bound().and_then(|bound| listeners.get(&bound)?.first());
                idle::take(&worker, inherited, listening.map(|listening| listening.config.borrow().clone()));
            }
            Some(Command::Done(number)) => {
                worker.access_log.flush();
                // Carried out means that what is closed is closed.
                let (closing, events) = (std::mem::take(&mut closing), events.clone());
                tokio::task::spawn_local(async move {
                    for task in closing {
                        let _ = task.await;
                    }
                    let _ = events.send(Event::Done(number));
                });
            }
            Some(Command::Turn) => {
                let _ = events.send(Event::Turned { worker: index });
            }
        }
    }
}
