"""Reports about sites: each one once, and the state follows from the last report."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.effects import Note
from sdlb.model.site import PemFile, SiteSpec, SiteState
from sdlb.node.certificates import DAY_S, Sites

SPEC = SiteSpec(("a.example",), ((PemFile("/a.pem"), None),))
OTHER = SiteSpec(("b.example",), ((PemFile("/b.pem"), None),))
NOW_S = 1_800_000_000
FAR_S = NOW_S + 90 * DAY_S


def sites(*specs: SiteSpec) -> Sites:
    made = Sites()
    made.replace(specs or (SPEC,))
    return made


def codes(notes: list[Note]) -> list[tuple[str, str]]:
    return [(note.code, note.level) for note in notes]


def view(known: Sites, key: str = "a.example") -> dict[str, object]:
    return next(each for each in known.views(NOW_S) if each["site"] == key)


def good(not_after_s: int = FAR_S) -> list[SiteState]:
    return [SiteState("a.example", "", not_after_s)]


def bad(error: str, not_after_s: int = 0) -> list[SiteState]:
    return [SiteState("a.example", error, not_after_s)]


def test_a_site_that_is_served() -> None:
    known = sites()
    assert view(known)["state"] == "waiting"
    assert known.on_applied(good(), NOW_S) == []
    assert (view(known)["state"], view(known)["not_after_s"]) == ("serving", FAR_S)
    assert known.on_applied(good(), NOW_S) == [], "an engine that was started again says the same"


def test_a_refused_certificate_is_reported_once_and_the_earlier_one_is_kept() -> None:
    known = sites()
    known.on_applied(good(), NOW_S)
    known.on_read("a.example", (), True)
    (note,) = known.on_applied(bad("the key is another's", FAR_S), NOW_S)
    assert (note.code, note.level, note.fields) == ("certificate-refused", "error", {"site": "a.example"})
    assert (
        note.text
        == "site a.example: its certificate was refused: the key is another's; it keeps its previous certificate"
    )
    assert (view(known)["state"], view(known)["reason_code"]) == ("kept", "certificate-refused")
    assert known.on_applied(bad("the key is another's", FAR_S), NOW_S) == []
    known.on_read("a.example", (), True)
    assert codes(known.on_applied(good(FAR_S + 5), NOW_S)) == [("certificate-changed", "info")]
    assert view(known)["state"] == "serving"


def test_a_site_whose_first_certificate_is_refused_has_nothing() -> None:
    known = sites()
    (note,) = known.on_applied(bad("no PEM"), NOW_S)
    assert "handshakes for it fail" in note.text
    assert (view(known)["state"], view(known)["not_after_s"]) == ("refused", 0)


def test_an_unreadable_file_is_reported_once_and_when_it_is_back() -> None:
    known = sites(SPEC, OTHER)
    known.on_applied(good(), NOW_S)
    assert codes(known.on_unreadable("a.example", "/a.pem is gone")) == [("certificate-unreadable", "error")]
    assert known.on_unreadable("a.example", "/a.pem is gone") == []
    assert (view(known)["state"], view(known)["reason"]) == ("kept", "/a.pem is gone")
    assert view(known, "b.example")["reason"] == ""
    assert codes(known.on_read("a.example", (), False)) == [("certificate-readable", "info")]
    assert view(known)["state"] == "serving"


def test_warnings_and_exposed_keys_are_reported_once_each() -> None:
    known = sites()
    assert codes(known.on_read("a.example", ("open to others",), False)) == [("key-file-exposed", "warning")]
    assert known.on_read("a.example", ("open to others",), False) == []
    assert codes(known.on_checked("a.example", "", ["it does not name b"])) == [("certificate-warning", "warning")]
    assert known.on_checked("a.example", "", ["it does not name b"]) == []
    assert known.on_applied(good(), NOW_S) == []
    assert view(known)["warnings"] == ["it does not name b", "open to others"]
    known.on_read("a.example", (), False)
    known.on_checked("a.example", "", ())
    assert view(known)["warnings"] == []


LIFETIMES_S = st.sampled_from((1, 3600, 6 * DAY_S, 45 * DAY_S, 90 * DAY_S, 3650 * DAY_S))


@given(LIFETIMES_S, st.lists(st.floats(0, 0.4), max_size=60))
def test_a_coming_expiry_is_reported_at_a_third_and_a_tenth_of_the_lifetime(life_s: int, steps: list[float]) -> None:
    known = sites()
    known.on_read("a.example", (), False, [(NOW_S, NOW_S + life_s)])
    known.on_applied(good(NOW_S + life_s), NOW_S)
    now_s, told = NOW_S, list[tuple[str, str]]()
    for step in steps:
        now_s += round(step * life_s)
        left_s = NOW_S + life_s - now_s
        notes = known.on_time(now_s)
        assert len(notes) <= 1
        told += codes(notes)
        due = (left_s * 3 <= life_s) + (left_s * 10 <= life_s) + (left_s <= 0)
        assert (len(told) > 0) == (due > 0)
        assert len(told) <= due
        assert (("certificate-ended", "error") in told) == (left_s <= 0)
    if told:
        known.on_read("a.example", (), True, [(now_s, now_s + life_s)])
        known.on_applied(good(now_s + life_s), now_s)
        assert known.on_time(now_s) == []
        assert len(known.on_time(now_s + life_s - life_s // 5)) == (life_s > 1), "the next one is told anew"


def test_a_certificate_that_nobody_has_read_is_reported_when_it_has_expired() -> None:
    """It was given to the engine by an earlier control, and its file has another one since."""
    known = sites()
    known.on_applied(bad("the key is another's", FAR_S), NOW_S)
    assert known.on_time(FAR_S - 1) == []
    assert codes(known.on_time(FAR_S)) == [("certificate-ended", "error")]
    assert known.on_time(FAR_S + 1) == []


def test_sites_that_go_are_forgotten_and_late_answers_for_them_ignored() -> None:
    known = sites(SPEC, OTHER)
    known.on_applied(good(), NOW_S)
    known.replace((OTHER,))
    assert known.on_applied(bad("x"), NOW_S) == known.on_read("a.example", (), True) == []
    assert known.on_unreadable("a.example", "x") == known.on_checked("a.example", "x", ("x",)) == []
    assert [each["site"] for each in known.views(NOW_S)] == ["b.example"]
