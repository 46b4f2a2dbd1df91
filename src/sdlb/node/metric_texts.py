"""What the engine's counters mean, as `/metrics` says it (docs/reference/metrics.md has the same, with links)."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "connections_open": "Client connections open now.",
    "connections_of_clients": "Of these, those of clients.",
    "connections_asleep": ("Of these, those in clear text that have rested for a while, and are kept as sockets only."),
    "connections_total": "Client connections accepted.",
    "connections_inherited_total": (
        "Client connections taken over, at rest, from the engine before (sdlb node upgrade); they are not in "
        "connections_total again."
    ),
    "limit_connections_total": "Accepting waited because the limit on connections was reached.",
    "connections_evicted_total": "Connections at rest that were closed to make room for new ones.",
    "memory_limit_bytes": "Bytes of memory that this process may have.",
    "memory_resident_bytes": "Bytes of memory that are resident.",
    "memory_held_bytes": "Bytes of memory that connections hold.",
    "memory_high_total": "Moments in which memory in use came above 65 % of the limit.",
    "memory_full_total": "Moments in which memory in use came above 80 % of the limit.",
    "memory_rests_ended_total": "Connections at rest that were closed because much memory was in use.",
    "memory_told_to_go_total": (
        "HTTP/2 connections of clients that were told to go because much memory was in use, and they hold much of it."
    ),
    "memory_ended_total": (
        "Requests and HTTP/2 connections that were ended because too much memory was in use, and they held most of it."
    ),
    "memory_accept_waits_total": "Accepting waited because too much memory was in use.",
    "handshakes_total": "TLS handshakes that were done.",
    "handshakes_resumed_total": "Of these, those that took an earlier session up.",
    "handshakes_failed_total": (
        "TLS handshakes that failed: no TLS, nothing in common, no certificate where one is required."
    ),
    "handshakes_unknown_name_total": "TLS handshakes refused because there is no certificate for the name.",
    "timeout_handshake_total": "A TLS handshake was not done in time.",
    "limit_handshakes_total": "Connections closed because there were too many TLS handshakes at once.",
    "limit_handshakes_per_address_total": (
        "Connections closed because their address had a quarter of all TLS handshakes that may be under way "
        "(public nodes)."
    ),
    "handshakes_now": "TLS handshakes under way.",
    "http2_connections_total": "HTTP/2 connections of clients.",
    "http2_failed_total": "HTTP/2 connections that ended by a fault of the client's protocol.",
    "http2_streams_total": "Requests over HTTP/2.",
    "http2_flood_ping_total": "HTTP/2 connections ended for a flood of PING.",
    "http2_flood_settings_total": "HTTP/2 connections ended for a flood of SETTINGS.",
    "http2_flood_priority_total": "HTTP/2 connections ended for a flood of PRIORITY or frames of unknown kinds.",
    "http2_flood_window_update_total": "HTTP/2 connections ended for a flood of WINDOW_UPDATE.",
    "http2_flood_empty_data_total": "HTTP/2 connections ended for a flood of DATA without content.",
    "http2_flood_continuation_total": "HTTP/2 connections ended for a flood of CONTINUATION.",
    "http2_flood_reset_total": (
        "HTTP/2 connections ended for a flood of RST_STREAM: most of what was asked for was cancelled."
    ),
    "http2_flood_other_total": (
        "HTTP/2 connections ended for a flood of anything else that is bounded: heads in many pieces, streams "
        "that we had to break off, small DATA."
    ),
    "misdirected_total": "Requests whose host is not the one that the TLS handshake was for: 421.",
    "limit_connections_per_address_total": "Connections closed at once because their address had too many.",
    "limit_descriptors_total": "Accepting waited because the file descriptors that clients may have were used up.",
    "pipes_refused_total": (
        "Large answers that were copied, for there was no pipe to move them through: enough are in use, or "
        "descriptors or memory for them are short."
    ),
    "accept_failures_total": "Accept failed, for want of file descriptors above all.",
    "requests_total": "Requests whose head was read.",
    "refused_malformed_total": "Requests refused as malformed: 400, 405, 501, 505.",
    "limit_head_bytes_total": "Heads over the limit on bytes: 431 or 414.",
    "limit_fields_total": "Heads over the limit on fields: 431.",
    "limit_body_bytes_total": "Bodies over the limit: 413.",
    "limit_requests_per_address_total": "Requests of an address that had too many in too short a time: 429.",
    "forged_fields_total": (
        "Requests of clients with fields that are ours to set (X-Forwarded-…, Forwarded, X-Real-IP, those "
        "between nodes, names with an underscore that some take for another), or that would strip such by "
        "Connection. They are dropped and set anew. A proxy in front of an entry sets some in each."
    ),
    "behind_last_request_total": (
        "Connections on which something came behind their last request (Connection: close). It is not served."
    ),
    "limit_ranges_total": "Range with too many parts: 416.",
    "timeout_head_total": "A head did not arrive in time: 408.",
    "timeout_idle_total": "A kept-alive connection had no request in time.",
    "timeout_body_total": "A client did not send or take a body in time.",
    "timeout_body_pace_total": "A client sent or took a body too slowly: less than body_bytes_per_s on average.",
    "early_answers_total": (
        "Answers that came before the whole body of their request had: both connections are closed behind them."
    ),
    "timeout_response_total": "An upstream did not answer in time: 504.",
    "timeout_response_idle_total": "An upstream fell silent in the middle of a body.",
    "timeout_connect_total": "A connection to an upstream was not made in time.",
    "exhausted_total": (
        "Connections to upstreams that were not opened for want of our own: file descriptors, ports, memory: 503."
    ),
    "client_gone_total": "Clients that went away before they had their whole answer.",
    "no_route_total": "Requests that no claim matches: 404.",
    "wrong_host_total": "Hosts that are not served here: 421.",
    "loops_total": "Requests that came round in a loop: 508.",
    "not_here_total": "Stamped requests answered 'not here'.",
    "parked_total": "Requests that waited for a version.",
    "parked_now": "Requests that wait now.",
    "limit_parked_total": "Requests that did not wait because the queue was full.",
    "timeout_parked_total": "Requests that waited in vain.",
    "retries_total": "Tries after the first.",
    "hedges_total": "Requests that were asked of a second member because the first was slow.",
    "hedges_won_total": "Of these, those that the second one answered first.",
    "retry_budget_exhausted_total": "Tries not made because the budget was used up.",
    "upgrades_total": "Connections upgraded to another protocol.",
    "upgrades_open": "Upgraded connections open now.",
    "upstream_inherited_total": "Idle upstream connections taken over from the engine before.",
    "upstream_unsolicited_total": "Upstream connections closed because they sent what nobody asked for.",
    "upstream_malformed_total": "Upstream answers that were malformed: 502.",
    "upstream_over_limit_total": "Answers with a head or trailers over the limits of this node: 502, or cut off.",
    "faults_total": "Connections that ended by a fault of our own.",
    "control_streams_total": "Control streams of children passed on to control.",
    "control_streams_refused_total": "Control streams of children that were closed because control was not there.",
    "control_streams_open": "Control streams open now.",
    "access_log_dropped_total": (
        "Lines of the access log that were dropped because the disk was slower than the traffic."
    ),
    "access_log_failed_total": "Lines of the access log that could not be written.",
    "limit_in_flight_total": (
        "Requests refused because their service, or each of its instances, had as many in flight as it may: 503."
    ),
    "limit_priority_total": "Requests of a low priority, refused a little before that: 503.",
    "limit_pending_total": "Requests that found the queue for room full: 503.",
    "timeout_pending_total": "Requests that waited for room in vain: 503.",
    "pending_now": "Requests that wait for room.",
    "limit_endpoint_connections_total": "Endpoints passed over because they had as many connections as they may.",
    "timeout_try_total": "Tries that were given up, to be made elsewhere.",
    "outliers_total": "Endpoints taken out because the others of their group do better.",
    "links_total": "Links with other nodes that were opened over mutual TLS, in either direction.",
    "link_refused_no_certificate_total": "Links refused because the other node showed no certificate.",
    "link_refused_certificate_total": (
        "Links refused because its certificate is not of our authorities, or not for this use."
    ),
    "link_refused_expired_total": "Links refused because its certificate has expired or is not valid yet.",
    "link_refused_name_total": (
        "Links refused because its certificate has no name, or not that of the node that was meant."
    ),
    "link_refused_ours_total": "Links refused because it does not take our certificate.",
    "link_refused_other_total": "Links refused because it does not speak mutual TLS as nodes do.",
    "timeout_link_total": (
        "Links with nodes and HTTP/2 connections to endpoints that did not answer a ping, and were given up."
    ),
    "upstream_silent_total": (
        "Requests whose connection to a node or an endpoint had nobody at its other end any more."
    ),
}
