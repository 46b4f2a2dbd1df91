r"""A source of a claim key at a node: a local instance, a child node, or a remnant of a child. Its states:

    claimed --admit--> admitted --leave--> leaving --expire--> forced
       |                  |  \--silence--> suspect --heard--> admitted
       |                  |                   |
       +------omit--------+-------omit--------+--> remnant --presume--> presumed --heard--> claimed
    any --stop--> gone

Only `admitted` sources, and `suspect` ones as a last resort, are endpoints for new requests. A `leaving` source stays an
endpoint until the parents have acknowledged the drain.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import Struct, field

from sdlb.core.messages import Cause, Claim


class Standing(Enum):
    CLAIMED = "claimed"  # never allowed to serve here yet
    ADMITTED = "admitted"  # an endpoint while the key is active and the source has capacity
    SUSPECT = "suspect"  # its node is silent, but its engine may still serve
    LEAVING = "leaving"  # drains: it stays in the engine until the parents route elsewhere
    FORCED = "forced"  # to be removed from the engine immediately, even with requests in flight
    REMNANT = "remnant"  # no longer reported, but not known to have stopped
    PRESUMED = "presumed"  # silent longer than lease and fence, with on_silence = "wait"
    GONE = "gone"


class Step(Enum):
    ADMIT = "admit"  # the key is active here, and this node reaches its authority
    LEAVE = "leave"  # the source asks for a drain
    STAY = "stay"  # it claims and does not ask for a drain
    RETURN = "return"  # it cancels its drain while it is still in the engine's table
    EXPIRE = "expire"  # the deadline of its drain or its lease at this host has passed
    SILENCE = "silence"  # the lease of its node expired
    HEARD = "heard"  # its node sent a message again
    OMIT = "omit"  # its node left, or sent a full state without it
    PRESUME = "presume"  # lease and fence have passed
    STOP = "stop"  # it is known to have stopped, or no longer matters


_S, _E = Standing, Step

STEPS: Final[dict[tuple[Standing, Step], Standing]] = {
    (_S.CLAIMED, _E.ADMIT): _S.ADMITTED,
    (_S.CLAIMED, _E.LEAVE): _S.LEAVING,
    (_S.CLAIMED, _E.STAY): _S.CLAIMED,
    (_S.CLAIMED, _E.EXPIRE): _S.FORCED,
    (_S.CLAIMED, _E.SILENCE): _S.CLAIMED,
    (_S.CLAIMED, _E.HEARD): _S.CLAIMED,
    (_S.CLAIMED, _E.OMIT): _S.REMNANT,
    (_S.CLAIMED, _E.PRESUME): _S.PRESUMED,
    (_S.ADMITTED, _E.ADMIT): _S.ADMITTED,
    (_S.ADMITTED, _E.LEAVE): _S.LEAVING,
    (_S.ADMITTED, _E.STAY): _S.ADMITTED,
    (_S.ADMITTED, _E.EXPIRE): _S.FORCED,
    (_S.ADMITTED, _E.SILENCE): _S.SUSPECT,
    (_S.ADMITTED, _E.HEARD): _S.ADMITTED,
    (_S.ADMITTED, _E.OMIT): _S.REMNANT,
    (_S.ADMITTED, _E.PRESUME): _S.PRESUMED,
    (_S.SUSPECT, _E.LEAVE): _S.LEAVING,
    (_S.SUSPECT, _E.STAY): _S.SUSPECT,
    (_S.SUSPECT, _E.SILENCE): _S.SUSPECT,
    (_S.SUSPECT, _E.HEARD): _S.ADMITTED,
    (_S.SUSPECT, _E.OMIT): _S.REMNANT,
    (_S.SUSPECT, _E.PRESUME): _S.PRESUMED,
    (_S.LEAVING, _E.LEAVE): _S.LEAVING,
    (_S.LEAVING, _E.STAY): _S.CLAIMED,
    (_S.LEAVING, _E.RETURN): _S.ADMITTED,
    (_S.LEAVING, _E.EXPIRE): _S.FORCED,
    (_S.LEAVING, _E.SILENCE): _S.LEAVING,
    (_S.LEAVING, _E.HEARD): _S.LEAVING,
    (_S.LEAVING, _E.OMIT): _S.REMNANT,
    (_S.LEAVING, _E.PRESUME): _S.PRESUMED,
    (_S.FORCED, _E.LEAVE): _S.FORCED,
    (_S.FORCED, _E.STAY): _S.CLAIMED,
    (_S.FORCED, _E.EXPIRE): _S.FORCED,
    (_S.FORCED, _E.PRESUME): _S.PRESUMED,
    (_S.REMNANT, _E.PRESUME): _S.PRESUMED,
    (_S.PRESUMED, _E.LEAVE): _S.LEAVING,
    (_S.PRESUMED, _E.STAY): _S.CLAIMED,
    (_S.PRESUMED, _E.SILENCE): _S.PRESUMED,
    (_S.PRESUMED, _E.HEARD): _S.CLAIMED,
    (_S.PRESUMED, _E.OMIT): _S.PRESUMED,
    (_S.PRESUMED, _E.PRESUME): _S.PRESUMED,
    **{(standing, _E.STOP): _S.GONE for standing in _S if standing is not _S.GONE},
}
"""All valid transitions. Any other one is a bug and raises KeyError."""

ENDPOINT: Final = frozenset({Standing.ADMITTED, Standing.SUSPECT})
SILENT: Final = frozenset({Standing.SUSPECT, Standing.REMNANT, Standing.PRESUMED})
OUT: Final = frozenset({Standing.LEAVING, Standing.FORCED})


class Source(Struct):
    """`target`: the source's id, "i:ID" (an instance), "n:NAME" (a child) or "r:NAME#N" (a remnant of a child). The engine
    knows instances and children by the same ids.

    `until`: time at which a remnant is presumed stopped. `covered_by`: targets that, since the last report of this source,
    reported all of its hosts. `contradicted`: one of those has reported since that the claim has stopped there.
    """

    target: str
    claim: Claim
    child: str = ""  # name of the node; "" for an instance
    standing: Standing = Standing.CLAIMED
    cause: Cause = Cause.STOPPED
    until: float = 0.0
    unlinked: bool = False  # its node has no link now
    released: bool = False  # this root has acknowledged its drain
    covered_by: set[str] = field(default_factory=set[str])
    contradicted: bool = False

    def step(self, step: Step) -> None:
        self.standing = STEPS[self.standing, step]

    @property
    def suspect(self) -> bool:
        return self.standing is Standing.SUSPECT
