"""Entries that know each other (`[peers]`) resume each other's TLS sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Authority, needs_openssl
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.test_https import s_client, table

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_a_session_of_one_entry_is_resumed_at_another_and_at_no_other_site(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    sites = [
        table(str(authority.issue(host).write(tmp_path / f"{host}.pem")), host) for host in ("a.example", "b.example")
    ]
    nodes: list[Node] = []
    for name in ("edge-1", "edge-2", "edge-3"):
        listen = {"https": f"127.0.0.1:{cluster.ports.take()}"}
        nodes.append(cluster.node(name, entry=True, start=False, listen=listen))
    one, two, stranger = nodes
    for node in nodes:
        node.settings[""]["site"] = sites
    one.settings["peers"] = {"edge-2": two.address}
    two.settings["peers"] = {"edge-1": one.address}
    for node in nodes:
        node.start()
    cluster.wait_ready()
    session = tmp_path / "session"

    def resumed(at: Node, host: str = "a.example") -> bool:
        assert "New, TLSv1" in s_client(one, "a.example", "-tls1_2", "-sess_out", session).stdout
        return "Reused, TLSv1" in s_client(at, host, "-tls1_2", "-sess_in", session).stdout

    until("edge-2 has the keys of edge-1", lambda: resumed(two), 20.0)
    assert not resumed(two, "b.example"), "a ticket is good for its own site only"
    assert not resumed(stranger), "edge-3 is no peer"

    def keys(node: Node) -> str:
        return (Path(str(node.settings[""]["state_dir"])) / "ticket-keys").read_text()

    until("both entries keep the same keys", lambda: keys(one) == keys(two), 20.0)
