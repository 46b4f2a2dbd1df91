//! The memory of all connections is bounded, and who holds most goes first.
//!
//! ```text
//! machine   what the machine or its cgroup has, and what of it is resident
//! pressure  all workers: what is held, and from where on that is much (`High`) or too much (`Full`)
//! holders   one worker: who holds how much, and whom to end
//! keeper    one worker: gives back what is spare, closes who rests if that is what takes it, ends who holds most
//! ```
//! A connection notes what it holds when it begins to wait, in cells of its worker; atomics are touched once for every
//! 64 KiB that come or go. Who wants to grow asks first ([`Memory::may_grow`]), and waits for a moment while there is too much. So
//! the bound holds at once, not when somebody looks; the look at the process's resident memory, ten times a second, only
//! says how much of the limit is taken by what nobody notes (tables, code, connections at rest, what the allocator keeps).

mod holders;
pub mod keeper;
pub mod machine;
mod pressure;

pub use holders::{Account, Holder, Memory};
pub use pressure::{Level, Looks, Pressure};
