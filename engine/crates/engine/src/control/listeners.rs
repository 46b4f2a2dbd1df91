//! Which listeners are open, and the step to those that control asks for: as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, TcpListener},
};

use crate::{
    convert::ListenerAsked,
    listen::{self, handover::Passed},
    settings::{ListenerConfig, ListenerKind},
    workers::{Command, Handle},
};

/// The open listeners, by the address they are bound to.
#[derive(Default)]
pub struct Listeners {
    open: BTreeMap<SocketAddr, Open>,
    /// Of the engine that is taken over, until the first configuration.
    inherited: Vec<Passed>,
}

struct Open {
    config: ListenerConfig,
    /// Copies of what the workers accept from, to be handed over.
    sockets: Vec<TcpListener>,
}

impl Plan {
    /// Where clients will reach this node over TLS.
    #[must_use]
    pub fn https_port(&self) -> Option<u16> {
        let all = self.kept.iter().chain(self.opened.iter().map(|opening| &opening.config));
        all.filter(|config| config.kind == ListenerKind::Entry && config.tls).map(|config| config.bound.port()).min()
    }
}

/// What is to be done; every socket is bound already, so it can't fail.
pub struct Plan {
    kept: Vec<ListenerConfig>,
    opened: Vec<Opening>,
}

struct Opening {
    config: ListenerConfig,
    sockets: Vec<TcpListener>,
    /// Worker and the socket that it accepts from.
    given: Vec<(usize, TcpListener)>,
}

impl Opening {
    /// Each worker gets a socket, and each socket a worker: a connection in the queue of one that nobody accepts from would
    /// wait for ever. With fewer sockets than workers some share one: another that were bound beside them would lose what
    /// is in its queue, should the take-over fail.
    fn new(config: ListenerConfig, sockets: Vec<TcpListener>, workers: usize) -> io::Result<Self> {
        let given = (0..workers.max(sockets.len()))
            .map(|index| Ok((index % workers, sockets[index % sockets.len()].try_clone()?)))
            .collect::<io::Result<_>>()?;
        Ok(Self { config, sockets, given })
    }
}

impl Listeners {
    /// None is open; those asked for that were `inherited` are not bound anew.
    #[must_use]
    pub fn new(inherited: Vec<Passed>) -> Self {
        Self { open: BTreeMap::new(), inherited }
    }

    /// Whether any is open.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// For another engine: the same sockets with the same queues.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn copies(&self) -> io::Result<Vec<Passed>> {
        let all = self.open.values().flat_map(|open| open.sockets.iter().map(|socket| (&open.config, socket)));
        all.map(|(config, socket)| {
            let (key, address, bound) = (config.key.clone(), config.address, config.bound);
            Ok(Passed { key, address, bound, socket: socket.try_clone()? })
        })
        .collect()
    }

    /// Keeps no socket open: only the workers do, as long as they accept.
    pub fn let_go(&mut self) {
        self.open.clear();
        self.inherited.clear();
    }

    /// Keeps those of nodes; gives where the others are bound, for the workers to close.
    pub fn let_go_of_clients(&mut self) -> Vec<SocketAddr> {
        let gone = self.open.extract_if(.., |_, open| open.config.kind == ListenerKind::Entry);
        gone.map(|(bound, _)| bound).collect()
    }

    /// The sockets of `asked` that were inherited, and where they are bound.
    fn inherit(&self, asked: &ListenerAsked) -> io::Result<Option<(SocketAddr, Vec<TcpListener>)>> {
        let is_asked = |it: &&Passed| it.bound == asked.address || (it.address == asked.address && it.key == asked.key);
        let Some(bound) = self.inherited.iter().find(is_asked).map(|first| first.bound) else { return Ok(None) };
        let sockets = self.inherited.iter().filter(|it| it.bound == bound).map(|it| it.socket.try_clone());
        Ok(Some((bound, sockets.collect::<io::Result<_>>()?)))
    }

    /// Binds what is asked for and not yet open.
    ///
    /// # Errors
    /// One sentence about the first listener that cannot be opened; nothing was changed.
    pub fn plan(&self, asked: Vec<ListenerAsked>, workers: usize) -> Result<Plan, String> {
        let mut plan = Plan { kept: Vec::new(), opened: Vec::new() };
        let (mut keys, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for asked in asked {
            if !keys.insert(asked.key.clone()) {
                return Err(format!("two listeners have the key {:?}", asked.key));
            }
            let open =
                self.open.values().map(|open| &open.config).find(|open| {
                    open.bound == asked.address || (open.address == asked.address && open.key == asked.key)
                });
            let bound = match open {
                Some(open) => open.bound,
                None => {
                    let told = |error| format!("listener {:?} on {}: {error}", asked.key, asked.address);
                    let (bound, sockets) = match self.inherit(&asked).map_err(told)? {
                        Some(inherited) => inherited,
                        None => listen::bind(asked.address, workers).map_err(told)?,
                    };
                    plan.opened.push(Opening::new(config(&asked, bound), sockets, workers).map_err(told)?);
                    bound
                }
            };
            if !addresses.insert(bound) {
                return Err(format!("two listeners have the address {bound}"));
            }
            if open.is_some() {
                plan.kept.push(config(&asked, bound));
            }
        }
        Ok(plan)
    }

    /// Carries a plan out. Gives key and bound address of all that are open then.
    pub fn carry_out(&mut self, plan: Plan, workers: &[Handle]) -> Vec<(String, SocketAddr)> {
        let mut open = BTreeMap::new();
        for config in plan.kept {
            workers.iter().for_each(|worker| worker.tell(Command::Relabel(config.clone())));
            if let Some(held) = self.open.remove(&config.bound) {
                open.insert(config.bound, Open { config, sockets: held.sockets });
            }
        }
        for Opening { config, sockets, given } in plan.opened {
            for (worker, socket) in given {
                workers[worker].tell(Command::Listen(config.clone(), socket));
            }
            open.insert(config.bound, Open { config, sockets });
        }
        self.inherited.clear();
        // Our copies go first: what the workers have closed is closed.
        for bound in std::mem::take(&mut self.open).into_keys() {
            workers.iter().for_each(|worker| worker.tell(Command::Close(bound)));
        }
        self.open = open;
        self.open.values().map(|open| &open.config).map(|config| (config.key.clone(), config.bound)).collect()
    }
}

fn config(asked: &ListenerAsked, bound: SocketAddr) -> ListenerConfig {
    ListenerConfig {
        key: asked.key.clone(),
        address: asked.address,
        bound,
        kind: asked.kind,
        public: asked.public,
        hardening: asked.hardening,
        tls: asked.tls,
        trusted: asked.trusted.clone(),
    }
}
