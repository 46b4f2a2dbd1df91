//! The control side of the engine, on the main thread: one control connection, the table, the listeners, what drains.
//!
//! Everything here may take milliseconds; traffic runs on the worker threads and only receives the results.

mod engine;
mod listeners;
mod memory;
mod session;
pub mod socket;
mod stats;

pub use engine::{Options, run};
