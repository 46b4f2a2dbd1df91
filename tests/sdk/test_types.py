"""Names, health checks and specs as one writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.sdk import calls
from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Health, Spec, health_of, split_name

SERVICES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z][a-z0-9]{0,5}){0,2}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(-[a-z]{1,4})?", fullmatch=True)


@given(SERVICES, VERSIONS)
def test_name_and_version_come_apart_as_they_were_put_together(service: str, version: str) -> None:
    assert split_name(f"{service}-{version}") == (service, version)


@pytest.mark.parametrize("text", ["catalog", "", "-1", "catalog-", "catalog-x1", "1.0.1", "a_1"])
def test_what_is_no_name_and_version_is_told(text: str) -> None:
    with pytest.raises(Problem) as caught:
        split_name(text)
    assert caught.value.code == "bad-name"
    assert repr(text)[1:-1] in caught.value.detail


def test_short_forms_of_health_checks() -> None:
    assert health_of("tcp") == Health(kind="tcp")
    assert health_of("none") == Health(kind="none")
    assert health_of("/well?deep=1") == Health(kind="http", path="/well?deep=1")
    with pytest.raises(Problem):
        health_of("well")


def test_a_spec_has_all_keys_of_the_put_body_but_the_id() -> None:
    spec = Spec.of("catalog-1.0.1", routes=["example.com/catalog*"], port=8001, labels={"zone": "a"})
    body = spec.body()
    assert set(body) == set(Spec.__struct_fields__) - {"id"}
    assert (body["service"], body["version"], body["endpoint"]) == ("catalog", "1.0.1", "127.0.0.1:8001")
    assert spec.id.startswith("catalog-1.0.1-")
    assert spec.id != Spec.of("catalog-1.0.1", routes=["x"], port=1).id


@pytest.mark.parametrize("where", [{}, {"port": 1, "endpoint": "unix:/x"}])
def test_a_spec_needs_exactly_one_place(where: dict[str, object]) -> None:
    with pytest.raises(Problem, match="either a port or an endpoint"):
        Spec.of("catalog-1", routes=["x"], **where)  # pyright: ignore[reportArgumentType]


def test_routes_as_one_string_is_told_instead_of_being_taken_apart_into_letters() -> None:
    with pytest.raises(Problem, match="list"):
        Spec.of("catalog-1", routes="example.com/x", port=1)


def test_the_one_node_of_a_user_is_found_and_of_several_one_must_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "DEFAULT_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.delenv("SDLB_SOCKET", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert calls.default_socket() == str(tmp_path / "none.sock")
    for name in ("a", "b"):
        (tmp_path / "sdlb" / name).mkdir(parents=True)
    (tmp_path / "sdlb" / "a" / "sdlb.sock").touch()
    assert calls.default_socket() == str(tmp_path / "sdlb" / "a" / "sdlb.sock")
    (tmp_path / "sdlb" / "b" / "sdlb.sock").touch()
    with pytest.raises(Problem, match="several nodes"):
        calls.default_socket()
    monkeypatch.setenv("SDLB_SOCKET", "/x")
    assert calls.default_socket() == "/x"
