"""The driver `process`: its supervisor survives control, and the program survives its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdlb.adapters.supervisor import cgroup, processes
from sdlb.model.location import parse_prefix
from sdlb.model.release import Artifact
from sdlb.model.role import ArtifactRules, Program, Restart, RoleService
from sdlb.seams.driver import Plan
from tests.seams.driver_caller import SLOT, make_driver, program_file
from tests.seams.test_artifacts import tar
from tests.seams.test_driver import Stand, running, until, write_program

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
QUICK = Restart(0.05, 0.4, 60)
STUBBORN = """
import os, signal, sys, time
def stubborn(clear):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)", "stubborn", {mark!r}],
              {{}} if clear else dict(os.environ))
if not os.fork():
    stubborn(False)                     # in the group
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    stubborn(True)                      # forked away, in a session of its own, without the environment
signal.signal(signal.SIGTERM, signal.{on_term})
time.sleep(1000)
"""


@pytest.fixture(params=["", None], ids=["no cgroup", "cgroup"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    if request.param is None and not cgroup.base():
        pytest.skip("no cgroup can be made here")
    yield from _stand(tmp_path, request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Stand]:
    """Without a cgroup."""
    yield from _stand(tmp_path, "")


def _stand(folder: Path, cgroups: str | None) -> Iterator[Stand]:
    found = Stand("process", folder)
    found.driver = make_driver("process", folder, cgroups=cgroups)
    yield found
    found.stop()
    assert found.programs() == []
    assert running(str(folder / "slots/web/catalog/a")) == []
    assert not os.path.exists(f"{cgroup.base()}/sdlb-{_hash(folder)}")


def _hash(folder: Path) -> str:
    return hashlib.sha256(str(folder / "slots/web/catalog/a").encode()).hexdigest()[:16]


def supervisor(stand: Stand) -> int:
    [found] = running(str(stand.folder / "slots/web/catalog/a"))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: (found := processes.stat(pid)) is None or found.zombie)


def slot_file(stand: Stand, name: str) -> Path:
    return stand.folder / "slots/web/catalog/a" / name


# ---------------------------------------------------------------------- stop


@pytest.mark.parametrize("on_term", ["SIG_IGN", "SIG_DFL"])
def test_a_stop_ends_stubborn_and_forked_away_children(stand: Stand, tmp_path: Path, on_term: str) -> None:
    mark = str(tmp_path / "mark")
    write_program(tmp_path, STUBBORN.format(mark=mark, on_term=on_term))
    stand.start(stand.plan(stop_timeout_s=0.3))
    until(lambda: len(running(mark)) == 2)
    stand.stop()
    assert running(mark) == []


def test_children_end_before_a_restart(stand: Stand, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    write_program(tmp_path, STUBBORN.format(mark=mark, on_term="SIG_DFL"))
    first = stand.start(stand.plan(restart=QUICK))
    until(lambda: len(running(mark)) == 2)
    before = running(mark)
    os.kill(first.pid, signal.SIGTERM)
    until(lambda: stand.state().restarts == 1 and len(running(mark)) == 2)
    assert not set(before) & set(running(mark))
    until(lambda: stand.programs() == [stand.state().pid])


def test_a_program_may_end_gracefully(stand: Stand, tmp_path: Path) -> None:
    write_program(
        tmp_path,
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(0)))
        print("ready", flush=True)
        time.sleep(1000)
        """,
    )
    stand.start(stand.plan(stop_timeout_s=60))
    until(lambda: stand.state().log == ("ready",))
    stand.stop()
    assert stand.state().log == ("ready", "bye")


def test_a_stopped_process_is_ended(stand: Stand, tmp_path: Path) -> None:
    started = stand.start()
    os.kill(started.pid, signal.SIGSTOP)
    stand.stop()


def test_sigterm_to_the_supervisor_stops_the_program(stand: Stand) -> None:
    """So does a system that shuts down."""
    stand.start()
    os.kill(supervisor(stand), signal.SIGTERM)
    until(lambda: not stand.programs() and stand.state().status == "stopped")
    assert stand.start().status == "running"


