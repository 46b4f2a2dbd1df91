//! The heads that are written: towards the upstream, and towards the client.
//!
//! What is hop by hop ends here, what is ours is set here, everything else is passed on as it came (RFC 9110, 7.6).

pub mod fields;
pub mod framing;
pub mod proxy;
pub mod request;
pub mod response;
