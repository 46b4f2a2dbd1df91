//! Which listeners are open, and the step to those that control asks for: as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
};

use crate::{
    convert::ListenerAsked,
    listen,
    settings::ListenerConfig,
    workers::{Command, Handle},
};

/// The open listeners, by the address they are bound to.
#[derive(Default)]
pub struct Listeners(BTreeMap<SocketAddr, ListenerConfig>);

/// What is to be done; every socket is bound already, so it can't fail.
pub struct Plan {
    kept: Vec<ListenerConfig>,
    opened: Vec<(ListenerConfig, Vec<TcpListener>)>,
}

impl Listeners {
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
            let open = self
                .0
                .values()
                .find(|open| open.bound == asked.address || (open.address == asked.address && open.key == asked.key));
            let bound = match open {
                Some(open) => open.bound,
                None => {
                    let (bound, sockets) = listen::bind(asked.address, workers)
                        .map_err(|error| format!("listener {:?} on {}: {error}", asked.key, asked.address))?;
                    plan.opened.push((config(&asked, bound), sockets));
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
            open.insert(config.bound, config);
        }
        for (config, sockets) in plan.opened {
            for (worker, socket) in workers.iter().zip(sockets) {
                worker.tell(Command::Listen(config.clone(), socket));
            }
            open.insert(config.bound, config);
        }
        for bound in self.0.keys().filter(|bound| !open.contains_key(bound)) {
            workers.iter().for_each(|worker| worker.tell(Command::Close(*bound)));
        }
        self.0 = open;
        self.0.values().map(|config| (config.key.clone(), config.bound)).collect()
    }
}

fn config(asked: &ListenerAsked, bound: SocketAddr) -> ListenerConfig {
    ListenerConfig {
        key: asked.key.clone(),
        address: asked.address,
        bound,
        kind: asked.kind,
        public: asked.public,
        tls: asked.tls,
    }
}
