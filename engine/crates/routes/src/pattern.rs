//! Route patterns: `[host]/path`, the contract's grammar.
//!
//! Host: exact (`example.com`), wildcard (`*.example.com`, one or more labels) or `*` (also when left out). Path: exact
//! (`/catalog`), literal prefix (`/catalog*`), segment prefix (`/catalog/*`, which is the literal prefix `/catalog/`). A
//! pattern without a path means `/*`. `*` stands only at the end of the path or as the whole first labels of the host.
//! Hosts are lower-case A-labels without port or trailing dot.

use std::fmt;

use crate::names::Refused;

const PATTERN_BYTES_MAX: usize = 1024;
const HOST_BYTES_MAX: usize = 253;

/// Which hosts a pattern takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// Every host that ends with `.` and this.
    Wildcard(Box<str>),
    /// Every host.
    Any,
}

/// Which paths a pattern takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path.
    Exact(Box<str>),
    /// Every path that starts with this.
    Prefix(Box<str>),
}

/// A pattern in its parts. Two texts that mean the same are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// The hosts.
    pub host: HostPattern,
    /// The paths.
    pub path: PathPattern,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Refused`] with the pattern and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refused = |problem: &str| Refused(format!("pattern {text:?}: {problem}"));
        if text.is_empty() {
            return Err(refused("is empty"));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(Refused(format!("a pattern is longer than {PATTERN_BYTES_MAX} bytes")));
        }
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        Ok(Self { host: host_pattern(host).map_err(refused)?, path: path_pattern(path).map_err(refused)? })
    }

    /// Whether it takes a request. The table decides by precedence without this; it is the plain meaning, for tests.
    #[must_use]
    pub fn matches(&self, host: &str, path: &str) -> bool {
        let host_fits = match &self.host {
            HostPattern::Exact(exact) => host == &**exact,
            HostPattern::Wildcard(suffix) => {
                host.strip_suffix(&**suffix).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
            }
            HostPattern::Any => true,
        };
        host_fits
            && match &self.path {
                PathPattern::Exact(exact) => path == &**exact,
                PathPattern::Prefix(prefix) => path.starts_with(&**prefix),
            }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exact(host) => f.write_str(host)?,
            HostPattern::Wildcard(suffix) => write!(f, "*.{suffix}")?,
            HostPattern::Any => f.write_str("*")?,
        }
        match &self.path {
            PathPattern::Exact(path) => f.write_str(path),
            PathPattern::Prefix(path) => write!(f, "{path}*"),
        }
    }
}

fn host_pattern(host: &str) -> Result<HostPattern, &'static str> {
    if host.is_empty() || host == "*" {
        return Ok(HostPattern::Any);
    }
    let (name, wildcard) = host.strip_prefix("*.").map_or((host, false), |suffix| (suffix, true));
    if name.contains('*') {
        return Err("* is only valid for the whole first labels of the host");
    }
    if let Some(literal) = name.strip_prefix('[') {
        let address = literal.strip_suffix(']').and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
        return match address {
            // One spelling for all: requests are matched by it.
            Some(address) if !wildcard => Ok(HostPattern::Exact(format!("[{address}]").into())),
            _ => Err("the host is not an IPv6 address in brackets"),
        };
    }
    if name.len() > HOST_BYTES_MAX {
        return Err("the host is longer than 253 bytes");
    }
    if name.contains(':') {
        return Err("the host has a port");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the host is not in lower case");
    }
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_')
    };
    if !name.split('.').all(label_fits) {
        return Err(
            "the host is not made of labels of letters, digits, - and _ (write it as A-labels, without a trailing dot)",
        );
    }
    Ok(if wildcard { HostPattern::Wildcard(name.into()) } else { HostPattern::Exact(name.into()) })
}

fn path_pattern(path: &str) -> Result<PathPattern, &'static str> {
    if path.is_empty() {
        return Ok(PathPattern::Prefix("/".into()));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the path contains a space or a character that is not printable ASCII (percent-encode it)");
    }
    if path.contains(['?', '#']) {
        return Err("the path contains ? or #: a pattern has neither query nor fragment");
    }
    let (literal, prefix) = path.strip_suffix('*').map_or((path, false), |literal| (literal, true));
    if literal.contains('*') {
        return Err("* is only valid at the end of the path");
    }
    Ok(if prefix { PathPattern::Prefix(literal.into()) } else { PathPattern::Exact(literal.into()) })
}
