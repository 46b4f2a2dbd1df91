//! Rules for names that arrive from control, and the one error of this crate.

use std::fmt;

/// Longest service, version or target name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 512;

/// Why a delta was not applied: one sentence that names the part at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl Refused {
    /// Says where, before what.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A name that takes part in the stamp `service/version pattern`: bounded, printable ASCII, no space; a service has no
/// slash either, so that a stamp reads one way only.
pub(crate) fn check(what: &str, name: &str, slash: bool) -> Result<(), Refused> {
    let problem = if name.is_empty() {
        return Err(Refused(format!("{what} is empty")));
    } else if name.len() > NAME_BYTES_MAX {
        return Err(Refused(format!("{what} is longer than {NAME_BYTES_MAX} bytes")));
    } else if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        "contains a space or a character that is not printable ASCII"
    } else if !slash && name.contains('/') {
        "contains a slash"
    } else {
        return Ok(());
    };
    Err(Refused(format!("{what} {name:?} {problem}")))
}
