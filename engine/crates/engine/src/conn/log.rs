//! One line of the access log.

use std::time::SystemTime;

use sdlb_http1::{Span, decimal};

use super::{buffer::Scratch, facts::Facts};
use crate::answer::json_text;

/// Of a method or target that nobody has understood, at most so much is logged.
const UNREAD_WORD_BYTES: usize = 256;

/// What is taken from the head while it is there; only made when the log is on.
#[derive(Debug)]
pub struct Line(Vec<u8>);

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome<'a> {
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Bytes of content.
    pub bytes: u64,
    /// Microseconds from the head to the end.
    pub took_us: u64,
    /// Service, version and target, as far as they are known: those of the last try; the service alone, when there was none.
    pub member: Option<(&'a str, &'a str, &'a str)>,
    /// Tries.
    pub tries: u32,
    /// Error type of `Proxy-Status`, for an answer of our own.
    pub error: &'a str,
}

impl Line {
    /// Begins a line.
    pub fn begin(listener: &str, client: &str, node: &str, method: Span, scratch: &Scratch, facts: &Facts) -> Self {
        let head = scratch.from_client.data();
        let host = scratch.host.text().as_bytes();
        Self::of(node, listener, client, [&facts.request_id, method.of(head), host, &scratch.target])
    }

    /// Begins the line of a request that was refused before it was understood: `sent` is what there is of it, and what its
    /// first line begins with is taken for method and target.
    pub fn unread(listener: &str, client: &str, node: &str, sent: &[u8]) -> Self {
        let line = sent.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ').map(|word| &word[..word.len().min(UNREAD_WORD_BYTES)]);
        let mut word = || words.next().unwrap_or_default();
        let (method, target) = (word(), word());
        Self::of(node, listener, client, [b"", method, b"", target])
    }

    /// `parts`: request id, method, host and target.
    fn of(node: &str, listener: &str, client: &str, [request_id, method, host, target]: [&[u8]; 4]) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut line = Vec::with_capacity(512);
        line.extend_from_slice(b"{\"time\":");
        decimal(since.as_secs(), &mut line);
        let thousandths = since.subsec_millis();
        let digit = |by: u32| b'0' + (thousandths / by % 10) as u8;
        line.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
        for (name, value) in [
            (r#","node":""#, node.as_bytes()),
            (r#","listener":""#, listener.as_bytes()),
            (r#","client":""#, client.as_bytes()),
            (r#","request_id":""#, request_id),
            (r#","method":""#, method),
            (r#","host":""#, host),
            (r#","target":""#, target),
        ] {
            text(name, value, &mut line);
        }
        Self(line)
    }

    /// Ends it.
    #[must_use]
    pub fn end(self, outcome: &Outcome<'_>) -> Vec<u8> {
        let Self(mut line) = self;
        for (name, value) in [
            (r#","status":"#, outcome.status.into()),
            (r#","bytes":"#, outcome.bytes),
            (r#","took_us":"#, outcome.took_us),
            (r#","tries":"#, outcome.tries.into()),
        ] {
            line.extend_from_slice(name.as_bytes());
            decimal(value, &mut line);
        }
        if let Some((service, version, target)) = outcome.member {
            text(r#","service":""#, service.as_bytes(), &mut line);
            if !version.is_empty() {
                text(r#","version":""#, version.as_bytes(), &mut line);
                text(r#","endpoint":""#, target.as_bytes(), &mut line);
            }
        }
        if !outcome.error.is_empty() {
            text(r#","error":""#, outcome.error.as_bytes(), &mut line);
        }
        line.push(b'}');
        line
    }
}

/// `name`: with everything up to the value, its first quote included: one piece to copy.
fn text(name: &str, value: &[u8], line: &mut Vec<u8>) {
    line.extend_from_slice(name.as_bytes());
    json_text(value, line);
    line.push(b'"');
}
