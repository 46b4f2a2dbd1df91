//! Strict HTTP/1.1, without I/O: heads, body framing, targets and host names (RFC 9110, RFC 9112).
//!
//! Rule zero: what two parsers could read differently is refused, not repaired. So there is one way to end a line, one
//! way to say how long a body is, and nothing is skipped, trimmed or guessed that the RFC does not say must be.
//!
//! Bytes arrive in pieces of any size. [`Request::advance`] and [`Response::advance`] are called with everything that
//! has arrived so far and go on where they stopped; [`Body::next`] is called with what has not been consumed. What they
//! hold are positions ([`Span`]) in the caller's buffer, so that nothing is copied or allocated for a request.
//!
//! **Invariant:** no I/O, no clock, no panic on any input, and the result does not depend on how the bytes were cut.
#![forbid(unsafe_code)]

mod body;
mod bytes;
mod host;
mod lines;
mod name;
mod path;
mod refused;
mod request;
mod response;
mod target;
mod write;

pub use body::{Body, Length, Piece};
pub use bytes::{is_token, trim};
pub use host::{Host, canonical_host};
pub use lines::{Field, Limits, Span};
pub use name::Name;
pub use path::{canonical_path, has_encoded_slash};
pub use refused::{Kind, Refused};
pub use request::{Method, Request, Version};
pub use response::Response;
pub use target::{Form, Target};
pub use write::{decimal, hex, reason};

/// The parts of a comma-separated list (RFC 9110, 5.6.1), without the white space around them; empty ones are left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|part| !part.is_empty())
}
