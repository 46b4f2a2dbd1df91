"""Challenges of a certificate authority, answered by HAProxy: http-01 alone, because HAProxy chooses no certificate by protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from sdlb.model.acme import HTTP, WELL_KNOWN, ChallengeAnswer


class Challenges:
    """`put`: replaces the answers, (host, path) -> content; returns "" or why that has failed."""

    def __init__(self, put: Callable[[Mapping[tuple[str, str], str]], Awaitable[str]]) -> None:
        self._put = put

    async def challenges(self, answers: Sequence[ChallengeAnswer]) -> str:
        known = {(each.host, WELL_KNOWN + each.token): each.content for each in answers if each.kind == HTTP}
        error = await self._put(known)
        if error or len(known) == len(answers):
            return error
        return 'HAProxy cannot answer tls-alpn-01; set challenge = "http-01" or "dns-01" in [acme]'
