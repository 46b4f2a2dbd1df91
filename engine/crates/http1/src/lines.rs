//! The lines of a head: a start line, fields, an empty line.

use memchr::memchr;

use crate::{
    Kind, Name, Refused,
    bytes::{is_tchar, is_value},
};

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, the empty line included.
    pub head_bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// A part of the caller's buffer. 4 GiB are enough: heads are bounded far below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let short = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self { start: short(start), end: short(end) }
    }

    /// The bytes, out of the buffer that was parsed; empty when it is another buffer.
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Where it begins.
    #[must_use]
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    #[must_use]
    pub fn end(self) -> usize {
        self.end as usize
    }
}

/// One field of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As it was written.
    pub text: Span,
    /// Without white space around it.
    pub value: Span,
    /// What it is to us.
    pub name: Name,
    /// `Connection` names it, and it is not one that must not be stripped: it ends here.
    pub hop: bool,
}

/// Lines that have been read so far.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Where the head begins: behind a leading empty line.
    start: usize,
    /// Where the line that is not complete yet begins.
    line: usize,
    /// Up to where line ends were looked for.
    at: usize,
    pub(crate) first: Option<Span>,
    pub(crate) fields: Vec<Field>,
}

impl Lines {
    /// Forgets everything but the memory.
    pub(crate) fn reset(&mut self) {
        self.fields.clear();
        *self = Self { fields: std::mem::take(&mut self.fields), ..Self::default() };
    }

    /// Reads the complete lines of `bytes`, which begins with what was handed in before. Gives the length of the head
    /// when it is complete. `blank`: one empty line may come first (RFC 9112, 2.2).
    pub(crate) fn advance(&mut self, bytes: &[u8], limits: &Limits, blank: bool) -> Result<Option<usize>, Refused> {
        while let Some(offset) = bytes.get(self.at..).and_then(|rest| memchr(b'\n', rest)) {
            let end = self.at + offset;
            let Some(line) = bytes.get(self.line..end).and_then(|line| line.strip_suffix(b"\r")) else {
                return Err(Refused::malformed("a line ends with a bare LF"));
            };
            let span = Span::new(self.line, self.line + line.len());
            (self.at, self.line) = (end + 1, end + 1);
            if self.at - self.start > limits.head_bytes {
                return Err(self.too_long());
            }
            if !line.is_empty() {
                self.take_line(line, span, limits)?;
            } else if self.first.is_some() {
                return Ok(Some(self.at));
            } else if blank && self.start == 0 {
                self.start = self.at;
            } else {
                return Err(Refused::malformed("an empty line precedes the start line"));
            }
        }
        self.at = bytes.len();
        if self.at - self.start > limits.head_bytes { Err(self.too_long()) } else { Ok(None) }
    }

    fn too_long(&self) -> Refused {
        match self.first {
            None => Refused::new(Kind::TargetBytes, "the start line is too long"),
            Some(_) => Refused::new(Kind::HeadBytes, "the header section is too long"),
        }
    }

    fn take_line(&mut self, line: &[u8], span: Span, limits: &Limits) -> Result<(), Refused> {
        if self.first.is_none() {
            self.first = Some(span);
            return Ok(());
        }
        if self.fields.len() >= limits.fields {
            return Err(Refused::new(Kind::Fields, "there are too many header fields"));
        }
        self.fields.push(field(line, span.start())?);
        Ok(())
    }

    /// Where the head begins.
    pub(crate) fn start(&self) -> usize {
        self.start
    }
}

/// Reads a field line (RFC 9112, 5) that begins at `at` of the buffer.
pub(crate) fn field(line: &[u8], at: usize) -> Result<Field, Refused> {
    let colon = line.iter().position(|byte| !is_tchar(*byte)).unwrap_or(line.len());
    if line.get(colon) != Some(&b':') {
        return Err(Refused::malformed(match line.first() {
            Some(b' ' | b'\t') => "a header field is folded over two lines",
            _ if colon == line.len() => "a header field has no colon",
            _ => "a header field name contains an invalid byte",
        }));
    }
    if colon == 0 {
        return Err(Refused::malformed("a header field name is empty"));
    }
    let (name, rest) = (&line[..colon], &line[colon + 1..]);
    let value = crate::trim(rest);
    if !is_value(value) {
        return Err(Refused::malformed("a header field value contains a control byte"));
    }
    let lead = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count().min(rest.len() - value.len());
    let start = at + colon + 1 + lead;
    Ok(Field {
        text: Span::new(at, at + colon),
        value: Span::new(start, start + value.len()),
        name: Name::of(name),
        hop: false,
    })
}