# ---------------------------------------------------------------------- restarts


def test_a_crash_loop_is_restarted_with_growing_pauses(stand: Stand, tmp_path: Path) -> None:
    count = tmp_path / "count"
    write_program(
        tmp_path,
        f"""
        import sys
        file = open({str(count)!r}, "a")
        file.write("x")
        for number in range(30):
            print("line", number, "\\x1b[31m", flush=True)
        sys.exit(3)
        """,
    )
    stand.start(stand.plan(restart=QUICK))
    pauses: dict[int, float] = {}

    def seen() -> bool:
        state = stand.state()
        if state.status == "pausing":
            pauses[state.restarts] = round(state.next_start_s - state.since_s, 2)
            assert state.reason == "it exited with code 3"
            assert state.log == tuple(f"line {number}  [31m" for number in range(10, 30))
            assert state.pid == 0
        return state.restarts >= 5

    until(seen)
    wanted = {0: 0.05, 1: 0.1, 2: 0.2, 3: 0.4, 4: 0.4, 5: 0.4}
    assert len(pauses) >= 3
    assert pauses.items() <= wanted.items()
    stand.stop()
    starts = count.read_text()
    assert len(starts) >= 5
    assert stand.state().status == "stopped"


def test_how_the_last_run_ended_is_known_while_the_program_runs_again(stand: Stand, tmp_path: Path) -> None:
    """With the last line of that run, and until another version is in the slot."""
    first = tmp_path / "first"
    text = f"""
        import os, sys, time
        if not os.path.exists({str(first)!r}):
            open({str(first)!r}, "w").close()
            print("no more room", flush=True)
            sys.exit(3)
        print("at work again", flush=True)
        time.sleep(1000)
        """
    write_program(tmp_path, text)
    assert stand.start(stand.plan(restart=QUICK)).ended in ("", "it exited with code 3: no more room")
    until(lambda: stand.state().restarts == 1 and stand.state().log[-1:] == ("at work again",))
    assert (stand.state().status, stand.state().ended) == ("running", "it exited with code 3: no more room")
    stand.stop()
    assert stand.start(stand.plan(version="1.0.1", restart=QUICK)).ended == ""


def test_a_stop_in_a_pause(stand: Stand, tmp_path: Path) -> None:
    write_program(tmp_path, "raise SystemExit(0)")
    stand.start(stand.plan(restart=Restart(1000, 1000, 1000)))
    until(lambda: stand.state().status == "pausing")
    assert stand.start(stand.plan(restart=Restart(1000, 1000, 1000))).reason == "it exited with code 0"
    stand.stop()
    assert stand.state().status == "stopped"


def test_a_long_run_forgives(stand: Stand, tmp_path: Path) -> None:
    write_program(tmp_path, "raise SystemExit(0)")
    stand.start(stand.plan(restart=Restart(0.05, 1000, 0.01)))  # any run is long enough
    until(lambda: stand.state().restarts >= 4)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, "signal 9 (SIGKILL); perhaps the machine ran out of memory"),
        (signal.SIGSEGV, "signal 11 (SIGSEGV)"),
    ],
)
def test_a_signal_is_named(stand: Stand, number: int, expected: str) -> None:
    started = stand.start(stand.plan(restart=Restart(1000, 1000, 1000)))
    os.kill(started.pid, number)
    until(lambda: stand.state().status == "pausing")
    assert stand.state().reason == f"it was killed by {expected}"


# ---------------------------------------------------------------------- supervisors that are killed


