"""Hosts that run a role, and rollouts by the API."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sdlb.adapters.supervisor import files, processes
from sdlb.cli.app import execute
from tests.e2e.cluster import Cluster, Node, api, until
from tests.releases import COMMAND, release

SITE = "catalog.example"
QUICK: dict[str, object] = {"soak_s": 1.0}
"""Settings of a rollout for tests."""


def host(cluster: Cluster, name: str, parents: Sequence[Node], **more: object) -> Node:
    """A node with the role web, which has the service catalog. `more`: keys of its table, None: without this key."""
    table: dict[str, object] = {
        "driver": "process",
        "routes": [SITE],
        "command": list(COMMAND),
        "health": {"kind": "http", "path": "/health", "interval_s": 0.25},
        "from": [f"{cluster.folder}/"],
        "restart": {"first_s": 0.1, "max_s": 1.0},
        **more,
    }
    table = {key: value for key, value in table.items() if value is not None}
    node = cluster.node(name, parents, start=False, **{"role.web.catalog": table})
    node.settings[""]["roles"] = ["web"]
    node.start()
    return node


def post(node: Node, path: str, body: object, status: int = 200) -> Any:
    with api(node) as http:
        answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def add(node: Node, folder: Path, version: str, program: str = "") -> str:
    """Adds the release; returns the digest of its artifact."""
    body = release(folder, version, program)
    post(node, "/v1/releases", body)
    return body["artifact"]["any"]["sha256"]


def rollout(node: Node, service: str = "catalog") -> dict[str, Any]:
    with api(node) as http:
        answer = http.get(f"/v1/rollouts/{service}")
    assert answer.status_code == 200, answer.text
    return answer.json()["rollout"]


def start(node: Node, version: str, **fields: object) -> str:
    """Starts a rollout; returns its id."""
    done = post(node, "/v1/rollouts", {"service": "catalog", "version": version, **QUICK, **fields})
    return done["rollout"]["id"]


def wait(node: Node, state: str = "done", timeout_s: float = 60.0) -> dict[str, Any]:
    """Until the last rollout is in this state."""
    until(f"the rollout is {state}", lambda: rollout(node)["state"] == state, timeout_s)
    return rollout(node)


def versions(node: Node) -> list[str]:
    """Of its instances."""
    with node.client() as client:
        return [each.version for each in client.instances()]


def program(node: Node, slot: str = "a") -> int:
    """The process id of what runs in the slot; 0: nothing."""
    state = files.read(str(node.folder / "state/roles/web/catalog" / slot), "state.json", files.State)
    return state.pid if state is not None else 0


def deploy(nodes: Iterable[Node], version: str, program: str = "", **fields: object) -> None:
    """The first version of all: added and started at the first of the nodes."""
    hosts = list(nodes)
    add(hosts[0], hosts[0].folder.parent, version, program)
    start(hosts[0], version, **fields)
    wait(hosts[0])
    for each in hosts:
        until(f"{version} alone at {each.name}", lambda each=each: versions(each) == [version])


def events(node: Node, *codes: str) -> list[tuple[str, str]]:
    """Time and text of its events with these codes, the oldest first."""
    with node.client() as client:
        return [(each.at, each.text) for each in client.events(follow=False) if each.code in codes]


def command(node: Node, *words: str) -> tuple[int, list[str]]:
    """Runs `sdlb rollout` in this process, which is faster for many calls. Returns the exit code and the lines of both outputs."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = execute(["rollout", *words, "--socket", node.socket])
    return code, output.getvalue().splitlines()


def policy(node: Node) -> str:
    """As its JSON text."""
    with api(node) as http:
        return http.get("/v1/policies").text


def processes_whose(words: Callable[[list[str]], bool]) -> list[int]:
    """Ids of the processes whose command line, word by word, is as wanted."""
    found: list[int] = []
    for pid in processes.table():
        with contextlib.suppress(OSError):  # it has exited meanwhile
            if words(Path(f"/proc/{pid}/cmdline").read_text().split("\0")):
                found.append(pid)
    return found
