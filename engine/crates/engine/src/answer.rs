//! Answers of our own: small problem documents (RFC 9457), HTML for browsers, each with `Proxy-Status` (RFC 9209), so
//! that nobody takes them for the application's.

use sdlb_http1::{Kind, Refused, decimal, reason};

use crate::front::Added;

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Stable; ends the problem's `type`.
    pub kind: &'static str,
    /// The error type of RFC 9209, 2.3.
    pub error: &'static str,
    /// One sentence.
    pub detail: String,
    /// Seconds, for `Retry-After`.
    pub retry_after_s: Option<u32>,
    /// A redirect: `Location`. It has no content.
    pub location: Option<Box<[u8]>>,
    /// `Proxy-Status` of the tiers below that failed.
    pub below: Vec<u8>,
    /// "Not here, nothing was read": for the node above.
    pub not_here: Option<Box<NotHere>>,
}

/// What the node above is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotHere {
    /// [`GONE`], [`FULL`], [`ENDED`] or [`UNREACHABLE`].
    pub why: &'static str,
    /// With [`ENDED`]: the key of the endpoint that had it.
    pub avoid: Vec<u8>,
}

/// The group is not here (any more, or yet): the node above will know in a moment.
pub const GONE: &str = "1";
/// It is here, and its members have all that they may.
pub const FULL: &str = "full";
/// An instance had it and ended its connection without a word: whether it is asked again is the entry's to say.
pub const ENDED: &str = "ended";
/// It is here, and none of its members can be reached.
pub const UNREACHABLE: &str = "unreachable";

impl Answer {
    /// An answer; the error types of RFC 9209 are registered names.
    #[must_use]
    pub fn new(status: u16, kind: &'static str, error: &'static str, detail: impl Into<String>) -> Self {
        let (below, detail) = (Vec::new(), detail.into());
        Self { status, kind, error, detail, retry_after_s: None, location: None, below, not_here: None }
    }

    /// The request was refused by the codec.
    #[must_use]
    pub fn refused(refused: Refused) -> Self {
        let (kind, error) = match refused.kind {
            Kind::Malformed => ("malformed-request", "http_request_error"),
            Kind::Version => ("http-version", "http_request_error"),
            Kind::Coding => ("transfer-coding", "http_request_error"),
            Kind::Connect => ("connect-not-served", "http_request_denied"),
            Kind::Expectation => ("expectation", "http_request_denied"),
            Kind::TargetBytes => ("target-too-long", "http_request_denied"),
            Kind::HeadBytes => ("head-too-long", "http_request_denied"),
            Kind::Fields => ("too-many-fields", "http_request_denied"),
        };
        Self::new(refused.status(), kind, error, format!("The request was refused: {}.", refused.reason))
    }

    /// Another place, for good, with the same method (RFC 9110, 15.4.9).
    #[must_use]
    pub fn redirect(location: Vec<u8>) -> Self {
        Self { location: Some(location.into()), ..Self::new(308, "redirect", "", "") }
    }

    /// The proof for a CA (RFC 8555, 8.3).
    #[must_use]
    pub fn proof(content: String) -> Self {
        Self::new(200, "", "", content)
    }

    /// What it means to a call of gRPC (its "HTTP to gRPC Status Code Mapping", and where that says no more than
    /// `UNKNOWN`, what fits).
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        const DEADLINE_EXCEEDED: u8 = 4;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        match self.status {
            404 | 421 => UNIMPLEMENTED,
            408 | 504 => DEADLINE_EXCEEDED,
            413 | 429 | 431 => RESOURCE_EXHAUSTED,
            502 | 503 => UNAVAILABLE,
            _ => INTERNAL,
        }
    }

    /// For the node above: try elsewhere. `why`: [`GONE`], [`FULL`], [`ENDED`] or [`UNREACHABLE`].
    #[must_use]
    pub fn not_here(why: &'static str, below: Vec<u8>, error: &'static str) -> Self {
        let not_here = Some(NotHere { why, avoid: Vec::new() }.into());
        Self { not_here, below, ..Self::new(421, "not-here", error, "") }
    }

    /// The same with [`ENDED`], for the endpoint of this key had it.
    #[must_use]
    pub fn ended(avoid: Vec<u8>, below: Vec<u8>, error: &'static str) -> Self {
        let not_here = Some(NotHere { why: ENDED, avoid }.into());
        Self { not_here, ..Self::not_here(ENDED, below, error) }
    }
}

/// To whom and how.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// To a call of gRPC, with this status: it has an answer that is nothing but a head.
    pub grpc: Option<u8>,
    /// This node.
    pub node: &'a str,
    /// The answer is to a HEAD: no body.
    pub head: bool,
    /// The client is a browser.
    pub html: bool,
    /// What the site adds.
    pub added: &'a Added,
    /// An error may be a page of the site.
    pub page: bool,
    /// The connection is closed afterwards.
    pub close: bool,
    /// It is kept for an HTTP/1.0 client.
    pub keep_old: bool,
    /// The request's id, if it has one.
    pub request_id: &'a [u8],
    /// The date.
    pub date: &'a [u8],
}

