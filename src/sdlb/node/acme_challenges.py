"""How challenges are answered: by the engines of this node and of its peers, or by the program that sets DNS records.

An order goes on only when everything is visible: this node's engine and every peer that can be reached have confirmed it. A
peer that cannot be reached does not hold an order up, because it does not answer the CA either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from sdlb.core.certificates import OUTAGE
from sdlb.model.acme import DNS, HTTP, AcmeSettings, ChallengeAnswer
from sdlb.seams.acme import AcmeFailed, AcmeParts

Publish = Callable[[Sequence[ChallengeAnswer]], Awaitable[str]]
"""Makes these the only challenges that this node has open, here and at its peers. Returns "" or why it is not possible."""


@dataclass(frozen=True, slots=True)
class Presented:
    """`proof`: the key authorization."""

    host: str
    token: str
    proof: str = field(repr=False)


class Challenges:
    def __init__(self, settings: AcmeSettings, parts: AcmeParts, publish: Publish) -> None:
        self._settings = settings
        self._parts = parts
        self._publish = publish

    @property
    def kind(self) -> str:
        return self._settings.challenge

    async def present(self, presented: Sequence[Presented]) -> None:
        """Raises AcmeFailed."""
        if not presented:
            return
        if self.kind == DNS:
            for each in presented:
                await self._hook("present", each)
            return
        why = await self._publish([await self._answer(each) for each in presented])
        if why:
            raise AcmeFailed(OUTAGE, why)

    async def clean_up(self, presented: Sequence[Presented]) -> None:
        """Removes what was presented, as far as that is possible."""
        if self.kind != DNS:
            await self._publish(())
            return
        for each in presented:
            try:
                await self._hook("cleanup", each)
            except AcmeFailed:
                continue  # a record that stays does no harm

    async def _answer(self, each: Presented) -> ChallengeAnswer:
        content = each.proof
        if self.kind != HTTP:
            content = await asyncio.to_thread(self._parts.tools.challenge_certificate, each.host, each.proof)
        return ChallengeAnswer(self.kind, each.host, each.token, content)

    async def _hook(self, action: str, each: Presented) -> None:
        about = {
            "SDLB_ACTION": action,
            "SDLB_DOMAIN": each.host,
            "SDLB_RECORD": f"_acme-challenge.{each.host}",
            "SDLB_VALUE": self._parts.tools.dns_value(each.proof),
        }
        await self._parts.run_hook(self._settings.hook, about)
