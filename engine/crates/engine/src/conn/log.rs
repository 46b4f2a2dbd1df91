//! One line of the access log.

use std::{fmt::Write, time::SystemTime};

use sdlb_http1::Span;

use super::{buffer::Scratch, facts::Facts};
use crate::answer::json_string;

/// What is taken from the head while it is there; only made when the log is on.
#[derive(Debug)]
pub struct Line(String);

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome<'a> {
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Bytes of content.
    pub bytes: u64,
    /// Microseconds from the head to the end.
    pub took_us: u64,
    /// Service, version and target, once they are known.
    pub member: Option<(&'a str, &'a str, &'a str)>,
    /// Tries.
    pub tries: u32,
    /// Error type of `Proxy-Status`, for an answer of our own.
    pub error: &'a str,
}

impl Line {
    /// Begins a line.
    pub fn begin(listener: &str, client: &str, node: &str, method: Span, scratch: &Scratch, facts: &Facts) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut line = String::with_capacity(512);
        let _ = write!(line, "{{\"time\":{}.{:03}", since.as_secs(), since.subsec_millis());
        let head = scratch.from_client.data();
        for (name, value) in [
            ("node", node.as_bytes()),
            ("listener", listener.as_bytes()),
            ("client", client.as_bytes()),
            ("request_id", &facts.request_id),
            ("method", method.of(head)),
            ("host", scratch.host.text().as_bytes()),
            ("target", &scratch.target),
        ] {
            text(name, value, &mut line);
        }
        Self(line)
    }

    /// Ends it.
    #[must_use]
    pub fn end(self, outcome: &Outcome<'_>) -> String {
        let Self(mut line) = self;
        let _ = write!(
            line,
            ",\"status\":{},\"bytes\":{},\"took_us\":{},\"tries\":{}",
            outcome.status, outcome.bytes, outcome.took_us, outcome.tries
        );
        if let Some((service, version, target)) = outcome.member {
            text("service", service.as_bytes(), &mut line);
            text("version", version.as_bytes(), &mut line);
            text("endpoint", target.as_bytes(), &mut line);
        }
        if !outcome.error.is_empty() {
            text("error", outcome.error.as_bytes(), &mut line);
        }
        line.push('}');
        line
    }
}

fn text(name: &str, value: &[u8], line: &mut String) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":");
    json_string(value, line);
}
