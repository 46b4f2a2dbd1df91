//! Connections to endpoints and child nodes: pooled, opened, watched, and how often a request may be tried again.

mod budget;
mod connect;
mod pool;
pub mod silence;

pub use budget::Budget;
pub use connect::{ConnectError, connect};
pub use pool::{Pool, Upstream};
