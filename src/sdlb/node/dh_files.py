"""The DH parameters of sites: one file for each in the folder `dhparam` of the state folder.

A file is PEM, which programs read as it is; comments above it have the site, the digest of the prime, the date and the result of
the checks. It is written in one step, so there is never half of one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Generator
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from sdlb.adapters.private_file import write_private
from sdlb.model.problem import Invalid
from sdlb.node import dh_check
from sdlb.node.local_paths import own_folder

FOLDER = "dhparam"
CODE = "dhparam"
_HEAD = re.compile(r"^# (site|sha256|made|bits|checked): (.+)$", re.MULTILINE)


class Stored(Struct, frozen=True):
    """`sha256`: of the prime. `checked`: the result of the checks when it was made. `pem`: the block of PEM alone."""

    site: str
    sha256: str
    made: str
    bits: int
    checked: str
    pem: str
    path: Path


def path_of(state_dir: Path, site: str) -> Path:
    return state_dir / FOLDER / f"{quote(site, safe='')}.pem"


def read(state_dir: Path, site: str) -> Stored | None:
    """None: there are none. Raises Invalid when the file cannot be read or is damaged."""
    path = path_of(state_dir, site)
    do = f"run: sdlb tls dhparam {site} --renew"
    try:
        text = path.read_text("ascii")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Invalid(CODE, str(path), f"cannot be read ({why})", do) from None
    head = dict(_HEAD.findall(text))
    found = dh_check.PEM.search(text)
    try:
        p, _ = dh_check.parse(text)
        if (
            found is None
            or head["sha256"] != dh_check.digest(p)
            or head["site"] != site
            or p.bit_length() != int(head["bits"])
        ):
            raise ValueError
    except (ValueError, KeyError):
        raise Invalid(CODE, str(path), "is damaged: its content is not what its comments say", do) from None
    return Stored(site, head["sha256"], head["made"], int(head["bits"]), head["checked"], found[0], path)


def others(state_dir: Path, site: str) -> dict[str, str]:
    """The digests of the primes of all other sites that have parameters here, with their names."""
    own = path_of(state_dir, site)
    found: dict[str, str] = {}
    for path in sorted((state_dir / FOLDER).glob("[!.]*.pem")):
        if path != own:
            with contextlib.suppress(OSError, ValueError):
                text = path.read_text("ascii")
                name = dict(_HEAD.findall(text)).get("site", path.name)
                found[dh_check.digest(dh_check.parse(text)[0])] = name
    return found


def write(state_dir: Path, site: str, pem: str, made: str, checked: str) -> Stored:
    """Raises OSError."""
    p, _ = dh_check.parse(pem)
    found = dh_check.PEM.search(pem)
    assert found is not None
    stored = Stored(site, dh_check.digest(p), made, p.bit_length(), checked, found[0], path_of(state_dir, site))
    head = f"# site: {site}\n# sha256: {stored.sha256}\n# made: {made}\n# bits: {stored.bits}\n# checked: {checked}\n"
    write_private(stored.path, f"{head}{stored.pem}".encode("ascii"))
    return stored


@contextlib.contextmanager
def locked(state_dir: Path) -> Generator[None]:
    """One command at a time; what a killed one left behind is removed. Raises Invalid."""
    folder = state_dir / FOLDER
    own_folder(folder, "folder of the DH parameters")
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "another command makes DH parameters now"
            raise Invalid(CODE, str(folder), what, "wait until it is done, then run this one again") from None
        for left in folder.glob(".*.new"):
            left.unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)
