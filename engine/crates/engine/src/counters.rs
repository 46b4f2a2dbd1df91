//! Named counters and gauges of the whole engine. Workers add, control reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sdlb_routes::Striped;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident $(: $kind:ident)?),* $(,)?) => {
        /// Every counter is a field; its name on the wire is the field's name.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: counters!(@kind $($kind)?),)* }

        impl Counters {
            /// Names and values.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
    (@kind) => { Counter };
    (@kind $kind:ident) => { $kind };
}

counters! {
    /// Gauge: connections open now, of clients and of the nodes above.
    connections_open,
    /// Gauge: of these, those of clients; the others are links of nodes.
    connections_of_clients,
    /// Gauge: of these, those in clear text that have rested for a while, and are kept as sockets only.
    connections_asleep,
    /// Client connections accepted.
    connections_total,
    /// Client connections taken over, at rest, from the engine before.
    connections_inherited_total,
    /// Accepting waited because the limit on connections was reached.
    limit_connections_total,
    /// Connections at rest that were closed to make room for new ones.
    connections_evicted_total,
    /// Gauge: bytes of memory that this process may have.
    memory_limit_bytes,
    /// Gauge: bytes of memory that are resident.
    memory_resident_bytes,
    /// Gauge: bytes of memory that connections hold.
    memory_held_bytes,
    /// Moments in which memory in use came above 65 % of the limit.
    memory_high_total,
    /// Moments in which it came above 80 %.
    memory_full_total,
    /// Connections at rest that were closed because much memory was in use.
    memory_rests_ended_total,
    /// HTTP/2 connections of clients that were told to go because much memory was in use, and they hold much of it.
    memory_told_to_go_total,
    /// Requests and HTTP/2 connections that were ended because too much memory was in use, and they held most of it.
    memory_ended_total,
    /// Accepting waited because too much memory was in use.
    memory_accept_waits_total,
    /// TLS handshakes that were done.
    handshakes_total,
    /// Of these, those that took an earlier session up.
    handshakes_resumed_total,
    /// TLS handshakes that failed: no TLS, nothing in common, no certificate where one is required.
    handshakes_failed_total,
    /// TLS handshakes refused because there is no certificate for the name.
    handshakes_unknown_name_total,
    /// A TLS handshake was not done in time.
    timeout_handshake_total,
    /// Connections closed because there were too many TLS handshakes at once.
    limit_handshakes_total,
    /// ... too many of one address.
    limit_handshakes_per_address_total,
    /// Gauge: TLS handshakes under way.
    handshakes_now,
    /// HTTP/2 connections of clients.
    http2_connections_total,
    /// HTTP/2 connections that ended by a fault of the client's protocol.
    http2_failed_total,
    /// Requests over HTTP/2.
    http2_streams_total: BusyCounter,
    /// HTTP/2 connections ended for a flood of `PING`.
    http2_flood_ping_total,
    /// ... of `SETTINGS`.
    http2_flood_settings_total,
    /// ... of `PRIORITY` or frames of unknown kinds.
    http2_flood_priority_total,
    /// ... of `WINDOW_UPDATE`.
    http2_flood_window_update_total,
    /// ... of `DATA` without content.
    http2_flood_empty_data_total,
    /// ... of `CONTINUATION`.
    http2_flood_continuation_total,
    /// ... of `RST_STREAM`: most of what was asked for was cancelled.
    http2_flood_reset_total,
    /// ... of anything else that is bounded: heads in many pieces, streams that we had to break off, small `DATA`.
    http2_flood_other_total,
    /// Requests whose host belongs to another site than the one that the TLS handshake was for: 421.
    misdirected_total,
    /// Requests that were sent to `https` or to another URL: 308.
    redirects_total,
    /// Connections closed at once because their address had too many.
    limit_connections_per_address_total,
    /// Accepting waited because the file descriptors that clients may have were used up.
    limit_descriptors_total,
    /// Large answers that were copied, for there was no pipe to move them through: enough are in use, or descriptors or memory for them
    /// are short.
    pipes_refused_total,
    /// `accept` failed, for want of file descriptors above all.
    accept_failures_total,
    /// Requests whose head was read.
    requests_total: BusyCounter,
    /// Requests refused as malformed: 400, 405, 501, 505.
    refused_malformed_total,
    /// Heads over the limit on bytes: 431 or 414.
    limit_head_bytes_total,
    /// Heads over the limit on fields: 431.
    limit_fields_total,
    /// Bodies over the limit: 413.
    limit_body_bytes_total,
    /// Requests of an address that had too many in too short a time: 429.
    limit_requests_per_address_total,
    /// Requests of clients with fields that are ours to set (forwarding fields, those between nodes, names with an underscore that
    /// are read like them), or that would strip such by `Connection`. A proxy in front of an entry sets some in each.
    forged_fields_total,
    /// Connections on which something came behind their last request. It is not served.
    behind_last_request_total,
    /// `Range` with too many parts: 416.
    limit_ranges_total,
    /// A head did not arrive in time: 408.
    timeout_head_total,
    /// A kept-alive connection had no request in time.
    timeout_idle_total,
    /// A client did not send or take a body in time.
    timeout_body_total,
    /// A client sent or took a body too slowly.
    timeout_body_pace_total,
    /// Answers that came before the whole body of their request had: both connections are closed behind them.
    early_answers_total,
    /// An upstream did not answer in time: 504.
    timeout_response_total,
    /// An upstream fell silent in the middle of a body.
    timeout_response_idle_total,
    /// A connection to an upstream was not made in time.
    timeout_connect_total,
    /// Connections to upstreams that were not opened for want of our own: file descriptors, ports, memory: 503.
    exhausted_total,
    /// Clients that went away before they had their whole answer.
    client_gone_total,
    /// Requests that no claim matches: 404.
    no_route_total,
    /// Hosts that are not served here: 421.
    wrong_host_total,
    /// Requests that came round in a loop: 508.
    loops_total,
    /// Stamped requests answered "not here".
    not_here_total,
    /// Requests that waited for a version.
    parked_total,
    /// Gauge: requests that wait now.
    parked_now,
    /// Requests that did not wait because the queue was full.
    limit_parked_total,
    /// Requests that waited in vain.
    timeout_parked_total,
    /// Requests refused because their service, or each of its instances, had as many in flight as it may: 503.
    limit_in_flight_total,
    /// ... those of a low priority, refused a little earlier.
    limit_priority_total,
    /// Requests that found the queue for room full: 503.
    limit_pending_total,
    /// Requests that waited for room in vain: 503.
    timeout_pending_total,
    /// Gauge: requests that wait for room.
    pending_now,
    /// Endpoints passed over because they had as many connections as they may.
    limit_endpoint_connections_total,
    /// Tries that were given up, to be made elsewhere.
    timeout_try_total,
    /// Endpoints taken out because the others of their group do better.
    outliers_total,
    /// Tries after the first.
    retries_total,
    /// Requests that were asked of a second member because the first was slow.
    hedges_total,
    /// Of these, those that the second one answered first.
    hedges_won_total,
    /// Tries not made because the budget was used up.
    retry_budget_exhausted_total,
    /// Connections upgraded to another protocol.
    upgrades_total,
    /// Gauge: upgraded connections open now.
    upgrades_open,
    /// Idle upstream connections taken over from the engine before.
    upstream_inherited_total,
    /// Upstream connections closed because they sent what nobody asked for.
    upstream_unsolicited_total,
    /// Upstream answers that were malformed: 502.
    upstream_malformed_total,
    /// Answers with a head or trailers over the limits of this node.
    upstream_over_limit_total,
    /// Connections that ended by a fault of our own.
    faults_total,
    /// Links with other nodes that were opened over mutual TLS, in either direction.
    links_total,
    /// Links refused because the other node showed no certificate.
    link_refused_no_certificate_total,
    /// ... because its certificate is not of our authorities, or not for this use.
    link_refused_certificate_total,
    /// ... because its certificate has expired or is not valid yet.
    link_refused_expired_total,
    /// ... because its certificate has no name, or not that of the node that was meant.
    link_refused_name_total,
    /// ... because it does not take our certificate.
    link_refused_ours_total,
    /// ... because it does not speak mutual TLS as nodes do.
    link_refused_other_total,
    /// Links with nodes and HTTP/2 connections to endpoints that did not answer a ping, and were given up.
    timeout_link_total,
    /// Requests whose connection to a node or an endpoint had nobody at its other end any more.
    upstream_silent_total,
    /// Control streams of children passed on to control.
    control_streams_total,
    /// Control streams of children that were closed because control was not there.
    control_streams_refused_total,
    /// Gauge: control streams open now.
    control_streams_open,
    /// Lines of the access log that were dropped because the disk was slower than the traffic.
    access_log_dropped_total,
    /// Lines of the access log that could not be written.
    access_log_failed_total,
}

/// One counter or gauge.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds several.
    pub fn add_many(&self, number: u64) {
        self.0.fetch_add(number, Relaxed);
    }

    /// Takes one away: for gauges.
    pub fn sub(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets it: for gauges that are measured.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter of what every request does: for each thread in a cache line of its own.
#[derive(Debug, Default)]
pub struct BusyCounter(Striped<AtomicU64>);

impl BusyCounter {
    /// Adds one.
    pub fn add(&self) {
        self.0.mine().fetch_add(1, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.each().map(|counter| counter.load(Relaxed)).sum()
    }
}

/// Adds one to a gauge and takes it away when dropped.
pub struct Gauged<F: Fn(&Counters) -> &Counter> {
    counters: std::sync::Arc<Counters>,
    gauge: F,
}

impl<F: Fn(&Counters) -> &Counter> Gauged<F> {
    /// Counts until dropped.
    pub fn new(counters: std::sync::Arc<Counters>, gauge: F) -> Self {
        gauge(&counters).add();
        Self { counters, gauge }
    }
}

impl<F: Fn(&Counters) -> &Counter> Drop for Gauged<F> {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).sub();
    }
}
