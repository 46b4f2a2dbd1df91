//! TLS towards clients and other nodes (rustls on aws-lc-rs): 1.2 with forward-secret AEAD suites and 1.3, which is all that rustls has.
//!
//! [`sites`] holds the certificates and finds a site by the name that the client asks for (SNI); [`tickets`] seals
//! sessions; [`handshake`](mod@handshake) turns an accepted connection into a [`Stream`]. [`identity`] is this node's own,
//! for mutual TLS with its parents and children. [`challenges`] proves to CAs that hosts are served here.

pub mod challenges;
pub mod handshake;
pub mod identity;
pub mod sites;
mod stream;
pub mod tickets;

pub use stream::Stream;
