//! Request targets (RFC 9112, 3.2).

use memchr::memchr;

use crate::Refused;

/// Which form a target has. Authority form is for CONNECT, which is refused before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `*`
    Asterisk,
}

/// The parts of a target, as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its form.
    pub form: Form,
    /// Host and port of the absolute form: must mean the same as `Host`.
    pub authority: Option<&'a [u8]>,
    /// The path; at least `/`, for the asterisk form `*`.
    pub path: &'a [u8],
    /// The query with its question mark, or nothing.
    pub query: &'a [u8],
}

impl<'a> Target<'a> {
    pub(crate) fn split(target: &'a [u8]) -> Result<Self, Refused> {
        if target == b"*" {
            return Ok(Self { form: Form::Asterisk, authority: None, path: target, query: b"" });
        }
        if target.first() == Some(&b'/') {
            let (path, query) = split_query(target);
            return Ok(Self { form: Form::Origin, authority: None, path, query });
        }
        let scheme = b"http://";
        let Some(rest) = target
            .split_at_checked(scheme.len())
            .filter(|(start, _)| start.eq_ignore_ascii_case(scheme))
            .map(|(_, rest)| rest)
        else {
            return Err(Refused::malformed("the target is neither a path nor an http URI"));
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.is_empty() || authority.contains(&b'@') {
            return Err(Refused::malformed("the target has no host or has userinfo"));
        }
        let (path, query) = split_query(rest);
        let path = if path.is_empty() { b"/" } else { path };
        Ok(Self { form: Form::Absolute, authority: Some(authority), path, query })
    }
}

fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(memchr(b'?', target).unwrap_or(target.len()))
}