/// What the fields say about framing and the connection; the same rules for both kinds of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Framing {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// `Connection` names a field that it does not strip.
    pub(crate) strips: bool,
}

/// More options in `Connection` than any client sends.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Reads the framing fields, and marks what `Connection` names.
pub(crate) fn framing(bytes: &[u8], fields: &mut [Field], exact_coding: bool) -> Result<Framing, Refused> {
    let mut framing = Framing::default();
    let (mut named, mut coded) = (false, Ok(()));
    for field in fields.iter() {
        match field.name {
            Name::ContentLength => {
                let length = content_length(field.value.of(bytes))?;
                if framing.length.replace(length).is_some() {
                    return Err(Refused::malformed("there is more than one Content-Length"));
                }
            }
            Name::TransferEncoding => {
                if std::mem::replace(&mut framing.chunked, true) {
                    return Err(Refused::malformed("there is more than one Transfer-Encoding"));
                }
                coded = coding(field.value.of(bytes), exact_coding);
            }
            Name::Connection => {
                for (number, option) in crate::list(field.value.of(bytes)).enumerate() {
                    if number >= CONNECTION_OPTIONS_MAX {
                        return Err(Refused::malformed("Connection has too many options"));
                    }
                    match option {
                        _ if option.eq_ignore_ascii_case(b"close") => framing.close = true,
                        _ if option.eq_ignore_ascii_case(b"keep-alive") => framing.keep_alive = true,
                        _ if option.eq_ignore_ascii_case(b"upgrade") => framing.upgrade = true,
                        _ => named = true,
                    }
                }
            }
            _ => {}
        }
    }
    if framing.chunked && framing.length.is_some() {
        return Err(Refused::malformed("there are both Content-Length and Transfer-Encoding"));
    }
    coded?;
    if named {
        framing.strips = mark(bytes, fields);
    }
    Ok(framing)
}

/// Gives whether it names one that is not to be stripped.
fn mark(bytes: &[u8], fields: &mut [Field]) -> bool {
    let mut strips = false;
    for at in 0..fields.len() {
        if fields[at].name != Name::Connection {
            continue;
        }
        for option in crate::list(fields[at].value.of(bytes)) {
            for field in fields.iter_mut().filter(|field| field.name == Name::Other) {
                field.hop |= field.text.of(bytes).eq_ignore_ascii_case(option);
            }
            let name = Name::of(option);
            strips |= !matches!(name, Name::Other | Name::Trailer) && !name.is_hop_by_hop();
        }
    }
    strips
}

/// Digits, and no more than 63 bits of them.
fn content_length(value: &[u8]) -> Result<u64, Refused> {
    let bad = Refused::malformed("Content-Length is not a number of at most 63 bits");
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let number = value.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    if number > i64::MAX as u64 { Err(bad) } else { Ok(number) }
}

/// `exact`: in a request, where a case that another parser could not know is not worth the doubt.
fn coding(value: &[u8], exact: bool) -> Result<(), Refused> {
    let bad = Refused::malformed("Transfer-Encoding is not chunked");
    if value == b"chunked" || (!exact && value.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let (mut known, mut last) = (0, false);
    for part in value.split(|byte| *byte == b',') {
        let part = crate::trim(part);
        if !crate::is_token(part) || part.eq_ignore_ascii_case(b"identity") {
            return Err(bad);
        }
        last = part.eq_ignore_ascii_case(b"chunked");
        known += usize::from(last);
    }
    // One that we do not know, and chunked at most once, at the end: understood, but not spoken.
    if known == 0 || (known == 1 && last && value.contains(&b',')) {
        Err(Refused::new(Kind::Coding, "a transfer coding other than chunked"))
    } else {
        Err(bad)
    }
}
