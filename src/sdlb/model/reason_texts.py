"""Every reason code of instances, versions, routes, claims and sites. docs/reference/codes.md is generated from it."""

from __future__ import annotations

REASONS: dict[str, str] = {
    "still-running": "An incompatible version is active.",
    "closing": "A recalled version has requests in flight, or has not confirmed that it gets no new requests.",
    "settling": "A root has just started. Not all nodes that had an active version have reported yet.",
    "presumed-stopped": "The nodes of an incompatible version are silent, and the policy is `on_silence = wait`.",
    "newer-generation": "A newer generation was reported, and no node that serves it has reported yet.",
    "contested": "Another version claimed first and is about to become active.",
    "incompatible": "Policy or declarations changed: the version is no longer compatible with an active one.",
    "on-hold": "The policy's `hold` names the version.",
    "pinned": "The policy's `pin` allows other versions only.",
    "below-floor": "The version sorts below the policy's `never_below`.",
    "gate": "A gate of the policy is not open.",
    "cutting-over": "A cut-over to the named version is in progress.",
    "not-ready": "A flip does not begin: too little capacity is ready, or the version was active earlier and is not promoted.",
    "reverted": "A cut-over to the version was reverted. It waits until an operator promotes the version.",
    "route-conflict": "Another service holds the route. The state is `refused`.",
    "asking": "A parent has not answered yet.",
    "no-parent": "The node is cut off: no root can be reached. Nothing new becomes active.",
    "unconfirmed": "The version was active before the node restarted. No parent has confirmed it yet.",
    "replacing": "The former registration of the instance is incompatible and still drains.",
    "opening": "Instances: the engine has not confirmed the route yet.",
    "lapsed": "Instances: it was not renewed within `ttl_s`.",
    "unhealthy": "Instances: the health check fails.",
    "superseded": "Instances: another program listens on the endpoint. It gets no requests until it registers again.",
    "nothing-ready": "Versions: the version is active, but no instance is ready. `reason` names hosts and one cause.",
    "certificate-unreadable": "Sites: the files cannot be used.",
    "certificate-refused": "Sites: the engine refused the certificate.",
    "certificate-not-issued": "Sites: no certificate was issued yet. `reason` names the failure and the next attempt.",
}
