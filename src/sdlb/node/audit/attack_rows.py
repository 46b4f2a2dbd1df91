"""The attacks that `sdlb audit --attack` plays, as data. The tests in `tests/compliance` play the same rows, and
docs/operate/attacks.md lists them."""

from __future__ import annotations

import struct
from typing import Final

from msgspec import Struct

HOST: Final = b"Host: www.example\r\n"


class Attack(Struct, frozen=True):
    """`raw`: what is sent over HTTP/1.1; MARK stands for a path of the row's own, www.example for the canary's host. `statuses`: the
    answers that are right. `streams`: its head may be forwarded before the fault shows."""

    name: str
    raw: bytes
    statuses: frozenset[int] = frozenset({400})
    streams: bool = False


def get(*lines: bytes, first: bytes = b"GET MARK HTTP/1.1", host: bytes = HOST, end: bytes = b"\r\n") -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + end


def post(*lines: bytes, body: bytes = b"hello", **options: bytes) -> bytes:
    return get(*lines, first=b"POST MARK HTTP/1.1", **options) + body


def chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def with_length(value: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + value, body=body)


def with_coding(value: bytes) -> bytes:
    return post(b"Transfer-Encoding: " + value, body=b"5\r\nhello\r\n0\r\n\r\n")


UNKNOWN_CODING = frozenset({400, 501})
VERSION = frozenset({400, 505})
LENGTHS = {
    "equal twice": post(b"Content-Length: 5", b"Content-Length: 5"),
    "different": post(b"Content-Length: 5", b"Content-Length: 6"),
    "equal list": with_length(b"5, 5"),
    "list": with_length(b"5, 6"),
    "plus": with_length(b"+5"),
    "minus": with_length(b"-5"),
    "minus zero": with_length(b"-0"),
    "inner space": with_length(b"5 0"),
    "hex": with_length(b"0x5"),
    "hex digit": with_length(b"a"),
    "fraction": with_length(b"5.0"),
    "exponent": with_length(b"5e0"),
    "empty": with_length(b""),
    "quoted": with_length(b'"5"'),
    "64 bits": with_length(b"9223372036854775808"),
    "over 64 bits": with_length(b"18446744073709551621"),
    "300 digits": with_length(b"0" * 299 + b"5"),
    "other digits": with_length("\uff15".encode()),
    "vertical tab": with_length(b"5\x0b"),
    "underscore": with_length(b"1_0"),
}
BOTH = {
    "length first": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding first": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "length zero": post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding unknown": post(b"Content-Length: 5", b"Transfer-Encoding: x", body=b"hello"),
}
CODINGS = {
    "unknown": with_coding(b"gzip"),
    "unknown before": with_coding(b"gzip, chunked"),
    "chunked not last": with_coding(b"chunked, gzip"),
    "twice in a list": with_coding(b"chunked, chunked"),
    "twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "identity": with_coding(b"identity"),
    "identity then chunked": post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "quoted": with_coding(b'"chunked"'),
    "vertical tab behind": with_coding(b"chunked\x0b"),
    "vertical tab before": with_coding(b"\x0bchunked"),
    "form feed": with_coding(b"\x0cchunked"),
    "parameter": with_coding(b"chunked;q=1"),
    "comma behind": with_coding(b"chunked,"),
    "comma before": with_coding(b",chunked"),
    "prefix": with_coding(b"xchunked"),
    "two words": with_coding(b"x chunked"),
    "empty": with_coding(b""),
    "folded": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "HTTP/1.0": get(b"Transfer-Encoding: chunked", first=b"POST MARK HTTP/1.0") + b"0\r\n\r\n",
}
CHUNKS = {
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "no hex": b"g\r\nhello\r\n0\r\n\r\n",
    "17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "overflow": b"FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "wraps to five": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "tab before": b"\t5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "data too long": b"5\r\nhelloX\r\n0\r\n\r\n",
    "data without CRLF behind": b"5\r\nhello0\r\n\r\n",
    "bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "bare CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "two CR behind the size": b"5\r\r\nhello\r\n0\r\n\r\n",
    "bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "bare CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "bare LF behind the last": b"5\r\nhello\r\n0\n\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
    "CR in an extension": b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
    "bare LF in a trailer": b"0\r\nX: a\nY: b\r\n\r\n",
    "no colon in a trailer": b"0\r\nnonsense\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
}
LINES = {
    "bare LF behind the start line": b"GET MARK HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF behind a field": b"GET MARK HTTP/1.1\r\nX: y\n" + HOST + b"\r\n",
    "bare LF as the end": b"GET MARK HTTP/1.1\r\n" + HOST + b"\n",
    "all LF": b"GET MARK HTTP/1.1\nHost: www.example\n\n",
    "bare CR in a value": get(b"X: a\rb"),
    "bare CR behind a field": b"GET MARK HTTP/1.1\r\nX: y\r" + HOST + b"\r\n",
    "NUL in a value": get(b"X: a\x00b"),
    "NUL in a name": get(b"X\x00: a"),
    "NUL in the request target": get(first=b"GET MARK\x00 HTTP/1.1"),
    "escape in a value": get(b"X: a\x1b[31mb"),
    "DEL in a value": get(b"X: a\x7fb"),
    "vertical tab in a value": get(b"X: a\x0bb"),
    "folded": get(b"X: a\r\n b"),
    "folded with a tab": get(b"X: a\r\n\tb"),
    "folded first": b"GET MARK HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "space before the colon": get(b"X : a"),
    "tab before the colon": get(b"X\t: a"),
    "empty name": get(b": a"),
    "bracket in a name": get(b"X(y): a"),
    "space in a name": get(b"X y: a"),
    "quote in a name": get(b'"X": a'),
    "non-ASCII name": get("Xé: a".encode()),
    "no colon": get(b"nonsense"),
    "second start line": get(b"GET /x HTTP/1.1"),
}
STARTS = {
    "two spaces": b"GET  MARK HTTP/1.1",
    "two spaces before the version": b"GET MARK  HTTP/1.1",
    "tab": b"GET\tMARK HTTP/1.1",
    "tab before the version": b"GET MARK\tHTTP/1.1",
    "space behind": b"GET MARK HTTP/1.1 ",
    "space before": b" GET MARK HTTP/1.1",
    "space in the request target": b"GET MARK x HTTP/1.1",
    "no request target": b"GET HTTP/1.1",
    "empty request target": b"GET  HTTP/1.1",
    "no method": b"MARK HTTP/1.1",
    "bracket in the method": b"G(T MARK HTTP/1.1",
    "lower-case version": b"GET MARK http/1.1",
    "no minor": b"GET MARK HTTP/1",
    "two digits": b"GET MARK HTTP/1.10",
    "comma": b"GET MARK HTTP/1,1",
    "other protocol": b"GET MARK ICAP/1.1",
    "non-ASCII in the request target": "GET MARK/é HTTP/1.1".encode(),
    "quote in the request target": b'GET MARK/"x HTTP/1.1',
}
VERSIONS = {
    "HTTP/0.9": b"GET MARK",
    "HTTP/0.9 named": b"GET MARK HTTP/0.9",
    "HTTP/1.2": b"GET MARK HTTP/1.2",
    "HTTP/2.0": b"GET MARK HTTP/2.0",
    "HTTP/3": b"GET MARK HTTP/3.0",
}
METHODS = {
    "33 bytes": b"X" * 33 + b" MARK HTTP/1.1",
    "lower case over 32 bytes": b"x" * 40 + b" MARK HTTP/1.1",
    "8 KiB": b"X" * 8192 + b" MARK HTTP/1.1",
}
TARGETS = {
    "absolute form with another host": b"GET http://other.exampleMARK HTTP/1.1",
    "userinfo": b"GET http://me@www.exampleMARK HTTP/1.1",
    "fragment": b"GET MARK#frag HTTP/1.1",
    "authority form": b"GET www.example:80 HTTP/1.1",
    "authority form with POST": b"POST www.example:80 HTTP/1.1",
    "* with GET": b"GET * HTTP/1.1",
    "relative": b"GET x/y HTTP/1.1",
    "another scheme": b"GET ftp://www.exampleMARK HTTP/1.1",
    "absolute form without a host": b"GET http://MARK HTTP/1.1",
}
HOSTS = {
    "missing": b"",
    "twice": HOST + b"Host: other.example\r\n",
    "twice the same": HOST + HOST,
    "empty": b"Host: \r\n",
    "userinfo": b"Host: me@www.example\r\n",
    "path": b"Host: www.example/x\r\n",
    "query": b"Host: www.example?x\r\n",
    "port of letters": b"Host: www.example:http\r\n",
    "port too high": b"Host: www.example:65536\r\n",
    "negative port": b"Host: www.example:-80\r\n",
    "two ports": b"Host: www.example:80:80\r\n",
    "list": b"Host: www.example, other.example\r\n",
    "space": b"Host: www.example other\r\n",
    "non-ASCII": "Host: wwé.example\r\n".encode(),
    "open bracket": b"Host: [::1\r\n",
    "empty label": b"Host: www..example\r\n",
    "scheme": b"Host: http://www.example\r\n",
}

