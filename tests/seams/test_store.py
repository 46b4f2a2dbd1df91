"""The rules of `seams.store` for every implementation, then failures that only a file can have."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sdlb.adapters import store_embedded
from sdlb.adapters.store_embedded import EmbeddedStore
from sdlb.core.effects import Note
from sdlb.seams.store import Store, StoreFailed
from tests.seams.fake_store import MemoryStore

Reopen = Callable[[], Store]


@pytest.fixture
def notes() -> list[Note]:
    return []


@pytest.fixture(params=["embedded", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, notes: list[Note]) -> Reopen:
    """Another opening of the same store, as after a restart."""
    disk: dict[str, bytes] = {}
    if request.param == "memory":
        return lambda: MemoryStore(disk)
    return lambda: EmbeddedStore(tmp_path / "state.db", notes.append)


async def _loaded(reopen: Reopen) -> dict[str, object]:
    store = reopen()
    found = await store.load()
    await store.close()
    return found


# ------------------------------------------------------------------ every store


async def _commits(reopen: Reopen, *puts: dict[str, object], durable: bool = True) -> None:
    store = reopen()
    await store.load()
    for each in puts:
        await store.commit(each, durable)
    await store.close()


def test_a_new_store_is_empty(reopen: Reopen, notes: list[Note]) -> None:
    assert asyncio.run(_loaded(reopen)) == {}
    assert not notes


@pytest.mark.parametrize("durable", [True, False])
def test_what_was_committed_is_there_after_a_restart(reopen: Reopen, durable: bool) -> None:
    value = {"a": [1, 2.5, None, True], "ü": "text \u2028", "big": (1 << 63) + 1}
    asyncio.run(_commits(reopen, {"claim/host-1/x": value, "policy/web": [1, "edge", "{}"]}, durable=durable))
    assert asyncio.run(_loaded(reopen)) == {"claim/host-1/x": value, "policy/web": [1, "edge", "{}"]}


def test_the_last_value_counts_and_none_deletes(reopen: Reopen) -> None:
    asyncio.run(_commits(reopen, {"a": 1, "b": 1, "c": 1}, {"a": 2, "b": None}, {"never": None}))
    assert asyncio.run(_loaded(reopen)) == {"a": 2, "c": 1}


def test_commits_at_once_keep_their_order(reopen: Reopen) -> None:
    async def run() -> None:
        store = reopen()
        await store.load()
        await asyncio.gather(*(store.commit({"last": n, f"each/{n}": n}, n % 3 == 0) for n in range(200)))
        await store.close()

    asyncio.run(run())
    found = asyncio.run(_loaded(reopen))
    assert found.pop("last") == 199
    assert found == {f"each/{n}": n for n in range(200)}


def test_close_is_safe_to_call_twice(reopen: Reopen) -> None:
    async def run() -> None:
        store = reopen()
        await store.load()
        await store.close()
        await store.close()

    asyncio.run(run())


# ------------------------------------------------------------------ files that cannot be trusted


def _embedded(folder: Path, notes: list[Note]) -> Reopen:
    return lambda: EmbeddedStore(folder / "state.db", notes.append)


def _fill(folder: Path, count: int = 300) -> Path:
    asyncio.run(_commits(_embedded(folder, []), {f"key/{n}": {"n": n, "text": "x" * 100} for n in range(count)}))
    return folder / "state.db"


def _expect_set_aside(folder: Path, because: str) -> None:
    notes: list[Note] = []
    assert asyncio.run(_loaded(_embedded(folder, notes))) == {}
    assert [(note.code, note.level) for note in notes] == [("state-set-aside", "error")]
    assert because in notes[0].text
    aside = Path(notes[0].fields["file"])
    assert aside.exists()
    assert aside.name.startswith("state.db.bad-")
    # and the new file works
    asyncio.run(_commits(_embedded(folder, notes), {"a": 1}))
    assert asyncio.run(_loaded(_embedded(folder, notes))) == {"a": 1}
    assert len(notes) == 1


def test_a_torn_file_is_set_aside(tmp_path: Path) -> None:
    file = _fill(tmp_path)
    os.truncate(file, file.stat().st_size // 2)
    _expect_set_aside(tmp_path, "state.db")


def test_a_file_of_something_else_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(os.urandom(5000))
    _expect_set_aside(tmp_path, "is not usable")


def test_a_file_of_a_newer_version_is_set_aside(tmp_path: Path) -> None:
    file = _fill(tmp_path, 3)
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version = {store_embedded.SCHEMA + 1}")
    _expect_set_aside(tmp_path, "newer version")


def test_a_value_that_does_not_match_its_checksum_is_set_aside(tmp_path: Path) -> None:
    file = _fill(tmp_path, 3)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE state SET value = '{\"n\": 7}' WHERE key = 'key/1'")
    _expect_set_aside(tmp_path, "checksum")


def test_each_bad_file_is_kept(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        (tmp_path / "state.db").write_bytes(b"bad %d" % n)
        asyncio.run(_loaded(_embedded(tmp_path, [])))
        (tmp_path / "state.db").unlink()
    assert sorted(path.name for path in tmp_path.glob("*.bad-?")) == [f"state.db.bad-{n}" for n in (1, 2, 3)]


@pytest.mark.promise(8)
def test_flipped_bits_are_found_or_harmless(tmp_path: Path) -> None:
    """After a bit flip anywhere, the store loads what was committed, or nothing."""
    file = _fill(tmp_path, 40)
    whole = file.read_bytes()
    kept = {f"key/{n}": {"n": n, "text": "x" * 100} for n in range(40)}
    rng = random.Random(7)
    seen: set[bool] = set()
    for _ in range(400):
        place = rng.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        for old in tmp_path.iterdir():
            old.unlink()
        file.write_bytes(flipped)
        notes: list[Note] = []
        found = asyncio.run(_loaded(_embedded(tmp_path, notes)))
        assert found == ({} if notes else kept), f"bit {place}"
        seen.add(bool(notes))
    assert seen == {True, False}


# ------------------------------------------------------------------ kill -9, a full and a read-only disk

WRITER = """
import asyncio, sys
from pathlib import Path
from sdlb.adapters.store_embedded import EmbeddedStore

