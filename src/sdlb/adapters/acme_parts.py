"""The parts that order certificates, put together; loaded only by nodes that have `[acme]`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sdlb.adapters import acme_keys
from sdlb.adapters.acme_client import Client
from sdlb.adapters.certificate_files import CertificateFiles
from sdlb.adapters.hook_program import YES, Programs, environment
from sdlb.core.certificates import REFUSED
from sdlb.model.acme import AcmeSettings
from sdlb.model.hook_program import HookProgram
from sdlb.seams.acme import AcmeFailed
from sdlb.seams.certificates import CertificateStore, CertificateTools

HOOK_S = 600.0
"""How long the program of dns-01 may take: it returns when the record can be seen, which takes minutes at some providers."""


class Parts:
    def __init__(self, folder: Path) -> None:
        self._store = CertificateFiles(folder)
        self._programs = Programs(folder / "hooks")

    @property
    def store(self) -> CertificateStore:
        return self._store

    @property
    def tools(self) -> CertificateTools:
        return acme_keys

    def server(self, settings: AcmeSettings) -> Client:
        directory = settings.directory
        pem, url = self._store.load_account(directory)
        if not pem:
            pem = acme_keys.new_key()
            self._store.save_account(directory, pem, "")  # before it is used: a lost key is a lost account
        return Client(
            settings, acme_keys.load_key(pem), url, lambda account: self._store.save_account(directory, pem, account)
        )

    def reaps(self, pid: int) -> bool:
        """Whether this object waits for that child process itself."""
        return self._programs.reaps(pid)

    async def run_hook(self, command: Sequence[str], about: Mapping[str, str]) -> None:
        program = HookProgram(tuple(command), HOOK_S)
        key = " ".join((about["SDLB_ACTION"], about["SDLB_RECORD"], about["SDLB_VALUE"]))
        try:
            outcome, detail = await self._programs.run(program, key, HOOK_S, environment(program, os.environ, about))
        except OSError as error:
            raise AcmeFailed(REFUSED, f"the hook {command[0]} cannot be started: {error.strerror or error}") from None
        if outcome != YES:
            raise AcmeFailed(REFUSED, f"the hook {command[0]} failed ({about['SDLB_ACTION']}): {detail}")
