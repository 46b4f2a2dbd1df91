"""A stand-in for systemd on a private D-Bus daemon: units, jobs and their results, as org.freedesktop.systemd1(5) describes them.

It runs the programs as plain processes, with the environment file that the template `catalog@.service` would name.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

NAME = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy>
</busconfig>
"""


def why_not() -> str:
    return "" if shutil.which("dbus-daemon") else "no dbus-daemon (Debian: apt-get install dbus-daemon)"


def unescaped(text: str) -> str:
    head, *rest = text.replace("-", "/").split("\\x")
    found = head.encode()
    for each in rest:
        found += bytes([int(each[:2], 16)]) + each[2:].encode()
    return found.decode()


def environment(text: str) -> dict[str, str]:
    """Of an environment file with one quoted value a line, as systemd.exec(5) reads it."""
    found: dict[str, str] = {}
    while text:
        name, _, text = text.partition('="')
        value = ""
        while not text.startswith('"'):
            text = text[1:] if text[0] == "\\" and text[1] in '\\"`$' else text
            value, text = value + text[0], text[1:]
        found[name], text = value, text[1:].lstrip("\n")
    return found


class FakeUnit:
    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self.failed = ""
        """The unit's result, if its start has failed."""
        self.states: tuple[str, str] | None = None
        """ActiveState and SubState in place of what is true."""
        self.restarts = 0

    @property
    def code(self) -> int | None:
        return self.process.poll() if self.process is not None else None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.code is None

    def properties(self, interface: str) -> dict[str, Variant]:
        code = self.code
        if interface.endswith(".Unit"):
            active = "active" if self.runs else "failed" if self.failed or code else "inactive"
            active, sub = self.states or (active, "running" if self.runs else "dead")
            load = "not-found" if "missing" in self.name else "masked" if "masked" in self.name else "loaded"
            values = {"LoadState": load, "ActiveState": active, "SubState": sub}
            return {key: Variant("s", value) for key, value in values.items()}
        result = self.failed or ("success" if not code else "signal" if code < 0 else "exit-code")
        return {
            "Result": Variant("s", result),
            "MainPID": Variant("u", self.process.pid if self.runs and self.process else 0),
            "ExecMainStartTimestamp": Variant("t", int(self.started_s * 1e6)),
            "NRestarts": Variant("u", self.restarts),
            "ExecMainStatus": Variant("i", abs(code or 0)),
        }


class FakeSystemd:
    """`program`: what the template runs, with the instance as its argument. `units`: the folder of the environment files."""

    def __init__(self, folder: Path, units: Path, program: Path) -> None:
        self.address = f"unix:path={folder / 'bus.sock'}"
        self.units: dict[str, FakeUnit] = {}
        self.calls: list[str] = []
        self.caller = ""
        """The bus name of the last caller."""
        self.results: dict[str, str] = {}
        """The result of the next job, by the method; "never": it does not end."""
        self.errors: dict[str, tuple[str, str]] = {}
        """The name and text of the error that a method answers with."""
        self.before_reply = False
        """Whether a job's result is sent before the reply to its call."""
        self._folder, self._env, self._program = folder, units, program
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        (self._folder / "bus.conf").write_text(CONFIG.format(path=self._folder / "bus.sock"))
        self._start_daemon()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_daemon()
        for unit in self.units.values():
            if unit.process is not None:
                unit.process.kill()
                unit.process.wait()

    def restart_daemon(self) -> None:
        """All connections are closed."""
        self._stop_daemon()
        self._start_daemon()

    def _start_daemon(self) -> None:
        command = ["dbus-daemon", "--nofork", f"--config-file={self._folder / 'bus.conf'}"]
        self._daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not self._listens():
            assert self._daemon.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        self._ready.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)

    def _listens(self) -> bool:
        """The file exists a moment before."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._folder / "bus.sock")) == 0

    def _stop_daemon(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._daemon.terminate()
        self._daemon.wait()
        (self._folder / "bus.sock").unlink(missing_ok=True)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._bus = await MessageBus(self.address).connect()
        self._bus.add_message_handler(self._on_call)
        await self._bus.request_name(NAME)
        self._ready.set()
        await self._end.wait()
        self._bus.disconnect()

    def _on_call(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or message.destination not in (
            NAME,
            self._bus.unique_name,
        ):
            return None
        member = str(message.member)
        self.calls.append(member)
        self.caller = str(message.sender)
        if member in self.errors:
            return Message.new_error(message, *self.errors[member])
        if member == "GetAll":
            unit = next(each for each in self.units.values() if self._path(each.name) == message.path)
            return Message.new_method_return(message, "a{sv}", [unit.properties(message.body[0])])
        if member == "Subscribe":
            return Message.new_method_return(message)
        unit = self.units.get(message.body[0])
        if unit is None and member in ("GetUnit", "ResetFailedUnit", "StopUnit"):
            text = f"Unit {message.body[0]} not loaded."
            return Message.new_error(message, f"{NAME}.NoSuchUnit", text)
        unit = self.units.setdefault(message.body[0], FakeUnit(message.body[0]))
        if member in ("GetUnit", "LoadUnit"):
            return Message.new_method_return(message, "o", [self._path(unit.name)])
        if member == "ResetFailedUnit":
            unit.failed = ""
            return Message.new_method_return(message)
        return self._job(message, member, unit)

    def _job(self, message: Message, member: str, unit: FakeUnit) -> Message | bool:
        result = self.results.pop(member, "") or (self._start(unit) if member == "StartUnit" else self._stop(unit))
        job = f"{PATH}/job/{len(self.calls)}"
        reply = Message.new_method_return(message, "o", [job])
        signal = Message.new_signal(
            PATH, f"{NAME}.Manager", "JobRemoved", "uoss", [len(self.calls), job, unit.name, result]
        )
        other = Message.new_signal(
            PATH, f"{NAME}.Manager", "JobRemoved", "uoss", [1, f"{PATH}/job/0", "other", "failed"]
        )
        for each in (signal, reply) if self.before_reply else (reply, other, signal):
            if each is not signal or result != "never":
                self._bus.send(each)
        return True

    def _start(self, unit: FakeUnit) -> str:
        if unit.runs:
            return "done"
        env = environment((self._env / f"{unit.name}.env").read_text())
        instance = unescaped(unit.name.partition("@")[2].removesuffix(".service"))
        unit.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(self._program), instance],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        unit.started_s = time.time()
        return "done"

    def _stop(self, unit: FakeUnit) -> str:
        if unit.process is not None:
            unit.process.kill()
            unit.process.wait()
        unit.process = None
        return "done"

    @staticmethod
    def _path(name: str) -> str:
        return f"{PATH}/unit/{name.encode().hex()}"
