"""What each setting of a policy means, by its key. docs/reference/policy.md is generated from it."""

from __future__ import annotations

SETTINGS: dict[str, str] = {
    "priority": "Which active version gets requests: all by capacity (`even`), the highest or the lowest version first and the "
    "next one when it is full (`higher`, `lower`), or by percentages (`share`).",
    "shares": "Percent of the requests by version, for `priority = share`. Together 100 at most; the other versions get the rest.",
    "sticky": "A client stays on the version that it first got: by the value of a cookie or header, by its address, or for its session.",
    "sticky.by": "What identifies a client. `session`: the entry sets a cookie; the session stays on its version while that is "
    "active, whatever the shares are.",
    "sticky.name": "Name of the cookie or header. For `session` it may be left out: `sdlb-SERVICE`.",
    "compatibility.scheme": "How versions are read: numbers with dots (`numeric`), semantic versions (`semver`) or any text (`opaque`).",
    "compatibility.rule": "Compatible versions differ in the last part only (`patch`), have an equal first part (`minor`), "
    "are equal (`exact`), or are any two (`any`).",
    "compatibility.ranges": "Versions inside one of these ranges are compatible, for example `>=1.0,<1.2`.",
    "compatibility.allow": "Pairs of versions that are compatible, whatever the rule is.",
    "compatibility.deny": "Pairs of versions that are incompatible, whatever the rule is.",
    "on_silence": "When the hosts of an incompatible version are silent: activate the waiting version after the fence time "
    "(`open`), or wait for them (`wait`).",
    "park.requests_max": "Maximum number of parked requests at each entry.",
    "park.timeout_s": "Timeout of a parked request; 0: requests are not parked.",
    "drain.deadline_s": "How long requests in flight may take when an instance leaves or its version is recalled: in rollouts and "
    "cut-overs, and in calls without a deadline of their own.",
    "drain.then": "At the deadline the event `drain-slow` reports what is in flight. Then the drain goes on (`wait`), or the requests "
    "are cut off (`cut`).",
    "drain.streams_s": "Streams end after this time, also with `wait`: upgraded connections (WebSocket), gRPC calls and server-sent "
    "events; 0: only as other requests do.",
    "cut_over": "How an incompatible version replaces the active ones: after their last instance has stopped (`stopped`), or as "
    "soon as it is ready and its gates are open; the others are drained first (`flip`).",
    "max_unavailable": "Capacity that a planned action may take away: a percentage, or a number of instances.",
    "gate": "Conditions that must hold before a version turns active: [gates](#gates).",
    "hold": "Versions and ranges that must not turn active; `*`: every version that was not active in this generation.",
    "pin": "Only versions that match one of these versions and ranges may turn active; none: all versions may.",
    "never_below": "Versions below this one must not turn active, for example because a migration cannot be undone.",
    "auto": "`compatible`: a release that is newer than what the service has, and compatible with it, is rolled out as soon as it is "
    "added, unless `hold`, `pin` or `never_below` keep it out. A version with an aborted, halted or undone rollout does not start "
    "automatically again.",
    "rollout.side_by_side": "When both versions may run on a node at once: for incompatible versions (`incompatible`), `always` or "
    "`never`. These settings count for rollouts that start from then on; those of the rollout file, of the options and of the "
    "API come first.",
    "rollout.first": "Number of nodes that are updated alone before any other.",
    "rollout.soak_s": "How long a new instance has to be healthy.",
    "rollout.failures_max": "Number of failed nodes beyond which a rollout halts.",
    "rollout.progress_s": "How long a node may take to become healthy.",
    "rollout.nodes_out_max": "Nodes of the tree that may be out at once, for all rollouts: a percentage or a number.",
    "rollout.drain_s": "How long an instance may drain in a rollout; then its requests are cut off. Not set: as `drain` has it.",
    "rollout.step": "Steps of a [canary](../guide/canary.md), as in a rollout file. A rollout file with `step = []` "
    "starts a rollout without steps.",
    "rollout.analysis": "The analysis of each step, as in a rollout file. It has no effect on a rollout without steps. An analysis in a "
    "rollout file replaces all of it.",
    "balance.algorithm": "The load balancing algorithm among the endpoints of a version.",
    "balance.hash_by": "The value that `hash` uses.",
    "balance.hash_name": "Name of the header or cookie for `hash`.",
    "balance.hash_load": "For `hash`: an endpoint gets at most this factor of its fair share of the requests in flight.",
    "balance.slow_start_s": "Time in which a new or returning endpoint reaches its full share; 0: immediately.",
    "balance.zones": "`prefer`: endpoints in the node's own zone first, others when these lack capacity.",
    "outlier.success_deviations": "Outlier ejection of endpoints with a success rate this many standard deviations below the "
    "mean; 0: off.",
    "outlier.latency_factor": "Outlier ejection of endpoints with a latency of more than this factor of the median; 0: off.",
    "outlier.ejected_percent_max": "Maximum percentage of endpoints that outlier ejection removes at once.",
    "outlier.interval_s": "Interval between comparisons.",
    "outlier.requests_min": "Endpoints with fewer requests in an interval are not compared.",
    "limits.in_flight": "Requests of the service in flight at each entry; 0: no limit.",
    "limits.endpoint_in_flight": "Requests in flight from each engine to each instance; 0: no limit.",
    "limits.endpoint_connections": "Connections from each engine to each instance or child node, where a connection carries "
    "one request at a time; 0: no limit.",
    "limits.pending": "Requests that may queue for capacity; 0: none, they are refused with 503.",
    "limits.pending_timeout_s": "Timeout in that queue.",
    "limits.adaptive": "The limit on requests in flight follows the latency.",
    "limits.body_bytes": "Maximum size of a request body, in place of `limits.body_bytes` of the node file; 0: the limit of the node file.",
    "timeout_s": "Timeout from the first attempt to the head of the response; 0: only that of the node file.",
    "try_timeout_s": "Timeout of one attempt that can be retried; 0: none.",
    "retries_max": "Maximum number of retries, as far as the retry budget permits; -1: no maximum.",
    "hedge_s": "An idempotent request without a response after this time is also sent to a second endpoint; 0: off.",
    "path.encoded_slash": "A path with `%2F` is refused on public nodes (`refuse`), or passed on unchanged (`keep`).",
    "proxy_protocol": "A PROXY protocol header of this version precedes each request to an instance.",
}
GATES: dict[str, str] = {
    "name": "Name of the gate, unique in the policy; `sdlb status` shows it.",
    "kind": "The condition; the other rows of this table.",
    "at": "When it is evaluated: while the old version serves (`before`), while requests are parked and neither version is "
    "active (`gap`), or once the new version serves (`after`; if it fails, a flip returns to the old version).",
    "for": "Versions that it applies to: those that replace an incompatible one (`incompatible`), or all (`every`).",
    "timeout_s": "Timeout of the gate; 0: none.",
    "on_timeout": "At the timeout, the version keeps waiting (`hold`), or the cut-over or rollout is undone too (`abort`).",
    "min_ready.instances": "Number of instances of the version that have to be healthy; 0: any number.",
    "min_ready.percent": "Its healthy capacity is this percentage of the capacity of the versions that it replaces; 0: any.",
    "soak.healthy_s": "All its instances have been healthy for this time.",
    "window.days": "The days of the week: `mon` to `sun`.",
    "window.hours": "The hours of the day. A window that ends before it starts goes past midnight.",
    "window.zone": "The time zone, for example `Europe/Berlin`.",
    "depends_on.service": "Another service. A cycle of services is refused.",
    "depends_on.version": "The version or range of that service of which a version must be active.",
    "approval.by": "The people and pipelines that may approve.",
    "approval.count": "How many of them must approve.",
    "hook.run": "Name of a program in the node files of the roots. Exit code 0: open; 75: not yet; another: no.",
    "hook.url": "A URL instead of a program. 2xx: open; 202: not yet; 4xx: no; anything else is retried until the timeout.",
    "hook.back": "`false`: after the first attempt the old version must not serve again.",
}
"""What each key of a gate means: the common keys, then those of each kind."""
