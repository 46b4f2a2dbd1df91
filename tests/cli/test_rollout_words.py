"""`sdlb release`, `rollout` and `role`: how they read, on a real root whose nodes are reports, and what is wrong usage."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sdlb.cli import out
from sdlb.cli.role import failures, row, tree_row
from sdlb.cli.rollout_orders import plan_lines
from sdlb.cli.rollout_status import block, clock, left, progress
from sdlb.model.problem import Invalid
from sdlb.node.release_file import read_rollout_file
from sdlb.sdk.rollout_types import (
    Agent,
    AgentRole,
    AgentSlot,
    Rollout,
    RolloutAnalysis,
    RolloutCapacity,
    RolloutNodes,
    RolloutPart,
    RolloutPlan,
    RolloutSlot,
    RolloutStep,
    TreeRole,
)
from sdlb.sdk.types import Candidate, GateProgress, Opening
from tests.node import rollout_acts as acts
from tests.node.lone import Lone, lone

ME = getpass.getuser()
NOW = 1_700_000_000.0
ROLLOUT = Rollout(
    service="catalog",
    id="r-17",
    state="rolling",
    before="1.0.1",
    to="1.0.2",
    by="ann",
    started=NOW - 600,
    nodes=RolloutNodes(all=12, done=3, out=1, prepared=12),
    capacity=RolloutCapacity(ready=1100, baseline=1200, floor=900),
    slots=(RolloutSlot(node="host-4", phase="draining", share=100, since_s=6.0, detail="2 in flight"),),
    next="host-5, when host-4 is verified",
)
RELEASE = """service = "catalog"
version = "%s"
artifact.linux-x86_64 = {url = "https://repo.example/c.tgz", sha256 = "%s"}
"""


def words(pieces: list[out.Piece]) -> str:
    return "".join(out.plain(piece) for piece in pieces).rstrip()


def shown(rollout: Rollout, opening: Opening | None = None) -> list[str]:
    return [words(line) for line in block(rollout, opening, NOW)]


def changed(rollout: Rollout, **fields: object) -> Rollout:
    return Rollout(**{**{name: getattr(rollout, name) for name in rollout.__struct_fields__}, **fields})  # type: ignore[arg-type]


# ---------------------------------------------------------------------- words


def test_a_rollout_in_progress_is_one_block() -> None:
    assert shown(ROLLOUT) == [
        f"catalog 1.0.1 -> 1.0.2  r-17  rolling  by ann, {clock(NOW - 600, NOW)}  about 30 min left (19 min to 70 min)",
        "nodes     12: 3 done, 1 out (host-4 draining 6 s, 2 in flight), 8 to go",
        "capacity  1,100 of 1,200, floor 900",
        "next      host-5, when host-4 is verified",
    ]


def test_a_canary_shows_its_step_its_share_and_its_analysis() -> None:
    step = RolloutStep(number=2, of=3, nodes="25%", for_s=600.0, since=NOW - 60, left_s=540.0, share=25.0)
    analysis = RolloutAnalysis(
        result="running", text="errors 0.48 % against 0.51 %", requests=15_300, requests_old=45_904
    )
    lines = shown(changed(ROLLOUT, step=step, analysis=analysis, next="step 3, when step 2 of 3 is over"))
    assert lines[0] == f"catalog 1.0.1 -> 1.0.2  r-17  rolling, step 2 of 3  by ann, {clock(NOW - 600, NOW)}"
    assert lines[3:] == [
        "share     1.0.2 25 %, measured 25.0 % of 61,204, 9 min left",
        "analysis  errors 0.48 % against 0.51 %",
        "next      step 3, when step 2 of 3 is over",
    ]
    for nodes, rest in (("1", "1 node has"), ("3", "3 nodes have"), ("25%", "25% of the nodes have")):
        waits = changed(ROLLOUT, step=RolloutStep(number=1, of=3, nodes=nodes, share=5.0))
        assert shown(waits)[3] == f"share     1.0.2 5 %, once {rest} it"
    over = changed(ROLLOUT, state="undone", ended=NOW, step=RolloutStep(number=1, of=3))
    assert "step" not in shown(over)[0]


def test_gates_and_the_cut_over_stand_in_the_block() -> None:
    gates = (
        GateProgress(name="sign-off", state="open", age_s=130.0, by=("ann",), kind="approval"),
        GateProgress(name="night", state="waiting", age_s=8.4, reason="the window opens at 18:00"),
    )
    opening = Opening(phase="gap", to="1.0.2", since_s=4.0, versions={"1.0.2": Candidate(gates=gates)})
    assert shown(ROLLOUT, opening)[3:5] == [
        "cut-over  gap: requests are parked, no version is active, 4 s",
        "gates     sign-off yes (ann, 2 min ago); night waiting: the window opens at 18:00",
    ]
    assert shown(ROLLOUT, Opening(to="1.0.3", phase="gap"))[3].startswith("next")


def test_a_halted_rollout_says_why_with_the_log_of_the_node() -> None:
    why = "exit code 1\nTraceback\nImportError: no module named x"
    halted = changed(
        ROLLOUT,
        state="halted",
        slots=(),
        nodes=RolloutNodes(all=4, failed=1),
        failed={"host-4": why},
        detail="host-4 failed",
        next="",
    )
    assert shown(halted)[1:] == [
        "nodes     4: 0 done, 1 failed, 3 to go",
        "capacity  1,100 of 1,200, floor 900",
        "failed    host-4: exit code 1",
        "          Traceback",
        "          ImportError: no module named x",
        "state     host-4 failed",
    ]


def test_a_finished_rollout_is_short() -> None:
    done = changed(
        ROLLOUT,
        state="done",
        slots=(),
        nodes=RolloutNodes(all=12, done=12),
        ended=NOW,
        next="",
        before="",
        undoes="r-16",
    )
    assert shown(done) == [
        f"catalog nothing -> 1.0.2  r-17  done  by ann, {clock(NOW - 600, NOW)}  ended {clock(NOW, NOW)}",
        "undoes    r-16",
        "nodes     12: 12 done",
    ]


def test_many_slots_are_folded() -> None:
    slots = tuple(RolloutSlot(node=f"host-{n}", phase="verifying", since_s=n) for n in range(100))
    line = shown(changed(ROLLOUT, slots=slots, nodes=RolloutNodes(all=1000, out=100, done=1)))[1]
    assert line == (
        "nodes     1000: 1 done, 100 out (host-0 verifying 0 s; host-1 verifying 1 s; host-2 verifying 2 s; 97 more), 899 to go"
    )


def test_an_estimate_needs_a_node_that_is_done() -> None:
    assert left(changed(ROLLOUT, nodes=RolloutNodes(all=4)), NOW) == ""
    assert left(changed(ROLLOUT, state="paused"), NOW) == ""
    assert left(changed(ROLLOUT, nodes=RolloutNodes(all=2, done=1)), NOW) == "  about 10 min left"
    slot = RolloutSlot(node="host-2", since_s=60.0)
    busy = changed(ROLLOUT, slots=(slot,), nodes=RolloutNodes(all=2, done=1, out=1))
    assert left(busy, NOW) == "  about 8 min left"  # 9 min for each node, of which one is spent
    late = changed(busy, slots=(RolloutSlot(node="host-2", since_s=590.0),))
    assert left(late, NOW) == "  about 1 s left"
    assert left(changed(ROLLOUT, started=NOW + 5), NOW) == ""  # clocks differ


def test_progress_changes_only_when_something_happens() -> None:
    line = progress(ROLLOUT)
    assert line == "catalog 1.0.2  r-17  rolling  3 of 12 nodes done, 1 out (host-4 draining)"
    later = RolloutSlot(node="host-4", phase="draining", share=100, since_s=9.0, detail="1 in flight")
    assert progress(changed(ROLLOUT, slots=(later,))) == line


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (
            RolloutPlan(
                service="catalog", before="1.0.1", to="1.0.2", nodes=12, batches=4, lowest=900, baseline=1200, floor=900
            ),
            ["catalog 1.0.1 -> 1.0.2 on 12 nodes, in 4 batches", "the lowest capacity is 900 of 1,200, the floor 900"],
        ),
        (
            RolloutPlan(service="catalog", to="1.0.2", nodes=1, batches=1, baseline=100, floor=75, gap_s=60.0),
            [
                "catalog nothing -> 1.0.2 on 1 node, in 1 batch",
                "the lowest capacity is 0 of 100, the floor 75; no version serves for about 60 s",
            ],
        ),
        (
            RolloutPlan(
                service="c",
                before="1",
                to="2",
                nodes=2,
                incompatible=True,
                side_by_side=True,
                lowest=200,
                baseline=200,
                floor=150,
            ),
            ["c 1 -> 2 on 2 nodes, side by side, then a cut-over", "the lowest capacity is 200 of 200, the floor 150"],
        ),
    ],
)
def test_a_plan_has_the_lowest_capacity_and_the_gap(plan: RolloutPlan, says: list[str]) -> None:
    assert list(plan_lines(plan)) == says


def test_roles_of_a_node_and_of_the_tree() -> None:
    slots = {
        "a": AgentSlot(version="1.0.1", status="running", pid=7, port=8001),
        "b": AgentSlot(version="", status="unknown"),
    }
    role = AgentRole(
        role="web",
        service="catalog",
        version="1.0.1",
        phase="failed",
        rollout="r-17",
        target="1.0.2",
        slots=slots,
        since=NOW - 8,
        detail="exit code 1",
        log=("line 1", "line 2"),
    )
    assert [out.plain(cell) for cell in row(role, NOW)] == [
        "web",
        "catalog",
        "1.0.1",
        "1.0.2",
        "a 1.0.1 running on 8001",
        "failed (r-17) 8 s",
    ]
    assert [out.plain(each) for each in failures(Agent(roles=(role,)))] == [
        "catalog: exit code 1",
        "  line 1",
        "  line 2",
    ]
    tree = TreeRole(
        service="catalog",
        version="1.0.1",
        nodes=12,
        ready=1100,
        waiting={"1.0.2": 100},
        rollout="r-17",
        state="rolling",
        to="1.0.2",
    )
    assert [out.plain(cell) for cell in tree_row(tree)] == [
        "catalog",
        "1.0.1",
        "12",
        "1100, 1.0.2 100 waiting",
        "r-17 to 1.0.2: rolling",
    ]
    assert [out.plain(cell) for cell in tree_row(TreeRole(service="x"))] == ["x", "-", "0", "0", "-"]


# ---------------------------------------------------------------------- the rollout file


GOOD = """release = "catalog-1.0.2"
side_by_side = "never"
first = 2
soak_s = 1.5
nodes_out_max = "25%"
accept_gap = true
"""


def test_a_rollout_file(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(GOOD)
    found = read_rollout_file(str(path))
    assert (found.service, found.version) == ("catalog", "1.0.2")
    assert found.spec == {
        "side_by_side": "never",
        "first": 2,
        "soak_s": 1.5,
        "nodes_out_max": "25%",
        "accept_gap": True,
    }
    path.write_text('{"service": "catalog", "version": "main", "nodes_out_max": 3}')
    found = read_rollout_file(str(path))
    assert (found.version, found.spec) == ("main", {"nodes_out_max": "3"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", 'r.toml:1: release: is missing; add it, for example release = "catalog-1.0.2"'),
        ('service = "x"', "r.toml:1: version: is missing"),
        (GOOD + "frist = 1", "r.toml:7: frist: is not a known key; did you mean 'first'?"),
        (GOOD + "zzz = 1", "r.toml:7: zzz: is not a known key; use release, service"),
        (
            GOOD + 'step = [{nodes = 1, share = 500, for = "10m"}]',
            "r.toml:7: step.share: step 1 has the value 500; use a percentage from 0 to 100",
        ),
        (GOOD + 'service = "x"', "r.toml:7: service: stands beside release"),
        ('release = "catalog"', "r.toml:1: release: has the value catalog: has no version"),
        ("release = 1", "r.toml:1: release: has the value 1; use a text in quotes"),
        ('service = "a/b"\nversion = "1"', "r.toml:1: service: has the value a/b: is not a service name"),
        (
            GOOD.replace("first = 2", "first = 0"),
            "r.toml:3: first: has the value 0; use a whole number from 1 to 1000000",
        ),
        (GOOD.replace("first = 2", "first = true"), "r.toml:3: first: has the value True; use a whole number"),
        (GOOD.replace("1.5", '"1.5"'), "r.toml:4: soak_s: has the value 1.5; use a number of seconds from 0 to 86400"),
        (GOOD.replace("1.5", "nan"), "r.toml:4: soak_s: has the value nan; use a number of seconds"),
        (GOOD.replace("25%", "0%"), "r.toml:5: nodes_out_max: has the value 0%; use a percentage like"),
        (
            GOOD.replace('"never"', '"maybe"'),
            "r.toml:2: side_by_side: has the value maybe; use incompatible, always or never",
        ),
        (GOOD.replace("= true", "= 1"), "r.toml:6: accept_gap: has the value 1; use true or false"),
        ("[", "r.toml: is not TOML"),
        ('{"release": "a-1", "release": "a-2"}', "r.toml: has the key 'release' twice"),
        ("{", "r.toml:1: is not JSON"),
    ],
)
def test_bad_rollout_files_name_the_line(text: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(text)
    with pytest.raises(Invalid) as caught:
        read_rollout_file("r.toml")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------- on a node


@dataclass
class Shell:
    """Runs `sdlb ...` in a folder with the socket of the root: exit code, stdout, stderr."""

    folder: Path

    async def __call__(self, *argv: str) -> tuple[int, str, str]:
        process = await self.start(*argv)
        told, error = await process.communicate()
        assert process.returncode is not None
        return process.returncode, told.decode(), error.decode()

    async def start(self, *argv: str) -> asyncio.subprocess.Process:
        environment = {**os.environ, "SDLB_SOCKET": str(self.folder / "api.sock"), "NO_COLOR": "1"}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sdlb", *argv),
            cwd=self.folder,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)


def steady(text: str) -> list[str]:
    return re.sub(r"[0-9]+ s,", "N s,", text).splitlines()


def console(test: Callable[[Lone, Shell], Awaitable[None]]) -> Callable[[Path], None]:
    """A root with its API on a Unix socket."""

    def run(tmp_path: Path) -> None:
        async def all_of_it() -> None:
            async with lone(tmp_path) as node:
                await test(node, Shell(tmp_path))

        asyncio.run(all_of_it())

    run.__name__ = getattr(test, "__name__", "run")
    return run


@console
async def test_releases(node: Lone, sdlb: Shell) -> None:
    assert await sdlb("release", "list") == (0, "no releases yet; add one with 'sdlb release add FILE'\n", "")
    for version in ("1.0.1", "1.0.2"):
        sdlb.write("r.toml", RELEASE % (version, "a" * 64))
        assert await sdlb("release", "add", "r.toml") == (0, f"{ME} added catalog-{version} (recorded by edge-1)\n", "")
    assert (await sdlb("release", "add", "r.toml"))[1] == "catalog-1.0.2 is known already (recorded by edge-1)\n"
    assert await sdlb("release", "withdraw", "catalog-1.0.1", "--as", "bot") == (
        0,
        "bot withdrew catalog-1.0.1 (recorded by edge-1)\n",
        "",
    )
    assert (await sdlb("release", "list", "catalog"))[1].splitlines() == [
        "RELEASE        PLATFORMS                  REQUIRES  STATE",
        "catalog-1.0.1  linux-x86_64 aaaaaaaaaaaa  -         withdrawn",
        "catalog-1.0.2  linux-x86_64 aaaaaaaaaaaa  -         available",
    ]
    found = json.loads((await sdlb("release", "list", "--json"))[1])
    assert [each["name"] for each in found["releases"]] == ["catalog-1.0.1", "catalog-1.0.2"]
    sdlb.write("r.toml", RELEASE % ("1.0.2", "b" * 64))
    code, told, error = await sdlb("release", "add", "r.toml")
    assert (code, told, error.count("\n")) == (1, "", 1)
    assert error.startswith(
        "sdlb release: release catalog-1.0.2: already has the digest aaaaaaaaaaaa... for linux-x86_64"
    )
    code, _, error = await sdlb("release", "withdraw", "catalog-7")
    assert (code, error) == (1, "sdlb release: there is no release catalog-7; 'sdlb release list' shows them\n")
    code, _, error = await sdlb("release", "list", "a b")
    assert code == 2 and error.count("\n") == 1
    sdlb.write("r.toml", 'servce = "catalog"\n')
    assert await sdlb("release", "add", "r.toml") == (
        1,
        "",
        "sdlb release: r.toml:1: servce: is not a known key; did you mean 'service'?\n",
    )


@console
async def test_a_rollout(node: Lone, sdlb: Shell) -> None:
    assert (await sdlb("rollout", "status"))[
        1
    ] == "no rollouts yet; start one with 'sdlb rollout start SERVICE VERSION'\n"
    code, told, error = await sdlb("rollout", "plan", "catalog", "1.0.2")
    assert (code, error) == (1, "")
    assert told.endswith("it would be refused: there is no release catalog-1.0.2; add it with 'sdlb release add'\n")
    await acts.release(node, "1.0.1", "1.0.2")
    await acts.report(node)
    plan = ["catalog nothing -> 1.0.2 on 4 nodes, in 4 batches", "the lowest capacity is 300 of 400, the floor 300"]
    assert await sdlb("rollout", "plan", "catalog", "1.0.2") == (0, "\n".join([*plan, "nothing was changed", ""]), "")
    sdlb.write("r.toml", 'release = "catalog-1.0.2"\nsoak_s = 5\nfirst = 2\n')
    code, told, _ = await sdlb("rollout", "start", "r.toml", "--first", "1")
    assert (code, told.splitlines()) == (0, [*plan, f"{ME} started r-1 (owned by edge-1)"])
    spec = node.balancer.view.rollouts()[0]["spec"]
    assert (spec["soak_s"], spec["first"]) == (5, 1)
    assert (await sdlb("rollout", "start", "catalog", "1.0.1"))[::2] == (
        1,
        "sdlb rollout: r-1 to 1.0.2 is preparing; abort it first, or start with --supersede\n",
    )
    await acts.report(node, counts={"prepared": 4})
    await acts.out(node, "host-4", prepared=3)
    lines = steady((await sdlb("rollout", "status", "catalog"))[1])
    assert lines[0].startswith(f"catalog nothing -> 1.0.2  r-1  rolling  by {ME}, ")
    assert lines[1] == "nodes     4: 0 done, 1 out (host-4 draining N s, 2 in flight), 3 to go"
    assert steady((await sdlb("rollout", "status"))[1])[1:] == lines[1:]
    found = json.loads((await sdlb("rollout", "status", "catalog", "--json"))[1])
    assert (found["state"], found["nodes"]["out"], found["opening"]) == ("rolling", 1, None)
    assert [each["id"] for each in json.loads((await sdlb("rollout", "status", "--json"))[1])["rollouts"]] == ["r-1"]
    for verb, did in (("pause", "paused"), ("resume", "resumed"), ("promote", "promoted")):
        assert await sdlb("rollout", verb, "catalog") == (0, f"{ME} {did} r-1 of catalog (owned by edge-1)\n", "")
    code, _, error = await sdlb("rollout", "adopt", "r-1")
    assert (code, error) == (
        1,
        "sdlb rollout: edge-1 owns rollout r-1 of catalog and can be reached; it needs no other owner\n",
    )
    assert "settings  side_by_side incompatible, first 1, soak_s 5," in (await sdlb("rollout", "show", "r-1"))[1]
    watching = await sdlb.start("rollout", "status", "catalog", "--watch")
    assert watching.stdout is not None
    assert b"rolling" in await watching.stdout.readline()
    await acts.back(node, "host-4", done=4)
    told, _ = await watching.communicate()
    assert watching.returncode == 0 and b"nodes     4: 4 done" in told
    history = (await sdlb("rollout", "history", "catalog"))[1].splitlines()
    assert history[0].split() == ["ROLLOUT", "BEFORE", "VERSION", "STATE", "BY", "STARTED", "TOOK"]
    assert history[1].split()[:5] == ["r-1", "-", "1.0.2", "done", ME]
    assert (await sdlb("rollout", "status"))[1].splitlines()[1].split()[:4] == ["catalog", "r-1", "-", "1.0.2"]
    code, _, error = await sdlb("rollout", "undo", "catalog")
    assert (code, error) == (1, "sdlb rollout: catalog has no finished rollout that could be undone\n")
    code, _, error = await sdlb("rollout", "status", "pricing")
    assert (code, error) == (1, "sdlb rollout: there is no rollout of a service pricing, or with that id\n")


@console
async def test_waiting_ends_with_the_rollout(node: Lone, sdlb: Shell) -> None:
    await acts.release(node, "1.0.1", "1.0.2", "1.0.3")
    await acts.report(node)

    async def wait(*argv: str) -> asyncio.Task[tuple[int, str, str]]:
        task = asyncio.create_task(sdlb("rollout", *argv, "--wait"))
        before = len(node.journal.recent)
        while not any(each.code == "rollout-state" for each in list(node.journal.recent)[before:]):
            await asyncio.sleep(0.02)
            assert not task.done(), task.result()
        return task

    waiting = await wait("start", "catalog", "1.0.1")
    await asyncio.sleep(0.2)
    await acts.report(node, counts={"prepared": 4})
    await asyncio.sleep(0.8)
    await acts.report(node, counts={"done": 4})
    code, told, error = await waiting
    assert (code, error) == (0, "")
    assert told.splitlines()[2:4][0] == f"{ME} started r-1 (owned by edge-1)"
    assert told.splitlines()[-1] == "catalog 1.0.1  r-1  done  4 of 4 nodes done"
    waiting = await wait("start", "catalog", "1.0.2")
    await acts.report(node, counts={"failed": 1, "prepared": 3}, failed={"host-4": "exit code 1\nsecond line"})
    code, told, error = await waiting
    assert (code, error) == (1, "sdlb rollout: r-2 of catalog is halted: host-4: exit code 1\n")
    waiting = await wait("start", "catalog", "1.0.3", "--supersede", "--json")
    assert (await sdlb("rollout", "abort", "catalog"))[0] == 0
    code, told, error = await waiting
    assert (code, json.loads(told or "{}").get("state", "undone")) == (1, "undone")


@console
async def test_roles(node: Lone, sdlb: Shell) -> None:
    told = "edge-1 has no roles; its node file can have some: roles = [...] and [role.ROLE.SERVICE]\n"
    assert await sdlb("role") == (0, told, "")
    assert await sdlb("role", "catalog") == (
        1,
        "",
        "sdlb role: no node runs a service catalog as a role; there are: none\n",
    )
    await acts.report(node)
    assert (await sdlb("role", "catalog"))[1].splitlines()[1].split() == ["catalog", "-", "4", "400", "-"]
    assert json.loads((await sdlb("role", "catalog", "--json"))[1])["roles"][0]["nodes"] == 4


@console
async def test_the_record_of_a_rollout(node: Lone, sdlb: Shell) -> None:
    code, _, error = await sdlb("rollout", "show", "catalog", "--record")
    assert (code, error) == (
        1,
        "sdlb rollout: edge-1 has no record of a rollout catalog, or of a service of this name\n",
    )
    await acts.release(node, "1.0.2")
    await acts.report(node)
    await sdlb("rollout", "start", "catalog", "1.0.2", "--as", "ann")
    await acts.report(node, counts={"prepared": 4})
    await acts.out(node, "host-4", prepared=3)
    code, told, error = await sdlb("rollout", "show", "r-1", "--record")
    lines = told.splitlines()
    assert (code, error, len(lines)) == (0, "", 4)
    assert lines[0].startswith("edge-1  r-1 of catalog, 3 entries, SHA-256 ")
    assert "started        state preparing, by ann, to 1.0.2, " in lines[1]
    assert f"digests {{1.0.2 {{any {'a' * 64}}}}}" in lines[1]
    assert "state          state rolling, " in lines[2] and "baseline 400" in lines[2]
    assert lines[3].endswith("slot-granted   node host-4, floor 300, left 300, share 100")
    head = lines[0].split()[-1]
    assert (await sdlb("rollout", "show", "r-1", "--verify", head))[0] == 0
    assert json.loads((await sdlb("rollout", "show", "r-1", "--record", "--json"))[1])["records"][0]["head"] == head
    await acts.back(node, "host-4", prepared=3)
    assert (await sdlb("rollout", "show", "r-1", "--verify", head))[0] == 0, "it is in the chain still"
    code, _, error = await sdlb("rollout", "show", "r-1", "--verify", "a" * 64)
    assert (code, error) == (1, f"sdlb rollout: no entry has the SHA-256 {'a' * 64}: entries were changed or removed\n")
    (chain,) = node.balancer._rollouts.recorder.records.find("r-1")
    chain.entries[1]["baseline"] = 300
    for words in (("--record",), ("--verify",), ("--record", "--json")):
        code, _, error = await sdlb("rollout", "show", "r-1", *words)
        assert code == 1 and error.count("\n") == 1
        assert error.startswith(
            "sdlb rollout: the record of r-1 of catalog at edge-1 is broken at entry 2: "
            "the SHA-256 in entry 3 is not that of the entry before"
        ), error


# ---------------------------------------------------------------------- several services together


def test_a_joint_rollout_in_a_block_and_in_the_history() -> None:
    parts = (
        RolloutPart(service="pricing", id="r-16", before="3.0", to="3.1.0", state="done"),
        RolloutPart(service="catalog", id="r-17", before="1.0.1", to="1.0.2", state="rolling"),
    )
    lines = shown(changed(ROLLOUT, joint=parts))
    assert lines[1] == "together  pricing 3.0 -> 3.1.0 r-16 done, then catalog 1.0.1 -> 1.0.2 r-17 rolling"


@console
async def test_a_joint_rollout_is_given_by_services_and_versions_or_by_a_file(node: Lone, sdlb: Shell) -> None:
    usage = await sdlb("rollout", "start", "catalog", "1.0.2", "pricing")
    assert usage[0] == 2 and "give a VERSION after pricing" in usage[2]
    usage = await sdlb("rollout", "start", "catalog", "1.0.2", "catalog", "1.0.3")
    assert usage[0] == 2 and "catalog is named twice" in usage[2]
    await acts.release(node, "1.0.2")
    sdlb.write("r.toml", 'release = ["catalog-1.0.2", "pricing-3.1.0"]\n')
    for what in (("catalog", "1.0.2", "pricing", "3.1.0"), ("r.toml",)):
        code, told, _ = await sdlb("rollout", "plan", *what)
        assert code == 1
        assert told.splitlines()[-1] == (
            "it would be refused: there is no release pricing-3.1.0; add it with 'sdlb release add'"
        )
    sdlb.write("r.toml", 'soak_s = 2\nrelease = ["catalog-1.0.2", "catalog-1.0.3"]\n')
    assert (await sdlb("rollout", "plan", "r.toml"))[2] == (
        "sdlb rollout: r.toml:2: release: has catalog twice; name each service once\n"
    )


@console
async def test_a_cycle_of_releases_is_one_error_with_its_line(node: Lone, sdlb: Shell) -> None:
    sdlb.write("stock.toml", 'service = "stock"\nversion = "1.0"\nrequires = ["pricing>=3"]\n')
    sdlb.write("pricing.toml", 'service = "pricing"\nversion = "3.1.0"\n\nrequires = ["stock>=1"]\n')
    assert (await sdlb("release", "add", "stock.toml"))[0] == 0
    assert await sdlb("release", "add", "pricing.toml") == (
        1,
        "",
        "sdlb release: pricing.toml:4: requires: is part of a cycle: pricing-3.1.0 requires stock-1.0 requires pricing-3.1.0; "
        "remove one of these requirements; none could be first\n",
    )
    assert "stock-1.0  -          pricing>=3  available" in (await sdlb("release", "list"))[1]
