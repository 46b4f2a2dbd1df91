"""The bodies and answers of orders (`node.orders`)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sdlb.model.version import SERVICE
from sdlb.node.schema import Printable, Strict
from sdlb.node.specs import Route, Service, json_schema_pattern

Name = Annotated[str, Meta(max_length=128, extra_json_schema=Printable)]


class Approval(Strict):
    """`by`: another name than that of the user; only root and the user of the node may give one."""

    gate: Annotated[str, Meta(max_length=64, pattern=json_schema_pattern(SERVICE))]
    by: Name = ""


class Promotion(Strict):
    """`no_gates`: skip the gates, for this reason. `by`: as in Approval."""

    no_gates: Annotated[str, Meta(max_length=500)] = ""
    by: Name = ""


class Transfer(Strict):
    """`to`: the service that gets the route. `by`: as in Approval."""

    route: Route
    to: Service
    by: Name = ""


class Approved(Strict):
    """`conductor`: the root that recorded it. `by`: the recorded name."""

    node: str
    conductor: str
    service: str
    version: str
    gate: str
    by: str


class Promoted(Strict):
    """As Approved."""

    node: str
    conductor: str
    service: str
    version: str
    no_gates: str
    by: str


class Transferred(Strict):
    """`roots`: all roots; each of them has recorded it."""

    node: str
    roots: list[str]
    route: str
    to: str
    by: str


class Revocation(Strict):
    """`by`: as in Approval."""

    reason: Literal["unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"] = (
        "unspecified"
    )
    by: Name = ""


class Revoked(Strict):
    """`digest`: SHA-256 of the certificate. `already`: it had been revoked before. `by`: the recorded name."""

    node: str
    site: str
    reason: str
    by: str
    digest: str
    already: bool
