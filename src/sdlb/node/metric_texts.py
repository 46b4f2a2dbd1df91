"""The metrics of a node with kind, labels and HELP text, as `/metrics` prints them. docs/reference/metrics.md is generated
from this table."""

from __future__ import annotations

from msgspec import Struct


class MetricText(Struct, frozen=True):
    kind: str
    labels: tuple[str, ...]
    text: str


def _gauge(text: str, *labels: str) -> MetricText:
    return MetricText("gauge", labels, text)


def _counter(text: str, *labels: str) -> MetricText:
    return MetricText("counter", labels, text)


def _histogram(text: str, *labels: str) -> MetricText:
    return MetricText("histogram", labels, text)


NODE: dict[str, MetricText] = {
    "sdlb_node_info": _gauge("Information about the node; always 1.", "node", "version", "root"),
    "sdlb_node_ready": _gauge("1 when the node serves and a parent is connected."),
    "sdlb_node_guarded": _gauge("1 while the node is guarded: too many leases expired at once."),
    "sdlb_node_cut_off": _gauge("1 while the node is cut off: no parent is connected."),
    "sdlb_state_written": _gauge("0 while the state cannot be written to disk."),
    "sdlb_decisions_wait": _gauge(
        "1 while decisions wait for the disk: traffic is served as before, no version becomes active or drains."
    ),
    "sdlb_effects_held": _gauge("Effects of decisions held back until the disk can be written."),
    "sdlb_internal_errors_total": _counter("Internal errors of control."),
    "sdlb_events_total": _counter("Events by level and code.", "level", "code"),
    "sdlb_log_lines_dropped_total": _counter("Log lines dropped because stderr was not read in time."),
    "sdlb_entries": _gauge("Entries that control holds, by kind.", "what"),
}
TREE: dict[str, MetricText] = {
    "sdlb_parent_link": _gauge("Links by parent and state.", "parent", "state"),
    "sdlb_parent_silent_seconds": _gauge("Seconds since the parent was last heard.", "parent"),
    "sdlb_child_link": _gauge("Links by child and state.", "child", "state"),
    "sdlb_child_silent_seconds": _gauge("Seconds since the child was last heard.", "child"),
    "sdlb_instances": _gauge("Instances of this host by state.", "state"),
    "sdlb_version_instances": _gauge(
        "Instances below this node by version and the version's state.", "service", "version", "state"
    ),
    "sdlb_claims": _gauge("Claims at this node by state.", "state"),
}
CERTIFICATES: dict[str, MetricText] = {
    "sdlb_certificate_not_after_seconds": _gauge(
        "Unix time at which the site's certificate expires (the earliest one of several).", "site"
    ),
    "sdlb_certificate_not_before_seconds": _gauge(
        "Unix time from which that certificate is valid. The lifetime is the difference to its expiry.", "site"
    ),
    "sdlb_site_error": _gauge("1 while the site's certificate files cannot be used.", "site"),
    "sdlb_acme_orders_total": _counter("Finished certificate orders of this node, by result.", "result"),
    "sdlb_acme_error": _gauge("1 if the last order of the site's certificate failed.", "site"),
    "sdlb_acme_next_try_seconds": _gauge(
        "Earliest Unix time of the next order or renewal of the site's certificate.", "site"
    ),
    "sdlb_identity_not_after_seconds": _gauge("Unix time at which the node's own certificate expires."),
}
TRAFFIC: dict[str, MetricText] = {
    "sdlb_engine_attached": _gauge("1 while control is attached to its engine."),
    "sdlb_requests_total": _counter("Requests by service and version.", "service", "version"),
    "sdlb_failed_total": _counter("Requests that the engine answered with 502, 503 or 504.", "service", "version"),
    "sdlb_retries_total": _counter("Retries: attempts after the first one.", "service", "version"),
    "sdlb_parked_total": _counter("Requests parked until a version was active.", "service", "version"),
    "sdlb_responses_total": _counter("Responses by status class.", "service", "version", "class"),
    "sdlb_grpc_responses_total": _counter("gRPC responses by status code.", "service", "version", "code"),
    "sdlb_request_seconds": _histogram(
        "Time from the request's header to the end of the response.", "service", "version"
    ),
    "sdlb_instance_requests_total": _counter("Attempts sent to instances.", "service", "version"),
    "sdlb_instance_broken_total": _counter("Attempts without a usable response.", "service", "version"),
    "sdlb_instance_unreached_total": _counter("Attempts that got no connection.", "service", "version"),
    "sdlb_instance_responses_total": _counter("Responses of instances by status class.", "service", "version", "class"),
    "sdlb_instance_head_seconds": _histogram(
        "Time from the request sent to an instance to the header of its response.", "service", "version"
    ),
    "sdlb_target_requests_total": _counter("Requests by endpoint (instance or child node).", "target"),
    "sdlb_target_failures_total": _counter("Requests that failed at the endpoint.", "target"),
    "sdlb_target_connects_total": _counter("Connections opened to the endpoint.", "target"),
    "sdlb_target_connect_failures_total": _counter("Failed connects to the endpoint.", "target"),
    "sdlb_target_in_flight": _gauge("Requests in flight by endpoint.", "target"),
    "sdlb_target_idle_connections": _gauge("Idle pooled connections by endpoint.", "target"),
    "sdlb_target_ejected": _gauge("1 while passive health has ejected the endpoint.", "target"),
}
FAMILIES: dict[str, MetricText] = {**NODE, **TREE, **CERTIFICATES, **TRAFFIC}

