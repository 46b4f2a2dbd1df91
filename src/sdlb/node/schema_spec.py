"""The types of a rollout's settings, in a policy and in the call that starts one."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from sdlb.model.canary import NODES, QUERIES_MAX, STEPS_MAX
from sdlb.model.canary_reader import (
    ALPHA,
    DEFAULT,
    FOR,
    FOR_MAX_S,
    HOOK,
    NAME,
    RATIO,
    REQUESTS,
    TEXT_CHARS_MAX,
    WARM_UP_S,
)
from sdlb.model.rollout_reader import COUNTS, SECONDS
from sdlb.node.specs import json_schema_pattern

SideBySide = Literal["incompatible", "always", "never"]
First = Annotated[int, Meta(ge=COUNTS["first"][0], le=COUNTS["first"][1])]
Failures = Annotated[int, Meta(ge=COUNTS["failures_max"][0], le=COUNTS["failures_max"][1])]
Soak = Annotated[float, Meta(ge=SECONDS["soak_s"][0], le=SECONDS["soak_s"][1])]
Progress = Annotated[float, Meta(ge=SECONDS["progress_s"][0], le=SECONDS["progress_s"][1])]
Drain = Annotated[float, Meta(ge=SECONDS["drain_s"][0], le=SECONDS["drain_s"][1])]
NodesOut = Annotated[str, Meta(max_length=8, pattern=json_schema_pattern(NODES))]
Query_ = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
NAME_OF = json_schema_pattern(NAME)


class CanaryStep(Struct, forbid_unknown_fields=True, kw_only=True):
    """A step of a canary. `nodes`: how many have the new version, as a number or a percentage. `share`: percentage of new requests for it.
    `for`: how long the step lasts, in seconds or as "10m"."""

    nodes: (
        Annotated[str, Meta(max_length=8, pattern=json_schema_pattern(NODES))] | Annotated[int, Meta(ge=1, le=999_999)]
    ) = "100%"
    share: Annotated[float, Meta(ge=0, le=100)] = 100.0
    for_: Annotated[str, Meta(pattern=json_schema_pattern(FOR))] | Annotated[float, Meta(ge=0, le=FOR_MAX_S)] = field(
        default=0.0, name="for"
    )


class CanaryQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Metrics from a Prometheus server: either `bad` and `total`, two counters, or `value` with `max` or `min`. `source`: the name of the
    server in the node files of the roots. `{version}`, `{service}` and `{window}` (the time of the step so far) are replaced."""

    name: Annotated[str, Meta(pattern=NAME_OF)]
    source: Annotated[str, Meta(pattern=NAME_OF)]
    bad: Query_ = ""
    total: Query_ = ""
    value: Query_ = ""
    max: float | None = None
    min: float | None = None


class CanaryAnalysis(Struct, forbid_unknown_fields=True, kw_only=True):
    """How the new version is compared with the old one. `tolerate`: ratio of rates that counts as good. `alpha`: probability of a false
    alarm in the whole rollout. `requests_min`: to the new version, in each step. `warm_up_s`: age from which an instance is compared.
    `hook`: the name of a program in the roots' node files, or a URL, called at the end of each step. `hook_each`: `block`: also called
    at the end of each block."""

    tolerate: Annotated[float, Meta(ge=RATIO[0], le=RATIO[1])] = DEFAULT.tolerate
    alpha: Annotated[float, Meta(ge=ALPHA[0], le=ALPHA[1])] = DEFAULT.alpha
    requests_min: Annotated[int, Meta(ge=REQUESTS[0], le=REQUESTS[1])] = DEFAULT.requests_min
    warm_up_s: Annotated[float, Meta(ge=WARM_UP_S[0], le=WARM_UP_S[1])] = DEFAULT.warm_up_s
    query: Annotated[list[CanaryQuery], Meta(max_length=QUERIES_MAX)] = field(default_factory=list[CanaryQuery])
    hook: Annotated[str, Meta(pattern=f"^$|{json_schema_pattern(HOOK)}")] = ""
    hook_each: Literal["step", "block"] = "step"


Steps = Annotated[list[CanaryStep], Meta(max_length=STEPS_MAX)]