def test_a_killed_supervisor_is_replaced_and_the_program_adopted(stand: Stand, tmp_path: Path) -> None:
    write_program(
        tmp_path,
        """
        import time
        for number in range(100000):
            print(number, flush=True)
            time.sleep(0.005)
        """,
    )
    plan = stand.plan(restart=QUICK)
    first = stand.start(plan)
    old = supervisor(stand)
    kill(old)
    orphan = stand.state()
    assert (orphan.status, orphan.pid) == ("running", first.pid)
    assert "its supervisor was killed" in orphan.warnings[0]
    again = stand.start(plan)
    assert again.pid == first.pid
    assert supervisor(stand) != old
    assert stand.state().warnings == ()
    before = stand.state().log
    until(lambda: stand.state().log != before)  # the output is read again
    numbers = [int(line) for line in slot_file(stand, "log").read_text().splitlines()]
    assert numbers == list(range(len(numbers)))  # nothing of it was lost
    kill(first.pid)
    until(lambda: stand.state().restarts == 1)
    until(lambda: stand.programs() == [stand.state().pid])
    kill(supervisor(stand))
    stand.stop()


def test_a_program_that_ends_without_a_supervisor_is_started_anew(stand: Stand) -> None:
    plan = stand.plan(restart=QUICK)
    first = stand.start(plan)
    kill(supervisor(stand))
    kill(first.pid)
    state = stand.state()
    assert (state.status, state.reason) == ("stopped", "it exited, and its supervisor was killed")
    stand.fails(stand.driver.forget(SLOT), "us", "stop it first")  # children may be left
    stand.start(plan)
    until(lambda: stand.state().status == "running" and stand.state().pid != first.pid)
    until(lambda: stand.programs() == [stand.state().pid])


def test_what_a_killed_supervisor_left_ends_before_a_start(stand: Stand, tmp_path: Path) -> None:
    """Only the environment or the cgroup tells whose it is."""
    write_program(
        tmp_path,
        """
        import os, signal, time
        if not os.fork():
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(1000)
        """,
    )
    plan = stand.plan(restart=QUICK)
    first = stand.start(plan)
    until(lambda: len(stand.programs()) == 2)
    kill(supervisor(stand))
    kill(first.pid)
    [left] = stand.programs()
    stand.start(plan)
    until(lambda: stand.state().status == "running" and len(stand.programs()) == 2)
    assert left not in stand.programs()
    kill(supervisor(stand))
    kill(stand.state().pid)
    stand.stop()
    assert stand.programs() == []


def test_a_process_id_that_is_another_s_now_is_not_adopted(plain: Stand) -> None:
    first = plain.start()
    kill(supervisor(plain))
    kill(first.pid)
    state = slot_file(plain, "state.json")
    state.write_text(state.read_text().replace(f'"pid": {first.pid}', f'"pid": {os.getpid()}'))
    assert plain.state().status == "stopped"
    plain.stop()  # does not end this process


def test_a_slot_of_another_boot(plain: Stand) -> None:
    first = plain.start()
    kill(supervisor(plain))
    kill(first.pid)
    state = slot_file(plain, "state.json")
    state.write_text(state.read_text().replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "other"))
    found = plain.state()
    assert (found.status, found.reason) == ("stopped", "the machine was restarted")
    assert plain.start().pid != first.pid


DAMAGED = (
    *(b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1, "status": 7}'),
    *(b'{"format": 1, "status": "x"}', b'{"format": 1, "status": "running", "pid": "y"}'),
)


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_state_file(plain: Stand, content: bytes) -> None:
    plain.start()
    kill(supervisor(plain))
    slot_file(plain, "state.json").write_bytes(content)
    plain.stop()
    assert plain.programs() == []


# ---------------------------------------------------------------------- logs


def test_a_log_stays_under_its_bound(stand: Stand, tmp_path: Path) -> None:
    write_program(
        tmp_path,
        """
        import os, time
        chunk = (b"x" * 99 + b"\\n") * 1000
        for _ in range(600):
            os.write(1, chunk)
        os.write(2, b"the end\\n")
        time.sleep(1000)
        """,
    )
    bound = 1 << 20
    stand.start(stand.plan(log_bytes_max=bound))
    most, sizes = 0, {"log": 0, "log.1": 0}

    def done() -> bool:
        nonlocal most
        for name in ("log", "log.1"):
            with contextlib.suppress(FileNotFoundError):  # it is being renamed
                sizes[name] = slot_file(stand, name).stat().st_size
        most = max(most, sum(sizes.values()))
        return stand.state().log[-1:] == ("the end",)

    until(done)
    assert bound // 4 < most <= bound
    names = {each.name for each in slot_file(stand, "log").parent.iterdir()}
    assert names == {"log", "log.1", "want.json", "state.json", "lock", "wake", "out", "supervisor.err"}
    assert slot_file(stand, "supervisor.err").read_bytes() == b""


