"""When certificates are ordered from a CA, and when they are renewed (RFC 8555, RFC 9773).

* One order at a time. A site without a certificate comes first, then the one that expires first.
* A certificate is renewed at a random time of the window that the CA suggests (ARI). Without a window: after two thirds
  of its lifetime, or half of a lifetime under ten days. No window delays a renewal beyond nine tenths of the lifetime.
* After a failure the site waits, each time twice as long. A host takes part in at most `FAILURES_PER_HOUR` failed orders in
  any hour, because CAs count those.
* `Retry-After` is obeyed: a site waits at least that long after a rate limit, and all sites after an outage.
* A CA that cannot be reached is not a failure of a host. All sites wait, each time twice as long, up to
  `OUTAGE_S_MAX`.
* A certificate that was revoked is replaced at once, by the node that revoked it. Waits after failures still hold.

All times are Unix times, because certificates and CAs use them. The waits survive a restart. When the clock goes back,
a wait lasts no longer than it was set for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct, field

if TYPE_CHECKING:
    from random import Random

DAY_S = 86_400.0
HOUR_S = 3600.0
SHORT_LIFETIME_S = 10 * DAY_S
LATEST_PART = 0.9
FRESH_S, FRESH_PART = HOUR_S, 0.1
"""A new certificate is not renewed for this time, or for this part of its lifetime: a window that is always past must not cause
order after order."""
FAILURES_PER_HOUR = 4
FAILURE_S_FIRST, FAILURE_S_MAX = 60.0, 6 * HOUR_S
OUTAGE_S_FIRST, OUTAGE_S_MAX = 2.0, 300.0
LIMITED_S = HOUR_S
"""How long a site waits after a rate limit without Retry-After."""
RETRY_AFTER_S_MAX = 7 * DAY_S
WINDOW_S_MIN, WINDOW_S_MAX = 60.0, DAY_S
"""Interval between two questions for a renewal window (RFC 9773, section 4.3.2)."""
WINDOW_RETRY_S = HOUR_S
JITTER = 0.25

OUTAGE, LIMITED, REFUSED = "outage", "limited", "refused"
"""Kinds of failures: the CA cannot be reached or does not work; it limits the rate; the order failed, whoever's fault
that is."""


class Lifetime(Struct, frozen=True):
    not_before_s: float
    not_after_s: float

    @property
    def length_s(self) -> float:
        return max(0.0, self.not_after_s - self.not_before_s)


class Order(Struct, frozen=True):
    """Order a certificate for this site now. `order_done` or `order_failed` follows."""

    site: str


class AskWindow(Struct, frozen=True):
    """Ask the CA for the renewal window of this site's certificate now. `window_is` or `window_unknown` follows."""

    site: str


class Wait(Struct, frozen=True):
    """Nothing to do until this time. None: until something changes."""

    until_s: float | None


Step = Order | AskWindow | Wait


class _Pause(Struct):
    since_s: float = 0.0
    for_s: float = 0.0

    def until_s(self) -> float:
        return self.since_s + self.for_s


class _Site(Struct):
    hosts: tuple[str, ...]
    held: Lifetime | None = None
    renews: bool = True
    chosen_s: float | None = None  # the random time of the window
    window: tuple[float, float] | None = None
    ask: _Pause = field(default_factory=_Pause)
    failed: int = 0  # failures since the last certificate
    pause: _Pause = field(default_factory=_Pause)
    fresh: _Pause = field(default_factory=_Pause)
    revoked: bool = False  # the certificate that it has
    why: str = ""

    @property
    def lacks(self) -> bool:
        """It has no certificate that clients should accept."""
        return self.held is None or self.revoked


def renew_at_s(held: Lifetime, chosen_s: float | None) -> float:
    """When a certificate is renewed. `chosen_s`: the time chosen in the CA's window."""
    length_s = held.length_s
    if chosen_s is None:
        part = 1 / 2 if length_s < SHORT_LIFETIME_S else 2 / 3
        return held.not_before_s + length_s * part
    return min(chosen_s, held.not_before_s + length_s * LATEST_PART)


