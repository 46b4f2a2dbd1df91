//! What control sets: the name, the listeners, the limits. All of it, or nothing.

use std::{path::PathBuf, sync::Arc};

use super::{Configured, Engine, now_unix_s};
use crate::{
    access_log, convert,
    listen::descriptors::Descriptors,
    proto::{self, from_engine::Kind},
    settings::NodeConfig,
    workers::Command,
};

/// Tokens go into headers: `Via`, `Proxy-Status`.
const NODE_NAME_BYTES_MAX: usize = 255;

impl Engine {
    pub(super) fn configure(&mut self, asked: proto::Configure) {
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

    pub(super) fn try_configure(&mut self, asked: proto::Configure) -> Result<proto::Configured, String> {
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

    pub(super) fn worker_done(&mut self, number: u64) {
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
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}
