"""The format of the record of a rollout: any change of it is found."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sdlb.model.record import START, TEXT_CHARS_MAX, broken, canonical, digest, following
from sdlb.model.rollout import RolloutSpec

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=4), each, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(["kind", "by", "node", "detail"]), VALUES, max_size=4)


def chain(*fields: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for each in fields:
        entries.append(following(entries[-1] if entries else None, each))
    return entries


@given(st.lists(FIELDS, min_size=1, max_size=5))
def test_a_chain_is_whole_also_after_json_and_has_no_fractions(fields: list[dict[str, Any]]) -> None:
    entries = chain(*fields)
    sent = json.loads(json.dumps(entries))
    assert broken(entries) == broken(sent) == (0, "")
    assert [digest(each) for each in sent] == [digest(each) for each in entries]
    assert not any(isinstance(each, float) for each in _leaves(sent))
    assert entries[0]["previous"] == START


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    return [leaf for each in value for leaf in _leaves(each)] if isinstance(value, list) else [value]


@given(st.integers(2, 6), st.data())
def test_any_change_before_the_last_entry_is_found(count: int, data: st.DataObject) -> None:
    entries = chain(*({"kind": "state", "at_ms": number} for number in range(count)))
    place = data.draw(st.integers(0, count - 2))
    changed = [dict(each) for each in entries]
    what = data.draw(st.sampled_from(["change", "remove", "add", "swap"]))
    if what == "change":
        changed[place]["at_ms"] += 1
        assert broken(changed)[0] == place + 1
    elif what == "remove":
        del changed[place]
        assert broken(changed)[0] == place + 1
    elif what == "add":
        changed[place]["more"] = ""
        assert broken(changed)[0] == place + 1
    else:
        changed[place], changed[place + 1] = changed[place + 1], changed[place]
        assert broken(changed)[0] == place + 1


def test_the_canonical_form_is_that_of_rfc_8785() -> None:
    entry = following(
        None, {"kind": "state", "detail": 'a "quoted" \n ümlaut', "spec": RolloutSpec(soak_s=2.5), "list": (1, True)}
    )
    text = canonical(entry)
    assert text.startswith(
        '{"detail":"a \\"quoted\\" \\n ümlaut","kind":"state","list":[1,true],"number":1,"previous":"000'
    )
    assert '"soak_s":"2.5"' in text and '"drain_s":30,' in text
    assert digest(entry) == sha256(text.encode()).hexdigest()


def test_texts_are_bounded_and_always_utf8() -> None:
    entry = following(None, {"detail": "x" * 5000, "log": "\ud800"})
    assert len(entry["detail"]) == TEXT_CHARS_MAX and canonical(entry).encode()