FRAMING: Final = (
    *(Attack(f"Content-Length: {name}", raw) for name, raw in LENGTHS.items()),
    *(Attack(f"Content-Length and Transfer-Encoding: {name}", raw) for name, raw in BOTH.items()),
    *(Attack(f"Transfer-Encoding: {name}", raw, UNKNOWN_CODING) for name, raw in CODINGS.items()),
    *(Attack(f"chunk: {name}", chunks(body), streams=True) for name, body in CHUNKS.items()),
    *(Attack(f"line: {name}", raw) for name, raw in LINES.items()),
    *(Attack(f"start line: {name}", get(first=first), VERSION) for name, first in STARTS.items()),
    *(Attack(f"version: {name}", get(first=first), VERSION) for name, first in VERSIONS.items()),
    *(Attack(f"method: {name}", get(first=first), frozenset({400, 501})) for name, first in METHODS.items()),
    *(Attack(f"request target: {name}", get(first=first), frozenset({400, 421})) for name, first in TARGETS.items()),
    *(Attack(f"Host: {name}", get(host=host)) for name, host in HOSTS.items()),
    Attack("CONNECT", get(first=b"CONNECT www.example:80 HTTP/1.1"), frozenset({400, 405})),
    Attack("CONNECT with a path", get(first=b"CONNECT MARK HTTP/1.1"), frozenset({400, 405})),
    Attack("several leading blank lines", b"\r\n\r\n\r\n" + get()),
    Attack("leading LF", b"\n\n" + get()),
    Attack("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 64),
    Attack("binary", bytes(range(256))),
)
"""HTTP/1 framing: 400 and a closed connection. Nothing is forwarded, and nothing behind the request is answered."""


# ------------------------------------------------------------------ fields that a client forges

EVIL: Final = (b"evil", b"6.6.6.6", b"port: 6666")
"""No endpoint may see these."""
FORGED: Final[dict[str, bytes]] = {
    "X-Forwarded-For": b"6.6.6.6",
    "X-Forwarded-Proto": b"https-evil",
    "X-Forwarded-Host": b"evil.example",
    "X-Forwarded-Port": b"6666",
    "X-Forwarded-Server": b"evil.example",
    "Forwarded": b"for=6.6.6.6;host=evil.example",
    "X-Real-IP": b"6.6.6.6",
    "sdlb-to": b"evil/1.0.0 evil.example/*",
    "SDLB-To": b"evil/1.0.0 evil.example/*",
    "sdlb-not-here": b"evil",
    "sdlb-anything": b"evil",
    "Proxy": b"http://evil.example",
    "Proxy-Connection": b"keep-alive-evil",
    "Proxy-Authorization": b"Basic evil",
    "X_Forwarded_For": b"6.6.6.6",
    "X.Forwarded.For": b"6.6.6.6",
}
"""The request is served, without the field. The last two are read as one of the entry's own fields by some servers."""
ENCODED_PATHS: Final = ("/a%2fb", "/a%5Cb", "/a%00b", "/a%2Fb/c")
"""400 on a public node."""

# ------------------------------------------------------------------ HTTP/2

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
Field = tuple[str, str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields: list[Field]) -> bytes:
    """Literals without indexing (RFC 7541, section 6.2.2), so that no table is needed."""

    def text(value: str) -> bytes:
        data = value.encode("latin-1")
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest, size = bytearray([127]), len(data) - 127
        while size >= 128:
            rest.append(size % 128 + 128)
            size //= 128
        return bytes([*rest, size]) + data

    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def head(**changes: str) -> list[Field]:
    """The pseudo-header fields of a request. A change to "-" drops one."""
    fields = {"method": "GET", "scheme": "http", "authority": "www.example", "path": "/MARK"} | changes
    return [(f":{name}", value) for name, value in fields.items() if value != "-"]


HTTP2_HEADS: Final[dict[str, list[Field]]] = {
    "transfer-encoding": [*head(), ("transfer-encoding", "chunked")],
    "connection": [*head(), ("connection", "close")],
    "keep-alive": [*head(), ("keep-alive", "timeout=5")],
    "proxy-connection": [*head(), ("proxy-connection", "x")],
    "upgrade": [*head(), ("upgrade", "h2c")],
    "TE other than trailers": [*head(), ("te", "gzip")],
    "upper case in a name": [*head(), ("X-Upper", "x")],
    "space in a name": [*head(), ("with space", "x")],
    "colon in a name": [*head(), ("with:colon", "x")],
    "CR LF in a value": [*head(), ("x", "a\r\nb: c")],
    "LF in a value": [*head(), ("x", "a\nb")],
    "NUL in a value": [*head(), ("x", "a\0b")],
    "CR LF in a name": [*head(), ("x\r\ny", "a")],
    "content-length without content": [*head(), ("content-length", "5")],
    "another host field": [*head(), ("host", "other.example")],
    "no method": head(method="-"),
    "no scheme": head(scheme="-"),
    "no path": head(path="-"),
    "two methods": [*head(), (":method", "GET")],
    "two paths": [*head(), (":path", "/other")],
    "a status": [*head(), (":status", "200")],
    "an unknown pseudo-header field": [*head(), (":unknown", "x")],
    "a pseudo-header field behind a field": [("x", "y"), *head()],
    "empty path": head(path=""),
    "path without a slash": head(path="MARK"),
    "space in the path": head(path="/MARK b"),
    "CR LF in the path": head(path="/MARK\r\nb"),
    "userinfo": head(authority="user@www.example"),
    "path in the authority": head(authority="www.example/x"),
    "empty authority": head(authority=""),
    "space in the method": head(method="GE T"),
}
"""The stream is reset, or answered with an error; nothing is forwarded."""


class Flood(Struct, frozen=True):
    """`opens`: frames that are sent once; `piece`: a piece that is sent `times`, or until the connection is closed."""

    opens: bytes
    piece: bytes
    times: int


def http2_floods(get: bytes, post: bytes) -> dict[str, Flood]:
    """GOAWAY, and the connection is closed. `get`, `post`: header blocks of good requests."""
    opened = frame(HEADERS, END_HEADERS, 1, post)
    cancelled = struct.pack(">I", 8)
    resets = b"".join(
        frame(HEADERS, END_STREAM | END_HEADERS, stream, get) + frame(RST_STREAM, 0, stream, cancelled)
        for stream in range(1, 4001, 2)
    )
    sizes = b"".join(frame(SETTINGS, 0, 0, struct.pack(">HI", 1, size)) for size in (0, 65536))
    more = frame(CONTINUATION, 0, 1, block([("x", "y" * 1000)]))
    return {
        "PING": Flood(b"", frame(PING, 0, 0, bytes(8)) * 100, 200),
        "SETTINGS": Flood(b"", frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 10, 200),
        "table sizes that alternate": Flood(b"", sizes * 10, 200),
        "PRIORITY": Flood(b"", frame(PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1])) * 100, 200),
        "WINDOW_UPDATE": Flood(opened, frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)) * 2000, 200),
        "empty DATA": Flood(opened, frame(DATA, 0, 1) * 1000, 100),
        "CONTINUATION without end (CVE-2024-27316)": Flood(frame(HEADERS, END_STREAM, 1, get), more, 2000),
        "rapid reset (CVE-2023-44487)": Flood(b"", resets, 1),
    }


