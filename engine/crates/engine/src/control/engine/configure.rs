//! What control sets: the name, the listeners, the limits. All of it, or nothing.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

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

/// Of this engine's boot id: enough to be told from every other proxy on a request's way.
const PSEUDONYM_DIGITS: usize = 8;

impl Engine {
    pub(super) fn configure(&mut self, asked: proto::Configure) {
        self.configures.push_back(asked);
        self.configure_next();
    }

    /// Carries out what was asked for, in turn. A log is opened by a thread of its own: the disk may not answer, and this thread
    /// has other things to do.
    fn configure_next(&mut self) {
        while !self.opening
            && let Some(asked) = self.configures.pop_front()
        {
            let path = log_path(&asked);
            match path.filter(|path| self.access_log_path.as_ref() != Some(path)) {
                None => self.configure_with(asked, None),
                Some(path) => {
                    self.opening = true;
                    let opened = self.opened_sender.clone();
                    tokio::task::spawn_local(async move {
                        let file = open_log(path.clone()).await;
                        let file = file.map_err(|error| format!("access log {:?}: {error}", path.display()));
                        // The receiver lives as long as the engine.
                        let _ = opened.send((asked, file.map(|file| (file, path))));
                    });
                }
            }
        }
    }

    pub(super) fn log_opened(&mut self, (asked, log): Opened) {
        self.opening = false;
        self.configure_with(asked, Some(log));
        self.configure_next();
    }

    fn configure_with(&mut self, asked: proto::Configure, log: Option<Result<(File, PathBuf), String>>) {
        match self.try_configure(asked, log) {
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

    /// `log`: one that was opened for it.
    fn try_configure(
        &mut self,
        asked: proto::Configure,
        log: Option<Result<(File, PathBuf), String>>,
    ) -> Result<proto::Configured, String> {
        if self.shutdown.is_some() {
            return Err("the engine is shutting down".to_owned());
        }
        if asked.node.is_empty() || asked.node.len() > NODE_NAME_BYTES_MAX || !asked.node.bytes().all(is_name_byte) {
            return Err(format!("node name {:?}: expected 1 to 255 letters, digits, dots, - or _", asked.node));
        }
        let path = log_path(&asked);
        let control_socket = PathBuf::from(asked.control_socket);
        if !control_socket.as_os_str().is_empty() && !control_socket.is_absolute() {
            return Err(format!("control socket {:?}: expected an absolute path", control_socket.display()));
        }
        let file = log.transpose()?;
        let identity = convert::identity(asked.identity, &asked.node, now_unix_s())?;
        let listeners = convert::listeners(asked.listeners, identity.is_some())?;
        let plan = self.listeners.plan(listeners, self.workers.len())?;

        let mut configured = convert::to_configured(identity.as_ref());
        let (limits, identity) = (convert::limits(asked.limits), identity.map(Arc::new));
        self.memory.set_limit(limits.memory_bytes);
        let clients_max = limits.connections.min(Descriptors::now().clients());
        let pseudonym = format!("{}-{}", asked.node, self.boot_id.get(..PSEUDONYM_DIGITS).unwrap_or_default());
        let settles = (asked.settle_ms > 0).then(|| Instant::now() + Duration::from_millis(asked.settle_ms.into()));
        let https_port = plan.https_port();
        let config = NodeConfig { settles, name: asked.node, pseudonym, https_port, control_socket, limits, identity };
        for worker in &self.workers {
            worker.tell(Command::Configure(Box::new(config.clone())));
        }
        if path != self.access_log_path {
            self.access_log.configure(file);
            self.access_log_path = path;
        }
        let bound = self.listeners.carry_out(plan, &self.workers);
        self.unconfirmed = None;
        self.parting = None;
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

/// What was asked for, and the log that was opened for it.
pub(super) type Opened = (proto::Configure, Result<(File, PathBuf), String>);

fn log_path(asked: &proto::Configure) -> Option<PathBuf> {
    asked.access_log.as_ref().filter(|log| log.enabled).map(|log| PathBuf::from(&log.path))
}

/// A disk that takes longer to open a file is not there.
const OPEN_WITHIN: Duration = Duration::from_secs(2);

async fn open_log(path: PathBuf) -> io::Result<File> {
    let (done, wait) = oneshot::channel();
    let open = move || drop(done.send(access_log::open(&path)));
    thread::Builder::new().name("access-log-open".to_owned()).stack_size(64 << 10).spawn(open)?;
    match timeout(OPEN_WITHIN, wait).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) | Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the file system does not respond")),
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}
