//! The engine of an sdlb node: listeners, connections, upstream pools, parking, draining, the control socket.
//!
//! Threads: the main thread speaks with control ([`control`]) and never touches traffic; each worker thread ([`worker`])
//! accepts and serves connections on a single-threaded runtime of its own; one thread writes the access log.

pub mod access_log;
pub mod answer;
pub mod cli;
pub mod conn;
pub mod control;
pub mod convert;
pub mod counters;
pub mod forward;
pub mod frame;
pub mod front;
pub mod http2;
pub mod listen;
pub mod memory;
pub mod networks;
pub mod proto;
pub mod rate;
pub mod settings;
mod supervise;
pub mod tls;
mod upgrade;
pub mod upstream;
pub mod worker;
pub mod workers;