# ------------------------------------------------------------------ TLS


class Hello(Struct, frozen=True):
    """A ClientHello of TLS 1.2 or older. `suites`: their numbers; `name`: the server name, CANARY for one of a site."""

    version: int = 0x0303
    suites: tuple[int, ...] = (0xC02B, 0xC02F)
    name: bytes = b"CANARY"
    protocols: tuple[bytes, ...] = ()

    def record(self, name: bytes) -> bytes:
        """With the server name in place of CANARY."""

        def sized(data: bytes, width: int = 2) -> bytes:
            return len(data).to_bytes(width, "big") + data

        def extension(kind: int, data: bytes) -> bytes:
            return kind.to_bytes(2, "big") + sized(data)

        host = name if self.name == b"CANARY" else self.name
        extensions = extension(0, sized(b"\0" + sized(host)))
        extensions += extension(10, sized(bytes.fromhex("001d00170018")))  # X25519, P-256, P-384
        extensions += extension(11, sized(b"\0", 1))
        extensions += extension(13, sized(bytes.fromhex("0403050308040805080604010501060102010203")))
        if self.protocols:
            extensions += extension(16, sized(b"".join(sized(each, 1) for each in self.protocols)))
        suites = b"".join(suite.to_bytes(2, "big") for suite in self.suites)
        body = self.version.to_bytes(2, "big") + bytes(range(32)) + b"\0" + sized(suites) + b"\1\0" + sized(extensions)
        return b"\x16\x03\x01" + sized(b"\1" + sized(body, 3))


