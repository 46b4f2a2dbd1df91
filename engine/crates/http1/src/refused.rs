//! Why a message is refused.

use std::fmt;

/// Which counter and which answer a refusal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two parsers could read it differently, or it is not HTTP.
    Malformed,
    /// A protocol version other than 1.0 and 1.1.
    Version,
    /// A transfer coding other than `chunked`.
    Coding,
    /// `CONNECT`.
    Connect,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The start line alone is over the limit.
    TargetBytes,
    /// The head or the trailers are over the limit.
    HeadBytes,
    /// Too many fields.
    Fields,
}

/// A message that is refused, and one clause that says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What kind of refusal.
    pub kind: Kind,
    /// For people: "a line ends with a bare LF".
    pub reason: &'static str,
}

impl Refused {
    pub(crate) const fn new(kind: Kind, reason: &'static str) -> Self {
        Self { kind, reason }
    }

    pub(crate) const fn malformed(reason: &'static str) -> Self {
        Self::new(Kind::Malformed, reason)
    }

    /// It is over a limit of ours, and nothing is wrong with it.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        matches!(self.kind, Kind::TargetBytes | Kind::HeadBytes | Kind::Fields)
    }

    /// The status that a client is answered with. The connection is closed after each of them.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self.kind {
            Kind::Malformed => 400,
            Kind::Version => 505,
            Kind::Coding => 501,
            Kind::Connect => 405,
            Kind::Expectation => 417,
            Kind::TargetBytes => 414,
            Kind::HeadBytes | Kind::Fields => 431,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Refused {}
