//! Where a body ends.
//!
//! ```text
//! Size -> [Extension ...] -> SizeEnd -> Data -> DataCr -> DataLf -> Size ...
//!                               size 0: `-> Trailer -> [TrailerLine ->] ... -> End
//! ```

use std::ops::Range;

use crate::{Field, Kind, Limits, Name, Refused, bytes::is_tchar, lines::field};

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Length {
    /// There is no body.
    #[default]
    None,
    /// `Content-Length`.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Responses only: the connection ends it.
    UntilClose,
}

/// The next thing in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of what was handed in are content; they and everything before them are consumed.
    Data(Range<usize>),
    /// All of it is consumed, and more must come.
    More,
    /// The body is complete; so many bytes of what was handed in were consumed.
    End(usize),
}

/// Bytes of chunk extensions in one body. Nobody uses them but attackers.
const EXTENSION_BYTES_MAX: u32 = 4096;
/// Bytes of chunk heads without content, beyond those of the chunks themselves, is what the size of a chunk bounds: 16
/// digits. No further limit is needed.
const SIZE_DIGITS_MAX: u8 = 16;

/// Most trailers are shorter.
const TRAILER_BYTES_FEW: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Counted {
        left: u64,
    },
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        at: Extension,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    Trailer,
    TrailerLine,
    LastLf,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    Name { empty: bool },
    Value,
    Token,
    Quoted,
    Escaped,
    Behind,
}

/// The state of one body.
#[derive(Debug)]
pub struct Body {
    state: State,
    extension_bytes: u32,
    limits: Limits,
    /// Complete trailer lines and the one that is not complete yet.
    trailers: Vec<u8>,
    drops_underscores: bool,
}

impl Body {
    /// The body of a message. `limits` bound its trailers.
    #[must_use]
    pub fn new(length: Length, limits: Limits) -> Self {
        let state = match length {
            Length::None | Length::Known(0) => State::End,
            Length::Known(left) => State::Counted { left },
            Length::Chunked => State::Size { size: 0, digits: 0 },
            Length::UntilClose => State::UntilClose,
        };
        Self { state, extension_bytes: 0, limits, trailers: Vec::new(), drops_underscores: false }
    }

    /// Trailers with an underscore in the name are not passed on: some servers read it as if it were a `-`.
    #[must_use]
    pub fn without_underscores(self, drops_underscores: bool) -> Self {
        Self { drops_underscores, ..self }
    }

