//! What a request is, judged before anything is done for it.

use std::time::Duration;

use sdlb_http1::{Form, Host, Length, Method, Name, Version, canonical_host, canonical_path, list};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::buffer::Scratch;
use crate::{
    answer::Answer,
    counters::Counters,
    settings::{Limits, ListenerConfig, ListenerKind, NodeConfig},
};

/// Requests that passed more proxies than this go round in a loop.
const HOPS_MAX: usize = 16;
/// Ranges in one `Range`; more are an attack (RFC 9110, 14.2).
const RANGES_MAX: usize = 64;

/// `Content-Type` of gRPC begins so.
pub const GRPC: &[u8] = b"application/grpc";

/// Of a request's id, when it is ours.
const ID_BYTES: usize = 32;

/// What is kept of a request's head when the head itself is gone.
#[derive(Debug, Clone)]
pub struct Facts {
    /// When its head was complete.
    pub started: Instant,
    /// Length of the head in the client's buffer.
    pub head_bytes: usize,
    /// Length of the canonical path in the target.
    pub path_bytes: usize,
    /// HEAD.
    pub head: bool,
    /// The method may be done twice.
    pub idempotent: bool,
    /// HTTP/1.0.
    pub old: bool,
    /// The client wants to keep the connection.
    pub keep: bool,
    /// The client is a browser.
    pub html: bool,
    /// How long the body is.
    pub length: Length,
    /// The peer waits for `100 Continue`.
    pub expects: bool,
    /// It is a node, and the client behind it waits as well.
    pub client_expects: bool,
    /// An upgrade is asked for that we pass on.
    pub upgrade: bool,
    /// A call of gRPC.
    pub grpc: bool,
    /// Answer of the upstream at the latest, as the node above says, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The request's id: the client's, the parent's or ours.
    pub request_id: SmallVec<[u8; ID_BYTES]>,
    /// The id is ours.
    pub new_id: bool,
}

impl Facts {
    /// How long its answer may take to begin, if nobody has asked for less.
    pub fn response_timeout(&self, limits: &Limits) -> Duration {
        // A call may wait for news before its answer begins; its client says when that is too long.
        if self.grpc { limits.event_stream_idle_timeout } else { limits.response_timeout }
    }
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    /// The host name that the TLS handshake was for.
    pub server_name: Option<&'a str>,
    /// Over HTTP/2: from clients, calls of gRPC, which are given more time, come so only.
    pub http2: bool,
}