async def main():
    store = EmbeddedStore(Path(sys.argv[1]), print)
    n = (await store.load()).get("both/1", 0)
    while True:
        n += 1
        await store.commit({"both/1": n, "filler": "x" * (n % 5000), "both/2": n}, durable=n % 2 == 0)
        print(n, flush=True)

asyncio.run(main())
"""


@pytest.mark.promise(8)
def test_kill_9_in_the_middle_of_commits_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(6):
        words = [sys.executable, "-c", WRITER, str(tmp_path / "state.db")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)
        assert process.stdout is not None
        confirmed = [int(process.stdout.readline()) for _ in range(5)]
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].splitlines(keepends=True)
        confirmed += [int(line) for line in rest if line.endswith(b"\n")]
        notes: list[Note] = []
        found = asyncio.run(_loaded(_embedded(tmp_path, notes)))
        assert not notes
        assert found["both/1"] == found["both/2"], "half a commit"
        assert found["both/1"] in (confirmed[-1], confirmed[-1] + 1)


def test_a_disk_that_is_full_is_one_error_and_the_commit_can_be_tried_again(tmp_path: Path) -> None:
    async def run() -> None:
        store = EmbeddedStore(tmp_path / "state.db", print)
        await store.load()
        connection = store._connection  # pyright: ignore[reportPrivateUsage]
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")  # what SQLite does when the disk has no more
        with pytest.raises(StoreFailed, match="full"):
            await store.commit({"big": "x" * 100_000, "small": 1}, durable=True)
        connection.execute("PRAGMA max_page_count = 100000")
        await store.commit({"small": 2}, durable=True)
        await store.close()

    asyncio.run(run())
    assert asyncio.run(_loaded(_embedded(tmp_path, []))) == {"small": 2}


def test_a_bad_commit_does_not_take_others_with_it(tmp_path: Path) -> None:
    async def run() -> list[BaseException | None]:
        store = EmbeddedStore(tmp_path / "state.db", print)
        await store.load()
        connection = store._connection  # pyright: ignore[reportPrivateUsage]
        assert connection is not None
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        commits = [{"a": 1}, {"big": "x" * 100_000}, {"b": 1}]
        outcome = await asyncio.gather(*(store.commit(each, True) for each in commits), return_exceptions=True)
        await store.close()
        return outcome

    outcome = asyncio.run(run())
    assert [type(each) for each in outcome] == [type(None), StoreFailed, type(None)]
    assert asyncio.run(_loaded(_embedded(tmp_path, []))) == {"a": 1, "b": 1}


def test_a_symbolic_link_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.db").symlink_to(victim)
    with pytest.raises(StoreFailed):
        asyncio.run(_loaded(_embedded(tmp_path, [])))
    assert victim.read_text() == "precious"


@pytest.mark.promise(8)
def test_a_log_that_ends_too_early_is_no_silent_step_back(tmp_path: Path) -> None:
    """A store copied while it runs, with a truncated write-ahead log, is detected. SQLite alone would return an older
    state."""

    async def run() -> None:
        store = EmbeddedStore(tmp_path / "state.db", print)
        await store.load()
        for n in range(50):
            await store.commit({"generation": n}, durable=True)
        for name in ("state.db", "state.db-wal", "state.db-mark"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
        await store.close()

    copy = tmp_path / "copy"
    copy.mkdir()
    asyncio.run(run())
    log = copy / "state.db-wal"
    os.truncate(log, log.stat().st_size * 3 // 4)
    _expect_set_aside(copy, "later writes are lost")


def test_a_mark_that_is_damaged_or_missing_is_no_reason_to_forget(tmp_path: Path) -> None:
    for damage in (b"", b"99999999999999999999 00000000\n", None):
        _fill(tmp_path, 3)
        mark = tmp_path / "state.db-mark"
        mark.unlink()
        if damage is not None:
            mark.write_bytes(damage)
        assert len(asyncio.run(_loaded(_embedded(tmp_path, [])))) == 3