    /// Whether all of it has been read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Whether the end of the connection is its end. What ends otherwise was cut short.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::End)
    }

    /// Bytes that are still to come, if that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Counted { left } => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// So many bytes of content went past without being handed in: at most [`Self::left`], which must be known.
    pub fn skip(&mut self, bytes: u64) {
        if let State::Counted { left } = self.state {
            self.state = if bytes < left { State::Counted { left: left - bytes } } else { State::End };
        }
    }

    /// Reads on in `bytes`, which begins where the last piece ended.
    ///
    /// # Errors
    /// [`Refused`]: the framing is broken, and so is the connection.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Refused> {
        let mut at = 0;
        loop {
            match self.state {
                State::End => return Ok(Piece::End(at)),
                _ if at >= bytes.len() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data(at..bytes.len())),
                State::Counted { left } | State::Data { left } => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    let rest = left - here as u64;
                    self.state = match self.state {
                        State::Counted { .. } if rest == 0 => State::End,
                        State::Counted { .. } => State::Counted { left: rest },
                        _ if rest == 0 => State::DataCr,
                        _ => State::Data { left: rest },
                    };
                    return Ok(Piece::Data(at..at + here));
                }
                State::TrailerLine => at += self.trailer_rest(&bytes[at..])?,
                _ => {
                    self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
    }

    /// One byte of the framing.
    fn step(&mut self, byte: u8) -> Result<(), Refused> {
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                if digits == SIZE_DIGITS_MAX || size >> 59 != 0 {
                    return Err(Refused::malformed("a chunk size is too large"));
                }
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Refused::malformed("a chunk has no size")),
            (State::Size { size, .. }, b'\r') => State::SizeEnd { size },
            (State::Size { size, .. }, b';') => State::Extension { size, at: Extension::Name { empty: true } },
            (State::Extension { size, at }, _) => self.extension(size, at, byte)?,
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailer,
            (State::SizeEnd { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailer, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => State::End,
            (State::Trailer, _) => self.trailer_byte(byte)?,
            _ => return Err(Refused::malformed("a chunk does not match its size, or does not end with CRLF")),
        };
        Ok(())
    }

    /// `chunk-ext` of RFC 9112, 7.1.1, without the white space that it calls bad.
    fn extension(&mut self, size: u64, at: Extension, byte: u8) -> Result<State, Refused> {
        use Extension::*;
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Refused::malformed("the chunk extensions are too long"));
        }
        let at = match (at, byte) {
            (Name { .. }, _) if is_tchar(byte) => Name { empty: false },
            (Name { empty: false }, b'=') => Value,
            (Value, b'"') => Quoted,
            (Value | Token, _) if is_tchar(byte) => Token,
            (Quoted, b'"') => Behind,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            (Name { empty: false } | Token | Behind, b';') => Name { empty: true },
            (Name { empty: false } | Token | Behind, b'\r') => return Ok(State::SizeEnd { size }),
            _ => return Err(Refused::malformed("a chunk extension is malformed")),
        };
        Ok(State::Extension { size, at })
    }

    /// The first byte of a trailer line.
    fn trailer_byte(&mut self, byte: u8) -> Result<State, Refused> {
        self.trailers.reserve(TRAILER_BYTES_FEW);
        self.take_trailer(&[byte])?;
        if byte == b'\n' { self.trailer_line() } else { Ok(State::TrailerLine) }
    }

    /// The others, as far as they are there. Gives their number.
    fn trailer_rest(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let end = memchr::memchr(b'\n', bytes);
        let count = end.map_or(bytes.len(), |end| end + 1);
        self.take_trailer(&bytes[..count])?;
        if end.is_some() {
            self.state = self.trailer_line()?;
        }
        Ok(count)
    }

    fn take_trailer(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if self.trailers.len() + bytes.len() > self.limits.head_bytes {
            return Err(Refused::new(Kind::HeadBytes, "the trailers are too long"));
        }
        self.trailers.extend_from_slice(bytes);
        Ok(())
    }

    /// A line is complete.
    fn trailer_line(&self) -> Result<State, Refused> {
        let lines = self.trailers.len() - 1;
        let start = memchr::memrchr(b'\n', &self.trailers[..lines]).map_or(0, |end| end + 1);
        let Some(line) = self.trailers[start..lines].strip_suffix(b"\r") else {
            return Err(Refused::malformed("a trailer line ends with a bare LF"));
        };
        field(line, start)?;
        if memchr::memchr_iter(b'\n', &self.trailers).count() > self.limits.fields {
            return Err(Refused::new(Kind::Fields, "there are too many trailers"));
        }
        Ok(State::Trailer)
    }

    /// Name and value of each trailer that may be passed on.
    pub fn passed_trailers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields()
            .filter(|(field, _)| self.may_trail(field))
            .map(|(field, _)| (field.text.of(&self.trailers), field.value.of(&self.trailers)))
    }

    /// An alias would be taken for the field that it stands for.
    fn may_trail(&self, field: &Field) -> bool {
        let name = field.text.of(&self.trailers);
        field.name.may_trail() && !Name::is_alias(name) && !(self.drops_underscores && name.contains(&b'_'))
    }

    /// Whether a trailer is a field that a proxy sets, or would be taken for one.
    #[must_use]
    pub fn has_forged_trailers(&self) -> bool {
        self.fields().any(|(field, _)| match field.name {
            Name::Forwarded | Name::XForwarded | Name::XRealIp => true,
            Name::Other => !self.may_trail(&field),
            name => name.is_private(),
        })
    }

    /// Appends the trailers that may be passed on, each with its line end.
    pub fn write_trailers(&self, out: &mut Vec<u8>) {
        self.fields().filter(|(field, _)| self.may_trail(field)).for_each(|(_, line)| out.extend_from_slice(line));
    }

    /// The value of the trailer with this name, in any case; the first one.
    #[must_use]
    pub fn trailer(&self, name: &[u8]) -> Option<&[u8]> {
        let (found, _) = self.fields().find(|(field, _)| field.text.of(&self.trailers).eq_ignore_ascii_case(name))?;
        Some(found.value.of(&self.trailers))
    }

    /// Fields of a trailer section, for tests and logs.
    #[must_use]
    pub fn trailers(&self) -> Vec<Field> {
        self.fields().map(|(field, _)| field).collect()
    }

    /// Each with its line, its end included.
    fn fields(&self) -> impl Iterator<Item = (Field, &[u8])> {
        let mut start = 0;
        memchr::memchr_iter(b'\n', &self.trailers).filter_map(move |end| {
            let at = std::mem::replace(&mut start, end + 1);
            let line = &self.trailers[at..=end];
            Some((field(line.strip_suffix(b"\r\n").unwrap_or_default(), at).ok()?, line))
        })
    }
}
