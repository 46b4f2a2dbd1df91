//! Sockets by number in one epoll: what `floor` and `pace` stand on.
//!
//! Tools for a bench, not for traffic: whatever goes wrong ends them with one line.

use std::{io, net::TcpStream, os::fd::AsFd, process::ExitCode};

use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    fd::OwnedFd,
};

/// Events taken in one turn.
const EVENTS: usize = 256;

/// An epoll whose members bear numbers.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// Empty.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    /// From now on `wait` names `number` when there is something to read.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&self, member: impl AsFd, number: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, member, EventData::new_u64(number), EventFlags::IN)?)
    }

    /// The numbers of those that can be read, at least one.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&mut self, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(())
    }
}

/// A connection that sends at once and waits for nothing.
///
/// # Errors
/// The system's.
pub fn connect(address: &str) -> io::Result<TcpStream> {
    prepare(TcpStream::connect(address)?)
}

/// The same of an accepted one.
///
/// # Errors
/// The system's.
pub fn prepare(made: TcpStream) -> io::Result<TcpStream> {
    made.set_nodelay(true)?;
    made.set_nonblocking(true)?;
    Ok(made)
}

/// Runs a tool: what it fails with goes to standard error, with its name.
#[must_use]
pub fn run(name: &str, work: impl FnOnce(&[String]) -> io::Result<()>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match work(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
