"""A client for ACME (RFC 8555) with renewal windows (RFC 9773) and profiles, over httpx.

Nonces are kept and used once; a request whose nonce was refused is repeated with the one that the refusal carried. Failures
are sorted by what can be done about them: a CA that does not answer, a rate limit, or a refusal. A clock that
differs from the CA's by more than `SKEW_S_MAX` is a refusal, because certificates would be ordered at wrong times.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

import httpx

from sdlb.adapters import acme_answers, acme_keys
from sdlb.adapters.acme_answers import TEXT_CHARS_MAX
from sdlb.adapters.acme_eab import BadKeyFile, binding, read_key
from sdlb.adapters.acme_jws import b64, key_authorization, signed
from sdlb.adapters.http_client import error_text, load_http, new_client
from sdlb.adapters.regular_file import read_regular
from sdlb.core.certificates import OUTAGE, REFUSED
from sdlb.model.acme import KEY_COMPROMISE, REASONS, AcmeSettings
from sdlb.seams.acme import AcmeFailed, Authorization, Offer, OrderState, RenewalWindow

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

TIMEOUT_S = 30.0
CA_BYTES_MAX = 4 << 20
NONCES_MAX = 16
BAD_NONCES_MAX = 10
SKEW_S_MAX = 3600.0
DIRECTORY_S = 24 * 3600.0
"""The directory is read again after this time."""
AGENT = "sdlb-acme"


class Client:
    """`account`: the account's URL as known from an earlier run, "" without one. `on_account`: called with its URL once it
    is known. `wall`: Unix time."""

    def __init__(
        self,
        settings: AcmeSettings,
        key: EllipticCurvePrivateKey,
        account: str,
        on_account: Callable[[str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._key = key
        self._account = account
        self._on_account = on_account
        self._wall = wall
        self._http: httpx.AsyncClient | None = None
        self._directory: dict[str, Any] = {}
        self._read_at = 0.0
        self._nonces: deque[str] = deque(maxlen=NONCES_MAX)
        self._checked = False  # the account was confirmed by the CA

    # ------------------------------------------------------------------ directory and account

    @property
    def account(self) -> str:
        return self._account

    @property
    def windows(self) -> bool:
        return isinstance(self._directory.get("renewalInfo"), str)

    async def open(self) -> None:
        await self._read_directory()
        if not self._checked:
            await self._find_account()

    async def _read_directory(self) -> None:
        loop_s = asyncio.get_running_loop().time()
        if not self._directory or loop_s - self._read_at > DIRECTORY_S:
            answer = await self._send("GET", self._settings.directory)
            self._check_clock(answer)
            found = acme_answers.data(answer)
            for name in ("newNonce", "newAccount", "newOrder"):
                if not isinstance(found.get(name), str):
                    text = f"{self._settings.directory} is not an ACME directory: it has no {name}"
                    raise AcmeFailed(REFUSED, text)
            self._check_profile(found)
            self._directory, self._read_at = found, loop_s

    async def _find_account(self) -> None:
        """A known account is confirmed; only a new one needs the external account."""
        account, self._account = self._account, ""
        try:
            answer = await self._known_account() if account else None
            if answer is None:
                answer = await self._new_account()
        except AcmeFailed:
            self._account = account
            raise
        self._account = answer.headers.get("location", "")
        if not self._account:
            raise AcmeFailed(REFUSED, "the CA has created an account without a URL")
        self._checked = True
        if self._account != account:
            self._on_account(self._account)

    async def _known_account(self) -> httpx.Response | None:
        """None: the CA has forgotten it."""
        try:
            return await self._post(self._url("newAccount"), {"onlyReturnExisting": True})
        except AcmeFailed as error:
            if error.problem != "accountDoesNotExist":
                raise
            return None

    async def _new_account(self) -> httpx.Response:
        payload: dict[str, object] = {"termsOfServiceAgreed": True}
        if self._settings.email:
            payload["contact"] = [f"mailto:{self._settings.email}"]
        eab, url = self._settings.eab, self._url("newAccount")
        if eab is None:
            if acme_answers.meta(self._directory).get("externalAccountRequired") is True:
                do = "set eab = {kid, hmac_key_file} in [acme] to what the CA gave you"
                raise AcmeFailed(
                    REFUSED, f"the CA creates accounts only for its customers (externalAccountRequired); {do}"
                )
            return await self._post(url, payload)
        try:
            hmac_key = await asyncio.to_thread(read_key, eab.hmac_key_file)
        except BadKeyFile as error:
            raise AcmeFailed(OUTAGE, f"eab.hmac_key_file: {error}") from None
        payload["externalAccountBinding"] = binding(self._key, eab.kid, hmac_key, url)
        try:
            return await self._post(url, payload)
        except AcmeFailed as error:
            if error.kind != REFUSED:
                raise
            text = f"{error}; the account was not bound to the external account {eab.kid}: check eab in [acme]"
            raise AcmeFailed(REFUSED, text, problem=error.problem, status=error.status) from None

    def _check_clock(self, answer: httpx.Response) -> None:
        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", ""))
        except ValueError:
            return
        ours_s = self._wall()
        if abs(theirs.timestamp() - ours_s) > SKEW_S_MAX:
            text = (
                f"the clock of this machine shows {acme_answers.time(ours_s)} and the CA's shows {acme_answers.time(theirs.timestamp())}; "
                "set the clock"
            )
            raise AcmeFailed(OUTAGE, text, problem="clock")

    def _check_profile(self, directory: Mapping[str, Any]) -> None:
        wanted = self._settings.profile
        known: Any = acme_answers.meta(directory).get("profiles")
        if wanted and (not isinstance(known, dict) or wanted not in known):
            names = ", ".join(sorted(map(str, cast("dict[str, Any]", known)))) if isinstance(known, dict) else "none"
            text = f"the CA has no profile {wanted!r} (it has: {names}); correct profile in [acme]"
            raise AcmeFailed(REFUSED, text)

    def _url(self, name: str) -> str:
        return str(self._directory[name])

    # ------------------------------------------------------------------ orders

    async def new_order(self, hosts: Sequence[str], replaces: str) -> OrderState:
        payload: dict[str, object] = {"identifiers": [{"type": "dns", "value": host} for host in hosts]}
        if self._settings.profile:
            payload["profile"] = self._settings.profile
        if replaces:
            payload["replaces"] = replaces
        try:
            answer = await self._post(self._url("newOrder"), payload)
        except AcmeFailed as error:
            # A CA may refuse to link the two orders for many reasons; the certificate matters more.
            if not replaces or error.kind != REFUSED or error.problem in ("rejectedIdentifier", "unauthorized"):
                raise
            del payload["replaces"]
            answer = await self._post(self._url("newOrder"), payload)
        return self._order(answer, answer.headers.get("location", ""))

    async def order(self, url: str) -> OrderState:
        return self._order(await self._post(url, None), url)

    async def authorization(self, url: str) -> Authorization:
        answer = await self._post(url, None)
        found = acme_answers.data(answer)
        offers: dict[str, Offer] = {}
        for each in acme_answers.items(found.get("challenges")):
            kind = str(each.get("type", ""))
            token = str(each.get("token", ""))
            offers[kind] = Offer(
                str(each.get("url", "")),
                kind,
                str(each.get("status", "")),
                token,
                acme_answers.words(each.get("error")),
            )
        identifier: Any = found.get("identifier")
        host = str(identifier.get("value", "")) if isinstance(identifier, dict) else ""  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        wildcard = bool(found.get("wildcard"))
        return Authorization(
            url, host, str(found.get("status", "")), wildcard, offers, acme_answers.retry_after(answer, self._wall())
        )

    def key_authorization(self, token: str) -> str:
        return key_authorization(self._key, token)

    async def answer(self, offer: Offer) -> None:
        await self._post(offer.url, {})

    async def finalize(self, order: OrderState, request: bytes) -> OrderState:
        return self._order(await self._post(order.finalize, {"csr": b64(request)}), order.url)

    async def certificate(self, order: OrderState) -> bytes:
        answer = await self._post(order.certificate, None, accept="application/pem-certificate-chain")
        return answer.content

    async def window(self, certificate_id: str) -> RenewalWindow:
        answer = await self._send("GET", f"{self._url('renewalInfo').rstrip('/')}/{certificate_id}")
        found = acme_answers.data(answer)
        window: Any = found.get("suggestedWindow")
        try:
            start_s, end_s = (datetime.fromisoformat(str(window[key])).timestamp() for key in ("start", "end"))
        except (KeyError, TypeError, ValueError):
            raise AcmeFailed(REFUSED, "the CA's renewal window cannot be read") from None
        return RenewalWindow(
            start_s, end_s, acme_answers.retry_after(answer, self._wall()), str(found.get("explanationURL") or "")
        )

    # ------------------------------------------------------------------ revocation (RFC 8555, section 7.6)

    async def revoke(self, pem: bytes, reason: str) -> bool:
        """Only the certificate's own key proves that it is compromised. Other reasons are given by the account; the account of
        an entry that has not ordered the certificate may not revoke it."""
        await self._read_directory()
        url = self._directory.get("revokeCert")
        if not isinstance(url, str):
            raise AcmeFailed(REFUSED, "the CA does not revoke certificates by ACME; ask its operators")
        payload = {"certificate": b64(acme_keys.leaf_der(pem)), "reason": REASONS[reason]}
        try:
            if reason == KEY_COMPROMISE or not await self._revoked_by_account(url, payload):
                await self._post(url, payload, key=acme_keys.load_key(pem))
        except AcmeFailed as error:
            if error.problem != "alreadyRevoked":
                raise
            return False
        return True

    async def _revoked_by_account(self, url: str, payload: object) -> bool:
        if not self._account:
            return False
        await self.open()
        try:
            await self._post(url, payload)
        except AcmeFailed as error:
            if error.problem != "unauthorized":
                raise
            return False
        return True

    def _order(self, answer: httpx.Response, url: str) -> OrderState:
        found = acme_answers.data(answer)
        urls: Any = found.get("authorizations")
        return OrderState(
            url,
            str(found.get("status", "")),
            tuple(str(each) for each in cast("list[object]", urls)) if isinstance(urls, list) else (),
            str(found.get("finalize", "")),
            str(found.get("certificate") or ""),
            acme_answers.words(found.get("error")),
            acme_answers.retry_after(answer, self._wall()),
        )

    # ------------------------------------------------------------------ requests

    async def _post(
        self,
        url: str,
        payload: object,
        accept: str = "application/json",
        key: EllipticCurvePrivateKey | None = None,
    ) -> httpx.Response:
        """A signed request, by `key` instead of the account. A refused nonce is not a failure until it happens `BAD_NONCES_MAX` times
        in a row. An account that the CA has forgotten is created again, once."""
        for attempt in range(BAD_NONCES_MAX + 1):
            nonce = self._nonces.popleft() if self._nonces else await self._nonce()
            signer, account = (self._key, self._account) if key is None else (key, "")
            body = signed(signer, url, nonce, payload, account)
            try:
                return await self._send("POST", url, body, accept)
            except AcmeFailed as error:
                if attempt == BAD_NONCES_MAX:
                    raise
                if error.problem == "accountDoesNotExist" and self._checked:
                    self._checked = False
                    await self._find_account()
                elif error.problem != "badNonce":
                    raise
        raise AssertionError("unreachable")

    async def _nonce(self) -> str:
        await self._send("HEAD", self._url("newNonce"))
        if not self._nonces:
            raise AcmeFailed(OUTAGE, "the CA gives no nonce")
        return self._nonces.popleft()

    async def _send(
        self, method: str, url: str, body: object = None, accept: str = "application/json"
    ) -> httpx.Response:
        if not url.startswith("https://"):
            raise AcmeFailed(REFUSED, f"the CA names the URL {url[:100]!r}, which is not https")
        http = await self._client()
        headers = {"accept": accept, "user-agent": AGENT, "accept-encoding": "identity"}
        if body is not None:
            headers["content-type"] = "application/jose+json"
        try:
            async with asyncio.timeout(TIMEOUT_S), http.stream(method, url, json=body, headers=headers) as answer:
                await acme_answers.read(answer)
        except TimeoutError:
            raise AcmeFailed(OUTAGE, f"{acme_answers.host(url)} did not answer within {TIMEOUT_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise AcmeFailed(
                OUTAGE, f"{acme_answers.host(url)} cannot be reached: {error_text(error, TEXT_CHARS_MAX)}"
            ) from None
        if nonce := answer.headers.get("replay-nonce", ""):
            self._nonces.append(nonce)
        if answer.is_success:
            return answer
        raise acme_answers.failure(answer, url, self._wall())

    async def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            try:
                tls = await asyncio.to_thread(_tls, self._settings.ca_file)
            except (OSError, ssl.SSLError) as error:
                text = f"ca_file {self._settings.ca_file} cannot be used: {error.strerror or error}"
                raise AcmeFailed(REFUSED, text) from None
            self._http = new_client(tls)
        return self._http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None


def _tls(ca_file: str) -> ssl.SSLContext:
    if ca_file:
        found = read_regular(ca_file, CA_BYTES_MAX)
        if len(found) > CA_BYTES_MAX:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), ca_file)
        return ssl.create_default_context(cadata=found.decode("ascii", "replace"))
    return load_http()[1]
