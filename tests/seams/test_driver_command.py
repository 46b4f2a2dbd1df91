"""The driver `command`: exit codes, time-outs, and one command at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.adapters.driver_command import CommandDriver
from tests.seams.driver_caller import CONTROL, PYTHON, SLOT
from tests.seams.test_driver import Stand, running, until


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    found = Stand("command", tmp_path)
    yield found
    found.stop()
    assert found.programs() == []


def script(folder: Path, text: str) -> tuple[str, ...]:
    file = folder / f"script-{abs(hash(text))}.py"
    file.write_text(text)
    return (*PYTHON, str(file))


@pytest.mark.parametrize(
    ("text", "expected", "retry"),
    [
        ("print('no room'); raise SystemExit(1)", "`start` exited with code 1: no room", False),
        ("raise SystemExit(75)", "`start` exited with code 75", True),
        ("import os; os.kill(os.getpid(), 9)", "`start` was killed by signal 9", True),
    ],
)
def test_an_exit_code_says_whether_to_retry(stand: Stand, text: str, expected: str, retry: bool) -> None:
    stand.fails(stand.driver.start(stand.plan(start=script(stand.folder, text))), "program", expected, retry)
    assert stand.state().status == "stopped"


def test_a_version_is_stopped_by_the_commands_that_started_it(stand: Stand) -> None:
    stand.start()
    (stand.folder / "other.py").write_text("raise SystemExit(1)")
    other = stand.plan("1.0.2", stop=(*PYTHON, str(stand.folder / "other.py")))
    stand.fails(stand.driver.start(other), "us", "stop it first")
    stand.stop()
    assert stand.state().status == "stopped"


def test_prepare_and_forget(stand: Stand) -> None:
    note = script(
        stand.folder,
        "import os; open(os.environ['NOTE'], 'a').write(os.environ['SDLB_CALL'] + ' ' + os.environ['SDLB_VERSION'] + '\\n')",
    )
    out = stand.folder / "note"
    plan = stand.plan(prepare=note, forget=note, env={"NOTE": str(out)})
    asyncio.run(stand.driver.prepare(plan))
    assert stand.state().status == "absent"
    stand.start(plan)
    stand.stop()
    stand.forget()
    assert out.read_text() == "prepare 1.0.1\nforget 1.0.1\n"
    failing = stand.plan(prepare=script(stand.folder, "raise SystemExit(2)"))
    stand.fails(stand.driver.prepare(failing), "program", "`prepare` exited with code 2")


def test_a_command_that_takes_too_long_is_ended(stand: Stand) -> None:
    child = script(
        stand.folder,
        "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('begun', flush=True)\nos.fork()\ntime.sleep(1000)\n",
    )
    plan = stand.plan(start=child, timeout_s=1.0, state=script(stand.folder, "raise SystemExit(3)"))
    error = stand.fails(stand.driver.start(plan), "program", "`start` ran for more than 1 s and was stopped", True)
    assert error.log == ("begun",)
    assert running(child[-1]) == []


def test_a_stop_that_stops_nothing_fails(stand: Stand) -> None:
    file = stand.folder / "stop.py"
    file.write_text("raise SystemExit(0)")
    stand.start(stand.plan(stop=(*PYTHON, str(file)), timeout_s=1.0))
    stand.fails(stand.driver.stop(SLOT), "program", "but `state` reports that it still runs", True)
    assert stand.state().status == "stopping"
    stand.fails(
        stand.driver.start(stand.plan(stop=(*PYTHON, str(file)), timeout_s=1.0)), "us", "is being stopped", True
    )
    file.write_text(CONTROL.replace("what, program = sys.argv[1:]", "what = 'stop'"))
    stand.stop()
    assert stand.state().status == "stopped"


def test_a_service_that_died_is_started_again(stand: Stand) -> None:
    first = stand.start()
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: stand.state().status == "stopped")
    assert stand.state().reason == "`state` reports that it does not run"
    assert stand.start().pid != first.pid


def test_the_command_of_a_killed_control_is_waited_for(stand: Stand) -> None:
    """`start` takes a second; control is killed meanwhile; the next control must not start a second one beside it."""
    control = stand.folder / "control.py"
    stand.plan()
    notes = stand.folder / "notes"
    slow = f"import time\nopen({str(notes)!r}, 'a').write('b')\ntime.sleep(1)\n"
    control.write_text(
        CONTROL.replace('if what == "start":\n', f'if what == "start":\n    exec({slow!r})\n')
        .replace('elif what == "stop"', f'    open({str(notes)!r}, "a").write("e")\nelif what == "stop"')
    )  # fmt: skip
    caller = stand.caller("start")
    until(lambda: notes.exists() and notes.read_text() == "b")
    caller.kill()
    caller.wait()
    assert caller.stdout is not None
    caller.stdout.close()
    state = stand.start()
    assert stand.programs() == [state.pid]
    assert notes.read_text() == "be"  # it was running when it was asked for, so it was not started again


def test_output_that_goes_on_is_bounded(stand: Stand) -> None:
    """A daemon that keeps the output of `start` neither fails nor fills the disk: the file begins anew with each call."""
    write = script(
        stand.folder,
        "import os\nif os.fork(): os._exit(0)\nimport time\nfor _ in range(2000):\n print('x' * 99, flush=True)\n time.sleep(0.001)\n",
    )
    plan = stand.plan(start=write, state=script(stand.folder, "raise SystemExit(0)"))
    stand.start(plan)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        stand.state()
        assert (stand.folder / "slots/web/catalog/a/call.log").stat().st_size < 100_000
    assert isinstance(stand.driver, CommandDriver)
    assert not stand.driver.reaps(1)
    record = stand.folder / "slots/web/catalog/a/record.json"
    record.write_text(record.read_text().replace('"phase": "started"', '"phase": "stopped"'))
