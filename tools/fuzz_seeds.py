"""Writes the seeds of the fuzz targets, engine/fuzz/seeds: `python -m tools.fuzz_seeds`.

They are real cases: the attacks of tests/compliance, sequences of HTTP/2 frames, deltas as control sends them.
Seeds that fuzzing found are added by hand, under a name that begins with `found-`; they are kept.
"""

# hpack has no types.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import re
from pathlib import Path

from sdlb.node.audit import attack_rows
from sdlb.wire import engine_pb2 as pb
from tests.compliance import test_framing as framing
from tests.engine import frames

ROOT = Path(__file__).parent.parent
SEEDS = ROOT / "engine/fuzz/seeds"


def control() -> dict[str, bytes]:
    def framed(*messages: pb.ToEngine) -> bytes:
        return b"".join(len(raw).to_bytes(4, "big") + raw for raw in (each.SerializeToString() for each in messages))

    def delta(epoch: int, pattern: str = "www.example/*", version: str = "1.0", **more: object) -> pb.ToEngine:
        key = pb.MemberKey(service="web", version=version, pattern=pattern, target=f"i:{version}")
        made = pb.Delta(
            epoch=epoch,
            put_targets=[pb.Target(key=f"i:{version}", address="127.0.0.1:8001")],
            put_members=[pb.Member(key=key, capacity=100)],
            put_routes=[pb.Route(pattern=pattern, service="web", picks=[pb.Pick(version=version)])],
        )
        made.MergeFrom(pb.Delta(**more))  # pyright: ignore[reportArgumentType]
        return pb.ToEngine(delta=made)

    gone = pb.MemberKey(service="web", version="1.0", pattern="www.example/*", target="i:1.0")
    away = pb.Delta(epoch=2, delete_members=[gone], delete_routes=["www.example/*"], delete_targets=["i:1.0"])
    sticky = pb.Sticky(by=pb.Sticky.By.COOKIE, name="session")
    park = pb.Park(requests_max=10, timeout_ms=1000)
    route = pb.Route(pattern="*/*", service="web", picks=[pb.Pick(version="1.0", weight=5)], sticky=sticky, park=park)
    configure = pb.Configure(node="edge", listeners=[pb.Listener(key="http", address="127.0.0.1:80", tls=True)])
    site = pb.Site(key="www.example", hosts=["www.example", "*.example"], certificates=[pb.Certificate(pem=b"-----")])
    return {
        "one": framed(delta(1)),
        "two-versions": framed(delta(1), delta(2, version="2.0", pattern="*.example/catalog*")),
        "away": framed(delta(1), pb.ToEngine(delta=away)),
        "replace": framed(delta(1), delta(2, pattern="*/catalog/*", replace=True)),
        "epoch-again": framed(delta(3), delta(3)),
        "nameless-target": framed(delta(1, put_targets=[pb.Target(address="127.0.0.1:1")])),
        "unknown-target": framed(delta(1, put_members=[pb.Member(key=pb.MemberKey(service="x"), capacity=1)])),
        "no-capacity": framed(delta(1, put_members=[pb.Member(key=gone)])),
        "keyless-member": framed(delta(1, put_members=[pb.Member(capacity=1)])),
        "target-in-use": framed(delta(1), delta(2, delete_targets=["i:1.0"])),
        "kind-changed": framed(delta(1), delta(2, put_targets=[pb.Target(key="i:1.0", kind=pb.Target.Kind.NODE)])),
        "route": framed(delta(1, put_routes=[route]), delta(2, delete_routes=["*/*"])),
        "bad-pattern": framed(delta(1, put_routes=[pb.Route(pattern="a*b/x*y", service="web")])),
        "configure": framed(pb.ToEngine(configure=configure), delta(1)),
        "sites": framed(pb.ToEngine(sites=pb.Sites(put=[site], prune=True, keep=["www.example"]))),
        "too-long": b"\xff\xff\xff\xff" + framed(delta(1)),
        "cut": framed(delta(1), delta(2))[:-7],
    }


