//! What control configures: limits, listeners, the node's name. Immutable; a change makes a new one.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use sdlb_http1 as http1;

use crate::{networks::Networks, rate::Rate, tls::identity::Identity};

/// Bounds and time-outs, with the defaults of engine.proto filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request or response head.
    pub head_bytes: usize,
    /// Fields of a head.
    pub fields: usize,
    /// To open an upstream connection.
    pub connect_timeout: Duration,
    /// For a whole request head to arrive.
    pub head_timeout: Duration,
    /// For a kept-alive client connection without a request.
    pub idle_timeout: Duration,
    /// For a client to send or take something of a body, and for an upstream to take something.
    pub body_timeout: Duration,
    /// Bytes a second that a client must send of a body, or take of an answer, on average over about `body_timeout`.
    pub body_bytes_per_s: u32,
    /// From the request sent to the response head.
    pub response_timeout: Duration,
    /// For an upstream to send something in the middle of a body.
    pub response_idle_timeout: Duration,
    /// The same for server-sent events: a stream without news is silent and well.
    pub event_stream_idle_timeout: Duration,
    /// For an upgraded connection without traffic.
    pub upgrade_idle_timeout: Duration,
    /// Client connections at once on all workers.
    pub connections: usize,
    /// Retries as a percentage of requests.
    pub retry_budget_percent: u32,
    /// Bytes of a request body. `None`: no limit.
    pub body_bytes: Option<u64>,
    /// Connections at once from one address. `None`: no limit.
    pub connections_per_address: Option<u32>,
    /// Requests of one address. `None`: no limit.
    pub rate_per_address: Option<Rate>,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// TLS handshakes at once on all workers.
    pub handshakes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams: u32,
    /// Bytes of memory that this process may have. `None`: a part of what there is.
    pub memory_bytes: Option<usize>,
}

/// The most that a node file can allow for heads and fields at an entry. Below it takes what an entry takes, whatever this node's own
/// limits are ...
const ENTRY_HEAD_BYTES_MAX: usize = 1 << 20;
const ENTRY_FIELDS_MAX: usize = 10_000;
/// ... and what the tiers have added since: `Via`, forwarding fields, the stamp, `Proxy-Status`.
const TIER_HEAD_BYTES: usize = 16 << 10;
const TIER_FIELDS: usize = 64;
/// Endpoints send many more fields than clients do.
const ANSWER_FIELDS_MIN: usize = 256;

impl Limits {
    /// Bounds of a request's head.
    #[must_use]
    pub fn of_requests(&self, from: ListenerKind) -> http1::Limits {
        match from {
            ListenerKind::Entry => http1::Limits { head_bytes: self.head_bytes, fields: self.fields },
            ListenerKind::Node => Self::of_nodes(),
        }
    }

    /// Bounds of an answer's head, and of its trailers.
    #[must_use]
    pub fn of_answers(&self, from_node: bool) -> http1::Limits {
        match from_node {
            false => http1::Limits { head_bytes: self.head_bytes, fields: self.fields.max(ANSWER_FIELDS_MIN) },
            true => Self::of_nodes(),
        }
    }

    /// What passes between nodes was held to the limits where it came in.
    #[must_use]
    pub fn of_nodes() -> http1::Limits {
        http1::Limits { head_bytes: ENTRY_HEAD_BYTES_MAX + TIER_HEAD_BYTES, fields: ENTRY_FIELDS_MAX + TIER_FIELDS }
    }
}

/// What HTTP/2 counts for a head of these bounds (RFC 9113, 6.5.2: 32 bytes more a field), and some more: the head is judged when it
/// is read, and `h2` cannot say whose limit it was.
#[must_use]
pub fn header_list_bytes(bounds: http1::Limits) -> u32 {
    u32::try_from(2 * bounds.head_bytes + 64 * bounds.fields).unwrap_or(u32::MAX)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 65_536,
            fields: 100,
            connect_timeout: Duration::from_millis(2_000),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            body_bytes_per_s: 128,
            response_timeout: Duration::from_secs(60),
            response_idle_timeout: Duration::from_secs(60),
            event_stream_idle_timeout: Duration::from_secs(3_600),
            upgrade_idle_timeout: Duration::from_secs(3_600),
            connections: 65_536,
            retry_budget_percent: 20,
            body_bytes: None,
            connections_per_address: None,
            rate_per_address: None,
            handshake_timeout: Duration::from_secs(5),
            handshakes: 1_024,
            http2_streams: 128,
            memory_bytes: None,
        }
    }
}

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// Clients: our headers are removed, forwarding headers rewritten, the route matched, the version picked.
    Entry,
    /// Parents, with stamped requests. (Children's control streams are told apart before a connection is served.)
    Node,
}

/// How strict a listener is with clients (`Hardening` in engine.proto).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hardening {
    /// Paths with an encoded slash, backslash or NUL are refused.
    pub refuse_encoded_paths: bool,
    /// Fields with an underscore in the name are removed: some servers read it as if it were a `-`.
    pub drop_underscore_fields: bool,
    /// A client's `X-Request-Id` is replaced.
    pub replace_request_ids: bool,
    /// One address may have a part of all handshakes at once.
    pub handshakes_per_address: bool,
    /// Plain requests for hosts that have a site are sent to `https`.
    pub redirect_to_https: bool,
    /// `Strict-Transport-Security` for so long; 0: not added.
    pub hsts_s: u32,
}

impl Hardening {
    /// What an older control means that says no more than whether a listener is public.
    #[must_use]
    pub fn of(public: bool) -> Self {
        Self {
            refuse_encoded_paths: public,
            drop_underscore_fields: public,
            replace_request_ids: public,
            handshakes_per_address: public,
            ..Self::default()
        }
    }
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name: `http`, `node`.
    pub key: String,
    /// As configured; the port may be 0.
    pub address: SocketAddr,
    /// The address it is bound to.
    pub bound: SocketAddr,
    /// Who connects.
    pub kind: ListenerKind,
    /// The hardened preset.
    pub public: bool,
    /// How strict it is with clients.
    pub hardening: Hardening,
    /// Clients speak TLS; nodes mutual TLS.
    pub tls: bool,
    /// Proxies in front of it: what they say about their clients is believed.
    pub trusted: Networks,
}

/// What holds for the whole node.
#[derive(Debug, Clone, Default)]
pub struct NodeConfig {
    /// This node's name: `Proxy-Status`, logs.
    pub name: String,
    /// What it calls itself in `Via` (RFC 9110, 7.6.3): its name, and what no other proxy has. Varnish, Squid and Apache put the name of
    /// the host there, which may be this node's as well.
    pub pseudonym: String,
    /// Where clients reach this node over TLS, for redirects from another port; `None`: nowhere.
    pub https_port: Option<u16>,
    /// Takes the control streams of children.
    pub control_socket: PathBuf,
    /// Bounds and time-outs.
    pub limits: Limits,
    /// All links to other nodes are mutual TLS. `None`: clear text.
    pub identity: Option<Arc<Identity>>,
    /// Until then routes may be missing: this node has just started, and its children have not reported. `None`: it has all.
    pub settles: Option<Instant>,
}
