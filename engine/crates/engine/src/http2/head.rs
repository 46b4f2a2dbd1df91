//! Heads that we have written ourselves, split again for HTTP/2.
//!
//! What goes into such a head was judged by the HTTP/1.1 codec when it was read: no value holds the end of a line, no length
//! is told twice, nothing that is hop by hop is in it but what we have put there for the next hop. So it is only cut at its
//! line ends, and its parts are lent, not copied one by one.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use sdlb_http1::{Length, Name};
use smallvec::SmallVec;

/// Most heads have fewer fields.
const FIELDS_FEW: usize = 24;

/// Where a field begins, where its name ends, and where its value does.
#[derive(Debug)]
struct Line {
    start: u32,
    colon: u32,
    end: u32,
    known: Name,
}

impl Line {
    /// The line of `bytes` between these places, its end not included.
    fn of(bytes: &[u8], start: usize, end: usize) -> Option<Self> {
        let small = |at: usize| u32::try_from(at).ok();
        let line = bytes.get(start..end)?;
        // Names are short: quicker than `memchr`.
        let name = line.iter().position(|byte| *byte == b':')?;
        // ": " stands between name and value.
        (name + 2 <= line.len()).then_some(())?;
        Some(Self {
            start: small(start)?,
            colon: small(start + name)?,
            end: small(end)?,
            known: Name::of(&line[..name]),
        })
    }

    fn name(&self) -> Range<usize> {
        self.start as usize..self.colon as usize
    }

    fn value(&self) -> Range<usize> {
        self.colon as usize + 2..self.end as usize
    }
}

/// One head.
#[derive(Debug)]
pub struct Head {
    text: Bytes,
    /// Length of its first line.
    start: usize,
    lines: SmallVec<[Line; FIELDS_FEW]>,
}

impl Head {
    /// The head that `bytes` begin with. `None`: it is not one of ours.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let end_of = |at: usize| Some(at + memchr::memchr(b'\n', bytes.get(at..)?)?);
        let first = end_of(0)?;
        let (mut at, mut lines) = (first + 1, SmallVec::new());
        loop {
            let end = end_of(at)?;
            if bytes[at..end] == *b"\r" {
                let text = Bytes::copy_from_slice(&bytes[..=end]);
                return Some(Self { text, start: first.checked_sub(1)?, lines });
            }
            lines.push(Line::of(bytes, at, end.checked_sub(1)?)?);
            at = end + 1;
        }
    }

    /// Bytes that it took.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The first word of its first line, and the second: a method and a target, or a version and a status.
    pub fn words(&self) -> (&[u8], Bytes) {
        let start = &self.text[..self.start];
        let space = |at: usize| memchr::memchr(b' ', &start[at..]).map_or(start.len(), |space| at + space);
        let first = space(0);
        let second = (first + 1).min(start.len());
        (&start[..first], self.text.slice(second..space(second)))
    }

    /// The value of the first field of that name, which is in small letters.
    pub fn value(&self, name: &[u8]) -> Option<Bytes> {
        let line = self.lines.iter().find(|line| self.text[line.name()].eq_ignore_ascii_case(name))?;
        Some(self.text.slice(line.value()))
    }

    /// How long the body is that it tells of; `None`: it does not say.
    pub fn length(&self) -> Option<Length> {
        let mut told = None;
        for line in &self.lines {
            match line.known {
                Name::TransferEncoding => return Some(Length::Chunked),
                Name::ContentLength => {
                    told = std::str::from_utf8(&self.text[line.value()]).ok()?.parse().ok().map(Length::Known);
                }
                _ => {}
            }
        }
        told
    }

    /// Its fields, without what is between us and the next hop of HTTP/1.1, and those that `keep` does not want. `None`: one
    /// of them is none of HTTP/2.
    pub fn fields(&self, keep: impl Fn(Name, &[u8]) -> bool) -> Option<HeaderMap> {
        let mut fields = HeaderMap::with_capacity(self.lines.len());
        for line in &self.lines {
            let (text, value) = (&self.text[line.name()], &self.text[line.value()]);
            let te = line.known == Name::Te && value.eq_ignore_ascii_case(b"trailers");
            if (!line.known.is_hop_by_hop() || te) && keep(line.known, text) {
                fields.append(name_of(text)?, HeaderValue::from_maybe_shared(self.text.slice(line.value())).ok()?);
            }
        }
        Some(fields)
    }
}

/// A field's name. Those that we set ourselves cost nothing.
pub fn name_of(text: &[u8]) -> Option<HeaderName> {
    Some(match text {
        b"x-forwarded-for" => const { HeaderName::from_static("x-forwarded-for") },
        b"x-forwarded-host" => const { HeaderName::from_static("x-forwarded-host") },
        b"x-forwarded-proto" => const { HeaderName::from_static("x-forwarded-proto") },
        b"x-real-ip" => const { HeaderName::from_static("x-real-ip") },
        b"x-request-id" => const { HeaderName::from_static("x-request-id") },
        b"sdlb-to" => const { HeaderName::from_static("sdlb-to") },
        b"sdlb-timeout" => const { HeaderName::from_static("sdlb-timeout") },
        b"grpc-status" => const { HeaderName::from_static("grpc-status") },
        b"grpc-message" => const { HeaderName::from_static("grpc-message") },
        b"grpc-timeout" => const { HeaderName::from_static("grpc-timeout") },
        b"grpc-encoding" => const { HeaderName::from_static("grpc-encoding") },
        b"grpc-accept-encoding" => const { HeaderName::from_static("grpc-accept-encoding") },
        _ => return HeaderName::from_bytes(text).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"POST /a?b HTTP/1.1\r\nhost: a.example\r\nX-Empty: \r\nconnection: te\r\nte: trailers\r\n\
        x-real-ip: 10.0.0.1\r\ncontent-length: 12\r\n\r\nbody\r\n\r\n";

    #[test]
    fn a_head_is_cut_at_its_line_ends() {
        let head = Head::of(TEXT).expect("a head");
        assert_eq!(head.bytes(), TEXT.len() - 8);
        assert_eq!(head.words(), (&b"POST"[..], Bytes::from_static(b"/a?b")));
        assert_eq!(head.value(b"host"), Some(Bytes::from_static(b"a.example")));
        assert_eq!(head.length(), Some(Length::Known(12)));
        let fields = head.fields(|name, _| name != Name::Host).expect("fields");
        let told: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let wanted: [(&str, &[u8]); 4] =
            [("x-empty", b""), ("te", b"trailers"), ("x-real-ip", b"10.0.0.1"), ("content-length", b"12")];
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_cut_short_is_none() {
        for length in 0..TEXT.len() - 8 {
            assert!(Head::of(&TEXT[..length]).is_none(), "{length}");
        }
        assert!(Head::of(b"\n\n").is_none());
        assert!(Head::of(b"GET / HTTP/1.1\r\nno colon\r\n\r\n").is_none());
        assert!(Head::of(b"GET / HTTP/1.1\r\na:\r\n\r\n").is_none());
    }
}
