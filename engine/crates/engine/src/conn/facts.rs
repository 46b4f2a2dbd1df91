//! What a request is, judged before anything is done for it.

use std::{rc::Rc, time::Duration};

use sdlb_http1::{
    Field, Form, Host, Length, Method, Name, Request, Version, canonical_host, canonical_path, has_encoded_slash, list,
};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::buffer::Scratch;
use crate::{
    answer::Answer,
    counters::Counters,
    forward::framing::Framing,
    front::{Added, is_challenge},
    listen::proxied::forwarded_for,
    networks::Networks,
    settings::{Limits, ListenerConfig, ListenerKind, NodeConfig},
    tls::sites::{Handshake, Sites},
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
    /// A trusted proxy has sent it.
    pub by_proxy: bool,
    /// The client, as a trusted proxy says; `None`: the peer of the connection.
    pub client: Option<Rc<str>>,
    /// Its port, as that proxy or the node above says; 0: neither does.
    pub client_port: u16,
    /// Whether it came to that proxy over TLS, if it says so.
    pub https: Option<bool>,
    /// Who has sent it.
    pub from: ListenerKind,
    /// When its head was complete.
    pub started: Instant,
    /// Length of the head in the client's buffer.
    pub head_bytes: usize,
    /// Length of the canonical path in the target.
    pub path_bytes: usize,
    /// What is added to its answer.
    pub added: Added,
    /// It came in plaintext, for a host that is served over TLS.
    pub to_https: bool,
    /// An error of ours may be a page.
    pub page: bool,
    /// Trailers with an underscore in the name are removed.
    pub drops_underscores: bool,
    /// The path holds an encoded slash, on a listener where a service must allow that.
    pub encoded_slash: bool,
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
    /// The length that a chunked body must have.
    pub told: Option<u64>,
    /// The peer waits for `100 Continue`.
    pub expects: bool,
    /// It is a node, and the client behind it waits as well.
    pub client_expects: bool,
    /// An upgrade is asked for that we pass on.
    pub upgrade: bool,
    /// A call of gRPC.
    pub grpc: bool,
    /// `TE: trailers`: the sender reads the trailers of the answer.
    pub wants_trailers: bool,
    /// TRACE and OPTIONS: so many proxies may still pass it on.
    pub max_forwards: Option<u32>,
    /// The node above is HAProxy, which retries after 425 (`sdlb-not-here: 425`).
    pub retries_425: bool,
    /// Answer of the upstream at the latest, as the node above says, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The request's id: the client's, the parent's or ours.
    pub request_id: SmallVec<[u8; ID_BYTES]>,
    /// The id is ours.
    pub new_id: bool,
}

impl Facts {
    /// Bytes of the body, if that is said.
    pub fn content_bytes(&self) -> Option<u64> {
        if let Length::Known(length) = self.length { Some(length) } else { self.told }
    }

    /// How the body goes on. `on_link`: as a stream of HTTP/2.
    pub fn framing(&self, to_node: bool, on_link: bool) -> Framing {
        match (self.length, self.told) {
            (Length::Known(length), _) => Framing::Length(length),
            (Length::Chunked, Some(length)) if on_link => Framing::ChunkedOf(length),
            (Length::Chunked, Some(length)) if to_node => Framing::ChunkedToNode(length),
            // Without its trailers: many instances want to know the length.
            (Length::Chunked, Some(length)) => Framing::Length(length),
            (Length::Chunked, None) => Framing::Chunked,
            (Length::None | Length::UntilClose, _) => Framing::Empty(None),
        }
    }

    /// How long its answer may take to begin, if nobody has asked for less.
    pub fn response_timeout(&self, limits: &Limits) -> Duration {
        // A call may wait for news before its answer begins; its client says when that is too long.
        if self.grpc { limits.event_stream_idle_timeout } else { limits.response_timeout }
    }
}

