"""What each key of the node file means, with its default. docs/reference/node-file.md is generated from it."""

from __future__ import annotations

KEYS: dict[str, tuple[str, str]] = {
    "name": ("the host's name", "The node's name in the tree."),
    "state_dir": (
        "`/var/lib/sdlb`, or `~/.local/state/sdlb/NAME` without the right to write there",
        "The folder with the node's state, keys and engine log.",
    ),
    "public": ("`false`", "Hardened preset for clients from the internet; see [public nodes](#public-nodes)."),
    "parents": ("none: a root", "Parents as `host:port`. The node registers with all of them."),
    "advertise": ("the address of the node listener", "The address at which parents reach this node."),
    "insecure": ("`false`", "Permits unencrypted node links in private networks."),
    "labels": ("none", 'Labels of the node, for example `{zone = "a"}`.'),
    "roles": ("none", "Names of roles. They have no effect yet."),
    "engine": ('`"native"`', "The engine: a kind, or a table with `kind`, `workers` and limits."),
    "engine.kind": ('`"native"`', "The engine's kind."),
    "engine.workers": ("0: one per core", "Number of worker threads."),
    "listen.http": ("none", "The listener for HTTP clients."),
    "listen.https": ("none", "The listener for HTTPS clients (HTTP/1.1 and HTTP/2). Needs at least one `[[site]]`."),
    "listen.node": ("`127.0.0.1:7700`", "The listener for the links of children, and for requests from parents."),
    "listen.metrics": (
        "none",
        "`/metrics`, `/healthz` and `/readyz` over TCP, on a loopback or private address.",
    ),
    "listen.socket": (
        "`SDLB_SOCKET`, `/run/sdlb/sdlb.sock`, `$XDG_RUNTIME_DIR/sdlb/NAME.sock` or `STATE_DIR/sdlb.sock`",
        "The Unix socket of the local API.",
    ),
    "listen.socket_mode": ('`"0600"`', 'Mode of that socket: `"0600"`, or `"0660"` to let its group use it.'),
    "listen.trusted_proxies.http": ("none", "Networks of the proxies in front of `listen.http`."),
    "listen.trusted_proxies.https": ("none", "Networks of the proxies in front of `listen.https`."),
    "listen.admin": ("none", "Not supported in this version."),
    "timing.beat_s": ("2", "Interval of heartbeats, in seconds. All of `[timing]` must be the same in the whole tree."),
    "timing.lease_s": (
        "10, or `5 * beat_s` if that is more",
        "The lease: a child that is silent for this time is suspect. At least `2 * beat_s`.",
    ),
    "timing.fence_s": (
        "10, or `lease_s` if that is more",
        "The fence: extra time before a silent node is presumed stopped.",
    ),
    "limits.head_bytes": ("65536", "Maximum size of a request or response head (start line and header fields)."),
    "limits.fields": ("100", "Maximum number of header fields."),
    "limits.connect_timeout_ms": ("2000", "Timeout for a new connection to an upstream."),
    "limits.head_timeout_ms": ("10000", "Timeout of a request head, from its first byte."),
    "limits.idle_timeout_ms": ("60000", "Timeout of an idle keep-alive connection."),
    "limits.handshake_timeout_ms": ("5000", "Timeout of a TLS handshake."),
    "limits.handshakes": (
        "1024",
        "Maximum number of concurrent TLS handshakes. Connections over the limit are closed.",
    ),
    "limits.http2_streams": ("128", "Maximum number of concurrent requests of an HTTP/2 connection."),
    "limits.body_timeout_ms": ("30000", "Timeout between two pieces of a body that a client sends or reads."),
    "limits.body_bytes_per_s": (
        "128",
        "Minimum average rate at which a client sends or reads a body; 1 is practically off.",
    ),
    "limits.response_timeout_ms": ("60000", "Timeout from the request to the head of the upstream's response."),
    "limits.response_idle_timeout_ms": ("60000", "Timeout between two pieces of a response body of an upstream."),
    "limits.event_stream_idle_timeout_ms": ("3600000", "The same for server-sent events."),
    "limits.upgrade_idle_timeout_ms": ("3600000", "Timeout of an idle upgraded connection, such as a WebSocket."),
    "limits.connections": (
        "65536",
        "Maximum number of client connections. At the limit, the longest idle one is closed; if none is idle, new ones wait.",
    ),
    "limits.retry_budget_percent": (
        "20",
        "Maximum number of retries, in percent of the requests; 10 per second and worker are always permitted.",
    ),
    "limits.body_bytes": ("no limit", "Maximum size of a request body."),
    "limits.connections_per_address": (
        "no limit; 1024 on a public node",
        "Maximum number of connections of a client address. An IPv6 /64 counts as one address.",
    ),
    "limits.requests_per_s_per_address": (
        "no limit",
        "Rate limit of a client address. Requests over the limit get 429 with `Retry-After`.",
    ),
    "limits.requests_burst_per_address": (
        "twice the rate",
        "Number of requests that may come at once before this rate limit applies.",
    ),
    "limits.memory_mb": (
        "half of the machine's memory, or of the lowest cgroup limit if that is less",
        "Maximum resident memory of the engine process, in MiB.",
    ),
    "log.level": ('`"info"`', 'The lowest level that is logged: `"info"` or `"warning"`. `/v1/events` has all events.'),
    "log.access": ("none", "File of the access log."),
    "store.kind": ('`"embedded"`', 'The store. `"etcd"` is not supported in this version.'),
    "store.endpoints": ("none", "Not supported in this version."),
    "identity.certificate": (
        "none",
        "PEM file with the node's certificate and its intermediates. Its first DNS name is the node's `name`.",
    ),
    "identity.key": ("in the certificate's file", "PEM file with the private key."),
    "identity.ca": ("none", "PEM file with the CAs of all nodes' certificates."),
    "site.hosts": (
        "required",
        "Host names: exact, `*.example.com` (one or more labels), or `*` (any other). A host belongs to one site. "
        "The most specific one wins.",
    ),
    "site.certificate": (
        "required",
        "PEM file with the certificate, its chain and the private key; or a list of up to 4, for example ECDSA and RSA.",
    ),
    "site.key": ("in the certificate's file", "PEM file with the private key; a list for several certificates."),
    "site.client_ca": ("none", "PEM file with CAs: clients are asked for a certificate of one of them."),
    "site.client_certificate": (
        '`"required"`',
        'With `client_ca`: `"required"`, or `"optional"` (a certificate that is shown must be valid).',
    ),
    "site.acme": ("`false`", "Not supported in this version."),
    "hook.command": ("required", "The absolute path of the program and its arguments, as a list. No shell reads it."),
    "hook.timeout_s": (
        "0: the gate's `timeout_s` only",
        "Maximum time of one attempt, in seconds. Then the program is killed, with its process group.",
    ),
    "hook.env": ("none", "Variables for its environment. `SDLB_...` is reserved."),
    "hook.cwd": ('`"/"`', "The folder in which it runs."),
}
