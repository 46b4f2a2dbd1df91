"""Orders at a real ACME server (Pebble): nonces that are refused, interruptions at each step, and what can be wrong."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sdlb.adapters import acme_keys
from sdlb.adapters.acme_parts import Parts
from sdlb.core.certificates import LIMITED, OUTAGE, REFUSED
from sdlb.model.acme import AcmeSettings, ChallengeAnswer
from sdlb.node.acme_challenges import Challenges
from sdlb.node.acme_order import OrderRun
from sdlb.seams.acme import AcmeFailed, OrderState
from sdlb.seams.certificates import Issued, OpenOrder
from tests.acme_front import Front
from tests.pebble import Pebble, needs_pebble

pytestmark = needs_pebble
HOSTS = ("example.com", "*.example.com")


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """A third of all good nonces are refused. Half would be ten times in a row in one of 2,000 requests."""
    made = Pebble(tmp_path_factory.mktemp("pebble"), PEBBLE_WFE_NONCEREJECT="33")
    yield made
    made.close()


@pytest.fixture
def front(pebble: Pebble, tmp_path: Path) -> Iterator[Front]:
    made = Front(tmp_path / "front", pebble.directory, windows=True)
    yield made
    made.close()


async def nowhere(answers: Sequence[ChallengeAnswer]) -> str:
    return "nothing is served"


class Orders:
    """A node's part in orders, with its own state folder."""

    def __init__(self, pebble: Pebble, front: Front, folder: Path, **settings: Any) -> None:
        values: dict[str, Any] = {
            "directory": front.directory,
            "email": "ops@example.com",
            "challenge": "dns-01",
            "hook": tuple(pebble.hook()),
            "ca_file": str(front.ca_file),
        }
        self.settings = AcmeSettings(**{**values, **settings})
        folder.mkdir(exist_ok=True)
        self.parts = Parts(folder / "acme")
        self.server = self.parts.server(self.settings)

    async def run(self, before: Issued | None = None, hosts: tuple[str, ...] = HOSTS) -> Issued:
        challenges = Challenges(self.settings, self.parts, nowhere)
        run = OrderRun(self.server, self.parts.store, self.parts.tools, challenges, time.time)
        return await run.run(hosts[0], hosts, before)


