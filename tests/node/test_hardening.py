"""`public = true`, part by part: the defaults, each key on and off, and the list that `GET /v1/tree` and the audit show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdlb.model.hardening import HSTS_S
from sdlb.model.problem import Invalid
from sdlb.node.config import NodeConfig, Options, read_config
from sdlb.node.hardening import FIXED, KEYS, Part, parts


def config(tmp_path: Path, text: str) -> NodeConfig:
    file = tmp_path / "node.toml"
    file.write_text(f'name = "edge-1"\nstate_dir = "{tmp_path}"\n{text}')
    return read_config(Options(config=str(file)), {})


def by_name(config: NodeConfig) -> dict[str, Part]:
    return {part.setting: part for part in parts(config)}


PUBLIC: dict[str, Any] = {
    "hardening.refuse_encoded_paths": True,
    "hardening.drop_underscore_fields": True,
    "hardening.replace_request_ids": True,
    "hardening.redirect_to_https": True,
    "hardening.hsts_s": HSTS_S,
    "hardening.handshakes_per_address": True,
    "limits.connections_per_address": 1024,
    "limits.body_bytes": 100 << 20,
}


def test_a_public_node_has_every_part_and_another_node_none(tmp_path: Path) -> None:
    public, private = by_name(config(tmp_path, "public = true")), by_name(config(tmp_path, ""))
    both = {"hardening.tls_min": "1.2", "hardening.session_tickets": True}
    assert {name: part.value for name, part in public.items() if not part.fixed} == PUBLIC | both
    assert not any(part.weaker for part in public.values())
    assert {name for name, part in private.items() if part.weaker} == set(PUBLIC)
    assert {part.default for part in private.values()} == {part.default for part in public.values()}
    assert list(public) == [*KEYS, *FIXED]
    assert all(part.why for part in public.values())


@pytest.mark.parametrize("name", PUBLIC)
def test_each_part_can_be_turned_off_and_on_by_itself(tmp_path: Path, name: str) -> None:
    table, _, key = name.partition(".")
    off = {"limits.body_bytes": "200000000", "limits.connections_per_address": "5000", "hardening.hsts_s": "0"}
    on = {"limits.body_bytes": "1000", "limits.connections_per_address": "10", "hardening.hsts_s": str(HSTS_S)}
    without = by_name(config(tmp_path, f"public = true\n[{table}]\n{key} = {off.get(name, 'false')}"))
    assert {each for each, part in without.items() if part.weaker} == {name}
    alone = by_name(config(tmp_path, f"[{table}]\n{key} = {on.get(name, 'true')}"))
    assert {each for each, part in alone.items() if part.weaker} == set(PUBLIC) - {name}


@pytest.mark.parametrize(("key", "line"), [("tls_min", '"1.3"'), ("session_tickets", "false")])
def test_a_part_may_be_stricter_than_the_preset(tmp_path: Path, key: str, line: str) -> None:
    found = config(tmp_path, f"public = true\n[hardening]\n{key} = {line}")
    part = by_name(found)[f"hardening.{key}"]
    assert part.value != part.default and not part.weaker


def test_dhe_needs_the_version_that_is_refused(tmp_path: Path) -> None:
    text = """engine = "haproxy"
[listen]
https = "127.0.0.1:443"
[hardening]
tls_min = "1.3"
[[site]]
hosts = ["a.example"]
certificate = "/c.pem"
dhe = true"""
    with pytest.raises(Invalid, match=r"dhe: needs TLS 1.2, which hardening\.tls_min"):
        config(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("hsts_s = -1", "expected a whole number from 0"),
        ("hsts_s = 63072000.5", "expected a whole number from 0"),
        ("redirect_to_https = 1", "expected true or false"),
        ("session_tickets = 0", "expected true or false"),
        ('tls_min = "1.1"', 'expected one of "1.2", "1.3"'),
        ("tls_min = 1.3", "expected a string"),
        ("redirect_http = true", "did you mean 'redirect_to_https'?"),
    ],
)
def test_a_malformed_key_is_one_clear_error(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(Invalid) as refused:
        config(tmp_path, f"[hardening]\n{line}")
    key = line.partition(" ")[0]
    assert str(refused.value).startswith(f"{tmp_path}/node.toml:4: hardening.{key}: ")
    assert what in str(refused.value)


def test_a_part_names_the_listeners_that_the_node_has(tmp_path: Path) -> None:
    found = by_name(config(tmp_path, 'public = true\n[listen]\nhttp = "127.0.0.1:80"'))
    assert found["hardening.redirect_to_https"].listeners == ("http",)
    assert found["tls.suites"].listeners == ()
    assert found["fields.aliases"].listeners == ("http",)


def test_every_part_without_a_key_is_on_the_page_with_the_reason() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/node-file.md").read_text()
    section = page.partition("## Public nodes\n")[2].partition("\n## ")[0]
    assert [name for name in FIXED if f"`{name}`" not in section] == []
