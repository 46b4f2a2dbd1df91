//! What control configures: limits, listeners, the node's name. Immutable; a change makes a new one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{rate::Rate, tls::identity::Identity};

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
    /// Clients speak TLS; nodes mutual TLS.
    pub tls: bool,
}

/// What holds for the whole node.
#[derive(Debug, Clone, Default)]
pub struct NodeConfig {
    /// This node's name: `Via`, `Proxy-Status`, logs.
    pub name: String,
    /// Takes the control streams of children.
    pub control_socket: PathBuf,
    /// Bounds and time-outs.
    pub limits: Limits,
    /// All links to other nodes are mutual TLS. `None`: clear text.
    pub identity: Option<Arc<Identity>>,
}