def played(work: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        await work()

    asyncio.run(all_of_it())


def leaf(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificates(issued.pem)[0]


def test_an_order_of_a_wildcard_and_its_renewal(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        first = await orders.run()
        names = leaf(first).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) == set(HOSTS)
        assert orders.parts.store.load(HOSTS[0], HOSTS) == first
        window = await orders.server.window(first.id)
        assert first.lifetime.not_before_s < window.start_s < window.end_s <= first.lifetime.not_after_s
        second = await orders.run(first)
        assert leaf(second).public_key() != leaf(first).public_key()  # a new key each time
        assert "marked as replaced" in pebble.log()
        account = orders.server.account
        await orders.server.close()
        again = Orders(pebble, front, tmp_path)  # after a restart: the same account
        await again.server.open()
        assert again.server.account == account
        await again.server.close()
        assert [each for each in pebble.hook_calls() if each.startswith("cleanup")]

    played(work)


STEPS = ("save_order", "save_order 2", "answer", "finalize", "certificate", "save", "save_order 3")


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_order_goes_on_after_a_restart(step: str, pebble: Pebble, front: Front, tmp_path: Path) -> None:
    """Killed directly before or after a step, whichever leaves less behind: no certificate is lost, and the key of an order
    stays the same."""

    class Killed(BaseException):
        pass

    name, _, number = step.partition(" ")
    left = int(number or 1)

    def dying(method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return method(*arguments)

        return call

    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        owner: Any = orders.parts.store if name.startswith("save") else orders.server
        setattr(owner, name, dying(getattr(owner, name)))
        with pytest.raises(Killed):
            await orders.run()
        await orders.server.close()
        before = front.orders
        again = Orders(pebble, front, tmp_path)
        opened = again.parts.store.load_order()
        issued = await again.run()
        await again.server.close()
        if opened is not None and opened.url:
            assert front.orders == before  # the same order
            assert acme_keys.load_key(opened.key_pem).public_key() == leaf(issued).public_key()
        assert again.parts.store.load(HOSTS[0], HOSTS) == issued
        assert again.parts.store.load_order() is None

    played(work)


def test_an_order_that_was_finished_before_a_restart_is_not_taken_for_a_renewal(
    pebble: Pebble, front: Front, tmp_path: Path
) -> None:
    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        urls: list[OpenOrder | None] = []
        store: Any = orders.parts.store
        save = store.save_order

        def note(order: OpenOrder | None) -> None:
            urls.append(order)
            save(order)

        store.save_order = note
        first = await orders.run()
        finished = [each for each in urls if each is not None][-1]
        save(finished)  # as when control was killed before it was removed
        second = await orders.run(first)
        await orders.server.close()
        assert second.digest != first.digest

    played(work)


# ------------------------------------------------------------------ revocation


@pytest.mark.parametrize(("reason", "code"), [("keyCompromise", 1), ("superseded", 4), ("unspecified", 0)])
def test_a_certificate_is_revoked_once(reason: str, code: int, pebble: Pebble, front: Front, tmp_path: Path) -> None:
    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        issued = await orders.run()
        fresh = Orders(pebble, front, tmp_path)  # without `open`
        assert await fresh.server.revoke(issued.pem, reason)
        assert pebble.revocation(leaf(issued).serial_number) == code
        assert not await fresh.server.revoke(issued.pem, reason)
        for each in (orders, fresh):
            await each.server.close()

    played(work)


@pytest.mark.parametrize("reason", ["keyCompromise", "superseded"])
def test_an_entry_that_has_not_ordered_the_certificate_revokes_it_by_its_key(
    reason: str, pebble: Pebble, front: Front, tmp_path: Path
) -> None:
    """It has no account, or one to which the certificate does not belong."""

    async def work() -> None:
        orders = Orders(pebble, front, tmp_path / "one")
        for with_account in (False, True):
            issued = await orders.run()
            other = Orders(pebble, front, tmp_path / f"other-{with_account}")
            if with_account:
                await other.server.open()
            assert await other.server.revoke(issued.pem, reason)
            assert pebble.revocation(leaf(issued).serial_number) is not None
            assert bool(other.server.account) is with_account
            await other.server.close()
        await orders.server.close()

    played(work)


# ------------------------------------------------------------------ what can be wrong


def failure(work: Callable[[], Awaitable[object]]) -> AcmeFailed:
    async def all_of_it() -> None:
        await work()

    with pytest.raises(AcmeFailed) as caught:
        asyncio.run(all_of_it())
    return caught.value


def order_once(orders: Callable[[], Orders], hosts: tuple[str, ...] = HOSTS) -> AcmeFailed:
    async def work() -> None:
        made = orders()
        try:
            await made.run(hosts=hosts)
        finally:
            await made.server.close()

    return failure(work)


def test_a_rate_limit_is_told_from_a_refusal_and_has_its_retry_after(
    pebble: Pebble, front: Front, tmp_path: Path
) -> None:
    front.retry_after_s = 77
    error = order_once(lambda: Orders(pebble, front, tmp_path))
    assert (error.kind, error.retry_after_s, error.problem) == (LIMITED, 77.0, "rateLimited")
    assert "too many new orders" in str(error)


def test_an_outage(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    front.down = True
    error = order_once(lambda: Orders(pebble, front, tmp_path))
    assert error.kind == OUTAGE and "cannot be reached" in str(error)


def test_a_clock_that_differs_stops_the_order_and_names_both_times(
    pebble: Pebble, front: Front, tmp_path: Path
) -> None:
    front.date = formatdate(time.time() + 3 * 86_400, usegmt=True)
    error = order_once(lambda: Orders(pebble, front, tmp_path))
    assert error.kind == OUTAGE
    assert str(error).count(" UTC") == 2 and str(error).endswith("set the clock")
    assert front.orders == 0


def test_a_profile_that_the_ca_does_not_have(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    error = order_once(lambda: Orders(pebble, front, tmp_path, profile="tiny"))
    assert error.kind == REFUSED
    assert "has no profile 'tiny' (it has: default, shortlived); correct profile in [acme]" in str(error)


def test_a_refused_host_is_named_with_the_words_of_the_ca(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    error = order_once(lambda: Orders(pebble, front, tmp_path), ("blocked.example",))
    assert error.kind == REFUSED and "blocked.example" in str(error)


def test_a_hook_that_fails_is_shown_with_its_output(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    hook = ("/bin/sh", "-c", "echo no such zone; exit 3")
    error = order_once(lambda: Orders(pebble, front, tmp_path, hook=hook))
    assert error.kind == REFUSED
    assert "the hook /bin/sh failed (present): the program exited with code 3: no such zone" in str(error)


def test_a_record_that_is_not_there_fails_the_validation(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    error = order_once(lambda: Orders(pebble, front, tmp_path, hook=("/bin/true",)), ("unset.example",))
    assert error.kind == REFUSED and str(error).startswith("unset.example: ")


def test_an_untrusted_ca_and_what_is_no_directory(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    error = order_once(lambda: Orders(pebble, front, tmp_path, ca_file=""))
    assert error.kind == OUTAGE and "certificate verify failed" in str(error).lower()
    error = order_once(lambda: Orders(pebble, front, tmp_path, ca_file="/nowhere.pem"))
    assert "ca_file /nowhere.pem cannot be used" in str(error)
    os.mkfifo(pipe := tmp_path / "pipe")
    error = order_once(lambda: Orders(pebble, front, tmp_path, ca_file=str(pipe)))
    assert f"ca_file {pipe} cannot be used: Not a regular file" in str(error)
    other = front.directory.replace("/dir", "/nowhere")
    error = order_once(lambda: Orders(pebble, front, tmp_path, directory=other))
    assert error.kind in (OUTAGE, REFUSED) and "answered 404" in str(error)


def test_a_full_disk_stops_the_order_before_the_ca_has_seen_it(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/state/acme/order.json")

    def orders() -> Orders:
        made = Orders(pebble, front, tmp_path)
        store: Any = made.parts.store
        store._write = full
        return made

    error = order_once(orders)
    assert error.kind == OUTAGE and str(error) == "/state/acme/order.json cannot be written: No space left on device"
    assert front.orders == 0


def test_a_certificate_that_could_not_be_stored_is_fetched_again(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        store: Any = orders.parts.store
        save = store.save

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", "/state")

        store.save = full
        with pytest.raises(AcmeFailed):
            await orders.run()
        before = front.orders
        store.save = save
        issued = await orders.run()
        await orders.server.close()
        assert front.orders == before
        assert orders.parts.store.load(HOSTS[0], HOSTS) == issued

    played(work)


def test_an_account_that_the_ca_has_forgotten_is_created_again(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        await orders.server.open()
        server: Any = orders.server
        server._account += "0"  # one that does not exist
        assert isinstance(await orders.server.new_order(("example.com",), ""), OrderState)
        await orders.server.close()

    played(work)


def test_nothing_but_https_is_followed(pebble: Pebble, front: Front, tmp_path: Path) -> None:
    async def work() -> None:
        orders = Orders(pebble, front, tmp_path)
        await orders.server.open()
        try:
            await orders.server.order("http://127.0.0.1:1/order")
        finally:
            await orders.server.close()

    assert "which is not https" in str(failure(work))
