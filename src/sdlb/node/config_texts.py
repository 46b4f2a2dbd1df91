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
    "labels": (
        "none",
        'Labels of the node, for example `{zone = "a"}`. Rollouts go zone by zone, and `balance.zones` prefers the own zone.',
    ),
    "roles": ("none", "Names of the [roles](#roles) of this node."),
    "peers": (
        "none",
        'The other entries, with the addresses of their node listeners: `{edge-2 = "10.0.0.2:7700"}`. This node '
        "shares the certificates and challenges of `[acme]` and the keys of TLS session tickets with them.",
    ),
    "engine": (
        '`"native"`',
        'The engine: `"native"`, `"haproxy"`, or a table with `kind`, `workers` and limits. A change of the kind needs '
        "a stop and a start of the node.",
    ),
    "engine.kind": ('`"native"`', 'The engine\'s kind: `"native"` or `"haproxy"`.'),
    "engine.workers": ("0: one per core", "Number of worker threads."),
    "haproxy.binary": ("`HAPROXY`, else `haproxy` on the PATH", "Path of the HAProxy program, version 2.6 or newer."),
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
    "hardening.refuse_encoded_paths": (
        "`public`",
        "A path with an encoded slash, backslash or NUL gets 400. A policy can permit the "
        "[encoded slash](../guide/balancing.md#encoded-slashes).",
    ),
    "hardening.drop_underscore_fields": ("`public`", "Header fields with `_` in the name are removed from requests."),
    "hardening.replace_request_ids": ("`public`", "`X-Request-Id` of a client is replaced."),
    "hardening.handshakes_per_address": (
        "`public`",
        "One client address has at most a quarter of the concurrent TLS handshakes (`limits.handshakes`).",
    ),
    "hardening.redirect_to_https": (
        "`public`",
        "A request on `listen.http` for a host that has a `[[site]]` gets 308 to the same URL with `https`. Paths below "
        "`/.well-known/acme-challenge/` are excepted.",
    ),
    "hardening.hsts_s": (
        "63072000 (two years) on a public node, else 0",
        "`Strict-Transport-Security: max-age=N` is added to responses over TLS that do not have this field. 0: not added.",
    ),
    "hardening.tls_min": (
        '`"1.2"`',
        "The oldest version of TLS on `listen.https`: `1.2` or `1.3`. Clients that only have an older one are refused.",
    ),
    "hardening.session_tickets": (
        "`true`",
        "Clients resume TLS sessions. `false`: each connection needs a full handshake, and no key on disk decrypts old traffic.",
    ),
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
    "limits.body_bytes": (
        "no limit; 104857600 on a public node",
        "Maximum size of a request body.",
    ),
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
    "site.redirect": (
        "none",
        "308 to another URL: one for the whole site, or a table of path prefixes with a URL each. The rest of the path "
        "and the query are appended. The longest prefix wins.",
    ),
    "site.security_headers": (
        "`false`",
        "Header fields that are added to responses without them: a table of names and values, or `true` for "
        "`X-Content-Type-Options: nosniff`, `X-Frame-Options: SAMEORIGIN` and `Referrer-Policy: "
        "strict-origin-when-cross-origin`.",
    ),
    "site.error_pages": (
        "none",
        "HTML files for the node's own error responses, by status: `{404 = "
        '"/etc/sdlb/404.html", 5xx = "/etc/sdlb/5xx.html"}`. At most 64 KiB each. Responses of endpoints are never replaced.',
    ),
    "site.acme": (
        "`false`",
        "The node orders the certificate from the CA of `[acme]` and renews it. `certificate` and `key` must be absent.",
    ),
    "site.dhe": (
        "`false`",
        'With `engine = "haproxy"`: the site also offers DHE-RSA with AEAD for TLS 1.2, with its own DH parameters (`sdlb tls dhparam`). '
        "Each handshake costs much CPU time, so `sdlb audit` warns.",
    ),
    "acme.directory": (
        "required",
        "The https URL of the CA's ACME directory. By setting it, you accept the CA's terms of service.",
    ),
    "acme.email": ("none", "The contact address that is given to the CA."),
    "acme.profile": ("the CA's default", 'The certificate profile, for example `"shortlived"`.'),
    "acme.challenge": (
        '`"tls-alpn-01"`',
        'How the node proves that it controls a host: `"tls-alpn-01"` (on `listen.https`), `"http-01"` (on `listen.http`) or `"dns-01"` '
        "(by `hook`). Wildcards need `dns-01`.",
    ),
    "acme.hook": (
        "required for `dns-01`",
        "The program that sets and removes DNS records, and its arguments: see [dns-01](#dns-01).",
    ),
    "acme.on_claim": (
        "none",
        'Hosts, for example `["*.customers.example.com"]`. A matching host gets its own certificate as soon as a claim '
        "for exactly that host is active.",
    ),
    "acme.ca_file": ("the system's CAs", "PEM file with the root CAs of the HTTPS server of a private CA."),
    "acme.eab": (
        "none",
        'For a CA that requires an external account: `{kid = "KID", hmac_key_file = "/etc/sdlb/eab.key"}`. The CA gives you both; '
        "the file has the HMAC key as base64url, with mode 0600. It is read only to create the ACME account.",
    ),
    "hook.command": ("required", "The absolute path of the program and its arguments, as a list. No shell reads it."),
    "hook.timeout_s": (
        "0: the gate's `timeout_s` only",
        "Maximum time of one attempt, in seconds. Then the program is killed, with its process group.",
    ),
    "hook.env": ("none", "Variables for its environment. `SDLB_...` is reserved."),
    "hook.cwd": ('`"/"`', "The folder in which it runs."),
    "source.url": (
        "required",
        "The URL of the Prometheus server, without `/api/...`. `https`, or `http` to a loopback or private address.",
    ),
    "source.token_file": ("none", "File with a bearer token. It is read for each block, so it can be rotated."),
    "source.timeout_s": ("5", "Time within which all queries of a block must be answered, up to 8 seconds."),
    "role.driver": (
        "required",
        'How the service is run: `"process"`, `"command"`, `"container"` or `"systemd"`. See [drivers](#drivers).',
    ),
    "role.routes": ("required", "The routes of the service."),
    "role.health": (
        "`tcp`",
        "The health check: `kind`, `path`, `interval_s`, `timeout_s`, `rise`, `fall`, `host` and `status`, as in the API.",
    ),
    "role.protocol": ('`"http1"`', 'What the program speaks: `"http1"` or `"h2c"`.'),
    "role.compatible": ("none", "Versions that may serve side by side with this one, as the program declares them."),
    "role.capacity": ("100", "Number of concurrent requests of one instance."),
    "role.port": ("0: a free one", "The port that the program listens on, on 127.0.0.1."),
    "role.env": ("none", "Variables for its environment. `SDLB_...` is reserved."),
    "role.start_timeout_s": ("30", "Time within which the program must be healthy after its start."),
    "role.side_by_side": ("`true`", "Whether two versions may run at the same time on this node."),
    "role.from": (
        "none",
        'Prefixes, each with a final `/`: `"https://repo.example/"`, `"/srv/releases/"`, `"oci:/srv/layouts/"`, '
        '`"docker://registry.example/team/"`. Artifacts are fetched from nowhere else.',
    ),
    "role.keys": ("none", "Files with minisign public keys. With them, an artifact without a signature is refused."),
    "role.artifact_mb_max": ("2048", "Maximum size of an artifact, in MiB. Unpacked, it may be four times as large."),
    "role.fetch_timeout_s": ("600", "Time within which an artifact must be fetched, or an image pulled."),
    "role.command": (
        "required for `process`",
        'The program and its arguments, as a list. No shell reads it. `"./..."` is inside the artifact. `{port}`, `{version}` and '
        "`{folder}` (the unpacked artifact) are replaced. For `container`: arguments in place of those of the image.",
    ),
    "role.user": (
        "the node's user, or the image's",
        "The user that the program runs as. `process` needs a node that runs as root. In a container also `UID` or `UID:GID`.",
    ),
    "role.memory_mb": ("0: no limit", "Maximum memory of the program and its children, in MiB."),
    "role.cpu": ("0: no limit", "Maximum number of CPUs, for example 0.5. Needs a delegated cgroup."),
    "role.cwd": ("the unpacked artifact", "The folder in which the program runs."),
    "role.stop_timeout_s": ("10", "Time from SIGTERM to SIGKILL."),
    "role.restart": (
        "`{first_s = 1, max_s = 60, stable_s = 60}`",
        "The pause before a restart: `first_s`, doubled each time up to `max_s`. After a run of `stable_s` it is `first_s` again.",
    ),
    "role.container_port": (
        "0: the same as outside",
        "The port that the program listens on inside its container. `PORT` and `{port}` have it.",
    ),
    "role.socket": (
        '`"/run/docker.sock"`',
        "The Unix socket of the container engine. Podman as root: `/run/podman/podman.sock`.",
    ),
    "role.log_bytes_max": ("10485760", "Maximum size of the program's log, in bytes. The older half is removed first."),
    "role.start": ("required for `command`", "The command that starts the service. Absolute path, then arguments."),
    "role.stop": ("required for `command`", "The command that stops it."),
    "role.state": ("required for `command`", "The command that exits with 0 if it runs and with 3 if it does not."),
    "role.prepare": ("none", "The command that prepares a version, before the one that runs is stopped."),
    "role.forget": ("none", "The command that removes what `prepare` has made."),
    "role.unit": (
        "required for `systemd`",
        'The template unit, for example `"catalog@.service"`. Its instance is the version.',
    ),
    "role.timeout_s": ("60", "Time for each of these commands, or for each start and stop of a unit."),
}
