"""The releases that are available: documents of the whole tree, which a root writes.

A release never changes (`model.release.merged`), also once it is withdrawn: it can be made available again with the same digests
only. That is why no document is ever removed, and why their number has a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from sdlb.core.messages import RELEASE, Rank
from sdlb.core.policies import BODY_BYTES_MAX
from sdlb.model.problem import Invalid
from sdlb.model.release import Release, Requirement, merged, read_release
from sdlb.model.requirements import cycle, cycle_text

if TYPE_CHECKING:
    from sdlb.core.events import ReleasePut
    from sdlb.core.state import State

RELEASES_MAX = 10_000
WITHDRAWN = "withdrawn"


class Known(NamedTuple):
    release: Release
    withdrawn: bool


class Releases:
    def __init__(self, state: State) -> None:
        self._state = state
        self._requires: dict[
            str, tuple[Rank, tuple[Requirement, ...]]
        ] = {}  # release -> what it requires, as last read

    # ------------------------------------------------------------------ reads

    def get(self, name: str) -> Known | None:
        """None: it is unknown, or cannot be read."""
        doc = self._state.policies.docs.get(f"{RELEASE}/{name}")
        return read(doc.body, name) if doc is not None else None

    def names(self) -> list[str]:
        return list(self._state.policies.names(RELEASE))

    def available(self, service: str) -> list[Release]:
        """Its releases that are not withdrawn."""
        named = [name for name in self._state.policies.names(RELEASE) if name.startswith(f"{service}-")]
        known = [found for name in named if (found := self.get(name)) is not None]
        return [each.release for each in known if each.release.service == service and not each.withdrawn]

    def requires(self, service: str, version: str) -> tuple[Requirement, ...]:
        """What a version requires, also once it is withdrawn."""
        name = f"{service}-{version}"
        doc = self._state.policies.docs.get(f"{RELEASE}/{name}")
        if doc is None:
            return ()
        found = self._requires.get(name)
        if found is None or found[0] != doc.rank:
            known = self.get(name)
            found = self._requires[name] = (doc.rank, known.release.requires if known is not None else ())
        return found[1]

    def objection(self, event: ReleasePut) -> str:
        """Why the event would have no effect at this root. "": it has one, or the release is known as it is."""
        known = self.get(event.name)
        if not event.body:
            return self._withdrawal_objection(event.name, known)
        new = read(event.body, event.name)
        if new is None:
            return f"release {event.name} cannot be read"
        if (known is None or known.withdrawn) and (names := cycle(new.release, self.available)):
            return f"release {event.name} {'; '.join(cycle_text(names))}"
        if known is None:
            if f"{RELEASE}/{event.name}" in self._state.policies.docs:
                return f"release {event.name} is known, but cannot be read by this version of sdlb"
            if len(self._state.policies.names(RELEASE)) >= RELEASES_MAX:
                return f"release {event.name}: there are already {RELEASES_MAX} releases, which is the maximum"
            return ""
        if (known.release.service, known.release.version) != (new.release.service, new.release.version):
            one = f"service {known.release.service} and version {known.release.version}"
            return f"release {event.name} already exists with {one}"
        try:
            size = len(body_of(Known(merged(known.release, new.release), withdrawn=True)))
        except Invalid as error:
            return str(error)
        return (
            "" if size <= BODY_BYTES_MAX else f"release {event.name} would be longer than 64 KiB; use fewer platforms"
        )

    def _withdrawal_objection(self, name: str, known: Known | None) -> str:
        if known is None:
            return f"there is no release {name}"
        service, version = known.release.service, known.release.version
        target = self._state.targets.get(service)
        if target is None:
            return ""
        rollout = target.active
        if rollout is not None and version in (rollout.to, rollout.before):
            return f"rollout {rollout.id} of {service} is in progress and needs {name}; end it first"
        return (
            f"the nodes of {service} have {name}; roll out another version first" if version == target.settled else ""
        )

    # ------------------------------------------------------------------ changes

    def on_put(self, event: ReleasePut) -> None:
        if self.objection(event):
            return
        known = self.get(event.name)
        if not event.body:
            assert known is not None
            if not known.withdrawn and self._put(Known(known.release, withdrawn=True)):
                self._note("release-withdrawn", f"{event.by or 'somebody'} withdrew release {event.name}", known)
            return
        new = read(event.body, event.name)
        assert new is not None
        now = Known(merged(known.release, new.release) if known is not None else new.release, withdrawn=False)
        if now != known and self._put(now):
            self._note("release-added", f"{event.by or 'somebody'} {_what(known, now)}", now)

    def _put(self, known: Known) -> bool:
        return self._state.policies.put_doc(RELEASE, known.release.name, body_of(known))

    def _note(self, code: str, text: str, known: Known) -> None:
        self._state.note(code, text, service=known.release.service, release=known.release.name)


def _what(before: Known | None, now: Known) -> str:
    if before is None:
        return f"added release {now.release.name}"
    if before.withdrawn:
        return f"made release {now.release.name} available again"
    more = [platform for platform, _ in now.release.artifacts if platform not in dict(before.release.artifacts)]
    return f"added {', '.join(more)} to release {now.release.name}"


def body_of(known: Known) -> bytes:
    data = known.release.to_data()
    return msgspec.json.encode({**data, WITHDRAWN: True} if known.withdrawn else data)


def read(body: bytes, name: str) -> Known | None:
    """None: it cannot be read, because it comes from another release of sdlb or a faulty node."""
    try:
        data = msgspec.json.decode(body)
        if not isinstance(data, dict):
            return None
        values = dict(cast("dict[str, object]", data))
        withdrawn = values.pop(WITHDRAWN, False) is True
        release = read_release(values, f"release {name}")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, Invalid):
        return None
    return Known(release, withdrawn) if release.name == name else None


def data_of(name: str, known: Known) -> dict[str, object]:
    """For the reads of `View`."""
    release = known.release
    return {
        "name": name,
        "service": release.service,
        "version": release.version,
        WITHDRAWN: known.withdrawn,
        "requires": [str(each) for each in release.requires],
        "artifacts": [
            {"platform": platform, "url": each.url, "sha256": each.sha256, "signature": each.signature}
            for platform, each in release.artifacts
        ],
    }