/// How a request came.
#[derive(Clone, Copy)]
pub struct Came<'a> {
    /// What the TLS handshake was for; `None`: it came in plaintext.
    pub handshake: Option<&'a Handshake>,
    /// Which hosts that allows.
    pub sites: &'a Sites,
    /// The host of a request that names none: that of the handshake, else the address that it came to.
    pub own_host: &'a dyn Fn() -> String,
    /// The peer is a trusted proxy: one of these.
    pub proxies: Option<&'a Networks>,
    /// Over HTTP/2: from clients, calls of gRPC, which are given more time, come so only.
    pub http2: bool,
    /// Over HTTP/2: the length of a body that is read in chunks, for trailers may follow.
    pub told: Option<u64>,
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
    let NodeConfig { pseudonym, .. } = config;
    let Scratch { request, from_client, host, target, path, .. } = scratch;
    let head = &from_client.data()[..head_bytes];
    let entry = listener.kind == ListenerKind::Entry;
    let refused = |refused| {
        counters.refused_malformed_total.add();
        Answer::refused(refused)
    };

    let parts = request.split_target(head).map_err(refused)?;
    // What came in plaintext was not asked for over TLS. (Proxies ask for `http` on TLS connections, and mean what they have.)
    if parts.https && !listener.tls {
        return Err(malformed(counters, "the request target has the scheme https on a plaintext connection"));
    }
    match (request.host, parts.authority) {
        (Some(value), _) => canonical_host(value.of(head), host).map_err(refused)?,
        (None, Some(authority)) => canonical_host(authority, host).map_err(refused)?,
        // Of a node it was judged before, and has a host since.
        (None, None) if !entry => return Err(malformed(counters, "Host is missing")),
        (None, None) => canonical_host((came.own_host)().as_bytes(), host).map_err(refused)?,
    }
    if let Some(authority) = parts.authority {
        let mut other = Host::default();
        canonical_host(authority, &mut other).map_err(refused)?;
        if other != *host {
            return Err(malformed(counters, "the request target and the Host header field name different hosts"));
        }
    }
    // Below the entry it has been looked at.
    let is_misdirected = entry && !came.sites.may_serve(host.name(), came.handshake);
    let may_redirect = entry && listener.hardening.redirect_to_https && !listener.tls;
    if is_misdirected && listener.tls {
        return Err(misdirected(counters));
    }
    target.clear();
    let path_bytes = if parts.form == Form::Asterisk {
        target.push(b'*');
        1
    } else {
        let canonical =
            canonical_path(parts.path, listener.hardening.refuse_encoded_paths && entry, path).map_err(refused)?;
        // Canonicalised once, at the entry: below it another form means that two nodes do not agree on what was matched.
        if !entry
            && (canonical != parts.path
                || parts.form != Form::Origin
                || request.host.is_none_or(|value| host.text().as_bytes() != value.of(head)))
        {
            return Err(malformed(counters, "the request target from the parent node is not canonical"));
        }
        target.extend_from_slice(canonical);
        target.extend_from_slice(parts.query);
        canonical.len()
    };

    let mut facts = Facts {
        by_proxy: came.proxies.is_some() && entry,
        client: None,
        client_port: 0,
        https: None,
        from: listener.kind,
        started: Instant::now(),
        head_bytes,
        path_bytes,
        added: Added::default(),
        to_https: false,
        page: true,
        drops_underscores: entry && listener.hardening.drop_underscore_fields,
        encoded_slash: entry && listener.hardening.refuse_encoded_paths && has_encoded_slash(&target[..path_bytes]),
        head: request.method == Method::Head,
        idempotent: request.method.is_idempotent(),
        old: request.version == Version::Http10,
        keep: request.keeps_alive(),
        html: false,
        length: request.length(),
        told: came.told,
        expects: request.expects_continue,
        client_expects: request.expects_continue && entry,
        upgrade: false,
        grpc: false,
        wants_trailers: false,
        max_forwards: None,
        retries_425: false,
        timeout_ms: None,
        request_id: SmallVec::new(),
        new_id: false,
    };
    let mut hops = 0;
    let mut accepts = None;
    for field in request.fields() {
        let value = field.value.of(head);
        match field.name {
            Name::Accept => {
                facts.html |= list(value).any(|media| media.get(..9).is_some_and(|start| start == b"text/html"));
                let any = |media: &[u8]| [&b"text/html"[..], b"text/*", b"*/*"].iter().any(|it| media.starts_with(it));
                accepts = Some(accepts.unwrap_or(false) || list(value).any(any));
            }
            Name::Via => {
                for hop in list(value) {
                    hops += 1;
                    let name = hop.split(|byte| matches!(byte, b' ' | b'\t')).filter(|part| !part.is_empty()).nth(1);
                    if name == Some(pseudonym.as_bytes()) || hops > HOPS_MAX {
                        counters.loops_total.add();
                        return Err(Answer::new(
                            508,
                            "loop",
                            "proxy_loop_detected",
                            "The request looped: it passed this node before, or too many nodes.",
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
                    "The Range header field has too many ranges.",
                ));
            }
            Name::Content if value.starts_with(GRPC) => {
                facts.grpc |= (came.http2 || !entry) && field.text.of(head) == b"content-type"
            }
            Name::Te => {
                facts.wants_trailers |= list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            Name::SdlbExpect if !entry => facts.client_expects = facts.expects,
            Name::SdlbNotHere if !entry => facts.retries_425 = value == b"425",
            Name::SdlbPort if !entry => {
                facts.client_port = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            }
            Name::SdlbTimeout if !entry => {
                facts.timeout_ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }
    facts.page = accepts.unwrap_or(true);
    if entry && matches!(request.method, Method::Trace | Method::Options) {
        facts.max_forwards = max_forwards(request, head).map_err(|reason| malformed(counters, reason))?;
    }
    if let Some(trusted) = came.proxies.filter(|_| entry) {
        let named = |name: &'static [u8]| {
            let fields = request.fields().iter().filter(move |field| field.text.of(head).eq_ignore_ascii_case(name));
            fields.map(|field| field.value.of(head))
        };
        if let Some(client) = forwarded_for(named(b"x-forwarded-for"), trusted) {
            facts.client = Some(client.ip().to_string().into());
            facts.client_port = client.port();
        }
        facts.https = match named(b"x-forwarded-proto").next_back() {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => Some(true),
            Some(scheme) if scheme.eq_ignore_ascii_case(b"http") => Some(false),
            _ => None,
        };
    }
    if entry {
        let path = &target[..path_bytes];
        facts.to_https =
            may_redirect && facts.https != Some(true) && !is_challenge(path) && came.sites.has(host.name());
        // A CA asks in plaintext, whatever clients have to show.
        let proves = || came.sites.challenges().answer(host.name(), path).is_some();
        if is_misdirected && !facts.to_https && !proves() {
            return Err(misdirected(counters));
        }
        let over_tls = facts.https.unwrap_or(listener.tls);
        facts.added = Added {
            hsts_s: if over_tls { listener.hardening.hsts_s } else { 0 },
            front: came.sites.front(host.name()),
            session: None,
        };
    }
    if facts.grpc && entry {
        let timeout = request.fields().iter().find(|field| field.text.of(head) == b"grpc-timeout");
        facts.timeout_ms = timeout.and_then(|field| grpc_timeout_ms(field.value.of(head)));
    }
    if !entry && facts.told.is_none() {
        facts.told = told_length(head, request.fields());
    }
    facts.told = facts.told.filter(|_| facts.length == Length::Chunked);
    facts.upgrade = request.wants_upgrade()
        && matches!(facts.length, Length::None | Length::Known(0))
        && request.single(head, Name::Upgrade).is_some_and(may_upgrade);
    match request
        .single(head, Name::XRequestId)
        .filter(|id| is_sane(id) && !(entry && listener.hardening.replace_request_ids))
    {
        Some(id) => facts.request_id.extend_from_slice(id),
        None => {
            facts.new_id = true;
            facts.request_id = SmallVec::from_buf(hex_id(random()));
        }
    }
    Ok(facts)
}

/// `sdlb-length`, of a head from another node: how long a chunked body is, for who gets it last may be told that. It frames nothing.
pub fn told_length(head: &[u8], fields: &[Field]) -> Option<u64> {
    let mut found = fields.iter().filter(|field| field.name == Name::SdlbLength);
    let value = found.next()?.value.of(head);
    let is_number = found.next().is_none() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok()?.parse().ok().filter(|_| is_number)
}

/// `Max-Forwards` (RFC 9110, 7.6.2). More than we can count is as good as any number.
fn max_forwards(request: &Request, head: &[u8]) -> Result<Option<u32>, &'static str> {
    let mut found = request.fields().iter().filter(|field| is_max_forwards(field.text.of(head)));
    let Some(field) = found.next() else { return Ok(None) };
    let value = field.value.of(head);
    if found.next().is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err("Max-Forwards is not a single number");
    }
    let digit = |number: u32, byte: &u8| number.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
    Ok(Some(value.iter().fold(0, digit)))
}

/// Its name.
pub fn is_max_forwards(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"max-forwards")
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

fn misdirected(counters: &Counters) -> Answer {
    counters.misdirected_total.add();
    let detail = "The TLS connection was made for another host.";
    Answer::new(421, "misdirected", "http_request_denied", detail)
}

/// The body is over the limit.
pub fn too_large(counters: &Counters) -> Answer {
    counters.limit_body_bytes_total.add();
    Answer::new(413, "body-too-large", "http_request_denied", "The body is larger than this node accepts.")
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
