"""The calls of the local API about sites and their certificates."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sdlb.core.certificates import OUTAGE
from sdlb.node.acme import Acme
from sdlb.node.peer import acting_user
from sdlb.node.problems import Refusal
from sdlb.node.requests import as_json, body_of
from sdlb.node.schema_orders import Revocation
from sdlb.node.sites import SiteWatch
from sdlb.node.specs import decode
from sdlb.seams.acme import AcmeFailed


class SiteCalls:
    """`name`: of this node."""

    def __init__(self, name: str, sites: SiteWatch, acme: Acme) -> None:
        self._name = name
        self._sites = sites
        self._acme = acme

    async def list_sites(self, request: Request) -> Response:
        return as_json({"node": self._name, "sites": self._sites.views()})

    async def revoke_certificate(self, request: Request) -> Response:
        site = request.path_params["site"]
        body = decode(Revocation, await body_of(request), "bad-json", f"revocation at {site[:80]!r}")
        by = await acting_user(request, body.by)
        known = next((view for view in self._sites.views() if view["site"] == site), None)
        if known is None:
            raise Refusal("no-such-site", f"{self._name} has no site {site[:80]!r}; 'sdlb status' lists them")
        if known["acme"] is None:
            text = f"the certificate of {site} comes from a file; revoke it at its CA, and replace the file"
            raise Refusal("revocation-refused", text)
        try:
            revoked = await self._acme.revoke(site, body.reason, by)
        except AcmeFailed as error:
            text = f"the certificate of {site} is not revoked: {error}"
            if error.kind != OUTAGE:
                raise Refusal("revocation-refused", text) from None
            # The CA may have revoked it before the connection was lost. Repeated, the call learns that and replaces it.
            raise Refusal("ca-not-reached", f"as far as this node knows, {text}; repeat the command") from None
        if revoked is None:
            raise Refusal("revocation-refused", f"{site} has no certificate yet")
        return as_json({"node": self._name, "site": site, "reason": body.reason, "by": by, **revoked})
