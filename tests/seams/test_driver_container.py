"""The driver `container`: what it asks of the engine, and whose failure is whose."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.adapters import slot_records
from sdlb.adapters.container_api import ContainerApi
from sdlb.adapters.driver_container import FILE, ContainerDriver
from sdlb.model.release import Artifact
from sdlb.seams.driver import DriverFailed, Plan
from tests.seams.driver_caller import IMAGE, engine_socket, make_plan
from tests.seams.fake_containers import FakeContainer, FakeEngine
from tests.seams.test_driver import Stand, until

REFERENCE = f"registry.example/team/catalog@sha256:{IMAGE.sha256}"


class ContainerStand(Stand):
    engine: FakeEngine

    @property
    def container(self) -> FakeContainer:
        [found] = self.engine.containers.values()
        return found


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[ContainerStand]:
    with FakeEngine(engine_socket(tmp_path), IMAGE.sha256) as engine:
        found = ContainerStand("container", tmp_path)
        found.engine = engine
        yield found
        found.stop()
        assert found.programs() == []


def test_what_the_engine_is_asked_for(stand: ContainerStand) -> None:
    """The image by its digest, the port on loopback only, the limits of the node file, and labels that name the slot."""
    more: dict[str, Any] = {"port": 8080, "user": "1000:1000", "memory_mb": 64, "cpu": 0.5, "log_bytes_max": 1 << 20}
    command = (*stand.plan().entry.run.command, "{port}")  # type: ignore[union-attr]
    stand.start(stand.plan(env={"A": "$(id)"}, command=command, **more))
    assert stand.engine.pulled == [REFERENCE]
    [(name, made)] = stand.engine.containers.items()
    assert name.startswith("sdlb-web-catalog-a-")
    body = made.body
    assert body["Image"] == REFERENCE
    assert body["User"] == "1000:1000"
    assert body["Cmd"][-2:] == ["1.0.1", "8080"]
    assert {"PORT=8080", "A=$(id)", "SDLB_VERSION=1.0.1", "SDLB_SLOT=a"} <= set(body["Env"])
    labels = {each: body["Labels"][f"sdlb.{each}"] for each in ("role", "service", "slot", "version")}
    assert labels == {"role": "web", "service": "catalog", "slot": "a", "version": "1.0.1"}
    host = body["HostConfig"]
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}]}
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 64 << 20, 500_000_000)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["LogConfig"]["Config"] == {"max-size": str(1 << 19), "max-file": "2"}


def test_an_image_that_is_there_is_not_pulled_again(stand: ContainerStand) -> None:
    asyncio.run(stand.driver.prepare(stand.plan()))
    assert stand.engine.containers == {}
    stand.start()
    stand.stop()
    stand.start()
    assert stand.engine.pulled == [REFERENCE]


@pytest.mark.parametrize(
    ("artifact", "expected"),
    [
        (Artifact("docker://registry.example/other/catalog", "5" * 64), "is not below a prefix in `from` of the node file"),
        (Artifact("docker://registry.example/teamster", "5" * 64), "is not below a prefix in `from` of the node file"),
        (Artifact("https://registry.example/team/c.tgz", "5" * 64), "is not below a prefix in `from` of the node file"),
        (Artifact("docker://registry.example/team/catalog:1.0", "5" * 64), "an image without tag and digest"),
        (Artifact("docker://registry.example/team/catalog", "6" * 64), "cannot be pulled: initializing source"),
    ],
)  # fmt: skip
def test_an_image_that_is_refused(stand: ContainerStand, artifact: Artifact, expected: str) -> None:
    stand.fails(stand.driver.prepare(stand.plan(artifact=artifact)), "artifact", expected)
    stand.fails(stand.driver.start(stand.plan(artifact=artifact)), "artifact", expected)
    assert stand.state().status == "absent"


def test_a_release_without_an_image_is_refused(stand: ContainerStand) -> None:
    nothing = replace(stand.plan(), artifact=None)
    stand.fails(
        stand.driver.prepare(nothing), "artifact", "the release has no artifact; the driver container needs an image"
    )


@pytest.mark.parametrize(
    ("call", "status", "message", "fault", "expected", "retry"),
    [
        ("create", 500, "dial tcp: lookup registry.example: no such host", "machine", "cannot be pulled: dial tcp", True),
        ("create", 404, "manifest for catalog@sha256:5 not found: manifest unknown", "artifact", "manifest unknown", False),
        ("create", 404, "pull access denied for catalog, repository does not exist", "artifact", "pull access denied", False),
        ("start", 500, "driver failed: Bind for 127.0.0.1:8001 failed: port is already allocated", "machine", "already", True),
        ("start", 400, 'runc create failed: exec: "catalog": executable file not found', "artifact", "executable file", False),
        ("start", 500, "exec /catalog: exec format error", "artifact", "exec format error", False),
        ("json", 200, "", "machine", "has not answered as a container engine does", False),
        ("json", 500, "\x1b[31mlayer not known", "machine", "cannot be looked up: [31mlayer not known", True),
    ],
)  # fmt: skip
def test_a_failure_says_whose_it_is(
    stand: ContainerStand, call: str, status: int, message: str, fault: str, expected: str, retry: bool
) -> None:
    if (call, status) == ("json", 200):
        stand.engine.images.add(REFERENCE)
        stand.start()
    stand.engine.fail[call] = status, message
    broken = stand.driver.state(stand.plan().slot) if status == 200 else stand.driver.start(stand.plan())
    stand.fails(broken, fault, expected, retry)
    assert status == 200 or stand.engine.containers == {}  # nothing is left that holds the port
    assert stand.start().status == "running"


def test_a_container_that_cannot_be_created(stand: ContainerStand) -> None:
    stand.engine.images.add(REFERENCE)
    for status, retry in ((400, False), (409, True), (500, True)):
        stand.engine.fail["create"] = status, "no"
        stand.fails(stand.driver.start(stand.plan()), "machine", "cannot be created: no", retry)
        assert stand.state().reason == "it has no container"


def test_a_create_that_a_killed_control_has_sent(stand: ContainerStand) -> None:
    """The container appears between the look for it and the request to create it: the engine refuses the second one."""
    driver = stand.driver
    assert isinstance(driver, ContainerDriver)
    record = driver._record(stand.plan())  # pyright: ignore[reportPrivateUsage]
    name = driver._name(stand.plan().slot)  # pyright: ignore[reportPrivateUsage]
    stand.engine.images.add(REFERENCE)
    made = FakeContainer(record.body, stand.folder / "log")

    class Late(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            if key not in self:
                self[key] = made
                return None
            return super().get(key, default)

    stand.engine.containers = Late()
    assert stand.start().pid
    assert list(stand.engine.containers) == [name]
    assert len(stand.programs()) == 1


# ---------------------------------------------------------------------- what happens to a container


def test_a_program_that_exits_is_reported_and_started_again(stand: ContainerStand) -> None:
    first = stand.start()
    until(lambda: stand.state().log)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: stand.state().status == "stopped")
    found = stand.state()
    assert (found.reason, found.log, found.pid) == ("it exited with code 137", ("line",), 0)
    stand.container.status, stand.container.restarts = "restarting", 3
    assert (stand.state().status, stand.state().restarts) == ("pausing", 3)
    stand.container.status = ""
    assert stand.start().pid != first.pid
    assert len(stand.programs()) == 1


def test_a_changed_node_file_counts_once_the_program_has_exited(stand: ContainerStand) -> None:
    first = stand.start()
    changed = stand.plan(memory_mb=64)
    stand.fails(stand.driver.start(changed), "us", "stop it first")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: stand.state().status == "stopped")
    stand.start(changed)
    assert stand.container.body["HostConfig"]["Memory"] == 64 << 20


def test_the_log_stays_after_a_stop(stand: ContainerStand) -> None:
    stand.start()
    until(lambda: stand.state().log == ("line",))
    stand.stop()
    assert (stand.state().status, stand.state().log) == ("stopped", ("line",))
    assert stand.engine.containers == {}


def test_a_stop_that_the_engine_cannot_do_removes_by_force(stand: ContainerStand) -> None:
    stand.start()
    stand.engine.fail["stop"] = 500, "cannot stop"
    stand.stop()
    assert stand.programs() == []
    assert stand.state().status == "stopped"


def test_a_container_that_somebody_has_removed(stand: ContainerStand) -> None:
    stand.start()
    stand.container.kill()
    stand.engine.containers.clear()
    assert (stand.state().status, stand.state().reason) == ("stopped", "it has no container")
    assert stand.start().status == "running"


def test_a_lost_record(stand: ContainerStand) -> None:
    """The state folder was lost. What runs in the slot is not known to be the same: it is replaced, and never runs beside it."""
    stand.start()
    shutil.rmtree(stand.folder / "slots")
    assert stand.state().status == "absent"
    driver = stand.driver
    assert isinstance(driver, ContainerDriver)
    record = driver._record(stand.plan("1.0.2"))  # pyright: ignore[reportPrivateUsage]
    slot_records.put(f"{stand.folder}/slots/web/catalog/a", FILE, record)
    assert (stand.state().status, stand.state().reason) == ("stopped", "it has no container")  # killed at this point
    second = stand.start(stand.plan("1.0.2"))
    assert stand.programs() == [second.pid]
    shutil.rmtree(stand.folder / "slots")
    assert stand.start(stand.plan("1.0.2")).pid == second.pid  # the same version is adopted


def test_the_process_id_of_another_machine_is_not_reported(stand: ContainerStand) -> None:
    """An engine in a virtual machine: its process ids are those of other processes here."""
    assert stand.start().pid
    stand.container.started = "2026-01-01T12:00:00.5+01:00"
    found = stand.state()
    assert (found.status, found.pid, found.since_s) == ("running", 0, 1767265200.5)


# ---------------------------------------------------------------------- no engine


def test_no_engine(tmp_path: Path) -> None:
    stand = Stand("container", tmp_path)
    assert stand.state().status == "absent"  # a slot that never had a container needs no engine
    stand.stop()
    stand.forget()
    error = stand.fails(stand.driver.prepare(stand.plan()), "machine", "no container engine answers at", True)
    assert "No such file or directory" in error.text
    assert "correct `socket` in the node file" in error.text


def test_the_engine_is_away_for_a_while(tmp_path: Path) -> None:
    stand = Stand("container", tmp_path)
    with FakeEngine(engine_socket(tmp_path), IMAGE.sha256):
        stand.start()
        stand.programs()
    stand.fails(stand.driver.state(stand.plan().slot), "machine", "Connection refused", True)
    stand.fails(stand.driver.stop(stand.plan().slot), "machine", "Connection refused", True)
    engine_socket(tmp_path).unlink()
    with FakeEngine(engine_socket(tmp_path), IMAGE.sha256):
        assert stand.state().reason == "it has no container"
        stand.fails(stand.driver.start(stand.plan()), "us", "the slot is being stopped", True)
        stand.stop()
        assert stand.start().status == "running"
        stand.stop()


def test_no_permission(tmp_path: Path) -> None:
    """`state` asks nobody without a record, so `prepare` is the call of a user who may not use the socket."""
    with FakeEngine(engine_socket(tmp_path), IMAGE.sha256):
        engine_socket(tmp_path).chmod(0)
        context = multiprocessing.get_context("forkserver")
        answer: Any = context.Queue()
        process = context.Process(target=_prepare_as_nobody, args=(make_plan("container", tmp_path), tmp_path, answer))
        process.start()
        text, fault, retry = answer.get(timeout=60)
        process.join()
        answer.close()
    assert "may not use" in text
    assert (fault, retry) == ("machine", False)


def _prepare_as_nobody(plan: Plan, folder: Path, answer: Any) -> None:
    with pytest.raises(DriverFailed):
        asyncio.run(ContainerApi("/none").inspect("x"))  # loads all modules before the user changes
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        asyncio.run(ContainerDriver(folder / "slots").prepare(plan))
    except DriverFailed as error:
        answer.put((error.text, error.fault, error.retry))
