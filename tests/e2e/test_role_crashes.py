"""A rollout goes on where it was when one of its processes is killed with -9, at each step that is on disk.

`make crashes` (SDLB_CRASHES=full) kills more: each kind of process on each host, whole nodes too, in rollouts of both kinds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sdlb.adapters.supervisor import processes
from tests.e2e import roles
from tests.e2e.acts import halted
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.load import Faults, Load
from tests.e2e.roles import SITE

IN_PLACE = ("draining", "stopping", "starting", "verifying")
BESIDE = ("starting", "verifying", "draining", "stopping")
STATES = ("preparing", "rolling", "cutting-over")
SHORT = {"1.0.2": ("control", "supervisor"), "2.5.1": ("owner",)}
FULL = {
    "1.0.2": ("control", "supervisor"),
    "1.0.3": ("supervisor", "control"),
    "1.0.4": ("node", "node"),
    "1.0.5": ("owner",),
    "2.5.1": ("owner",),
    "3.1.0": ("control", "supervisor"),
    "4.1.0": ("node", "control"),
}
ROUNDS = FULL if os.environ.get("SDLB_CRASHES") == "full" else SHORT
"""Version of a rollout -> what is killed at each of its steps: its owner, or on each host its control, the supervisors of its programs,
or the node with its engine."""
ENDS = ("done", "failed", "halted")
Step = Callable[[], tuple[str, str]]
"""The rollout that is recorded, and its step."""


def _program(folder: Path) -> str:
    """Some requests take their time, so that a drain does; so does the stop. Each start is a line of the file `starts`."""
    text = Faults(slow=0.2).program
    started = f'open({str(folder / "starts")!r}, "a").write(f"{{os.environ[\'PORT\']}} {{BODY.decode()}}\\n")\n'
    text = text.replace("asyncio.run(main())\n", f"{started}asyncio.run(main())\n")
    return text.replace("    await stop.wait()\n", "    await stop.wait()\n    await asyncio.sleep(0.3)\n")


def _saved(node: Node, key: str) -> dict[str, Any]:
    """The value that its state file has. Empty: there is none, or the node has been killed and does not run again yet."""
    try:
        with closing(sqlite3.connect(f"file:{node.folder}/state/state.db?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchall()
    except sqlite3.OperationalError:
        return {}
    return msgspec.json.decode(rows[0][0], type=dict[str, Any]) if rows else {}


def _step_of(host: Node) -> Step:
    def step() -> tuple[str, str]:
        found = _saved(host, "agent/web/catalog")
        return found.get("rollout", ""), found.get("phase", "")

    return step


def _state_of(edge: Node) -> Step:
    def step() -> tuple[str, str]:
        doc = _saved(edge, "doc/target/catalog")
        rollout: dict[str, str] = json.loads(doc["body"])["rollout"] if doc else {}
        return rollout.get("id", ""), rollout.get("state", "")

    return step


def _supervisors(host: Node) -> list[int]:
    """Of the programs of the role."""
    folder = f"{host.folder}/state/roles/web/catalog/"
    found: list[int] = []
    for pid in processes.table():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if any(word.endswith("supervisor/__main__.py") for word in words) and any(folder in word for word in words):
                found.append(pid)
    return found


class Killer(threading.Thread):
    """Kills at each of the steps of a rollout, in their order, as soon as it is recorded. `hits`: those at which it
    did."""

    def __init__(self, victim: str, rollout: str, step: Step, steps: Sequence[str], kill: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.victim = victim
        self.hits: list[str] = []
        self._rollout, self._step, self._steps, self._kill = rollout, step, steps, kill
        self.start()

    def run(self) -> None:
        for place, wanted in enumerate(self._steps):
            if self._wait((*self._steps[place:], *ENDS)) == wanted:  # else that step was over too soon
                self._kill()
                self.hits.append(wanted)

    def _wait(self, steps: Collection[str]) -> str:
        """Until one of these is recorded."""
        end, step = time.monotonic() + 60.0, ""
        while time.monotonic() < end and step not in steps:
            time.sleep(0.003)
            rollout, step = self._step()
            step = step if rollout == self._rollout else ""
        return step


def _kill(victim: str, node: Node) -> Callable[[], None]:
    def control() -> None:
        node.kill_control()
        node.start()

    def whole() -> None:
        node.kill()
        node.start()

    def supervisors() -> None:
        for pid in _supervisors(node):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    return {"control": control, "owner": control, "node": whole, "supervisor": supervisors}[victim]


def _killers(victims: Sequence[str], id: str, version: str, edge: Node, hosts: Sequence[Node]) -> list[Killer]:
    if victims == ("owner",):
        states = STATES if _is_beside(version) else STATES[:2]
        return [Killer("owner", id, _state_of(edge), states, _kill("owner", edge))]
    steps = BESIDE if _is_beside(version) else IN_PLACE
    return [
        Killer(victim, id, _step_of(host), steps, _kill(victim, host))
        for victim, host in zip(victims, hosts, strict=True)
    ]


def _is_beside(version: str) -> bool:
    """Incompatible with the one before."""
    return not version.startswith("1.")


def _done(edge: Node) -> bool:
    with edge.client() as client:
        return client.rollout("catalog").state == "done"


def _entries(edge: Node, id: str) -> list[dict[str, Any]]:
    with edge.client() as client:
        return [dict(entry) for entry in client.rollout_record(id).records[0].entries]


def _once(entries: list[dict[str, Any]], hosts: Sequence[Node], beside: bool) -> None:
    """Each state was recorded once, and each host had one slot."""
    states = [each["state"] for each in entries if each["kind"] in ("started", "state", "ended")]
    assert states == [*(STATES if beside else STATES[:2]), "done", "done"], states
    for kind in ("slot-granted", "slot-returned"):
        assert sorted(each["node"] for each in entries if each["kind"] == kind) == [host.name for host in hosts], (
            entries
        )


@pytest.mark.promise(3)
@pytest.mark.promise(8)
def test_a_rollout_survives_kills_at_each_recorded_step(cluster: Cluster) -> None:
    """Control of a host, the supervisors of its programs, and the owner of the rollout: each version is started once in each place,
    nothing is lost, and the record stays whole."""
    edge = cluster.node("edge", entry=True)
    hosts = [roles.host(cluster, f"host-{n}", [edge], stop_timeout_s=5.0) for n in (1, 2)]
    cluster.wait_ready()
    program = _program(cluster.folder)
    roles.deploy(hosts, "1.0.1", program, soak_s=0.2)
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")
    hits: set[tuple[str, str]] = set()
    with Load([edge], SITE, [("",)] * 4, rate=40.0) as load:
        for version, victims in ROUNDS.items():
            roles.add(edge, cluster.folder, version, program)
            with halted(hosts[0]):  # so that the rollout prepares for as long
                id = roles.start(edge, version, soak_s=0.5)
                killers = _killers(victims, id, version, edge, hosts)
                if victims == ("owner",):
                    until("the owner is killed", lambda k=killers[0]: k.hits)
            until(f"{version} is rolled out", lambda: _done(edge), 90.0)
            for each in killers:
                each.join(20)
                hits |= {(each.victim, step) for step in each.hits}
            for host in hosts:
                until(f"{version} alone at {host.name}", lambda host=host, v=version: roles.versions(host) == [v])
            until("its record has ended", lambda id=id: _entries(edge, id)[-1]["kind"] == "ended")
            assert roles.command(edge, "show", id, "--record")[0] == 0, "its chain is broken"
            _once(_entries(edge, id), hosts, _is_beside(version))
    lost = [each for each in load.replies if each.status != 200]
    assert not lost, (len(lost), lost[0], lost[-1])
    starts = Counter((cluster.folder / "starts").read_text().splitlines())  # by port and version
    assert set(starts.values()) == {1}, starts
    assert Counter(line.split()[1] for line in starts) == dict.fromkeys(["1.0.1", *ROUNDS], 2), starts
    wanted = {
        (victim, step)
        for victims in ROUNDS.values()
        for victim in victims
        for step in IN_PLACE[1:]
        if victim != "owner"
    }
    assert hits >= wanted | {("owner", state) for state in STATES}, hits  # a drain may be over too soon
