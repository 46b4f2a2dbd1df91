"""Event streams, over broken connections."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sdlb.sdk.sse import Parser
from sdlb.sdk.types import Event

EVENTS = st.lists(
    st.builds(Event, id=st.integers(1, 2**53), code=st.sampled_from(["a", "b"]), text=st.text(max_size=20)), max_size=8
)


def lines_of(events: list[Event]) -> list[str]:
    lines: list[str] = []
    for event in events:
        lines += [": keep-alive", "", f"id: {event.id}", f"event: {event.code}"]
        lines += [f"data: {msgspec.json.encode(event).decode()}", ""]
    return lines


@given(EVENTS)
def test_events_come_out_as_they_went_in(events: list[Event]) -> None:
    parser = Parser()
    assert [e for e in map(parser.line, lines_of(events)) if e is not None] == events


@given(EVENTS.filter(bool), st.data())
def test_a_half_read_event_is_dropped_and_asked_for_again(events: list[Event], data: st.DataObject) -> None:
    parser = Parser()
    lines = lines_of(events)
    cut = data.draw(st.integers(0, len(lines)))
    got = [e for e in map(parser.line, lines[:cut]) if e is not None]
    again = parser.headers().get("last-event-id")
    # an id is only said after its event's lines began: what was got whole is never asked for twice
    assert again in (None, *(str(e.id) for e in events))
    assert not got or again is not None
    assert parser.line("") is None


def test_data_in_several_lines_is_one_event() -> None:
    parser = Parser()
    for line in ('data: {"text":', 'data:"x"}'):
        assert parser.line(line) is None
    assert parser.line("") == Event(text="x")
