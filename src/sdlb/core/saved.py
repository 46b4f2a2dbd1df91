"""Saved formats of the core. Every value is an object with its version `v`. Unknown fields are ignored, so that an older
release can read values of a newer one. Release 0.1 wrote lists in a fixed order, which are still read.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgspec.structs import asdict

from sdlb.core.decisions import HolderRecord, ServiceRecord
from sdlb.core.messages import ACTIVE, Claim, ClaimKey, Doc, Stage
from sdlb.core.slot import Permit
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.reason import Nothing

if TYPE_CHECKING:
    from sdlb.core.downlink import Downlink
    from sdlb.core.instance import Instance

V = 1
EPOCH_MAX = (1 << 64) - 1


def _map(value: object, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    return dict(zip(names, cast("Sequence[Any]", value), strict=False))


# ------------------------------------------------------------------ children


def child_to(child: Downlink) -> dict[str, object]:
    return {
        "v": V,
        "node_id": child.node_id,
        "incarnation": child.incarnation,
        "address": child.address,
        "nonce": child.nonce,
    }


def child_from(value: object) -> dict[str, object]:
    return _map(value, ("node_id", "incarnation", "address"))


def claim_to(claim: Claim, released: bool = False) -> dict[str, object]:
    """The fields that a restart needs. The child reports the others again. `released`: its drain was acknowledged."""
    return {
        "v": V,
        "capacity": claim.capacity,
        "count": claim.count,
        "hosts": list(claim.hosts),
        "hosts_digest": claim.hosts_digest,
        "compatible": list(claim.compatible),
        "stamp": claim.stamp,
        "stage": int(claim.stage),
        "generation": claim.generation,
        "scope": list(claim.scope),
        "lease_s": claim.lease_s,
        "leaving": claim.leaving,
        "opening": claim.opening,
        **({"released": True} if released else {}),
    }


def claim_from(key: ClaimKey, value: object) -> Claim:
    data = _map(value, ("capacity", "count", "hosts", "compatible", "stamp", "open", "generation"))
    stage = Stage.OPEN if data.get("open") else Stage.WAITING
    return Claim(
        key,
        capacity=int(data["capacity"]),
        count=int(data["count"]),
        hosts=tuple(data["hosts"]),
        hosts_digest=int(data.get("hosts_digest", 0)),
        compatible=tuple(data["compatible"]),
        stage=Stage(int(data["stage"])) if "stage" in data else stage,
        stamp=int(data["stamp"]),
        generation=int(data["generation"]),
        scope=tuple(data.get("scope", ())),
        lease_s=int(data.get("lease_s", 0)),
        leaving=int(data.get("leaving", 0)),
        opening=bool(data.get("opening", False)),
    )


def released_from(value: object) -> bool:
    return isinstance(value, Mapping) and bool(cast("Mapping[str, Any]", value).get("released", False))


def doc_to(doc: Doc) -> dict[str, object]:
    """A body that is not UTF-8 (of a kind that this release does not know) is saved as base64."""
    value: dict[str, object] = {"v": V, "revision": doc.revision, "origin": doc.origin, "scope": list(doc.scope)}
    try:
        return {**value, "body": doc.body.decode()}
    except UnicodeDecodeError:
        return {**value, "body64": b64encode(doc.body).decode()}


def doc_from(doc_id: str, value: object) -> Doc:
    kind, _, name = doc_id.partition("/")
    data = _map(value, ("revision", "origin", "body"))
    body = b64decode(data["body64"]) if "body64" in data else str(data["body"]).encode()
    scope = tuple(str(root) for root in data.get("scope", ()))
    return Doc(kind, name, int(data["revision"]), str(data["origin"]), body, scope)


# ------------------------------------------------------------------ decisions


def permit_to(permit: Permit) -> dict[str, object]:
    return {
        "v": V,
        "generation": permit.generation,
        "decided_by": permit.decided_by,
        "scope": list(permit.scope),
        "stamp": permit.stamp,
    }


def permit_from(value: object) -> Permit:
    data = _map(value, ("generation", "decided_by"))
    scope = tuple(data.get("scope", ()))
    return Permit(ACTIVE, Nothing(), str(data["decided_by"]), int(data["generation"]), scope, int(data.get("stamp", 0)))


def service_to(record: ServiceRecord) -> dict[str, object]:
    return {
        "v": V,
        "generation": record.generation,
        "active": dict(sorted(record.active.items())),
        "era": list(record.era),
        "closing": list(record.closing),
        "scope": list(record.scope),
        **({"past": list(record.past)} if record.past else {}),
    }


def service_from(value: object) -> ServiceRecord:
    data = cast("Mapping[str, Any]", value)
    return ServiceRecord(
        generation=int(data.get("generation", 0)),
        active={str(v): int(stamp) for v, stamp in data.get("active", {}).items()},
        era=tuple(data.get("era", ())),
        closing=tuple(data.get("closing", ())),
        scope=tuple(data.get("scope", ())),
        past=tuple(data.get("past", ())),
    )


def holder_to(record: HolderRecord | None) -> dict[str, object] | None:
    if record is None:
        return None
    return {"v": V, "service": record.service, "stamp": record.stamp, "confirmed": record.confirmed}


def holder_from(value: object) -> HolderRecord:
    if isinstance(value, str):
        return HolderRecord(value, confirmed=True)
    data = cast("Mapping[str, Any]", value)
    return HolderRecord(str(data["service"]), int(data.get("stamp", 0)), bool(data.get("confirmed", True)))


# ------------------------------------------------------------------ engine


def engine_to(boot_id: str, epoch: int, older: bool) -> dict[str, object]:
    """`older`: the state folder is an older copy, and no parent has confirmed its permits yet."""
    return {"v": V, "boot_id": boot_id, "epoch": epoch, **({"older": True} if older else {})}


def engine_from(value: object) -> tuple[str, int, bool]:
    """(boot id, epoch, older). A value of an earlier release has no epoch; then no engine counts as newer."""
    data = cast("Mapping[str, Any]", value)
    return str(data["boot_id"]), int(data.get("epoch", EPOCH_MAX)), bool(data.get("older", False))


# ------------------------------------------------------------------ instances

_SPEC_FIELDS = InstanceSpec.__struct_fields__
_HEALTH_FIELDS = HealthCheck.__struct_fields__


class SavedInstance(NamedTuple):
    spec: InstanceSpec
    healthy: bool
    leaving: bool
    removing: bool
    admitted: bool
    current: bool
    owner: str
    superseded: str
    listeners: frozenset[str]
    by_policy: bool = False


def instance_to(instance: Instance, current: bool) -> dict[str, object]:
    return {
        "v": V,
        "spec": _spec_to(instance.spec),
        "healthy": instance.healthy,
        "leaving": bool(instance.leaving),
        "removing": instance.removing,
        "by_policy": instance.by_policy,
        "admitted": instance.admitted,
        "current": current,
        "owner": instance.owner,
        "superseded": instance.superseded,
        "listeners": sorted(instance.listeners),
    }


def instance_from(value: object) -> SavedInstance:
    data = cast("Mapping[str, Any]", value)
    return SavedInstance(
        _spec_from(data["spec"]),
        bool(data["healthy"]),
        bool(data["leaving"]),
        bool(data["removing"]),
        bool(data.get("admitted", True)),
        bool(data.get("current", True)),
        str(data.get("owner", "")),
        str(data.get("superseded", "")),
        frozenset(str(each) for each in data.get("listeners", ())),
        bool(data.get("by_policy", False)),
    )


def _spec_to(spec: InstanceSpec) -> dict[str, object]:
    return {**asdict(spec), "health": asdict(spec.health)}


def _spec_from(value: Mapping[str, Any]) -> InstanceSpec:
    known = {name: each for name, each in value.items() if name in _SPEC_FIELDS}
    health = {name: each for name, each in known["health"].items() if name in _HEALTH_FIELDS}
    known["health"] = HealthCheck(**health)
    known["routes"] = tuple(known["routes"])
    known["compatible"] = tuple(known["compatible"])
    known["labels"] = tuple((name, each) for name, each in known["labels"])
    return InstanceSpec(**known)