def test_a_program_can_open_its_output_again(stand: Stand, tmp_path: Path) -> None:
    write_program(tmp_path, "import time; open('/dev/stdout', 'w').write('again\\n'); time.sleep(1000)")
    stand.start()
    until(lambda: stand.state().log == ("again",))


# ---------------------------------------------------------------------- limits and users


def test_too_much_memory_ends_the_program_and_is_the_reason(plain: Stand, tmp_path: Path) -> None:
    """By the supervisor: here no memory controller is delegated."""
    write_program(
        tmp_path,
        """
        import os, time
        if not os.fork():
            time.sleep(0.2)
            held = b"x" * (200 << 20)
        time.sleep(1000)
        """,
    )
    plain.start(plain.plan(memory_mb=100, restart=Restart(1000, 1000, 1000)))
    assert "memory_mb is checked once a second only" in plain.state().warnings[0]
    until(lambda: plain.state().status == "pausing")
    assert "more than memory_mb (100 MiB)" in plain.state().reason
    assert plain.programs() == []


def test_memory_within_the_limit(plain: Stand, tmp_path: Path) -> None:
    write_program(tmp_path, "import time; held = b'x' * (20 << 20); print('held', flush=True); time.sleep(1000)")
    plain.start(plain.plan(memory_mb=400, cpu=0.5))
    assert "cpu is not limited" in plain.state().warnings[1]
    until(lambda: plain.state().log == ("held",))
    pids = [plain.state().pid]
    assert 20 << 20 < processes.memory_bytes(pids, 0) <= processes.memory_bytes(pids, 1 << 40) < 400 << 20


def test_memory_that_processes_share_counts_once(plain: Stand, tmp_path: Path) -> None:
    write_program(
        tmp_path,
        "import os, time; held = b'x' * (50 << 20)\nfor _ in range(3): os.fork()\nprint('held', flush=True); time.sleep(1000)",
    )
    plain.start()
    until(lambda: len(plain.programs()) == 8 and len(plain.state().log) == 8)
    assert processes.memory_bytes(plain.programs(), 0) < 200 << 20 < processes.memory_bytes(plain.programs(), 1 << 40)


def test_the_limits_of_a_cgroup(tmp_path: Path) -> None:
    """The files that the kernel reads; this machine may not delegate the controllers."""
    folder = tmp_path / "slot"
    folder.mkdir()
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "memory.events"):
        (folder / name).write_text("")
    found = cgroup.Cgroup.make(str(folder), 512, 0.5)
    assert found is not None
    assert (found.memory, found.cpu) == (True, True)
    assert (folder / "memory.max").read_text() == str(512 << 20)
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert (folder / "memory.oom.group").read_text() == "1"
    assert found.oom_kills() == 0
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    assert found.oom_kills() == 2
    (folder / "memory.max").unlink()
    without = cgroup.Cgroup.make(str(folder), 512, 0)
    assert without is not None
    assert not without.memory
    assert cgroup.Cgroup.make("/proc/none/x", 1, 1) is None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; those of pytest are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def user_plan(user: str, command: tuple[str, ...] = ("/bin/sh", "-c", "id -u; id -G; sleep 1000"), **more: Any) -> Plan:
    return Plan(SLOT, "1.0.1", RoleService("web", "catalog", Program(command, user, **more), ("a/",)), 8001)


