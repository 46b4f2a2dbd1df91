"""The part of systemd's D-Bus interface that the driver `systemd` needs: units, their properties, and jobs with their results.

Specification: org.freedesktop.systemd1(5). One connection for each call of the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, NoReturn

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus
from dbus_fast.errors import DBusFastError

from sdlb.adapters.hook_program import printable
from sdlb.seams.driver import DriverFailed

NAME, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER, UNIT, SERVICE = f"{NAME}.Manager", f"{NAME}.Unit", f"{NAME}.Service"
CALL_S = 30.0
UNIT_CHARS_MAX = 255
SHOWN_CHARS = 400
_PLAIN = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.")
_NO_UNIT = ("NoSuchUnit", "LoadFailed", "BadUnitSetting", "UnitMasked")
_DENIED = ("AccessDenied", "InteractiveAuthorizationRequired", "NotAuthorized", "AuthFailed")


class UnitState(NamedTuple):
    """`since_s`: Unix time at which the main process started. `exit`: its exit code or signal, by `result`."""

    load: str
    active: str
    sub: str
    result: str
    pid: int
    since_s: float
    restarts: int
    exit: int


class BusError(Exception):
    """`name`: the last part of the error's name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name.rpartition(".")[2]
        self.text = printable(text)[:SHOWN_CHARS]


