"""Every event code of a node: its levels, and what it means. docs/reference/events.md is generated from it."""

from __future__ import annotations

from msgspec import Struct


class EventText(Struct, frozen=True):
    """`levels`: the least severe first."""

    levels: tuple[str, ...]
    meaning: str


def _info(meaning: str) -> EventText:
    return EventText(("info",), meaning)


def _warning(meaning: str) -> EventText:
    return EventText(("warning",), meaning)


def _error(meaning: str) -> EventText:
    return EventText(("error",), meaning)


SECTIONS: dict[str, dict[str, EventText]] = {
    "Services and versions": {
        "active-set": _info("At a root: the set of active versions of a service changed."),
        "claim-active": _info("A version became active on a route."),
        "claim-waiting": EventText(
            ("info", "warning"),
            "A version waits on a route. The text has the reason. A warning when the reason does not end with a rollout.",
        ),
        "claim-refused": EventText(
            ("info", "warning"), "A version was refused on a route, mostly because another service holds the route."
        ),
        "service-lost": _error("At a root: a service has had no ready instance for 3 s."),
        "service-back": _info("At a root: a lost service has a ready instance again."),
        "service-gone": _warning("At a root: no claim of a service is left."),
        "policy-set": _info("A policy was changed. The text names the changed settings."),
        "policy-unreadable": _error("A policy of another release cannot be read. It is passed on unread."),
        "doc-learnt": _info("A root adopted a policy that most of its children reported."),
        "doc-refused": _error("A policy was not accepted, because the node holds the maximum number of policies."),
        "generation-doubted": _warning(
            "At a root: a newer generation was reported by too few nodes. The root keeps its record under a higher generation."
        ),
        "gate-opened": _info("At the conductor: a gate of a waiting version opened."),
        "gate-approved": _info("At the conductor: a person or pipeline approved a gate."),
        "gate-refused": _error("At the conductor: a hook refused a version. It waits until it is promoted."),
        "gate-timeout": _error(
            "At the conductor: a gate was not open in time. The version waits until it is promoted."
        ),
        "cutover-closing": _info("At the conductor: a flip began. New requests are parked and the old version drains."),
        "cutover-gap": _info(
            "At the conductor: nothing of the old version is in flight. Gates in the gap are evaluated."
        ),
        "cutover-opened": _info("At the conductor: the new version opens. From now on nothing is reverted."),
        "cutover-reverted": _error("At the conductor: a cut-over was reverted. The old version may serve again."),
        "cutover-stuck": _error(
            "At the conductor: a cut-over failed and cannot be reverted: a hook with `back = false` was called, or there is no "
            "version to return to."
        ),
        "cutover-undone": _error(
            "At the conductor: a gate failed after a flip. The replaced version is promoted again."
        ),
        "version-promoted": _info("At the conductor: an operator promoted a waiting version."),
        "route-transferred": _info("At a root: an operator gave a route to another service."),
        "release-added": _info("At a root: a release was added, got another platform, or is available again."),
        "release-withdrawn": _info("At a root: a release was withdrawn. No rollout to it can start."),
        "zone-unknown": _warning("The time zone of a gate cannot be loaded. Its window counts as UTC."),
        "following": _warning("A root cannot write its decisions and follows the decisions of the other roots."),
    },
    "Rollouts": {
        "step-reached": _info(
            "At the owner: the nodes of a step of a canary have the new version, or all steps are over."
        ),
        "analysis": EventText(
            ("info", "error"),
            "At the owner: the analysis of a step has a result, with its numbers. An error when it failed.",
        ),
        "rollout-state": EventText(
            ("info", "error"), "At the owner: a rollout began, or has another state. An error when it is halted."
        ),
        "rollout-recorded": _info(
            "At a root: its record of a rollout is complete. The text has the SHA-256 of the last entry, by which later changes are found."
        ),
        "record-torn": _error(
            "At a root: the last entry of a record of a rollout cannot be read. It was set aside, and the record goes on without it."
        ),
        "capacity-held": _warning(
            "At the owner: a rollout updates no node now. The text has the reason. It continues when the reason is gone."
        ),
        "auto-held": _warning(
            "At the first root by name: a release does not start automatically (`auto` in the policy). The text has the reason. It starts "
            "when the reason is gone."
        ),
        "slot-granted": _info(
            "A node may take capacity of a service out for a rollout. Also logged by the owner of the rollout."
        ),
        "node-updated": _info(
            "A node has the version that it shall have, and it is healthy. It serves, or waits for the cut-over."
        ),
        "node-failed": _error(
            "A version failed on a node: it could not be fetched or started, or did not become or stay healthy. The node goes back to "
            "the version that it had."
        ),
        "node-reverted": _warning("A node runs the version again that it had before a step that failed."),
    },
    "Instances": {
        "role-removed": EventText(
            ("warning", "error"),
            "A service of a role is no longer in the node file. Its instance is drained and its program is stopped. An error when that "
            "fails; it is repeated.",
        ),
        "version-fetched": _info("The artifact of a version of a role is on this node and verified."),
        "version-started": _info("The node has started a version of a role. Whether it is healthy is not known yet."),
        "version-stopped": _info("The node has stopped a version of a role. No process of it is left."),
        "instance-registered": _info("An instance was registered."),
        "instance-replaced": _info("An instance was registered again with another version, route or endpoint."),
        "instance-superseded": _warning(
            "Another program listens on the endpoint of an instance. The instance gets no new requests."
        ),
        "instance-healthy": _info("The health check of an instance passes."),
        "instance-unhealthy": _warning("The health check of an instance fails. It gets no new requests."),
        "instance-never-healthy": _warning("An instance was not healthy within 10 s of its registration."),
        "instance-draining": _info("An instance is draining."),
        "instance-drained": _info("An instance is drained: no request is in flight to it anywhere."),
        "instance-removed": EventText(
            ("info", "warning"), "An instance was removed. A warning when its drain timed out."
        ),
        "instance-lapsed": _warning("An instance was not renewed within its lease. It gets no new requests."),
        "instance-presumed-stopped": _warning("An instance that was not renewed is presumed to have stopped."),
        "instance-gone": _warning("The process of an instance has exited. The instance was removed."),
        "drain-slow": _warning(
            "A drain by `drain` of the policy is not complete at its deadline: of an instance, or of a version that was recalled. "
            "The text has what is in flight, and whether it is cut off. Repeated each minute."
        ),
        "drain-deadline": _warning("The drain of an instance timed out with requests in flight."),
        "owner-conflict": _warning(
            "A registration was refused, because another running process has registered the id."
        ),
    },
    "The tree": {
        "parent-connected": _info("The node is connected to a parent."),
        "parent-disconnected": _info("The connection to a parent broke. The node reconnects."),
        "parent-silent": _warning("A parent has been silent for its lease."),
        "parent-twice": _warning("Two configured parents are addresses of one node."),
        "parent-cloned": _error("Two configured parents run with one identity: a copied state folder."),
        "child-connected": _info("A child connected."),
        "child-disconnected": _info("The connection of a child broke. Its lease still runs."),
        "child-left": _info("A child stopped as planned."),
        "child-silent": _warning("A child has been silent for its lease. It gets requests only as a last resort."),
        "child-presumed-stopped": _warning(
            "A child was silent for the lease and the fence, and is presumed to have stopped."
        ),
        "child-refused": EventText(
            ("info", "warning"),
            "A node was refused as a child. The text has the reason. Information while its old link is still connected.",
        ),
        "child-forgotten": _warning("An operator removed a silent child."),
        "cycle": _error("A parent is a descendant of the node. Change the parents of one of them."),
        "refused-protocol": _error("A parent refused the node: their releases are not compatible."),
        "refused-cycle": _error("A parent refused the node: the node is an ancestor of it."),
        "refused-bad-hello": _error("A parent refused the node: its name or advertised address is invalid."),
        "refused-name-taken": _error("A parent refused the node: another node has the same name."),
        "refused-older-incarnation": _error("A parent refused the node: it knows a later incarnation of it."),
        "refused-cloned": _error("A parent refused the node: another node runs with the same identity."),
        "guarded": _error("Most children or instances fell silent together. The node keeps what it has."),
        "guard-lifted": _info("Enough children are connected again. Leases count as usual."),
        "protocol": EventText(("warning", "error"), "A node sent an invalid message. The link was closed."),
        "link-gap": _warning("A message of a link was lost. The link starts over."),
        "link-slow": _warning("A child does not read from its link. The link was closed."),
        "too-many-links": _error("A child link was refused, because too many links are open."),
        "impostor": _error("A child's certificate does not name the node that it claims to be. The link was closed."),
        "insecure-link": _warning("A link between nodes is unencrypted."),
    },
    "The engine": {
        "engine-lost": _warning("Control lost the connection to its engine. The engine keeps serving."),
        "engine-restarting": _error("The engine process is gone. Control starts a new one."),
        "engine-failed": _error("The engine could not be started. Control retries."),
        "engine-kept": _warning(
            "The engine has routes that control does not know. They are kept for one lease, at least 10 s."
        ),
        "engine-hangs": _error("The engine does not answer control. It keeps serving, but no change takes effect."),
        "engine-answers": _info("The engine answers control again."),
        "engine-slow": _error("The engine does not read from control. Control reconnects."),
        "engine-protocol": _error("The engine sent an invalid message. Control reconnects."),
        "engine-config": _error("The engine refused its configuration."),
        "engine-rejected": _error("The engine refused a route table. It is sent anew."),
        "engine-stalled": _warning("A worker thread of the engine was blocked."),
        "engine-memory-high": _warning("Memory pressure: over 65 % of the limit is in use."),
        "engine-memory-full": _warning(
            "Memory pressure: over 80 % of the limit is in use. The largest requests are cancelled."
        ),
        "engine-upgraded": _info("A hot restart replaced the engine."),
        "engine-degraded": EventText(
            ("info", "warning"),
            "The node's settings (info) or the policy of a service (warning) ask for something that the engine does not have.",
        ),
        "engine-command": _warning("HAProxy refused a command. Its files are loaded again."),
        "engine-ended": _info("The previous engine has drained and exited."),
        "clients-left": _warning("Client connections were still open at the drain deadline."),
        "target-ejected": _warning("Passive health ejected an endpoint."),
        "target-back": _info("An ejected endpoint gets requests again."),
    },
    "Certificates": {
        "certificate-changed": _info("A site serves a new certificate."),
        "certificate-issued": _info("A site has its first certificate from the CA of `[acme]`."),
        "certificate-renewed": _info("A site has a new certificate from the CA of `[acme]`."),
        "certificate-revoked": _warning("An operator revoked the certificate of a site. Another one is ordered."),
        "certificate-failed": _error(
            "No certificate was issued for a site. It keeps what it has, and the order is retried."
        ),
        "peer-lost": _warning(
            "Another entry of `[peers]` cannot be reached, or refuses calls. Certificates and ticket keys are not shared with it."
        ),
        "peer-back": _info("Another entry of `[peers]` can be reached again."),
        "certificate-readable": _info("The files of a site can be read again and are unchanged."),
        "certificate-unreadable": _error(
            "The files of a site cannot be used. The site keeps its previous certificate."
        ),
        "certificate-refused": _error(
            "The certificate of a site was refused. The site keeps its previous certificate."
        ),
        "certificate-warning": _warning(
            "The certificate of a site is used although it does not name one of its hosts, or is not valid at this time."
        ),
        "certificate-ends": _warning(
            "Less than a third of the lifetime of a site's certificate is left. Reported again below a tenth."
        ),
        "certificate-ended": _error("The certificate of a site has expired."),
        "identity-changed": _info("The node's own certificate was renewed."),
        "identity-unreadable": _error(
            "The files of the node's own certificate cannot be used. The old one stays in use."
        ),
        "identity-refused": _error("The engine refused the node's own certificate. The old one stays in use."),
        "identity-warning": _warning("The node's own certificate is unusual."),
        "identity-ends": _warning(
            "Less than a third of the lifetime of the node's own certificate is left. Reported again below a tenth."
        ),
        "identity-ended": _error("The node's own certificate has expired. Other nodes refuse new links."),
        "key-file-exposed": _warning("Other users can read a private key, or its group can write it."),
        "ticket-keys-lost": _warning(
            "The keys of TLS session tickets were unusable. Clients do one more full handshake."
        ),
        "ticket-keys-not-written": _warning("The keys of TLS session tickets cannot be written to disk."),
    },
    "The node itself": {
        "node-started": _info("Control started."),
        "node-stopping": _info("Control exits after SIGTERM. The text has whether it is drained."),
        "stopping": _info("The node is draining."),
        "stalled": _warning("Control did not run for a while. Leases were extended by that time."),
        "restored": _warning("The state folder is an older copy. What was active must be confirmed by parents."),
        "control-restarting": _info("Control restarts. Its engine keeps serving."),
        "config-changed": _info("The node file was reloaded. The text names the changed settings."),
        "config-kept": _info("The node file was reloaded without a change."),
        "config-needs-restart": _warning("The node file has changes that take effect after `sdlb node restart`."),
        "config-refused": _error("The node file has an error. The current settings stay."),
        "state-not-written": _error("The state cannot be written to disk."),
        "state-written": _info("The state can be written to disk again."),
        "decisions-wait": _error("Decisions wait until the disk can be written. Traffic is served as before."),
        "state-set-aside": _error("The state file was not usable. It was renamed and the node started without it."),
        "log-blocked": _warning("The log on stderr is not read. Log lines are dropped."),
        "log-lines-dropped": _warning("In the log only: the number of dropped lines, once the log is read again."),
        "internal-error": _error("An internal error of control, with its traceback."),
    },
}
EVENTS: dict[str, EventText] = {code: each for section in SECTIONS.values() for code, each in section.items()}