TEXTS: dict[str, str] = {
    "connections_open": "Open connections, of clients and of nodes.",
    "connections_of_clients": "Open client connections.",
    "connections_asleep": (
        "Open unencrypted client connections that have been idle for a while and are kept as sockets only."
    ),
    "connections_total": "Accepted connections.",
    "connections_inherited_total": (
        "Idle client connections handed over by the previous engine in a hot restart; connections_total does "
        "not count them again."
    ),
    "limit_connections_total": "Times that accepting paused at the connection limit.",
    "connections_evicted_total": "Idle connections closed to make capacity for new ones.",
    "memory_limit_bytes": "Memory limit of the engine process.",
    "memory_resident_bytes": "Resident memory of the engine process.",
    "memory_held_bytes": "Memory held by connections.",
    "memory_high_total": "Times that memory in use rose above 65 % of the limit.",
    "memory_full_total": "Times that memory in use rose above 80 % of the limit.",
    "memory_rests_ended_total": "Idle connections closed under memory pressure.",
    "memory_told_to_go_total": (
        "HTTP/2 client connections sent GOAWAY under memory pressure because they held much memory."
    ),
    "memory_ended_total": (
        "Requests and HTTP/2 connections cancelled under memory pressure because they held the most memory."
    ),
    "memory_accept_waits_total": "Times that accepting paused under memory pressure.",
    "handshakes_total": "Completed TLS handshakes.",
    "handshakes_resumed_total": "Completed TLS handshakes that resumed a session.",
    "handshakes_failed_total": (
        "Failed TLS handshakes: not TLS, no common parameters, or no required client certificate."
    ),
    "handshakes_unknown_name_total": "TLS handshakes refused because no site has a certificate for the name.",
    "timeout_handshake_total": "TLS handshakes that timed out.",
    "limit_handshakes_total": "Connections closed at the limit on concurrent TLS handshakes.",
    "limit_handshakes_per_address_total": (
        "Connections closed because their address had a quarter of the permitted concurrent TLS handshakes "
        "(public nodes)."
    ),
    "handshakes_now": "TLS handshakes in progress.",
    "http2_connections_total": "HTTP/2 client connections.",
    "http2_failed_total": "HTTP/2 connections closed for a protocol error of the client.",
    "http2_streams_total": "Requests over HTTP/2.",
    "http2_flood_ping_total": "HTTP/2 connections closed for a flood of PING.",
    "http2_flood_settings_total": "HTTP/2 connections closed for a flood of SETTINGS.",
    "http2_flood_priority_total": "HTTP/2 connections closed for a flood of PRIORITY or of unknown frame types.",
    "http2_flood_window_update_total": "HTTP/2 connections closed for a flood of WINDOW_UPDATE.",
    "http2_flood_empty_data_total": "HTTP/2 connections closed for a flood of empty DATA.",
    "http2_flood_continuation_total": "HTTP/2 connections closed for a flood of CONTINUATION.",
    "http2_flood_reset_total": (
        "HTTP/2 connections closed for a flood of RST_STREAM: most of their requests were cancelled."
    ),
    "http2_flood_other_total": (
        "HTTP/2 connections closed for another flood: fragmented header blocks, streams reset by the engine, "
        "small DATA."
    ),
    "misdirected_total": "Requests for a host of another site than that of the TLS handshake: 421.",
    "redirects_total": "Requests that were redirected to HTTPS or by `redirect` of a site: 308.",
    "limit_connections_per_address_total": "Connections closed at the limit on connections of an address.",
    "limit_descriptors_total": "Times that accepting paused because client connections used up their file descriptors.",
    "pipes_refused_total": (
        "Large responses copied instead of spliced, because pipes, file descriptors or memory were short."
    ),
    "accept_failures_total": "Failed accept calls, mostly for lack of file descriptors.",
    "requests_total": "Requests with a complete header.",
    "refused_malformed_total": "Malformed requests: 400, 405, 501, 505.",
    "limit_head_bytes_total": "Requests with a header over the byte limit: 431 or 414.",
    "limit_fields_total": "Requests with too many header fields: 431.",
    "limit_body_bytes_total": "Requests with a body over the limit: 413.",
    "limit_requests_per_address_total": "Requests over the rate limit of their address: 429.",
    "forged_fields_total": (
        "Client requests with header fields or trailers that only the entry sets (X-Forwarded-*, Forwarded, X-Real-IP, "
        "fields between nodes, underscore variants) or with a Connection that would remove them. The fields "
        "are replaced. A proxy in front of an entry causes some with each request."
    ),
    "behind_last_request_total": (
        "Connections with data after their last request (Connection: close). The data is ignored."
    ),
    "limit_ranges_total": "Requests with too many ranges: 416.",
    "timeout_head_total": "Request headers that timed out: 408.",
    "timeout_idle_total": "Keep-alive connections closed by the idle timeout.",
    "timeout_body_total": "Bodies that a client did not send or read in time.",
    "timeout_body_pace_total": "Bodies that a client sent or read more slowly than body_bytes_per_s on average.",
    "early_answers_total": (
        "Responses that came before the end of the request body; both connections are closed after them."
    ),
    "timeout_response_total": "Upstream responses that timed out: 504.",
    "timeout_response_idle_total": "Upstream responses that stalled in the middle of the body.",
    "timeout_connect_total": "Upstream connects that timed out.",
    "exhausted_total": (
        "Upstream connections not opened for lack of file descriptors, ports or memory on this node: 503."
    ),
    "client_gone_total": "Clients that disconnected before the end of their response.",
    "no_route_total": "Requests that no claim matches: 404.",
    "wrong_host_total": "Requests for a host that this entry does not serve: 421.",
    "loops_total": "Requests that looped between nodes: 508.",
    "not_here_total": "Requests of other nodes answered 'not here', because the version is not on this node.",
    "parked_total": "Requests parked until a version is active.",
    "parked_now": "Requests parked now.",
    "limit_parked_total": "Requests not parked because the queue was full.",
    "timeout_parked_total": "Parked requests that timed out.",
    "retries_total": "Retries: attempts after the first one.",
    "hedges_total": "Requests hedged to a second endpoint because the first was slow.",
    "hedges_won_total": "Hedged requests that the second endpoint answered first.",
    "retry_budget_exhausted_total": "Retries not made because the retry budget was used up.",
    "upgrades_total": "Connections upgraded to another protocol.",
    "upgrades_open": "Open upgraded connections.",
    "upstream_inherited_total": "Idle upstream connections handed over by the previous engine in a hot restart.",
    "upstream_unsolicited_total": "Idle upstream connections closed because they sent unrequested data.",
    "upstream_malformed_total": "Malformed upstream responses: 502.",
    "upstream_over_limit_total": "Upstream responses with a header or trailers over the limits: 502, or cut off.",
    "faults_total": "Connections closed by an internal error of the engine.",
    "control_streams_total": "Control streams of children passed to control.",
    "control_streams_refused_total": "Control streams of children closed because control was not running.",
    "control_streams_open": "Open control streams.",
    "access_log_dropped_total": "Access log lines dropped because the disk was slower than the traffic.",
    "access_log_failed_total": "Access log lines that could not be written.",
    "limit_in_flight_total": "Requests over the in-flight limit of their service or of all its instances: 503.",
    "limit_priority_total": "Low-priority requests refused shortly before that limit: 503.",
    "limit_pending_total": "Requests refused because the queue for capacity was full: 503.",
    "timeout_pending_total": "Requests that waited for capacity until they timed out: 503.",
    "pending_now": "Requests that wait for capacity.",
    "limit_endpoint_connections_total": "Endpoints skipped because they had as many connections as permitted.",
    "timeout_try_total": "Attempts that timed out and were retried at another endpoint.",
    "outliers_total": "Outlier ejections: endpoints ejected for doing worse than the others of their group.",
    "links_total": "Mutual TLS links with other nodes, in either direction.",
    "link_refused_no_certificate_total": "Links refused because the other node presented no certificate.",
    "link_refused_certificate_total": (
        "Links refused because the other node's certificate is not from this node's CAs, or not for this use."
    ),
    "link_refused_expired_total": "Links refused because the other node's certificate has expired or is not yet valid.",
    "link_refused_name_total": "Links refused because the other node's certificate has no name or an unexpected one.",
    "link_refused_ours_total": "Links refused because the other node rejected this node's certificate.",
    "link_refused_other_total": "Links refused because the other side does not speak the nodes' mutual TLS.",
    "timeout_link_total": "Links and HTTP/2 upstream connections closed because a ping was not answered.",
    "upstream_silent_total": "Requests on an upstream connection that turned out to be dead.",
}
"""The engine's own counters, by their name after `sdlb_engine_`."""


def engine_kind(name: str) -> str:
    return "counter" if name.endswith("_total") else "gauge"
