"""Changed certificate files are reported when they are complete, and sites that have them are read at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path

from sdlb.adapters.folder_watch import FolderWatch


async def reported(watched: Collection[Path], act: Callable[[], object]) -> list[str]:
    """What is reported for `act`, and for a last file that shows that nothing more comes."""
    found: list[str] = []
    end = asyncio.Event()
    last = min(watched).with_name("last")

    def changed(paths: Collection[str]) -> None:
        found.extend(sorted(paths))
        if str(last) in found:
            end.set()

    watch = FolderWatch(changed)
    watch.watch([str(path) for path in watched])
    try:
        act()
        last.write_text("x")
        await asyncio.wait_for(end.wait(), 10)
    finally:
        watch.close()
    return [path for path in dict.fromkeys(found) if path != str(last)]


def test_files_count_when_they_are_written_renamed_or_linked(tmp_path: Path) -> None:
    async def run() -> None:
        site, new, link = tmp_path / "site.pem", tmp_path / "new.pem", tmp_path / "link.pem"
        assert await reported([site], lambda: site.write_text("1")) == [str(site)]
        new.write_text("2")
        assert await reported([site], lambda: new.replace(site)) == [str(site)]
        assert await reported([link], lambda: link.symlink_to(site)) == [str(link)]
        assert await reported([site], lambda: site.read_text()) == []
        with site.open("a") as half:
            half.write("3")
            half.flush()
            assert await reported([site], lambda: None) == [], "it is still being written"

    asyncio.run(run())


def test_only_the_folders_of_the_last_call_are_watched(tmp_path: Path) -> None:
    async def run() -> None:
        a, b = tmp_path / "a", tmp_path / "b"
        a.mkdir()
        b.mkdir()
        found: list[str] = []
        watch = FolderWatch(found.extend)
        watch.watch([str(a / "x"), str(tmp_path / "missing" / "x")])
        watch.watch([str(b / "x")])
        (a / "x").write_text("1")
        (b / "x").write_text("1")
        async with asyncio.timeout(10):
            while not found:
                await asyncio.sleep(0.01)
        assert found == [str(b / "x")]
        watch.watch([])
        watch.close()
        watch.close()

    asyncio.run(run())


def test_a_folder_that_comes_back_is_watched_again(tmp_path: Path) -> None:
    async def run() -> None:
        folder = tmp_path / "a"
        folder.mkdir()
        found: list[str] = []
        watch = FolderWatch(found.extend)
        watch.watch([str(folder / "x")])
        os.rmdir(folder)
        await asyncio.sleep(0.1)  # its removal is reported
        folder.mkdir()
        watch.watch([str(folder / "x")])
        (folder / "x").write_text("1")
        async with asyncio.timeout(10):
            while not found:
                await asyncio.sleep(0.01)
        watch.close()

    asyncio.run(run())
