"""HAProxy's master CLI: one connection for each line of commands, which a worker or the master answers and closes.

A line has several commands, separated by `;`, each with the worker that it is for. A payload ends its line, so it is sent on
its own. The answer to each command ends with an empty line; whatever is not a known confirmation is an error.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from msgspec import Struct

from sdlb.adapters.haproxy.tables import Command, MapDelete, MapPut, ServerCommand

ANSWER_WITHIN_S = 5.0
LINE_BYTES = 6000
_CONFIRMED = re.compile(r"^(New server registered\.|Server deleted\.|)\Z")
GONE = "Can't connect"  # to a worker
_ROW = re.compile(r"^(\d+)\s+(master|worker)\s+(\d+)", re.M)


class Silent(OSError):
    """The master cannot be reached, or does not answer in time. `gone`: nothing listens on its socket."""

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


class CommandFailed(ValueError):
    """A worker did not do what it was told."""


class Processes(Struct, frozen=True):
    """`current`: the worker that accepts. `leaving`: workers from before a reload that still have connections."""

    master: int
    reloads: int
    current: int
    leaving: tuple[int, ...]
    failed: int

    @property
    def workers(self) -> tuple[int, ...]:
        return (self.current, *self.leaving)


class Master:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, text: str, within_s: float = ANSWER_WITHIN_S) -> str:
        """Raises Silent."""
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await asyncio.open_unix_connection(str(self._path))
                try:
                    writer.write(text.encode())
                    writer.write_eof()
                    return (await reader.read(-1)).decode("utf-8", "replace")
                finally:
                    writer.close()
        except TimeoutError:
            raise Silent(f"HAProxy does not answer within {within_s:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Silent(f"HAProxy's master socket: {error.strerror}", gone=True) from None
        except OSError as error:
            raise Silent(f"HAProxy's master socket: {error.strerror}") from None

    async def processes(self, within_s: float = ANSWER_WITHIN_S) -> Processes:
        """Raises Silent, also while the master has no worker yet."""
        text = await self.ask("show proc\n", within_s)
        rows = [(int(pid), kind, int(reloads)) for pid, kind, reloads in _ROW.findall(text)]
        master = next((row for row in rows if row[1] == "master"), None)
        head, _, old = text.partition("# old workers")
        current = [int(pid) for pid, kind, _ in _ROW.findall(head) if kind == "worker"]
        leaving = [(int(reloads), int(pid)) for pid, kind, reloads in _ROW.findall(old) if kind == "worker"]
        if not current and leaving:  # from 3.1 on, the worker that serves on after a failed reload is an old one
            newest = min(leaving)
            leaving.remove(newest)
            current = [newest[1]]
        if master is None or not current:
            raise Silent("HAProxy has no worker")
        failed = re.search(r"\[failed: (\d+)\]", text)
        return Processes(
            master[0], master[2], current[0], tuple(pid for _, pid in leaving), int(failed[1]) if failed else 0
        )

    async def run(self, pid: int, commands: Sequence[Command], *, leaving: bool = False) -> None:
        """Raises Silent or CommandFailed. `leaving`: only changes of maps; a worker that is gone has nothing to change."""
        wanted = [each for each in commands if not (leaving and isinstance(each, ServerCommand))]
        for line in lines(pid, wanted):
            answer = await self.ask(line)
            for part in answer.split("\n"):
                if leaving and part.startswith(GONE):
                    return
                if not _CONFIRMED.match(part.strip()):
                    raise CommandFailed(part.strip()[:300])

    async def worker(self, pid: int, command: str) -> str:
        """The answer of a worker. Raises Silent."""
        return await self.ask(f"@!{pid} {command}\n")

    async def serves(self, pid: int) -> bool:
        """Whether the worker has loaded its files: from 3.1 on the master answers before. Raises Silent."""
        return "Uptime_sec" in await self.worker(pid, "show info")


def lines(pid: int, commands: Iterable[Command]) -> list[str]:
    """What is sent, in order: neighbours share a line or a payload."""
    found: list[str] = []
    for map_name, group in groupby(commands, key=_payload_of):
        entries = [
            f"{each.key} {each.value}" if map_name and isinstance(each, MapPut) else _text(each) for each in group
        ]
        for batch in _batches(entries):
            if map_name:
                body = "\n".join(batch)
                found.append(f"@!{pid} add map {map_name}.map <<\n{body}\n\n")
            else:
                found.append("; ".join(f"@!{pid} {each}" for each in batch) + "\n")
    return found


def _payload_of(command: Command) -> str:
    """The map whose new entries share a payload. "": the command stands in a line with others."""
    return command.map if isinstance(command, MapPut) and not command.known else ""


def _text(command: Command) -> str:
    match command:
        case MapPut():
            return f"set map {command.map}.map {command.key} {command.value}"
        case MapDelete():
            return f"del map {command.map}.map {command.key}"
        case ServerCommand():
            return command.text


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > LINE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text) + 16
    if batch:
        yield batch


def entries(text: str) -> dict[str, str]:
    """The answer to `show map`: a reference, the key and the value in each line."""
    rows = [line.split(" ", 2) for line in text.splitlines() if line.startswith("0x")]
    return {row[1]: row[2] for row in rows if len(row) == 3}


def info(text: str) -> dict[str, int]:
    pairs = [line.partition(": ") for line in text.splitlines()]
    return {name: int(value) for name, _, value in pairs if name in ("CurrConns", "CumConns") and value.isdigit()}