impl Answer {
    /// Appends head and body.
    pub fn write(&self, form: Form<'_>, out: &mut Vec<u8>) {
        // Other clients of gRPC see no more than "HTTP status 503".
        let status = if form.grpc.is_some() { 200 } else { self.status };
        let reason = reason(status);
        out.extend_from_slice(b"HTTP/1.1 ");
        decimal(u64::from(status), out);
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\ndate: ");
        out.extend_from_slice(form.date);
        out.extend_from_slice(b"\r\nproxy-status: ");
        if !self.below.is_empty() {
            out.extend_from_slice(&self.below);
            out.extend_from_slice(b", ");
        }
        status_name(form.node, out);
        if !self.error.is_empty() {
            out.extend_from_slice(b"; error=");
            out.extend_from_slice(self.error.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if let Some(seconds) = self.retry_after_s {
            out.extend_from_slice(b"retry-after: ");
            decimal(u64::from(seconds), out);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(location) = &self.location {
            out.extend_from_slice(b"location: ");
            out.extend_from_slice(location);
            out.extend_from_slice(b"\r\n");
        }
        form.added.write(|_| false, out);
        if let Some(not_here) = &self.not_here {
            let NotHere { why, avoid } = &**not_here;
            out.extend_from_slice(b"sdlb-not-here: ");
            out.extend_from_slice(why.as_bytes());
            out.extend_from_slice(b"\r\n");
            if !avoid.is_empty() {
                out.extend_from_slice(b"sdlb-avoid: ");
                out.extend_from_slice(avoid);
                out.extend_from_slice(b"\r\n");
            }
        }
        if self.status == 405 {
            out.extend_from_slice(b"allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
        }
        if !form.request_id.is_empty() {
            out.extend_from_slice(b"x-request-id: ");
            out.extend_from_slice(form.request_id);
            out.extend_from_slice(b"\r\n");
        }
        if form.close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if form.keep_old {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        let mut body = Vec::new();
        if let Some(code) = form.grpc {
            out.extend_from_slice(b"cache-control: no-store\r\ncontent-type: application/grpc\r\ngrpc-status: ");
            decimal(u64::from(code), out);
            out.extend_from_slice(b"\r\ngrpc-message: ");
            // Percent-encoded, all but printable ASCII; what we say is that, but for the sign itself.
            out.extend_from_slice(self.detail.replace('%', "%25").as_bytes());
            out.extend_from_slice(b"\r\n");
        } else if self.status == 200 {
            body = self.detail.clone().into_bytes();
            out.extend_from_slice(b"cache-control: no-store\r\ncontent-type: application/octet-stream\r\n");
        } else if self.not_here.is_none() && self.status != 204 && self.location.is_none() {
            let page = form.added.page(self.status).filter(|_| form.page);
            let html = form.html || page.is_some();
            let media = if html { "text/html; charset=utf-8" } else { "application/problem+json" };
            body = match page {
                Some(page) => page.to_vec(),
                None if html => self.html(reason, form).into_bytes(),
                None => self.json(reason, form),
            };
            out.extend_from_slice(b"cache-control: no-store\r\ncontent-type: ");
            out.extend_from_slice(media.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.status != 204 {
            out.extend_from_slice(b"content-length: ");
            decimal(body.len() as u64, out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !form.head {
            out.extend_from_slice(&body);
        }
    }

    fn json(&self, reason: &str, form: Form<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(b"{\"type\":\"https://sdlb.dev/problems/");
        text.extend_from_slice(self.kind.as_bytes());
        text.extend_from_slice(b"\",\"title\":");
        json_string(reason.as_bytes(), &mut text);
        text.extend_from_slice(b",\"status\":");
        decimal(u64::from(self.status), &mut text);
        text.extend_from_slice(b",\"detail\":");
        json_string(self.detail.as_bytes(), &mut text);
        text.extend_from_slice(b",\"node\":");
        json_string(form.node.as_bytes(), &mut text);
        if !form.request_id.is_empty() {
            text.extend_from_slice(b",\"request_id\":");
            json_string(form.request_id, &mut text);
        }
        text.extend_from_slice(b"}\n");
        text
    }

    fn html(&self, reason: &str, form: Form<'_>) -> String {
        let mut text = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>{0} {reason}</title><h1>{0} {reason}</h1><p>",
            self.status
        );
        html_text(self.detail.as_bytes(), &mut text);
        text.push_str("<p><small>");
        html_text(form.node.as_bytes(), &mut text);
        if !form.request_id.is_empty() {
            text.push_str(" &middot; request ");
            html_text(form.request_id, &mut text);
        }
        text.push_str("</small>\n");
        text
    }
}

/// A token begins with a letter; another name is written as a string.
fn status_name(node: &str, out: &mut Vec<u8>) {
    let token = node.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let quote: &[u8] = if token { b"" } else { b"\"" };
    out.extend_from_slice(quote);
    out.extend_from_slice(node.as_bytes());
    out.extend_from_slice(quote);
}

/// Appends a JSON string.
pub fn json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    json_text(bytes, out);
    out.push(b'"');
}

/// Appends what stands between the quotes of a JSON string. Bytes beyond ASCII are read as Latin-1, so that nothing is lost
/// and nothing is invalid.
pub fn json_text(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    // Nearly always there is nothing to escape.
    while !is_plain(rest)
        && let Some(at) = rest.iter().position(|byte| needs_escape(*byte))
    {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

fn needs_escape(byte: u8) -> bool {
    const ESCAPED: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = !matches!(byte, 0x20..=0x7e) || matches!(byte as u8, b'"' | b'\\');
            byte += 1;
        }
        table
    };
    ESCAPED[usize::from(byte)]
}

/// Whether no byte needs an escape, eight at a time (Warren, "Hacker's Delight", 6-1).
fn is_plain(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let Some(last) = bytes.last_chunk::<8>() else {
        return !bytes.iter().any(|byte| needs_escape(*byte));
    };
    // The last word may lie over the one before it.
    let odd = bytes.as_chunks::<8>().0.iter().chain([last]).fold(0, |odd, word| {
        let word = u64::from_ne_bytes(*word);
        let is = |byte: u8| has_zero(word ^ (ONES * u64::from(byte)));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        odd | word | control | is(b'"') | is(b'\\') | is(0x7f)
    });
    odd & (ONES * 0x80) == 0
}

fn html_text(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'&' => out.push_str("&amp;"),
            b'<' => out.push_str("&lt;"),
            b'>' => out.push_str("&gt;"),
            b'"' => out.push_str("&quot;"),
            0x20..=0x7e => out.push(*byte as char),
            _ => out.push('?'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_escaped_that_needs_it_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for (at, length) in (1..20).flat_map(|length| (0..length).map(move |at| (at, length))) {
                let mut bytes = vec![b'~'; length];
                bytes[at] = byte;
                assert_eq!(is_plain(&bytes), !needs_escape(byte), "{byte} at {at}");
            }
        }
        let mut out = Vec::new();
        json_string(b"plain and \"quoted\", \\ and \x01\xff", &mut out);
        assert_eq!(out, br#""plain and \"quoted\", \\ and \u0001\u00ff""#);
    }

    const NOTHING: &Added = &Added { hsts_s: 0, front: None, session: None };

    fn form(html: bool) -> Form<'static> {
        Form {
            added: NOTHING,
            page: true,
            grpc: None,
            node: "edge-1",
            head: false,
            html,
            close: true,
            keep_old: false,
            request_id: b"a\"b",
            date: b"now",
        }
    }

    #[test]
    fn it_says_who_answered_and_why() {
        let mut out = Vec::new();
        Answer::new(404, "no-route", "destination_not_found", "No <claim>.").write(form(false), &mut out);
        let text = String::from_utf8(out).unwrap_or_default();
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(text.contains("\r\nproxy-status: edge-1; error=destination_not_found\r\n"));
        assert!(text.ends_with(
            "{\"type\":\"https://sdlb.dev/problems/no-route\",\"title\":\"Not Found\",\"status\":404,\
             \"detail\":\"No <claim>.\",\"node\":\"edge-1\",\"request_id\":\"a\\\"b\"}\n"
        ));
    }

    #[test]
    fn browsers_get_a_page_without_anybody_elses_markup() {
        let mut out = Vec::new();
        Answer::new(503, "x", "y", "<b>").write(form(true), &mut out);
        let text = String::from_utf8(out).unwrap_or_default();
        assert!(text.contains("text/html") && text.contains("&lt;b&gt;") && text.contains("a&quot;b"));
    }

    #[test]
    fn tiers_below_are_named_first() {
        let mut out = Vec::new();
        let below = b"host-1; error=connection_refused".to_vec();
        Answer::not_here(GONE, below, "destination_unavailable").write(form(false), &mut out);
        let text = String::from_utf8(out).unwrap_or_default();
        assert!(
            text.contains(
                "\r\nproxy-status: host-1; error=connection_refused, edge-1; error=destination_unavailable\r\n"
            )
        );
        assert!(text.contains("\r\nsdlb-not-here: 1\r\n") && text.ends_with("content-length: 0\r\n\r\n"));
    }
}
