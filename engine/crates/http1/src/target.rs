//! Request targets (RFC 9112, 3.2).

use memchr::memchr;

use crate::Refused;

/// Which form a target has. Authority form is for CONNECT, which is refused before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`, or `https`
    Absolute,
    /// `*`
    Asterisk,
}

/// The parts of a target, as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its form.
    pub form: Form,
    /// The absolute form begins with `https`: as it came over TLS, to be compared with how it came.
    pub https: bool,
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
            return Ok(Self { form: Form::Asterisk, https: false, authority: None, path: target, query: b"" });
        }
        if target.first() == Some(&b'/') {
            let (path, query) = split_query(target);
            return Ok(Self { form: Form::Origin, https: false, authority: None, path, query });
        }
        let behind = |scheme: &[u8]| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let plain = behind(b"http://");
        let Some(rest) = plain.or_else(|| behind(b"https://")) else {
            return Err(Refused::malformed("the request target is neither a path nor an http URI"));
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.is_empty() || authority.contains(&b'@') {
            return Err(Refused::malformed("the request target has no host or has userinfo"));
        }
        let (path, query) = split_query(rest);
        let path = if path.is_empty() { b"/" } else { path };
        Ok(Self { form: Form::Absolute, https: plain.is_none(), authority: Some(authority), path, query })
    }
}

/// The query begins with its question mark.
pub(crate) fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(memchr(b'?', target).unwrap_or(target.len()))
}
