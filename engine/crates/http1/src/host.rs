//! Host names: one spelling of each.

use std::net::Ipv6Addr;

use crate::Refused;

const NAME_BYTES_MAX: usize = 253;

/// A host and port in canonical form: lower case, no dot at the end, IPv6 addresses as RFC 5952 writes them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Name, and port when one was given: `example.com:8080`.
    text: String,
    name_bytes: usize,
}

impl Host {
    /// The name without the port: what is matched.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[..self.name_bytes]
    }

    /// Name and port: what is forwarded.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Reads a `Host` value or the authority of a target into `host`, which keeps its memory.
///
/// # Errors
/// [`Refused`]: empty, userinfo, a path, a bad port, an empty label, anything but letters, digits, `-`, `_` and dots.
pub fn canonical_host(value: &[u8], host: &mut Host) -> Result<(), Refused> {
    let bad = Refused::malformed("Host is not a host name with or without a port");
    host.text.clear();
    host.name_bytes = 0;
    let (name, port) = match value.first() {
        Some(b'[') => {
            let end = value.iter().position(|byte| *byte == b']').ok_or(bad)?;
            let address = std::str::from_utf8(&value[1..end]).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
            host.text = format!("[{}]", address.ok_or(bad)?);
            (None, &value[end + 1..])
        }
        _ => {
            let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
            let name = &value[..end];
            (Some(name.strip_suffix(b".").unwrap_or(name)), &value[end..])
        }
    };
    if let Some(name) = name {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        // A dot at the start, behind another one or at the end bounds a label that is empty.
        let mut before = b'.';
        let labels =
            name.iter().all(|byte| fits(byte) && (*byte, std::mem::replace(&mut before, *byte)) != (b'.', b'.'));
        if !labels || before == b'.' || name.len() > NAME_BYTES_MAX {
            return Err(bad);
        }
        host.text.push_str(std::str::from_utf8(name).map_err(|_| bad)?);
        host.text.make_ascii_lowercase();
    }
    host.name_bytes = host.text.len();
    match port {
        [] => Ok(()),
        [b':', digits @ ..] if (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let port = digits.iter().fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'));
            if port == 0 || port > 65_535 || digits[0] == b'0' {
                return Err(bad);
            }
            host.text.push(':');
            host.text.extend(digits.iter().map(|digit| *digit as char));
            Ok(())
        }
        _ => Err(bad),
    }
}