class Systemd:
    """`gone`: done when the connection is closed."""

    def __init__(self, bus: MessageBus, gone: asyncio.Future[None]) -> None:
        self._bus = bus
        self._gone = gone
        self._ended: dict[tuple[str, str], str] = {}  # results of jobs, by sender and path
        self._more = asyncio.Event()

    async def load(self, unit: str) -> UnitState:
        """Of a unit that need not run. Raises DriverFailed if it could not be started."""
        path = await self._path("LoadUnit", unit)
        found = await self._state(path)
        if found.load != "loaded":
            _no_unit(unit, found.load)
        return found

    async def state(self, unit: str) -> UnitState | None:
        """None: systemd does not have it loaded, so nothing of it runs."""
        try:
            return await self._state((await self._call(MANAGER, "GetUnit", "s", unit))[1])
        except BusError as error:
            if error.name in ("NoSuchUnit", "UnknownObject"):
                return None
            self._raise(unit, error)

    async def run_job(self, member: str, unit: str, timeout_s: float) -> str:
        """Its result: "done" or why not. What systemd refuses raises DriverFailed, and so does a job that does not end in time."""
        self._bus.add_message_handler(self._on_message)
        rule = f"type='signal',sender='{NAME}',path='{PATH}',interface='{MANAGER}',member='JobRemoved'"
        daemon = "org.freedesktop.DBus"
        try:
            await self._call(daemon, "AddMatch", "s", rule, destination=daemon, path="/org/freedesktop/DBus")
            await self._call(MANAGER, "Subscribe")
            job = await self._call(MANAGER, member, "ss", unit, "replace")
            async with asyncio.timeout(timeout_s):
                while job not in self._ended:
                    self._more.clear()
                    await self._next_message()
            return self._ended[job]
        except BusError as error:
            self._raise(unit, error)
        except TimeoutError:
            text = f"the job {member} of {unit} did not finish within {timeout_s:g} s"
            raise DriverFailed("program", text, retry=True) from None
        finally:
            self._bus.remove_message_handler(self._on_message)

    async def forget_failure(self, unit: str) -> None:
        with contextlib.suppress(BusError):  # it is not loaded, or this user may not
            await self._call(MANAGER, "ResetFailedUnit", "s", unit)

    # ------------------------------------------------------------------ messages

    def _on_message(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member == "JobRemoved" and len(message.body) == 4:
            _, path, _, result = message.body
            self._ended[str(message.sender), str(path)] = str(result)
            self._more.set()

    async def _next_message(self) -> None:
        more = asyncio.ensure_future(self._more.wait())
        try:
            await asyncio.wait((self._gone, more), return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()
        if self._gone.done():
            raise BusError("Disconnected", "the connection was closed")

    async def _path(self, member: str, unit: str) -> str:
        try:
            return (await self._call(MANAGER, member, "s", unit))[1]
        except BusError as error:
            self._raise(unit, error)

    async def _state(self, path: str) -> UnitState:
        of_unit = await self._properties(path, UNIT)
        of_service = await self._properties(path, SERVICE)
        return UnitState(
            str(of_unit.get("LoadState", "")),
            str(of_unit.get("ActiveState", "")),
            str(of_unit.get("SubState", "")),
            str(of_service.get("Result", "")),
            int(of_service.get("MainPID", 0)),
            int(of_service.get("ExecMainStartTimestamp", 0)) / 1e6,
            int(of_service.get("NRestarts", 0)),
            int(of_service.get("ExecMainStatus", 0)),
        )

    async def _properties(self, path: str, interface: str) -> dict[str, Any]:
        reply = await self._send("org.freedesktop.DBus.Properties", "GetAll", "s", interface, path=path)
        return {name: each.value for name, each in reply.body[0].items()}

    async def _call(self, interface: str, member: str, signature: str = "", *body: str, **to: str) -> tuple[str, str]:
        """The sender of the answer, and its first value if there is one: the path of a job or unit."""
        reply = await self._send(interface, member, signature, *body, **to)
        return str(reply.sender), str(reply.body[0]) if reply.body else ""

    async def _send(
        self, interface: str, member: str, signature: str, *body: str, destination: str = NAME, path: str = PATH
    ) -> Message:
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        try:
            async with asyncio.timeout(CALL_S):
                reply = await self._bus.call(message)
        except TimeoutError:
            raise BusError("Timeout", f"{member} was not answered within {CALL_S:g} s") from None
        except (DBusFastError, OSError, EOFError) as error:
            raise BusError("Disconnected", str(error)) from None
        if reply.message_type is MessageType.ERROR:
            raise BusError(str(reply.error_name), str(reply.body[0]) if reply.body else str(reply.error_name))
        return reply

    @staticmethod
    def _raise(unit: str, error: BusError) -> NoReturn:
        if error.name in _NO_UNIT:
            _no_unit(unit, {"NoSuchUnit": "not-found", "UnitMasked": "masked"}.get(error.name, "bad"), error.text)
        if error.name in _DENIED:
            text = (
                f"user {os.geteuid()} may not manage {unit} ({error.text}); run the node as root, or permit "
                "org.freedesktop.systemd1.manage-units to this user by a polkit rule"
            )
            raise DriverFailed("machine", text, retry=False) from None
        raise DriverFailed("machine", f"systemd cannot be asked about {unit}: {error.text}", retry=True) from None


@asynccontextmanager
async def connect(address: str) -> AsyncGenerator[Systemd]:
    """`address`: of the bus; "": the system's. Raises DriverFailed."""
    try:
        bus = MessageBus(address or None, BusType.SYSTEM, auth_timeout=CALL_S)
        await bus.connect()
    except (OSError, EOFError, DBusFastError) as error:
        where = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "/run/dbus/system_bus_socket"
        why = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        text = f"the system's D-Bus does not answer at {where} ({why}); the driver systemd needs a machine that systemd manages"
        raise DriverFailed("machine", text, retry=not isinstance(error, PermissionError)) from None
    gone = asyncio.ensure_future(bus.wait_for_disconnect())
    try:
        yield Systemd(bus, gone)
    finally:
        bus.disconnect()
        await asyncio.wait((gone,), timeout=CALL_S)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


def _no_unit(unit: str, load: str, why: str = "") -> NoReturn:
    template = f"{unit.partition('@')[0]}@.service"
    match load:
        case "not-found":
            text = f"this machine has no unit {template}; install it in /etc/systemd/system and run: systemctl daemon-reload"
        case "masked":
            text = f"{unit} is masked; run: systemctl unmask {template}"
        case _:
            text = f"systemd cannot load {unit} ({why or load}); run: systemd-analyze verify {template}"
    raise DriverFailed("machine", text, retry=False) from None


def escaped(text: str) -> str:
    """As systemd-escape(1) does it: a text that can be the instance of a unit."""
    found = ""
    for place, byte in enumerate(text.encode()):
        if byte == ord("/"):
            found += "-"
        elif byte in _PLAIN and not (byte == ord(".") and place == 0):
            found += chr(byte)
        else:
            found += f"\\x{byte:02x}"
    return found
