"""The table of the engine, one case at a time (`test_table.py` takes them in any order)."""

from __future__ import annotations

import pytest

from sdlb.core.effects import Apply, RoutePut
from sdlb.core.events import EndpointKey, EngineAttached
from sdlb.core.table import RETRY_S, Table
from tests.core.forest import ROUTE, key_of

ONE, TWO = EndpointKey(key_of("1.0.1"), "i:a"), EndpointKey(key_of("1.0.2"), "i:b")


def attached(
    epoch: int = 0, endpoints: int = 0, draining: tuple[EndpointKey, ...] = (), boot: str = "boot"
) -> EngineAttached:
    return EngineAttached(boot, epoch, endpoints, tuple((key, 1) for key in draining))


def new_table() -> Table:
    table = Table(100)
    for key in (ONE, TWO):
        table.set_upstream(key.target, False, "127.0.0.1:1")
    return table


def table_of(*keys: EndpointKey) -> Table:
    """All of these are confirmed by the engine."""
    table = new_table()
    for key in keys:
        table.put_endpoint(key, 8)
    table.on_attached(attached(), 0.0, 10.0)
    confirm(table)
    return table


def sent(table: Table, now: float = 0.0) -> Apply:
    delta = table.next_delta(now)
    assert delta is not None
    return delta


def confirm(table: Table) -> Apply:
    delta = sent(table)
    table.on_applied(delta.epoch)
    return delta


def test_what_is_wanted_is_there_when_the_engine_has_confirmed_that_very_delta() -> None:
    table = table_of(ONE)
    table.put_endpoint(TWO, 8)
    delta = sent(table)
    assert table.next_delta(0.0) is None, "one at a time"
    assert table.on_applied(delta.epoch - 1) == [] and not table.applied(TWO)
    assert table.on_applied(delta.epoch) == [TWO] and table.applied(TWO)
    table.delete_endpoint(TWO)
    assert not table.applied(TWO) and table.present(TWO), "to be taken out"


def test_a_deleted_endpoint_is_present_until_the_engine_has_drained_that_deletion() -> None:
    table = table_of(ONE)
    table.delete_endpoint(ONE)
    first = confirm(table).epoch
    assert table.present(ONE)
    table.put_endpoint(ONE, 8)
    confirm(table)
    table.delete_endpoint(ONE)
    second = confirm(table).epoch
    assert not table.on_drained(ONE, first), "of the earlier deletion"
    assert table.present(ONE)
    assert table.on_drained(ONE, second)
    assert not table.present(ONE)


def test_what_is_put_again_no_longer_drains() -> None:
    table = table_of(ONE)
    table.delete_endpoint(ONE)
    first = confirm(table).epoch
    table.put_endpoint(ONE, 8)
    confirm(table)
    assert not table.on_drained(ONE, first)
    assert table.applied(ONE)


def test_what_drains_in_the_engine_is_present_though_it_was_wanted_when_the_engine_was_attached() -> None:
    """A restored control takes it for active, until it finds that its state folder is an older copy."""
    table = new_table()
    table.put_endpoint(ONE, 8)
    table.on_attached(attached(epoch=7, draining=(ONE,)), 0.0, 10.0)
    table.delete_endpoint(ONE)
    delta = confirm(table)
    assert delta.put_endpoints == () and table.present(ONE)
    assert table.on_drained(ONE, 7) and not table.present(ONE)


def test_before_the_engine_has_confirmed_a_whole_table_anything_may_be_in_flight() -> None:
    table = new_table()
    assert table.present(ONE)
    table.put_endpoint(TWO, 8)
    table.on_attached(attached(epoch=7, endpoints=1), 0.0, 10.0)
    assert table.present(ONE)
    confirm(table)
    assert not table.present(ONE)


def test_an_engine_that_has_nothing_is_known_at_once() -> None:
    table = new_table()
    table.on_attached(attached(), 0.0, 10.0)
    assert not table.present(ONE)


def test_what_this_control_knows_nothing_of_is_kept_for_a_while_and_may_be_in_flight() -> None:
    table = new_table()
    table.on_attached(attached(epoch=7, endpoints=1), 0.0, 10.0, unsure=True)
    table.put_endpoint(TWO, 8)
    assert not confirm(table).replace and not table.synced
    assert table.present(ONE)
    assert table.keep_until == 10.0
    delta = sent(table, 10.0)
    assert delta.replace
    table.on_applied(delta.epoch)
    assert table.deleted_unknown(delta.epoch) and table.present(ONE), (
        "it is deleted, but what it has in flight is unknown"
    )
    table.on_attached(attached(epoch=delta.epoch, endpoints=1, draining=(ONE,)), 11.0, 10.0)
    assert not table.blind and not confirm(table).left_out
    assert table.present(ONE) and not table.routable(ONE)
    assert table.on_drained(ONE, delta.epoch) and not table.present(ONE)


