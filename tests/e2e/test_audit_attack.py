"""`sdlb audit --attack` on a node under load: everything is withstood, no request of a client is lost, and nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sdlb.node.audit import attack_rows as rows
from sdlb.node.audit.endpoint_rows import ENDPOINTS
from sdlb.node.audit.slow_rows import SLOW
from tests.certificates import needs_openssl
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster
from tests.e2e.traffic import Traffic
from tests.made_certificates import make


@needs_openssl
def test_it_attacks_itself_and_leaves_nothing(
    cluster: Cluster, backend: Callable[..., Backend], tmp_path: Path
) -> None:
    pem = tmp_path / "a.pem"
    pem.touch(mode=0o600)
    pem.write_text(make("a.example").pem)
    node = cluster.node(
        "edge-1", entry=True, public=True, start=False, listen={"https": f"127.0.0.1:{cluster.ports.take()}"}
    )
    node.settings[""]["site"] = [{"hosts": ["a.example"], "certificate": str(pem)}]
    node.start()
    node.wait_ready()
    cluster.register(node, "web-1.0.0", "b.example", backend("web", "1.0.0"))
    cluster.reachable([node], "http://b.example/", "web-1.0.0")
    with Traffic([node], "b.example") as traffic:
        done = cluster.sdlb("audit", "--attack", "--json", node=node, timeout_s=240)
        traffic.wait_for(1)
    traffic.assert_nothing_lost()
    told = json.loads(done.stdout)
    failed = [each for each in told["checks"] if each["result"] == "fail"]
    assert (done.returncode, failed) == (0, []), done.stderr
    played = [each["setting"] for each in told["checks"] if each["check"] == "attacks"]
    assert not any("not spoken" in each["seen"] or "not played" in each["seen"] for each in told["checks"])
    for listener in ("listen.http", "listen.https"):
        here = [each for each in played if each.startswith(f"{listener}: ")]
        assert len(here) >= len(rows.FRAMING) + len(rows.FORGED) + len(rows.HTTP2_HEADS) + 8
        assert sum(": misbehaving endpoints: " in each for each in here) == len(ENDPOINTS)
        slow = [row for row in SLOW if listener == "listen.https" or not row.tls]
        assert sum(": slow clients: " in each for each in here) == len(slow) + 1
    assert sum(each.startswith("listen.https: TLS: ") for each in played) == len(rows.HELLOS)
    with node.client() as client:
        assert [each.route for each in client.routes().routes] == ["b.example/*"]
        assert [each.service for each in client.instances()] == ["web"]
        assert [each.name for each in client.services().services] == ["web"]
