"""The parts of the adapter for HAProxy that decide without input and output."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.adapters.haproxy import program
from sdlb.adapters.haproxy.access_log import line
from sdlb.adapters.haproxy.draws import DIGITS, DRAWS, Ready, prefixes, spans, weights
from sdlb.adapters.haproxy.figures import Sample
from sdlb.adapters.haproxy.health import EJECTED_S, Health
from sdlb.adapters.haproxy.master import LINE_BYTES, lines
from sdlb.adapters.haproxy.names import encode, quoted, server_address
from sdlb.adapters.haproxy.program import find
from sdlb.adapters.haproxy.sites import join_pem
from sdlb.adapters.haproxy.tables import MapDelete, MapPut, ServerCommand
from sdlb.core.effects import Pick
from sdlb.seams.engine import EngineFailed


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=6))
def test_spans_are_the_shares_to_one_draw(parts: list[int]) -> None:
    found = spans(parts)
    total = sum(parts)
    if not total:
        assert not any(map(len, found))
        return
    assert [draw for span in found for draw in span] == list(range(DRAWS))
    for part, span in zip(parts, found, strict=True):
        # A small share is rounded up to one draw, which a large one gives.
        assert abs(len(span) - part * DRAWS / total) < len(parts)
        assert bool(len(span)) == bool(part)


@given(st.integers(0, DRAWS), st.integers(0, DRAWS))
def test_prefixes_cover_exactly_the_span(start: int, stop: int) -> None:
    span = range(start, max(start, stop))
    found = prefixes(span)
    at = span.start
    for prefix in found:  # each covers the draws that begin with it
        size = 10 ** (DIGITS - len(prefix))
        assert int(prefix or "0") * size == at
        at += size
    assert at == span.stop or not found
    assert bool(found) == bool(span)
    assert len(found) <= 18 * DIGITS


@pytest.mark.parametrize(
    ("prints", "expected"), [("HAProxy version 2.4.1 2021/01/01", "2.6 or newer"), ("nginx", "is not HAProxy")]
)
def test_a_program_that_is_too_old_or_another_is_refused(tmp_path: Path, prints: str, expected: str) -> None:
    script = tmp_path / "haproxy"
    script.write_text(f"#!/bin/sh\necho '{prints}'\n")
    script.chmod(0o755)
    with pytest.raises(EngineFailed, match=expected):
        asyncio.run(find(str(script)))


def test_a_program_that_does_not_end_is_ended_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "CHECK_WITHIN_S", 0.5)
    script = tmp_path / "haproxy"
    script.write_text(f"#!/bin/sh\nsleep 600 &\necho $! >{tmp_path}/pid\nwait\n")
    script.chmod(0o755)
    with pytest.raises(EngineFailed, match=r"haproxy does not end within 0\.5 s"):
        asyncio.run(find(str(script)))
    status = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_lowest_tier_gets_all_but_what_it_spills() -> None:
    picks = [Pick("2", 0, 0), Pick("1", 1, 0), Pick("0", 2, 0)]
    ready = {"2": Ready(10, full=True), "1": Ready(10), "0": Ready(10)}
    assert weights(picks, ready) == {"2": 10}
    shares = weights(picks, ready, 3)
    assert shares["1"] / sum(shares.values()) == pytest.approx(0.3)
    assert set(weights(picks, ready, 10)) == {"1"}
    assert set(weights(picks, {**ready, "1": Ready(10, full=True)}, 10)) == {"0"}
    assert weights(picks, {}) == {}


def test_a_full_version_keeps_an_exact_share_and_leaves_others() -> None:
    picks = [Pick("1", 0, 9000), Pick("2", 0, 0), Pick("3", 0, 0)]
    ready = {"1": Ready(1, full=True), "2": Ready(5, full=True), "3": Ready(7)}
    assert weights(picks, ready) == {"1": 9000, "3": 7}


@given(st.text())
def test_an_encoded_name_is_one_harmless_word(name: str) -> None:
    text = encode(name)
    assert not set(text) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%")
    assert unquote(text) == name


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=300), st.booleans()), min_size=1, max_size=60))
def test_no_line_has_an_empty_line_before_its_end(entries: list[tuple[str, str, bool]]) -> None:
    commands = [MapPut("exact", f"k{encode(a)}", f"v{encode(b)}", known) for a, b, known in entries]
    for text in lines(7, [*commands, MapDelete("exact", "k"), ServerCommand("enable server g1/s1")]):
        assert "\n\n" not in text[:-2]
        assert len(text) < LINE_BYTES + 4000
        if "<<" not in text:
            assert text.count("\n") == 1
            assert all(each.startswith("@!7 ") for each in text.rstrip("\n").split("; "))


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("unix:/run/a.sock", "unix@/run/a.sock"),
        ("unix:/run/a b", None),
        ("unix:/run/a,b", None),
        ("127.0.0.1:80 weight 1", None),
        ("127.0.0.1:80\n", None),
        ("example.com:80", None),
    ],
)
def test_addresses(endpoint: str, expected: str | None) -> None:
    assert server_address(endpoint) == expected


def test_a_path_with_quotes_is_one_word() -> None:
    assert quoted("/a b'c") == "'/a b'\\''c'"
    with pytest.raises(ValueError, match="character"):
        quoted("/a\nb")


def test_pem_loses_blank_lines_and_text_and_has_its_key_last() -> None:
    pem = b"Bag\n\n-----BEGIN PRIVATE KEY-----\nAA\n\nBB\n-----END PRIVATE KEY-----\n\n\nx\n"
    pem += b"-----BEGIN CERTIFICATE-----\r\nCC\r\n-----END CERTIFICATE-----\r\n"
    assert join_pem(pem) == (
        b"-----BEGIN CERTIFICATE-----\nCC\n-----END CERTIFICATE-----\n"
        b"-----BEGIN PRIVATE KEY-----\nAA\nBB\n-----END PRIVATE KEY-----\n"
    )


def test_failures_in_a_row_eject_for_a_while_and_a_success_in_between_forgives() -> None:
    health = Health()
    assert health.check({"s": Sample({"econ": 2})}, 0.0) == []
    assert health.check({"s": Sample({"hrsp_2xx": 1})}, 1.0) == []
    assert health.check({"s": Sample({"wredis": 2})}, 2.0) == []
    assert health.check({"s": Sample({"eresp": 1})}, 3.0) == [("s", True, "3 failures in a row")]
    assert health.check({"s": Sample()}, 3.0 + EJECTED_S - 0.1) == []
    assert health.check({"s": Sample()}, 3.0 + EJECTED_S) == [("s", False, "")]
    assert health.check({"s": Sample({"hrsp_5xx": 5})}, 20.0) == [("s", True, "5 responses 5xx in a row")]


def test_a_line_of_the_log() -> None:
    text = "n http 1.2.3.4 200 17 3 0 -- g1 s1 1700000000.123 id GET a.example %2Fx%3Fy web%7C1.0%7Ca%252Fb"
    found = line(text, lambda name: f"i:{name}")
    assert found is not None
    assert '"took_us":3000' in found and '"target":"/x?y"' in found and '"version":"1.0"' in found
    assert '"endpoint":"i:g1/s1"' in found
    assert line("Proxy g1 stopped.", str) is None
