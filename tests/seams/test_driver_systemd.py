"""The driver `systemd`: the results of jobs, whose failure is whose, and what a unit is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus
from msgspec.structs import replace

from sdlb.adapters.systemd_bus import escaped
from sdlb.model.location import parse_prefix
from sdlb.model.release import Artifact
from sdlb.model.role import ArtifactRules
from sdlb.seams.driver import DriverFailed, Slot
from tests.releases import pack
from tests.seams import fake_systemd
from tests.seams.driver_caller import SLOT, program_file
from tests.seams.fake_systemd import NAME, PATH, FakeSystemd, FakeUnit, environment
from tests.seams.test_driver import Stand, until

pytestmark = pytest.mark.skipif(bool(fake_systemd.why_not()), reason=f"needs a D-Bus daemon: {fake_systemd.why_not()}")
UNIT = "catalog@1.0.1.service"


class SystemdStand(Stand):
    systemd: FakeSystemd

    @property
    def unit(self) -> FakeUnit:
        return self.systemd.units[UNIT]

    @property
    def env_file(self) -> Path:
        return self.folder / "units" / f"{UNIT}.env"


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[SystemdStand]:
    with FakeSystemd(tmp_path, tmp_path / "units", program_file(tmp_path)) as systemd:
        found = SystemdStand("systemd", tmp_path)
        found.systemd = systemd
        yield found
        systemd.errors.clear()
        found.stop()
        assert found.programs() == []


# ---------------------------------------------------------------------- jobs


@pytest.mark.parametrize(
    ("result", "fault", "expected", "retry"),
    [
        ("failed", "program", "could not start catalog@1.0.1.service: it failed: it was killed by signal 9; see: journalctl", False),
        ("timeout", "program", "it took too long", True),
        ("canceled", "machine", "another job replaced it", True),
        ("dependency", "machine", "a unit that it requires failed", True),
        ("skipped", "machine", "its job finished with 'skipped'", False),
    ],
)  # fmt: skip
def test_the_result_of_the_job_decides(
    stand: SystemdStand, result: str, fault: str, expected: str, retry: bool
) -> None:
    """Although the unit is active: it may be for a moment, or still be the one from before."""
    stand.start()
    stand.unit.states = ("active", "running")
    stand.systemd.results["StartUnit"] = result
    if result == "failed":
        stand.unit.process.kill()  # type: ignore[union-attr]
        stand.unit.process.wait()  # type: ignore[union-attr]
    error = stand.fails(stand.driver.start(stand.plan()), fault, expected, retry)
    assert error.log == (f"log of {UNIT}",)
    stand.unit.states = None


def test_a_stop_that_fails(stand: SystemdStand) -> None:
    stand.start()
    stand.systemd.results["StopUnit"] = "timeout"
    stand.fails(stand.driver.stop(SLOT), "program", "could not stop catalog@1.0.1.service: it took too long", True)
    assert stand.state().status == "stopping"
    stand.fails(stand.driver.start(stand.plan()), "us", "the slot is being stopped", True)
    stand.stop()
    assert stand.state().status == "stopped"


def test_a_job_that_does_not_end(stand: SystemdStand) -> None:
    stand.systemd.results["StartUnit"] = "never"
    plan = stand.plan(timeout_s=0.3)
    stand.fails(
        stand.driver.start(plan),
        "program",
        "the job StartUnit of catalog@1.0.1.service did not finish within 0.3 s",
        True,
    )


def test_a_result_that_comes_before_the_reply(stand: SystemdStand) -> None:
    stand.systemd.before_reply = True
    assert stand.start().status == "running"


def test_a_result_that_systemd_has_not_sent_is_ignored(stand: SystemdStand) -> None:
    """Any user of the machine can send such a signal."""
    stand.systemd.results["StartUnit"] = "never"

    async def play() -> None:
        starting = asyncio.create_task(stand.driver.start(stand.plan(timeout_s=0.5)))
        while "StartUnit" not in stand.systemd.calls:
            await asyncio.sleep(0.01)
        other = await MessageBus(stand.systemd.address).connect()
        job = f"{PATH}/job/{len(stand.systemd.calls)}"
        signal = Message.new_signal(PATH, f"{NAME}.Manager", "JobRemoved", "uoss", [1, job, UNIT, "done"])
        signal.destination = stand.systemd.caller
        await other.send(signal)
        with pytest.raises(DriverFailed, match=r"did not finish within 0\.5 s"):
            await starting
        other.disconnect()
        await other.wait_for_disconnect()

    asyncio.run(play())


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("member", "name", "expected", "retry"),
    [
        ("LoadUnit", f"{NAME}.NoSuchUnit", "this machine has no unit catalog@.service; install it in /etc/systemd", False),
        ("StartUnit", f"{NAME}.NoSuchUnit", "this machine has no unit catalog@.service", False),
        ("StartUnit", f"{NAME}.UnitMasked", "is masked; run: systemctl unmask catalog@.service", False),
        ("StartUnit", f"{NAME}.BadUnitSetting", "cannot load catalog@1.0.1.service (no); run: systemd-analyze verify", False),
        ("StartUnit", "org.freedesktop.DBus.Error.AccessDenied", "may not manage catalog@1.0.1.service (no); run the node", False),
        ("StartUnit", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "by a polkit rule", False),
        ("StartUnit", "org.freedesktop.DBus.Error.ServiceUnknown", "systemd cannot be asked about catalog@1.0.1", True),
        ("Subscribe", "org.freedesktop.DBus.Error.NoReply", "systemd cannot be asked about catalog@1.0.1", True),
    ],
)  # fmt: skip
def test_what_systemd_refuses(stand: SystemdStand, member: str, name: str, expected: str, retry: bool) -> None:
    stand.systemd.errors[member] = name, "no"
    stand.fails(stand.driver.start(stand.plan()), "machine", expected, retry)
    if member == "LoadUnit":
        stand.fails(stand.driver.prepare(stand.plan()), "machine", expected, retry)
    stand.systemd.errors.clear()
    assert stand.start().status == "running"


def test_a_masked_unit_is_found_before_anything_stops(stand: SystemdStand) -> None:
    masked = stand.plan(template="masked@.service")
    stand.fails(stand.driver.prepare(masked), "machine", "masked@1.0.1.service is masked")
    assert stand.systemd.calls == ["LoadUnit", "GetAll", "GetAll"]


def test_no_bus(tmp_path: Path) -> None:
    stand = Stand("systemd", tmp_path)
    assert stand.state().status == "absent"  # a slot that never had a unit needs no systemd
    stand.stop()
    stand.forget()
    error = stand.fails(stand.driver.prepare(stand.plan()), "machine", "the system's D-Bus does not answer at", True)
    assert "No such file or directory" in error.text
    assert "the driver systemd needs a machine that systemd manages" in error.text


def test_the_bus_goes_away_during_a_job(stand: SystemdStand) -> None:
    stand.systemd.results["StartUnit"] = "never"

    async def play() -> None:
        starting = asyncio.create_task(stand.driver.start(stand.plan()))
        while "StartUnit" not in stand.systemd.calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        stand.systemd.restart_daemon()
        with pytest.raises(DriverFailed, match="cannot be asked") as error:
            await starting
        assert (error.value.fault, error.value.retry) == ("machine", True)

    asyncio.run(play())


def test_a_name_that_systemd_does_not_permit(stand: SystemdStand) -> None:
    stand.fails(stand.driver.prepare(stand.plan("-" * 70)), "machine", "a name of 296 characters; systemd permits 255")


# ---------------------------------------------------------------------- units


def test_a_unit_that_the_slot_has_not_started(stand: SystemdStand) -> None:
    """By hand, or by the other slot: its port is another one."""
    stand.start()
    other = replace(stand.plan(), slot=Slot("web", "catalog", "b"))
    text = "catalog@1.0.1.service runs already, and this slot has not started it; run: systemctl stop catalog@1.0.1.service"
    stand.fails(stand.driver.start(other), "machine", text)
    assert asyncio.run(stand.driver.state(other.slot)).status == "absent"
    assert environment(stand.env_file.read_text())["SDLB_SLOT"] == "a"


def test_what_a_unit_is_told(stand: SystemdStand) -> None:
    odd = "a\"b\\c`d$e'f\n ;touch x"
    stand.start(stand.plan(env={"ODD": odd}))
    found = environment(stand.env_file.read_text())
    assert found == {
        "PORT": "8001",
        "ODD": odd,
        "SDLB_ROLE": "web",
        "SDLB_SERVICE": "catalog",
        "SDLB_VERSION": "1.0.1",
        "SDLB_SLOT": "a",
        "SDLB_FOLDER": "",
    }
    assert (stand.env_file.stat().st_mode & 0o777, stand.env_file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    stand.stop()
    assert not stand.env_file.exists()


def test_an_artifact_is_unpacked_for_the_unit(stand: SystemdStand) -> None:
    sha256 = pack(stand.folder / "c.tar")
    plan = stand.plan(artifact=Artifact(str(stand.folder / "c.tar"), sha256))
    rules = ArtifactRules((parse_prefix(f"{stand.folder}/"),))
    plan = replace(plan, entry=replace(plan.entry, artifacts=rules))
    stand.start(plan)
    assert environment(stand.env_file.read_text())["SDLB_FOLDER"] == str(stand.folder / "store" / sha256)
    record = stand.folder / "slots/web/catalog/a/unit.json"
    assert sha256 in record.read_text()  # so the artifact is kept


def test_a_program_that_exits(stand: SystemdStand) -> None:
    first = stand.start()
    assert first.log == (f"log of {UNIT}",)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: stand.state().status == "stopped")
    assert (stand.state().reason, stand.state().pid) == ("it was killed by signal 9", 0)
    stand.unit.states, stand.unit.restarts = ("activating", "auto-restart"), 4
    assert (stand.state().status, stand.state().restarts) == ("pausing", 4)
    stand.unit.states = ("deactivating", "stop-sigterm")
    assert stand.state().status == "stopping"
    stand.unit.states = None
    again = stand.start()
    assert again.pid != first.pid
    assert stand.systemd.calls.count("ResetFailedUnit") == 1  # else a unit that failed often is not started at all


def test_a_changed_node_file_counts_once_the_program_has_exited(stand: SystemdStand) -> None:
    first = stand.start()
    changed = stand.plan(env={"A": "1"})
    stand.fails(stand.driver.start(changed), "us", "stop it first")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: stand.state().status == "stopped")
    stand.start(changed)
    assert environment(stand.env_file.read_text())["A"] == "1"


def test_a_unit_that_systemd_has_forgotten(stand: SystemdStand) -> None:
    stand.start()
    stand.unit.process.kill()  # type: ignore[union-attr]
    stand.unit.process.wait()  # type: ignore[union-attr]
    stand.systemd.units.clear()
    assert (stand.state().status, stand.state().reason) == ("stopped", "systemd has unloaded its unit")
    assert stand.start().status == "running"
    stand.stop()
    assert (stand.state().status, stand.state().log) == ("stopped", (f"log of {UNIT}",))


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="needs systemd-escape, a part of systemd")
@pytest.mark.parametrize(
    "text", ["1.0.2", "1.0.2;touch x", "1-2+3~4_5:6", ".1", "-rf", "a/b", "$(id)", "ä", "%i", "\\"]
)
def test_names_are_escaped_as_systemd_does(text: str) -> None:
    printed = subprocess.run(["systemd-escape", "--", text], capture_output=True, text=True, check=True)
    assert escaped(text) == printed.stdout.removesuffix("\n")