/// Judges the request whose head is in the scratch; leaves host and target there in canonical form.
///
/// # Errors
/// The answer; the connection is to be closed.
pub fn examine(
    scratch: &mut Scratch,
    head_bytes: usize,
    listener: &ListenerConfig,
    came: Came<'_>,
    config: &NodeConfig,
    counters: &Counters,
    random: impl FnOnce() -> [u64; 2],
) -> Result<Facts, Answer> {
    let NodeConfig { name: node, limits, .. } = config;
    let Scratch { request, from_client, host, target, path, .. } = scratch;
    let head = &from_client.data()[..head_bytes];
    let entry = listener.kind == ListenerKind::Entry;
    let refused = |refused| {
        counters.refused_malformed_total.add();
        Answer::refused(refused)
    };

    canonical_host(request.host.of(head), host).map_err(refused)?;
    let parts = request.split_target(head).map_err(refused)?;
    if let Some(authority) = parts.authority {
        let mut other = Host::default();
        canonical_host(authority, &mut other).map_err(refused)?;
        if other != *host {
            return Err(malformed(counters, "the target names another host than Host does"));
        }
    }
    // A host that is another one than the handshake was for may be a site with other terms for its clients.
    if came.server_name.is_some_and(|name| !name.eq_ignore_ascii_case(host.name())) {
        counters.misdirected_total.add();
        let detail = "This connection was made for another host.";
        return Err(Answer::new(421, "misdirected", "http_request_denied", detail));
    }
    target.clear();
    let path_bytes = if parts.form == Form::Asterisk {
        target.push(b'*');
        1
    } else {
        let canonical = canonical_path(parts.path, listener.public && entry, path).map_err(refused)?;
        // Canonicalised once, at the entry: below it another form means that two nodes do not agree on what was matched.
        if !entry
            && (canonical != parts.path
                || parts.form != Form::Origin
                || host.text().as_bytes() != request.host.of(head))
        {
            return Err(malformed(counters, "the target from the node above is not in canonical form"));
        }
        target.extend_from_slice(canonical);
        target.extend_from_slice(parts.query);
        canonical.len()
    };

    let mut facts = Facts {
        started: Instant::now(),
        head_bytes,
        path_bytes,
        head: request.method == Method::Head,
        idempotent: request.method.is_idempotent(),
        old: request.version == Version::Http10,
        keep: request.keeps_alive(),
        html: false,
        length: request.length(),
        expects: request.expects_continue,
        client_expects: request.expects_continue && entry,
        upgrade: false,
        grpc: false,
        timeout_ms: None,
        request_id: SmallVec::new(),
        new_id: false,
    };
    let mut hops = 0;
    for field in request.fields() {
        let value = field.value.of(head);
        match field.name {
            Name::Accept => {
                facts.html |= list(value).any(|media| media.get(..9).is_some_and(|start| start == b"text/html"))
            }
            Name::Via => {
                for hop in list(value) {
                    hops += 1;
                    let name = hop.split(|byte| matches!(byte, b' ' | b'\t')).filter(|part| !part.is_empty()).nth(1);
                    if name == Some(node.as_bytes()) || hops > HOPS_MAX {
                        counters.loops_total.add();
                        return Err(Answer::new(
                            508,
                            "loop",
                            "proxy_loop_detected",
                            "The request has passed this node before, or too many others.",
                        ));
                    }
                }
            }
            Name::Range if list(value).count() > RANGES_MAX => {
                counters.limit_ranges_total.add();
                return Err(Answer::new(
                    416,
                    "too-many-ranges",
                    "http_request_denied",
                    "Range asks for too many parts.",
                ));
            }
            Name::Content if value.starts_with(GRPC) => {
                facts.grpc |= (came.http2 || !entry) && field.text.of(head) == b"content-type"
            }
            Name::SdlbExpect if !entry => facts.client_expects = facts.expects,
            Name::SdlbTimeout if !entry => {
                facts.timeout_ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }
    if facts.grpc && entry {
        let timeout = request.fields().iter().find(|field| field.text.of(head) == b"grpc-timeout");
        facts.timeout_ms = timeout.and_then(|field| grpc_timeout_ms(field.value.of(head)));
    }
    if let (Length::Known(length), Some(bytes_max)) = (facts.length, limits.body_bytes)
        && length > bytes_max
    {
        return Err(too_large(counters));
    }
    facts.upgrade = request.wants_upgrade()
        && matches!(facts.length, Length::None | Length::Known(0))
        && request.single(head, Name::Upgrade).is_some_and(may_upgrade);
    match request.single(head, Name::XRequestId).filter(|id| is_sane(id) && !(entry && listener.public)) {
        Some(id) => facts.request_id.extend_from_slice(id),
        None => {
            facts.new_id = true;
            facts.request_id = SmallVec::from_buf(hex_id(random()));
        }
    }
    Ok(facts)
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout_ms(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    let us = match unit {
        b'H' => number * 3_600_000_000,
        b'M' => number * 60_000_000,
        b'S' => number * 1_000_000,
        b'm' => number * 1_000,
        b'u' => number,
        b'n' => number / 1_000,
        _ => return None,
    };
    Some(us.div_ceil(1_000))
}

fn hex_id(random: [u64; 2]) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    let bytes = random.iter().flat_map(|number| number.to_be_bytes());
    for (pair, byte) in id.chunks_exact_mut(2).zip(bytes) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    id
}

/// One protocol, and none that is HTTP again: h2c would carry requests past every rule of ours.
fn may_upgrade(protocol: &[u8]) -> bool {
    sdlb_http1::is_token(protocol.split(|byte| *byte == b'/').next().unwrap_or_default())
        && !protocol.contains(&b',')
        && !protocol.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
        && !protocol.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"http"))
        && !protocol.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"tls"))
}

fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn malformed(counters: &Counters, reason: &'static str) -> Answer {
    counters.refused_malformed_total.add();
    Answer::new(400, "malformed-request", "http_request_error", format!("The request was refused: {reason}."))
}

/// The body is over the limit.
pub fn too_large(counters: &Counters) -> Answer {
    counters.limit_body_bytes_total.add();
    Answer::new(413, "body-too-large", "http_request_denied", "The body is larger than this node takes.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_of_grpc_have_six_units() {
        for (value, ms) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3_000)),
            ("99999999m", Some(99_999_999)),
            ("1500u", Some(2)),
            ("1n", Some(0)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("+1S", None),
            ("123456789S", None),
        ] {
            assert_eq!(grpc_timeout_ms(value.as_bytes()), ms, "{value}");
        }
    }
}