def test_a_replacing_delta_that_is_lost_has_deleted_nothing() -> None:
    table = new_table()
    table.on_attached(attached(epoch=7, endpoints=1), 0.0, 10.0, unsure=True)
    assert sent(table, 10.0).replace
    table.on_lost()
    table.on_attached(attached(epoch=7, endpoints=1), 11.0, 10.0)
    assert table.blind
    table.on_applied(sent(table, 11.0).epoch)
    assert table.present(ONE)
    table.on_lost()
    table.on_attached(attached(boot="other"), 12.0, 10.0)
    assert not table.blind and not table.present(ONE), "a new process has nothing in flight"


def test_a_table_that_is_kept_stays_so_over_a_broken_connection() -> None:
    table = new_table()
    table.on_attached(attached(epoch=7, endpoints=2), 0.0, 10.0, unsure=True)
    table.put_endpoint(ONE, 8)
    confirm(table)
    table.delete_endpoint(ONE)
    table.put_endpoint(TWO, 8)
    lost = sent(table)
    table.on_lost()
    table.on_attached(attached(epoch=lost.epoch - 1, endpoints=2), 1.0, 10.0)
    assert table.keep_until == 10.0 and table.routable(ONE)
    delta = confirm(table)
    assert not delta.replace and delta.delete_endpoints == (ONE,) and delta.put_endpoints == lost.put_endpoints
    assert table.applied(TWO) and table.present(ONE)


@pytest.mark.parametrize("applied", [True, False])
def test_a_delta_whose_answer_was_lost_counts_as_the_engine_reports(applied: bool) -> None:
    table = table_of(ONE)
    table.put_endpoint(TWO, 8)
    delta = sent(table)
    table.on_lost()
    table.on_attached(attached(epoch=delta.epoch if applied else delta.epoch - 1, endpoints=2), 0.0, 10.0)
    assert table.applied(TWO) is applied
    assert table.applied(ONE)


def test_what_another_engine_drains_is_present() -> None:
    table = table_of(ONE)
    table.on_lost()
    table.on_attached(attached(epoch=200, endpoints=1, draining=(TWO,), boot="other"), 0.0, 10.0)
    assert table.present(TWO) and not table.applied(ONE)
    confirm(table)
    assert table.present(TWO)
    assert table.on_drained(TWO, 150)
    assert not table.present(TWO)


def test_a_refused_delta_comes_again_as_a_whole_after_a_pause() -> None:
    table = table_of(ONE)
    table.put_endpoint(TWO, 8)
    table.on_rejected(sent(table).epoch, 5.0)
    assert table.next_delta(5.0) is None
    delta = sent(table, 5.0 + RETRY_S)
    assert delta.replace and {put.key for put in delta.put_endpoints} == {ONE, TWO}


def test_a_second_engine_gets_the_whole_table() -> None:
    table = table_of(ONE)
    table.set_route(ROUTE, RoutePut(ROUTE, "catalog", ()))
    confirm(table)
    table.refresh()
    delta = sent(table)
    assert delta.replace and [put.key for put in delta.put_endpoints] == [ONE] and len(delta.put_routes) == 1


def test_while_an_unknown_table_is_kept_anything_may_be_in_flight_also_for_one_that_was_known() -> None:
    table = table_of(ONE)
    assert not table.present(TWO)
    table.on_attached(attached(epoch=300, endpoints=3, boot="other"), 0.0, 10.0, unsure=True)
    assert table.synced and table.present(TWO)


def test_an_endpoint_may_get_requests_until_the_engine_has_confirmed_its_deletion() -> None:
    """An endpoint counts as routable until the engine confirms its deletion, which is earlier than the end of its
    requests."""
    table = table_of(ONE, TWO)
    assert table.routable(ONE)
    table.delete_endpoint(ONE)
    assert table.routable(ONE), "not told yet"
    delta = sent(table)
    assert table.routable(ONE), "told, and not confirmed"
    table.on_lost()
    assert table.routable(ONE), "whether it was carried out is not known"
    table.on_attached(attached(delta.epoch, endpoints=1, draining=(ONE,)), 0.0, 10.0)
    assert not table.routable(ONE) and table.present(ONE), "carried out, and something is in flight"
    assert table.routable(TWO)


def test_of_an_engine_that_is_not_known_anything_may_get_requests() -> None:
    table = new_table()
    assert table.routable(ONE)
    table.on_attached(attached(), 0.0, 10.0)
    assert not table.routable(ONE)


def test_an_engine_that_did_not_get_the_delta_still_serves_what_it_deletes() -> None:
    table = table_of(ONE)
    before = table.epoch
    table.delete_endpoint(ONE)
    sent(table)
    table.on_lost()
    table.on_attached(attached(before, endpoints=1), 0.0, 10.0)
    assert table.routable(ONE)
    delta = sent(table)
    assert delta.left_out == (ONE,)
    assert table.on_applied(delta.epoch) == [ONE] and not table.routable(ONE)
