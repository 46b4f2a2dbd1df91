"""This node's certificate: read at the start, and again when its files have changed.

The engine validates a new certificate and uses it for new links, or keeps the old one. Open links stay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from sdlb.core.effects import Note
from sdlb.model.identity import Identity, IdentitySpec
from sdlb.model.problem import Invalid
from sdlb.node.certificates import ending
from sdlb.node.config_reader import CODE
from sdlb.node.pem import Stamp, read_identity, stamp
from sdlb.seams.store import NoteSink

LOOK_S = 2.0
Take = Callable[[Identity], Awaitable[str]]
"""Gives the certificate to the engine; returns "" or why the old one stays in use."""


class IdentityWatch:
    """`not_after_s`: Unix time at which the certificate in use ends, 0: not known. `wall`: Unix time in seconds."""

    def __init__(self, report: NoteSink, not_after_s: Callable[[], int], wall: Callable[[], float] = time.time) -> None:
        self.current: Identity | None = None
        self.error = ""
        """Why the current files cannot be used."""
        self._report = report
        self._not_after_s = not_after_s
        self._wall = wall
        self._spec: IdentitySpec | None = None
        self._read_at: Stamp = ()
        self._seen: Stamp = ()
        self._exposed: list[str] = []
        self._reported = (0, 0)
        self._not_before_s = 0

    async def adopt(self, spec: IdentitySpec | None, take: Take | None = None) -> None:
        """Uses these files from now on. Raises Invalid, and changes nothing, if they cannot be read or are refused."""
        if spec is None or spec == self._spec:
            return
        now, identity, exposed = await asyncio.to_thread(_read, spec)
        if take is not None and identity != self.current and (error := await take(identity)):
            raise Invalid(
                CODE,
                spec.certificate.where,
                f"was refused: {error}",
                "use a certificate, key and CA that belong together",
            )
        self._spec, self._read_at, self._seen = spec, now, now
        self._took(identity, exposed)

    def must(self) -> Identity:
        """The identity of a node that has one."""
        assert self.current is not None
        return self.current

    async def run(self, take: Take) -> None:
        """Checks the files for changes until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look(take)

    async def look(self, take: Take) -> None:
        """Uses files that have changed and were the same at two checks."""
        spec = self._spec
        if spec is None:
            return
        now = await asyncio.to_thread(stamp, spec)
        before, self._seen = self._seen, now
        if now != self._read_at and now == before:
            await self._renew(spec, take)
        self._reported, note = ending(self._not_before_s, self._not_after_s(), int(self._wall()), self._reported)
        if note:
            self._report(Note(*note))

    async def _renew(self, spec: IdentitySpec, take: Take) -> None:
        try:
            now, identity, exposed = await asyncio.to_thread(_read, spec)
        except Invalid as error:
            self._refused("identity-unreadable", error.what)
            return
        self._read_at = now
        if identity != self.current:
            error = await take(identity)
            if error:
                self._refused("identity-refused", error)
                return
            self._report(Note("identity-changed", "this node's certificate was renewed: new links use it"))
        self._took(identity, exposed)

    def _took(self, identity: Identity, exposed: list[str]) -> None:
        from sdlb.node.certificate_faults import not_before_s  # its library is loaded by nodes with certificates only

        self.current, self.error = identity, ""
        self._not_before_s = not_before_s(identity.pem)
        for text in exposed:
            if text not in self._exposed:
                self._report(Note("key-file-exposed", f"identity: {text}", "warning"))
        self._exposed = exposed

    def _refused(self, code: str, why: str) -> None:
        if why != self.error:
            self._report(
                Note(code, f"this node's certificate was not renewed, the old one stays in use: {why}", "error")
            )
        self.error = why


def _read(spec: IdentitySpec) -> tuple[Stamp, Identity, list[str]]:
    """The stamp is taken before the files are read, so that a change meanwhile is seen at the next check. Raises
    Invalid."""
    now = stamp(spec)
    return (now, *read_identity(spec))
