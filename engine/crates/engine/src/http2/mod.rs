//! HTTP/2 (RFC 9113), towards clients and towards endpoints, on the crate `h2`.
//!
//! A stream is made to look like an HTTP/1.1 connection that carries one request: [`server::Stream`] and [`client::Stream`]
//! are read from and written to in HTTP/1.1, and everything else (judging, routing, retries, time-outs, parking, logging)
//! is the same code for both protocols. So HTTP/2 has no second way past any check: what the strict HTTP/1.1 codec refuses,
//! a stream cannot bring.
//!
//! ```text
//! client == h2 ==> connection -> server::Stream -> conn::serve -> client::Stream -> link == h2 ==> endpoint
//!                                    (or TCP, TLS)      |       (or TCP, Unix)
//!                                 translated: translate, inbound (h2 -> HTTP/1.1), outbound (HTTP/1.1 -> h2)
//! ```

mod beat;
pub mod client;
pub mod connection;
mod head;
mod inbound;
pub mod link;
mod meter;
mod outbound;
pub mod server;
mod translate;
mod wire;

use std::io;

/// How a client begins an HTTP/2 connection (RFC 9113, 3.4). All of it is compared: `PRI /x HTTP/1.1` begins alike.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An error of `h2` as one of the stream.
fn failed(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