HELLO: Final = Hello()
"""This one gets an answer; without one the rows below would show nothing."""
FINITE_FIELD: Final = "finite-field DHE"
HELLOS: Final[dict[str, Hello]] = {
    "TLS 1.0": Hello(0x0301, (0xC009, 0xC013, 0x002F)),
    "TLS 1.1": Hello(0x0302, (0xC009, 0xC013, 0x002F)),
    "SSL 3.0": Hello(0x0300, (0x002F, 0x0005)),
    "static RSA": Hello(suites=(0x009C, 0x009D, 0x002F, 0x0035)),
    "CBC": Hello(suites=(0xC009, 0xC013, 0xC023, 0xC027)),
    "RC4": Hello(suites=(0x0005, 0xC007, 0xC011)),
    "3DES": Hello(suites=(0x000A, 0xC008, 0xC012)),
    "NULL": Hello(suites=(0x0001, 0x0002, 0x003B, 0xC006, 0xC010)),
    "anonymous": Hello(suites=(0x0018, 0x0034, 0xC018, 0x00A6)),
    "export": Hello(suites=(0x0003, 0x0008, 0x0014)),
    FINITE_FIELD: Hello(suites=(0x009E, 0x009F, 0xCCAA)),
    "finite-field DHE with CBC": Hello(suites=(0x0033, 0x0039, 0x0067, 0x006B, 0x0016)),
    "another protocol's ALPN (ALPACA)": Hello(protocols=(b"ftp", b"imap")),
    "an unknown server name": Hello(name=b"unknown.invalid"),
    "CR LF in the server name": Hello(name=b"a\r\nx: y"),
    "NUL in the server name": Hello(name=b"a\0b"),
}
"""No ServerHello."""