class CertificatePlan:
    """`rng`: for the jitter of waits and the time in a window."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._sites: dict[str, _Site] = {}
        self._failures: dict[str, list[float]] = {}  # host -> times of failed orders in the last hour
        self._outage = _Pause()
        self._outages = 0  # failures to reach the CA, in a row
        self._outage_since_s = 0.0
        self._open = ""  # the site of the open order
        self._outage_why = ""

    # ------------------------------------------------------------------ what there is

    def want(self, sites: Mapping[str, tuple[str, ...]]) -> None:
        """Sets the sites with their hosts. A site whose hosts have changed is ordered anew."""
        known, self._sites = self._sites, {}
        for name, hosts in sites.items():
            site = known.get(name)
            self._sites[name] = site if site is not None and site.hosts == hosts else _Site(hosts)

    def hold(self, name: str, held: Lifetime | None) -> None:
        """The site has this certificate now, from whatever source."""
        site = self._sites.get(name)
        if site is None or site.held == held:
            return
        self._sites[name] = _Site(site.hosts, held, site.renews)

    def renews(self, name: str, renews: bool) -> None:
        """Whether this site is ordered and renewed at all."""
        if (site := self._sites.get(name)) is not None:
            site.renews = renews

    def revoke(self, name: str, revoked: bool = True) -> None:
        """The certificate that the site has is revoked, or is not after all."""
        if (site := self._sites.get(name)) is not None and site.held is not None:
            site.revoked = revoked

    # ------------------------------------------------------------------ what is to be done

    def next_step(self, now_s: float, mine: Callable[[str], bool], *, windows: bool) -> Step:
        """`mine`: whether this node orders for that site. `windows`: the CA suggests renewal windows."""
        self._clock(now_s)
        if self._open:
            return Wait(None)
        wake: list[float] = []
        due: list[tuple[float, int, str]] = []
        ask = ""
        for number, (name, site) in enumerate(self._sites.items()):
            if not site.renews or not (site.revoked or mine(name)):
                continue
            at_s = self.next_try_s(name, now_s)
            if at_s <= now_s:
                due.append((0.0 if site.held is None or site.revoked else site.held.not_after_s, number, name))
                continue
            wake.append(at_s)
            if windows and not site.lacks:
                asks_at_s = max(site.ask.until_s(), self._outage.until_s())
                if asks_at_s <= now_s:
                    ask = ask or name
                else:
                    wake.append(asks_at_s)
        if due:
            return Order(min(due)[2])
        if ask:
            return AskWindow(ask)
        return Wait(min(wake, default=None))

    def next_try_s(self, name: str, now_s: float) -> float:
        """When the site's next order starts at the earliest."""
        site = self._sites[name]
        at_s = max(site.pause.until_s(), self._outage.until_s(), self._allowed_s(site.hosts, now_s))
        if site.held is not None and not site.revoked:
            at_s = max(at_s, site.fresh.until_s(), renew_at_s(site.held, site.chosen_s))
        return at_s

    def _allowed_s(self, hosts: Iterable[str], now_s: float) -> float:
        """When no host of these has `FAILURES_PER_HOUR` failures in the hour before."""
        at_s = 0.0
        for host in hosts:
            times = [each for each in self._failures.get(host, ()) if each > now_s - HOUR_S]
            if len(times) >= FAILURES_PER_HOUR:
                at_s = max(at_s, times[-FAILURES_PER_HOUR] + HOUR_S)
        return at_s

    # ------------------------------------------------------------------ orders

    def order_started(self, name: str) -> None:
        self._open = name

    def order_dropped(self) -> None:
        """The open order has ended, and what it led to is of no use any more."""
        self._open = ""

    def order_done(self, name: str, held: Lifetime, now_s: float) -> None:
        self._open = ""
        self._reached()
        site = self._sites.get(name)
        if site is None:
            return
        for host in site.hosts:
            self._failures.pop(host, None)
        fresh = _Pause(now_s, min(FRESH_S, held.length_s * FRESH_PART))
        self._sites[name] = _Site(site.hosts, held, site.renews, fresh=fresh)

    def order_failed(self, name: str, kind: str, why: str, retry_after_s: float | None, now_s: float) -> None:
        """`kind`: OUTAGE, LIMITED or REFUSED. `retry_after_s`: as the CA asked."""
        self._open = ""
        self._clock(now_s)
        asked_s = min(max(0.0, retry_after_s or 0.0), RETRY_AFTER_S_MAX)
        site = self._sites.get(name)
        if site is not None:
            site.why = why
        if kind == OUTAGE:
            self._outage_why = why
            self._pause_all(asked_s, now_s)
            return
        if kind == LIMITED:
            self._pause_all(0.0, now_s)
            if site is not None:
                site.pause = _Pause(now_s, asked_s or self._spread(LIMITED_S))
            return
        self._reached()
        if site is None:
            return
        site.failed += 1
        for host in site.hosts:
            times = [each for each in self._failures.get(host, ()) if each > now_s - HOUR_S]
            self._failures[host] = [*times, now_s][-FAILURES_PER_HOUR:]
        backoff_s = min(FAILURE_S_MAX, FAILURE_S_FIRST * 2 ** min(site.failed - 1, 16))
        site.pause = _Pause(now_s, max(asked_s, self._spread(backoff_s)))

    def _pause_all(self, asked_s: float, now_s: float) -> None:
        if not self._outages:
            self._outage_since_s = now_s
        self._outages += 1
        backoff_s = min(OUTAGE_S_MAX, OUTAGE_S_FIRST * 2 ** min(self._outages - 1, 16))
        self._outage = _Pause(now_s, max(asked_s, self._spread(backoff_s)))

    def _reached(self) -> None:
        self._outages, self._outage, self._outage_why = 0, _Pause(), ""

    def _spread(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1.0, 1.0 + JITTER)

    # ------------------------------------------------------------------ renewal windows

    def window_is(self, name: str, start_s: float, end_s: float, retry_after_s: float | None, now_s: float) -> None:
        """The CA's window, for the certificate that the site has now. A window without length is ignored."""
        self._reached()
        site = self._sites.get(name)
        if site is None:
            return
        every_s = min(max(retry_after_s or WINDOW_RETRY_S, WINDOW_S_MIN), WINDOW_S_MAX)
        site.ask = _Pause(now_s, every_s)
        if site.window == (start_s, end_s) or end_s <= start_s:
            return
        site.window = (start_s, end_s)
        site.chosen_s = self._rng.uniform(start_s, end_s)

    def window_unknown(self, name: str, retry_after_s: float | None, now_s: float) -> None:
        """The window could not be read. The time chosen earlier stays."""
        site = self._sites.get(name)
        if site is not None:
            asked_s = min(max(0.0, retry_after_s or 0.0), WINDOW_S_MAX)
            site.ask = _Pause(now_s, max(asked_s, self._spread(WINDOW_RETRY_S)))

    # ------------------------------------------------------------------ the clock

    def _clock(self, now_s: float) -> None:
        """After the clock has gone back, every wait counts from now."""
        pauses = [self._outage]
        for site in self._sites.values():
            pauses += (site.pause, site.ask, site.fresh)
        for pause in pauses:
            pause.since_s = min(pause.since_s, now_s)
        self._outage_since_s = min(self._outage_since_s, now_s)
        for host, times in list(self._failures.items()):
            kept = [min(each, now_s) for each in times if each > now_s - HOUR_S]
            if kept:
                self._failures[host] = kept
            else:
                del self._failures[host]

    # ------------------------------------------------------------------ reads

    @property
    def open(self) -> str:
        """The site of the open order; "" without one."""
        return self._open

    def held(self, name: str) -> Lifetime | None:
        site = self._sites.get(name)
        return None if site is None else site.held

    def is_revoked(self, name: str) -> bool:
        """The site still serves with a certificate that was revoked."""
        site = self._sites.get(name)
        return site is not None and site.revoked

    def why(self, name: str) -> str:
        """Why the last order of the site failed, or why none is started; "" when nothing is wrong."""
        site = self._sites.get(name)
        if site is None:
            return ""
        return site.why or self._outage_why

    def outage_s(self, now_s: float) -> float:
        """For how long the CA could not be reached; 0: it could."""
        return max(0.0, now_s - self._outage_since_s) if self._outages else 0.0

    # ------------------------------------------------------------------ over a restart

    def saved(self) -> dict[str, Any]:
        """Failures and waits as JSON."""
        return {
            "failures": self._failures,
            "outage": [self._outage.since_s, self._outage.for_s, self._outages, self._outage_since_s],
            "sites": {
                name: {
                    "hosts": list(site.hosts),
                    "pause": [site.pause.since_s, site.pause.for_s],
                    "failed": site.failed,
                    "revoked": _times(site.held) if site.revoked else None,
                }
                for name, site in self._sites.items()
                if site.failed or site.pause.for_s or site.revoked
            },
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continues the waits of `saved`, for the sites that are wanted and unchanged. Raises KeyError, TypeError or
        ValueError when it is not from `saved`."""
        failures = {
            str(host): [float(each) for each in times][-FAILURES_PER_HOUR:]
            for host, times in cast("Mapping[str, list[float]]", saved["failures"]).items()
        }
        since_s, for_s, outages, outage_since_s = cast("list[float]", saved["outage"])
        waits: dict[str, tuple[_Pause, int, bool]] = {}
        for name, each in cast("Mapping[str, Mapping[str, Any]]", saved["sites"]).items():
            site = self._sites.get(name)
            if site is not None and site.hosts == tuple(each["hosts"]):
                pause = _Pause(*(float(part) for part in each["pause"]))
                revoked = site.held is not None and each.get("revoked") == _times(site.held)
                waits[name] = (pause, int(each["failed"]), revoked)
        self._failures = failures
        self._outage, self._outages = _Pause(float(since_s), float(for_s)), int(outages)
        self._outage_since_s = float(outage_since_s)
        for name, (pause, failed, revoked) in waits.items():
            site = self._sites[name]
            site.pause, site.failed, site.revoked = pause, failed, revoked


def _times(held: Lifetime | None) -> list[float] | None:
    return None if held is None else [held.not_before_s, held.not_after_s]


# ---------------------------------------------------------------------- which of several entries orders


class Entry(Struct, frozen=True):
    """What an entry reports about itself. `sites`: those that it serves with certificates of the CA. `ordering`: the site of its
    open order. `stuck`: it has not reached the CA for long."""

    name: str
    sites: Set[str] = frozenset()
    ordering: str = ""
    stuck: bool = False


def orderer(site: str, own: Entry, others: Iterable[Entry], *, settled: bool) -> str:
    """The name of the entry that orders for this site; "": none yet.

    The one that is ordering does. Else it is the first by name of those that serve the site and reach the CA. `others`:
    those that are in touch. `settled` False: some may not have reported yet, and nothing new is begun.
    """
    serving = [entry for entry in (own, *others) if site in entry.sites]
    busy = [entry.name for entry in serving if entry.ordering == site]
    if busy:
        return min(busy)
    if not settled:
        return ""
    able = [entry.name for entry in serving if not entry.stuck]
    return min(able or [entry.name for entry in serving], default="")
