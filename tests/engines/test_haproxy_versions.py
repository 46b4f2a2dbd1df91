"""What only newer versions of HAProxy have."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from sdlb.adapters.haproxy import program
from sdlb.adapters.haproxy.rules import CONFIG, GLITCHES_MAX
from sdlb.core.effects import Apply
from tests.engines.play import connect, endpoints, needs_haproxy, one, put, route, run, started, upstream

pytestmark = needs_haproxy


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def test_a_flood_of_resets_ends_the_connection_from_version_3_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with endpoints("a") as (a,), started("haproxy", tmp_path) as played:
            await played.apply(Apply(0, True, (upstream(a),), (put("1.0.0", a),), (route(one("1.0.0")),)))
            limited = (await program.find()).limits_floods
            assert limited == ("tune.h2.fe.glitches-threshold" in (tmp_path / "haproxy" / CONFIG).read_text())
            if not limited:
                return
            reader, writer = await connect(played.address)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
            head = bytes((0x82, 0x86, 0x84, 0x41, 11)) + b"example.com"
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 20 * GLITCHES_MAX and not reader.at_eof():
                    for stream in range(2 * sent + 1, 2 * sent + 201, 2):
                        writer.write(frame(1, 5, stream, head) + frame(3, 0, stream, (8).to_bytes(4, "big")))
                    sent += 100
                    await writer.drain()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(65_536), 0.05)
            assert sent < 20 * GLITCHES_MAX
            writer.close()
            assert (await played.ask()).body == "a"

    run(scenario)
