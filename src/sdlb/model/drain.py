"""How long a drain may take, and what then becomes of the requests that are still in flight: the table `drain` of a policy.

It counts for drains that sdlb itself begins, by rollouts, recalls and cut-overs, and for those of calls without a deadline of
their own.
"""

from __future__ import annotations

from msgspec import Struct

from sdlb.model.policy_reader import Reader

WAIT, CUT = "wait", "cut"
SECONDS_MAX = 86_400


class Drain(Struct, frozen=True):
    """`then`: at the deadline, WAIT goes on waiting, and CUT ends what is in flight. `streams_s`: streams (upgraded connections, gRPC
    calls, server-sent events) end after this time in any case; 0: as other requests."""

    deadline_s: float = 30.0
    then: str = WAIT
    streams_s: float = 60.0

    @staticmethod
    def read(top: Reader) -> Drain:
        """Raises Invalid."""
        default = Drain()
        reader = top.inner("drain", Drain.__struct_fields__)
        if reader is None:
            return default
        return Drain(
            reader.number("deadline_s", default.deadline_s, 0, SECONDS_MAX),
            reader.one_of("then", (WAIT, CUT), default.then),
            reader.number("streams_s", default.streams_s, 0, SECONDS_MAX),
        )

    def to_data(self) -> dict[str, object]:
        return {"deadline_s": self.deadline_s, "then": self.then, "streams_s": self.streams_s}
