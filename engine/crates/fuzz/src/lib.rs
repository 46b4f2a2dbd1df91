//! What is fuzzed: each target takes any bytes and panics when a rule is broken.
//!
//! The same functions run under libfuzzer (`engine/fuzz`, `make fuzz`) and, with the seeds of `engine/fuzz/seeds` and a
//! fixed number of fixed mutations of them, in `tests/replay.rs` on stable Rust.
#![allow(clippy::unwrap_used, reason = "a fuzz target's own failure must be seen")]

pub mod body;
pub mod control;
pub mod http2;
pub mod path;
pub mod request;
pub mod response;

/// A target by the name of its folder of seeds.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 6] = [
    ("body", body::run),
    ("control", control::run),
    ("http2", http2::run),
    ("path", path::run),
    ("request", request::run),
    ("response", response::run),
];

/// Where a head is cut: half-way, or at a place that its first byte says.
fn cut(raw: &[u8]) -> usize {
    raw.first().map_or(0, |first| usize::from(*first) * 7 % (raw.len() + 1))
}
