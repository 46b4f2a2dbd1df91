"""Saved records are read back complete, and records of an older release are read too."""

from __future__ import annotations

import pytest

from sdlb.core import saved
from sdlb.core.decisions import HolderRecord, ServiceRecord
from sdlb.core.downlink import Downlink
from sdlb.core.instance import Instance
from sdlb.core.messages import ACTIVE, Claim, Doc, Stage
from sdlb.core.slot import Permit
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.reason import Nothing
from tests.core.forest import ROUTE, key_of

KEY = key_of("1.0.1")
CLAIM = Claim(
    KEY, 8, 2, ("a", "b"), 77, ("1.0.0",), Stage.OPEN, True, stamp=5, generation=3, scope=("r",), leaving=4, lease_s=60
)
PERMIT = Permit(ACTIVE, Nothing(), "edge", 3, ("r", "s"), 9)
RECORD = ServiceRecord(4, {"1.0.1": 5}, ("1.0.0", "1.0.1"), ("1.0.0",), ("r",))


def test_claims_permits_and_records() -> None:
    for released in (True, False):
        value = saved.claim_to(CLAIM, released)
        assert (saved.claim_from(KEY, value), saved.released_from(value)) == (CLAIM, released)
    assert saved.permit_from(saved.permit_to(PERMIT)) == PERMIT
    assert saved.service_from(saved.service_to(RECORD)) == RECORD
    for holder in (HolderRecord("catalog", 7, True), HolderRecord("catalog", 7, False)):
        assert saved.holder_from(saved.holder_to(holder)) == holder
    assert saved.holder_to(None) is None


def test_children() -> None:
    child = Downlink("rack", "id-rack", 3, "10.0.0.1:80", 0.0)
    child.nonce = "n"
    value = saved.child_from(saved.child_to(child))
    assert {name: value[name] for name in ("node_id", "incarnation", "address", "nonce")} == {
        "node_id": "id-rack",
        "incarnation": 3,
        "address": "10.0.0.1:80",
        "nonce": "n",
    }


@pytest.mark.parametrize("body", [b'{"x": 1}', b"\xff\x00"])
def test_documents(body: bytes) -> None:
    doc = Doc("other", "name", 3, "edge", body)
    assert saved.doc_from(doc.id, saved.doc_to(doc)) == doc


@pytest.mark.parametrize("flag", [True, False])
def test_instances(flag: bool) -> None:
    spec = InstanceSpec(
        "a", "catalog", "1.0.1", (ROUTE,), "127.0.0.1:1", health=HealthCheck("http", "/up"), labels=(("x", "y"),)
    )
    instance = Instance(
        spec,
        "i:a#2",
        flag,
        1.0,
        "me",
        leaving=int(flag),
        removing=flag,
        superseded="b",
        admitted=flag,
        listeners=frozenset({"7"}),
    )
    data = saved.instance_from(saved.instance_to(instance, current=flag))
    assert data == saved.SavedInstance(spec, flag, flag, flag, flag, flag, "me", "b", frozenset({"7"}))


def test_release_0_1() -> None:
    claim = saved.claim_from(KEY, [8, 2, ["a"], ["1.0.0"], 5, True, 3])
    assert (claim.capacity, claim.hosts, claim.stage, claim.generation) == (8, ("a",), Stage.OPEN, 3)
    assert saved.permit_from([3, "edge"]) == Permit(ACTIVE, Nothing(), "edge", 3)
    assert saved.holder_from("catalog") == HolderRecord("catalog", 0, True)
