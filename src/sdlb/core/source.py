r"""One source of a claim key at a node: a local instance, a child node, or a remnant of one. Its life is the table below.

    claimed --admit--> admitted --leave--> leaving --expire--> forced
       |                  |  \--silence--> suspect --heard--> admitted
       |                  |                   |
       +------omit--------+-------omit--------+--> remnant --presume--> presumed --heard--> claimed
    any --stop--> gone

Only `admitted` and `suspect` (as a last resort) are endpoints for new requests; `leaving` still is until the parents
have let go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from sdlb.core.messages import Cause, Claim


class Standing(Enum):
    CLAIMED = "claimed"  # claimed, never allowed to serve here
    ADMITTED = "admitted"  # an endpoint whenever the key is active and it has capacity
    SUSPECT = "suspect"  # its node is silent; its engine may still serve
    LEAVING = "leaving"  # asked to be taken out: break after make
    FORCED = "forced"  # to be taken out at once, whatever is in flight
    REMNANT = "remnant"  # nobody vouches for it any more; not known to have stopped
    PRESUMED = "presumed"  # silent past lease and fence under on_silence = "wait"
    GONE = "gone"


class Step(Enum):
    ADMIT = "admit"  # the key is active here, and this node is in touch with its authority
    LEAVE = "leave"  # the source asks to be taken out
    STAY = "stay"  # it claims without asking to be taken out
    RETURN = "return"  # it no longer asks to be taken out, and is still in the engine's table
    EXPIRE = "expire"  # the deadline of its drain has passed, or its lease at this host
    SILENCE = "silence"  # the lease of its node ran out
    HEARD = "heard"  # its node was heard again
    OMIT = "omit"  # its node left, or reported in full without it
    PRESUME = "presume"  # lease and fence are over
    STOP = "stop"  # it is known to have stopped, or nothing waits for it any more


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
"""What is not here cannot happen: asking for it is a fault of ours (KeyError)."""

ENDPOINT: Final = frozenset({Standing.ADMITTED, Standing.SUSPECT})
SILENT: Final = frozenset({Standing.SUSPECT, Standing.REMNANT, Standing.PRESUMED})
OUT: Final = frozenset({Standing.LEAVING, Standing.FORCED})


@dataclass(slots=True)
class Source:
    """`target`: "i:ID" (an instance), "n:NAME" (a child), "r:NAME#N" (a remnant of a child). `until`: of a remnant, when
    it is presumed to have stopped. `twins`: targets that reported, since this source last did, exactly its hosts or more.
    `contradicted`: one of them has since reported that all of it has stopped.
    """

    target: str
    claim: Claim
    child: str = ""  # the node's name, "" for an instance
    standing: Standing = Standing.CLAIMED
    cause: Cause = Cause.STOPPED
    until: float = 0.0
    unlinked: bool = False  # its node has no link at the moment
    covered_by: set[str] = field(default_factory=set[str])
    contradicted: bool = False

    def step(self, step: Step) -> None:
        self.standing = STEPS[self.standing, step]

    @property
    def suspect(self) -> bool:
        return self.standing is Standing.SUSPECT