def http2() -> dict[str, bytes]:
    frame = frames.frame
    encoder = frames.Encoder()
    encoder.header_table_size = 0
    settings = frame(frames.SETTINGS, 0, 0)
    end, end_head = frames.END_STREAM, frames.END_HEADERS

    def head(stream: int, *fields: frames.Field, flags: int = end | end_head, **request: str) -> bytes:
        block = encoder.encode([*frames.request(**request), *fields], huffman=False)
        return frame(frames.HEADERS, flags, stream, block)

    def data(stream: int, content: bytes, flags: int = end) -> bytes:
        return frame(frames.DATA, flags, stream, content)

    posted = head(1, ("content-length", "5"), flags=end_head, method="POST")
    protocol = [(":protocol", "websocket"), *frames.request(method="CONNECT")]
    cases = {
        "get": head(1),
        "several": b"".join(head(stream, path=f"/{stream}") for stream in range(1, 40, 2)),
        "post": posted + data(1, b"hello"),
        "post-without-length": head(1, flags=end_head, method="POST") + data(1, b"he", 0) + data(1, b"llo"),
        "trailers": posted + data(1, b"hello", 0) + frame(1, 5, 1, encoder.encode([("x-sum", "1")])),
        "h2-cl-short": posted + data(1, b"hell"),
        "h2-cl-long": posted + data(1, b"hello, GET / HTTP/1.1"),
        "h2-te": head(1, ("transfer-encoding", "chunked"), flags=end_head, method="POST") + data(1, b"0\r\n\r\n"),
        "crlf-in-a-value": head(1, ("x", "a\r\nhost: b")),
        "crlf-in-the-path": head(1, path="/ HTTP/1.1\r\nx: y"),
        "host-differs": head(1, ("host", "other.example")),
        "no-path": head(1, path=""),
        "upper-case": head(1, ("X-Upper", "1")),
        "connection": head(1, ("connection", "close"), ("keep-alive", "1")),
        "other-host": head(1, host="nobody.example"),
        "websocket": frame(1, 4, 1, encoder.encode(protocol)) + data(1, b"\x81\x00", 0),
        "reset": head(1) + frame(frames.RST_STREAM, 0, 1, bytes(3) + b"\x08"),
        "rapid-reset": b"".join(
            head(stream) + frame(frames.RST_STREAM, 0, stream, bytes(3) + b"\x08") for stream in range(1, 160, 2)
        ),
        "window-zero": frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\0") + head(1),
        "window-of-one": frame(frames.SETTINGS, 0, 0, b"\0\4\0\0\0\1") + head(1) + frame(8, 0, 1, b"\0\0\0\1"),
        "window-overflow": head(1) + frame(frames.WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"),
        "window-nothing": head(1) + frame(frames.WINDOW_UPDATE, 0, 1, bytes(4)),
        "pings": frame(frames.PING, 0, 0, bytes(8)) * 50,
        "settings": settings * 120,
        "priority": frame(frames.PRIORITY, 0, 1, bytes(5)) * 50,
        "on-itself": frame(frames.PRIORITY, 0, 1, b"\0\0\0\1\0"),
        "empty-data": head(1, flags=end_head, method="POST") + data(1, b"", 0) * 210,
        "continuation": frame(1, 1, 1, b"\x82") + frame(9, 0, 1, b"\x86") * 20 + frame(9, 4, 1, b"\x84"),
        "hpack-bomb": frame(1, 5, 1, b"\x40\x01a\x7f\x81\x1f" + b"b" * 288 + b"\xbe" * 400),
        "table-size": frame(1, 5, 1, b"\x3f\xe1\x1f" * 10 + b"\x82\x86\x84"),
        "padding": frame(1, 0xD, 1, b"\xff\x82"),
        "push": frame(frames.PUSH, 4, 1, b"\0\0\0\2\x82"),
        "even-stream": head(2),
        "goaway": frame(frames.GOAWAY, 0, 0, bytes(8)) + head(1),
        "unknown-kind": frame(0x42, 0xFF, 7, b"x" * 100) + head(1),
        "too-large": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 1000,
    }
    return {name: b"\2" + settings + raw for name, raw in cases.items()}


def http1() -> dict[str, dict[str, bytes]]:
    heads = {name: raw for name, raw in framing.FINE.items() if raw.endswith(b"\r\n\r\n")}
    heads |= {
        attack.name: attack.raw for attack in attack_rows.FRAMING if not attack.streams and len(attack.raw) < 4096
    }
    bodies = dict(attack_rows.CHUNKS)
    bodies |= {name: raw.split(b"\r\n\r\n", 1)[1] for name, raw in framing.FINE.items() if b"chunked" in raw}
    paths = ("/", "/a/../b", "/%2e%2e/x", "//a//b", "/a%2fb", "/a%5cb", "/a;x=1/../b", "/%c0%ae", "/a?b=../c", "/a%00")
    ok = b"HTTP/1.1 200 OK\r\n"
    answers = {
        "known": ok + b"Content-Length: 5\r\n\r\nhello",
        "chunked": ok + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "both": ok + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "twice": ok + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "no-reason": b"HTTP/1.1 204\r\n\r\n",
        "old": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
        "folded": ok + b"X: a\r\n b\r\n\r\n",
    }
    return {
        "request": {name: raw.replace(b"MARK", b"/x") for name, raw in heads.items()},
        "body": bodies,
        "path": {path: path.encode() for path in paths},
        "response": answers,
    }


def main() -> None:
    for target, cases in {**http1(), "control": control(), "http2": http2()}.items():
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        for number, (name, raw) in enumerate(cases.items()):
            plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            (folder / f"{number:03d}-{plain}"[:60].rstrip("-")).write_bytes(raw)


if __name__ == "__main__":
    main()
