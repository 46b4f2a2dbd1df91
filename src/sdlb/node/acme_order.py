"""One order from its beginning to the stored certificate (RFC 8555, section 7.4).

The key of the certificate is on disk before the order, and the order's URL before its challenges. So an order that was
interrupted at any point goes on with the same key, and an issued certificate is never lost. A disk that cannot be written
stops an order before the CA has seen it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from sdlb.core.certificates import OUTAGE, REFUSED
from sdlb.node.acme_challenges import Challenges, Presented
from sdlb.seams import acme
from sdlb.seams.acme import AcmeFailed, AcmeServer, Authorization, Offer, OrderState
from sdlb.seams.certificates import BadCertificate, CertificateStore, CertificateTools, Issued, OpenOrder

POLL_S_FIRST, POLL_S_MAX = 0.25, 15.0
RETRY_AFTER_S_MAX = 60.0
WITHIN_S = 600.0
"""The time of one stage: validation, or issuing. An order that is not done by then fails; a later one takes it up again."""


class OrderRun:
    """`wall`: Unix time."""

    def __init__(
        self,
        server: AcmeServer,
        store: CertificateStore,
        tools: CertificateTools,
        challenges: Challenges,
        wall: Callable[[], float],
    ) -> None:
        self._server = server
        self._store = store
        self._tools = tools
        self._challenges = challenges
        self._wall = wall

    async def run(self, site: str, hosts: tuple[str, ...], before: Issued | None) -> Issued:
        """The new certificate, which is stored. `before`: the one that it replaces. Raises AcmeFailed."""
        try:
            issued = await self._issue(site, hosts, before)
            if before is not None and issued.digest == before.digest:  # an order that was finished before a restart
                await asyncio.to_thread(self._store.save_order, None)
                issued = await self._issue(site, hosts, before)
            await asyncio.to_thread(self._store.save, site, issued)
            await asyncio.to_thread(self._store.save_order, None)
        except OSError as error:
            raise AcmeFailed(
                OUTAGE, f"{error.filename or 'the state folder'} cannot be written: {error.strerror}"
            ) from None
        except AcmeFailed as error:
            if error.kind == REFUSED:  # the next order is a new one, with a new key
                await asyncio.to_thread(self._drop)
            raise
        return issued

    def _drop(self) -> None:
        try:
            self._store.save_order(None)
        except OSError:
            return  # its state is read before it is used again

    # ------------------------------------------------------------------ steps

    async def _issue(self, site: str, hosts: tuple[str, ...], before: Issued | None) -> Issued:
        opened = await self._prepare(site, hosts)
        await self._server.open()
        opened, order = await self._begin(opened, before)
        order = await self._validate(order)
        return await self._collect(order, opened)

    async def _prepare(self, site: str, hosts: tuple[str, ...]) -> OpenOrder:
        """The interrupted order of this site, or a new one with a new key."""
        known = await asyncio.to_thread(self._store.load_order)
        if known is not None and (known.site, known.hosts) == (site, hosts):
            return known
        opened = OpenOrder(site, hosts, self._tools.new_key())
        await asyncio.to_thread(self._store.save_order, opened)
        return opened

    async def _begin(self, opened: OpenOrder, before: Issued | None) -> tuple[OpenOrder, OrderState]:
        if opened.url:
            try:
                order = await self._server.order(opened.url)
            except AcmeFailed as error:
                if error.kind != REFUSED:
                    raise
            else:
                if order.status != acme.INVALID:
                    return opened, order
            opened = replace(opened, key_pem=self._tools.new_key(), url="")
        replaces = before.id if before is not None and self._server.windows else ""
        order = await self._server.new_order(opened.hosts, replaces)
        opened = replace(opened, url=order.url)
        await asyncio.to_thread(self._store.save_order, opened)
        return opened, order

    async def _validate(self, order: OrderState) -> OrderState:
        if order.status == acme.PENDING:
            presented: list[Presented] = []
            try:
                offers = await self._present(order, presented)
                for _, offer in offers:
                    if offer.status == acme.PENDING:
                        await self._server.answer(offer)
                for authorization, _ in offers:
                    await self._validated(authorization)
            finally:
                await self._challenges.clean_up(presented)
        return await self._until(order, (acme.PENDING,))

    async def _present(self, order: OrderState, presented: list[Presented]) -> list[tuple[Authorization, Offer]]:
        """Makes the proofs of all open authorizations visible."""
        offers: list[tuple[Authorization, Offer]] = []
        for url in order.authorizations:
            authorization = await self._server.authorization(url)
            if authorization.status == acme.VALID:
                continue
            if authorization.status != acme.PENDING:
                raise AcmeFailed(REFUSED, f"{authorization.host}: {_why(authorization)}")
            offer = authorization.offers.get(self._challenges.kind)
            if offer is None:
                known = ", ".join(sorted(authorization.offers)) or "nothing"
                text = f"the CA offers {known} for {authorization.host}, not {self._challenges.kind}"
                raise AcmeFailed(REFUSED, text)
            proof = self._server.key_authorization(offer.token)
            presented.append(Presented(authorization.host, offer.token, proof))
            offers.append((authorization, offer))
        await self._challenges.present(presented)
        return offers

    async def _validated(self, authorization: Authorization) -> None:
        now, polls = authorization, _Polls()
        while await polls.next(now.retry_after_s):
            now = await self._server.authorization(authorization.url)
            if now.status == acme.VALID:
                return
            if now.status not in (acme.PENDING, acme.PROCESSING):
                raise AcmeFailed(REFUSED, f"{now.host}: {_why(now)}")
        raise AcmeFailed(OUTAGE, f"the CA has not validated {authorization.host} within {WITHIN_S:g} s")

    async def _until(self, order: OrderState, passing: Sequence[str]) -> OrderState:
        """The order in another state than those. Raises AcmeFailed when it is invalid."""
        polls = _Polls()
        while order.status in passing:
            if not await polls.next(order.retry_after_s):
                raise AcmeFailed(OUTAGE, f"the CA has not finished the order within {WITHIN_S:g} s")
            order = await self._server.order(order.url)
        if order.status == acme.INVALID:
            raise AcmeFailed(REFUSED, f"the CA refused the order: {order.error or 'it gives no reason'}")
        return order

    async def _collect(self, order: OrderState, opened: OpenOrder) -> Issued:
        if order.status == acme.READY:
            request = self._tools.signing_request(opened.key_pem, opened.hosts)
            order = await self._server.finalize(order, request)
        order = await self._until(order, (acme.READY, acme.PROCESSING))
        if not order.certificate:
            raise AcmeFailed(REFUSED, f"the order is {order.status} and has no certificate")
        chain = await self._server.certificate(order)
        try:
            issued = self._tools.read(chain.strip() + b"\n" + opened.key_pem, opened.hosts)
        except BadCertificate as error:
            raise AcmeFailed(REFUSED, f"the CA issued a certificate that cannot be used: {error}") from None
        if issued.lifetime.not_after_s <= self._wall():
            raise AcmeFailed(REFUSED, "the CA issued a certificate that has expired; check the clock")
        return issued


def _why(authorization: Authorization) -> str:
    errors = [offer.error for offer in authorization.offers.values() if offer.error]
    return "; ".join(errors) or f"the authorization is {authorization.status}"


class _Polls:
    """Waits of growing length, at least as long as the CA asks for, up to `WITHIN_S` together."""

    def __init__(self) -> None:
        self._end = asyncio.get_running_loop().time() + WITHIN_S
        self._pause_s = POLL_S_FIRST

    async def next(self, retry_after_s: float | None) -> bool:
        """Waits for the next poll. False: the time is up."""
        pause_s = max(self._pause_s, min(retry_after_s or 0.0, RETRY_AFTER_S_MAX))
        if asyncio.get_running_loop().time() + pause_s > self._end:
            return False
        await asyncio.sleep(pause_s)
        self._pause_s = min(POLL_S_MAX, self._pause_s * 1.5)
        return True
