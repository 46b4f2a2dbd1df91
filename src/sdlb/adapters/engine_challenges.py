"""Open challenges of CAs on their way to the native engine.

Each connection gets all of them when it begins and whenever they change. They count as answered when every engine that accepts
clients has confirmed them; an engine of an older release never does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from sdlb.model.acme import ChallengeAnswer
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import ChallengesApplied, ToEngine

CONFIRMED_S = 3.0


class EngineChallenges:
    """For all engines: two during a hot restart."""

    def __init__(self) -> None:
        self.wanted: tuple[ChallengeAnswer, ...] = ()
        self._feeds: list[ChallengeFeed] = []

    async def challenges(self, answers: Sequence[ChallengeAnswer]) -> str:
        """See `seams.engine.ChallengeSink`."""
        self.wanted = tuple(answers)
        if not self._feeds:
            return "the engine is not attached" if answers else ""
        confirmed = [feed.put() for feed in self._feeds]
        try:
            errors = await asyncio.wait_for(asyncio.gather(*confirmed), CONFIRMED_S)
        except TimeoutError:
            return (
                f"the engine has not confirmed the challenges within {CONFIRMED_S:g} s; it may be of an older release"
            )
        return next(filter(None, errors), "")

    def feed(self, send: Callable[[ToEngine], object]) -> ChallengeFeed:
        """Feeds one more connection until `stop`."""
        feed = ChallengeFeed(self, send)
        self._feeds.append(feed)
        if self.wanted:
            feed.put()
        return feed

    def stop(self, feed: ChallengeFeed) -> None:
        self._feeds = [each for each in self._feeds if each is not feed]
        feed.end()


class ChallengeFeed:
    def __init__(self, all_of_it: EngineChallenges, send: Callable[[ToEngine], object]) -> None:
        self._all = all_of_it
        self._send = send
        self._unanswered: deque[asyncio.Future[str]] = deque()

    def put(self) -> asyncio.Future[str]:
        """Sends the challenges. The result is the engine's error, or ""."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._unanswered.append(answer)
        self._send(wire.to_challenges(self._all.wanted))
        return answer

    def on_applied(self, message: ChallengesApplied) -> None:
        if self._unanswered and not (answer := self._unanswered.popleft()).done():
            answer.set_result(message.error)

    def end(self) -> None:
        """The connection has ended: another engine answers."""
        while self._unanswered:
            if not (answer := self._unanswered.popleft()).done():
                answer.set_result("")
