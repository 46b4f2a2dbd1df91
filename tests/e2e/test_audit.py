"""`sdlb audit` on a running node: exactly the faults made on purpose fail, and their fixes make it pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.cluster import Cluster
from tests.made_certificates import make

SHARES = """
import socket, sys
made = socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=True)
print(flush=True)
sys.stdin.read()
"""


def test_exactly_what_is_wrong_fails(cluster: Cluster, tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.write_text(make("b.example").pem)
    pem.chmod(0o644)
    ports = [cluster.ports.take() for _ in range(3)]
    listen: dict[str, object] = {
        "https": f"127.0.0.1:{ports[0]}",
        "metrics": f"0.0.0.0:{ports[1]}",
        "node": f"0.0.0.0:{ports[2]}",
    }
    node = cluster.node("edge-1", entry=True, start=False, listen=listen)
    node.settings[""]["site"] = [{"hosts": ["a.example"], "certificate": str(pem)}]
    node.start()
    node.wait_ready()
    port = node.http.rpartition(":")[2]
    with subprocess.Popen([sys.executable, "-c", SHARES, port], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.read(1)
        done = cluster.sdlb("audit", "--json", node=node)
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stdout)
        failed = {each["check"]: each for each in told["checks"] if each["result"] == "fail"}
        assert set(failed) == {"key-files", "private-listeners", "shared-ports", "certificates", "node-links"}
        assert told["failed"] and told["summary"]["fail"] == 5
        assert failed["key-files"]["fix"] == f"chmod 600 {pem}"
        assert failed["private-listeners"]["fix"] == f'metrics = "127.0.0.1:{ports[1]}"'
        assert failed["shared-ports"]["fix"] == f"kill {other.pid}"
        assert "does not name a.example" in failed["certificates"]["seen"]
        assert "[identity]" in failed["node-links"]["fix"]
        text = cluster.sdlb("audit", node=node).stdout
        assert f"      fix: chmod 600 {pem}\n" in text and "edge-1: 5 failed, " in text
        assert cluster.sdlb("audit", "--config", str(node.config)).returncode == 1
        other.kill()
    pem.write_text(make("a.example").pem)
    pem.chmod(0o600)
    node.settings["listen"].update(metrics=f"127.0.0.1:{ports[1]}", node=f"127.0.0.1:{ports[2]}")
    assert node.stop() == 0
    node.start()
    node.wait_ready()
    fixed = cluster.sdlb("audit", "--json", node=node)
    assert fixed.returncode == 0, fixed.stdout
    told = json.loads(fixed.stdout)
    warned = {each["check"] for each in told["checks"] if each["result"] == "warn"}
    assert warned == {"node-links"} | ({"user"} if os.geteuid() == 0 else set())


def test_without_a_node_or_a_valid_file_there_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.sdlb("audit", "--socket", str(tmp_path / "none.sock"))
    assert done.returncode == 1
    assert done.stderr.endswith("none.sock: no node answers there; start it, or name its node file with --config\n")
    (tmp_path / "node.toml").write_text("nonsense = 1\n")
    done = cluster.sdlb("audit", "--config", str(tmp_path / "node.toml"))
    assert done.returncode == 1 and "nonsense" in done.stderr
    assert cluster.sdlb("audit", "--nothing").returncode == 2
