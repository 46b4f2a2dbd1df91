//! Response heads.

use crate::{
    Field, Length, Limits, Refused, Span, Version,
    bytes::is_value,
    lines::{Framing, Lines, framing},
};

/// A response head, read piece by piece. Use one for many responses: it keeps its memory.
#[derive(Debug, Default)]
pub struct Response {
    lines: Lines,
    framing: Framing,
    /// 100 to 999.
    pub status: u16,
    /// The text behind the status; may be empty.
    pub reason: Span,
    /// The version.
    pub version: Version,
}

impl Response {
    /// Forgets the last response.
    pub fn reset(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.reset();
        *self = Self { lines, ..Self::default() };
    }

    /// Goes on reading, as [`crate::Request::advance`] does.
    ///
    /// # Errors
    /// [`Refused`]: the connection is not to be used any more.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Refused> {
        let begun = self.lines.first.is_some();
        let length = self.lines.advance(bytes, limits, false);
        if !begun && let Some(line) = self.lines.first {
            self.start_line(bytes, line)?;
        }
        let Some(length) = length? else {
            return Ok(None);
        };
        self.framing = framing(bytes, &mut self.lines.fields, false)?;
        if self.framing.chunked && self.version == Version::Http10 {
            return Err(Refused::malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        Ok(Some(length))
    }

    /// Its fields.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.lines.fields
    }

    fn start_line(&mut self, bytes: &[u8], span: Span) -> Result<(), Refused> {
        let line = span.of(bytes);
        let bad = Refused::malformed("the status line has no valid version and status");
        let (version, rest) = line.split_at_checked(9).ok_or(bad)?;
        self.version = match version {
            b"HTTP/1.1 " => Version::Http11,
            b"HTTP/1.0 " => Version::Http10,
            _ => return Err(bad),
        };
        let (status, reason) = match rest {
            [a, b, c] => ([a, b, c], 0),
            [a, b, c, b' ', text @ ..] => ([a, b, c], text.len()),
            _ => return Err(bad),
        };
        if !status.iter().all(|digit| digit.is_ascii_digit()) {
            return Err(bad);
        }
        self.status = status.iter().fold(0, |number, digit| number * 10 + u16::from(**digit - b'0'));
        let end = span.start() + line.len();
        self.reason = Span::new(end - reason, end);
        if self.status < 100 || !is_value(self.reason.of(bytes)) {
            return Err(bad);
        }
        Ok(())
    }

    /// 1xx, without 101: another head follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// How long the body is (RFC 9112, 6.3), when the request was a HEAD or not.
    #[must_use]
    pub fn length(&self, head: bool) -> Length {
        match (self.framing.chunked, self.framing.length) {
            _ if head || self.status < 200 || self.status == 204 || self.status == 304 => Length::None,
            (true, _) => Length::Chunked,
            (false, Some(length)) => Length::Known(length),
            (false, None) => Length::UntilClose,
        }
    }

    /// What `Content-Length` says: for an answer to HEAD and for 304, that of a body that does not come.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.framing.length
    }

    /// Whether the connection can take another request.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !self.framing.close && (self.version == Version::Http11 || self.framing.keep_alive)
    }

    /// Whether `Connection: upgrade` is there.
    #[must_use]
    pub fn upgrades(&self) -> bool {
        self.framing.upgrade
    }
}