@ROOT_ONLY
def test_the_program_runs_as_its_user(stand: Stand, open_folder: Path) -> None:
    plan = user_plan("nobody", cwd=str(open_folder))
    started = stand.start(plan)
    until(lambda: len(stand.state().log) == 2)
    assert stand.state().log[0] == "65534"
    assert "0" not in stand.state().log[1].split()
    status = Path(f"/proc/{started.pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert Path(f"/proc/{started.pid}/cwd").resolve() == open_folder
    stand.stop()


@ROOT_ONLY
def test_users_that_cannot_be_used(plain: Stand, tmp_path: Path) -> None:
    plain.fails(plain.driver.prepare(user_plan("no-such-user")), "machine", "this machine has no user no-such-user")
    file = tmp_path / "catalog"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    tmp_path.parent.chmod(0o700)
    closed = plain.fails(plain.driver.prepare(user_plan("nobody", (str(file),))), "machine", "user nobody cannot enter")
    assert "run: chmod a+x" in closed.text


# ---------------------------------------------------------------------- artifacts, the disk


def test_the_program_of_an_artifact(stand: Stand, tmp_path: Path) -> None:
    script = b'#!/bin/sh\necho "$0" "$1" "$2"; pwd; exec sleep 1000\n'
    content = gzip.compress(tar(("bin/catalog", {"mode": 0o755, "size": len(script)}), data={"bin/catalog": script}))
    (tmp_path / "c.tgz").write_bytes(content)
    artifact = Artifact(str(tmp_path / "c.tgz"), hashlib.sha256(content).hexdigest())
    rules = ArtifactRules((parse_prefix(f"{tmp_path}/"),))
    command = ("./bin/catalog", "{version}:{port}", "{folder}")
    entry = RoleService("web", "catalog", Program(command), ("a/",), artifacts=rules)
    plan = Plan(SLOT, "1.0.2", entry, 8001, artifact)
    asyncio.run(stand.driver.prepare(plan))
    stored = tmp_path / "store" / artifact.sha256
    assert stored.is_dir()
    (tmp_path / "c.tgz").unlink()
    stand.start(plan)
    until(lambda: len(stand.state().log) == 2)
    assert stand.state().log == (f"{stored}/bin/catalog 1.0.2:8001 {stored}", str(stored))
    stand.stop()
    other = RoleService("web", "catalog", Program(("./catalog",)), ("a/",), artifacts=rules)
    stand.fails(
        stand.driver.start(Plan(SLOT, "1.0.2", other, 8001, artifact)), "artifact", "the artifact has no program"
    )
    unknown = Artifact(str(tmp_path / "none"), "a" * 64)
    stand.fails(stand.driver.prepare(Plan(SLOT, "1.0.3", entry, 8001, unknown)), "artifact", "No such file")


@ROOT_ONLY
def test_a_full_disk(plain: Stand, tmp_path: Path) -> None:
    """Nothing begins; what runs is restarted and stopped."""
    slots = tmp_path / "slots"
    slots.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", slots], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")

    def fill() -> None:
        try:
            with (slots / "filler").open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        except OSError:
            return

    try:
        fill()
        plain.fails(plain.driver.start(plain.plan()), "machine", "cannot be written (No space", retry=True)
        assert plain.programs() == []
        (slots / "filler").unlink()
        plan = plain.plan(restart=QUICK)
        first = plain.start(plan)
        fill()
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: plain.state().status == "running" and plain.state().restarts == 1)
        until(lambda: plain.programs() == [plain.state().pid])
        plain.stop()
        assert plain.state().status == "stopped"
        plain.forget()
    finally:
        (slots / "filler").unlink(missing_ok=True)
        plain.stop()
        subprocess.run(["umount", "-l", slots], check=True)


def test_a_supervisor_without_a_slot_ends_when_its_program_does(plain: Stand) -> None:
    started = plain.start()
    lone = supervisor(plain)
    shutil.rmtree(slot_file(plain, "log").parent)
    assert plain.programs() == [started.pid]
    kill(started.pid)
    until(lambda: processes.stat(lone) is None)
    assert plain.programs() == []


def test_the_program_of_the_test_is_where_it_is_looked_for(plain: Stand) -> None:
    started = plain.start()
    assert str(program_file(plain.folder)) in Path(f"/proc/{started.pid}/cmdline").read_text().split("\0")
