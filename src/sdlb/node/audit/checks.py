"""The checks of `sdlb audit` as data. docs/operate/audit.md is generated from this table."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

PASS: Final = "pass"
WARN: Final = "warn"
FAIL: Final = "fail"


class Check(Struct, frozen=True):
    """`fails`, `warns`: what has this result; empty: nothing. `why`: what an attacker gains."""

    what: str
    fails: str
    warns: str
    why: str


class Finding(Struct, frozen=True):
    """`check`: a key of CHECKS. `setting`: the key of the node file, or the file. `fix`: the exact line or command; "" for a pass."""

    check: str
    result: str
    setting: str
    seen: str
    why: str
    fix: str = ""

    def view(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "result": self.result,
            "setting": self.setting,
            "seen": self.seen,
            "why": self.why,
            "fix": self.fix,
        }


CHECKS: Final[dict[str, Check]] = {
    "node-file": Check(
        "owner and mode of the node file",
        "another user can change it",
        "",
        "a change of the node file is a change of everything below",
    ),
    "key-files": Check(
        "owner and mode of the private keys of sites and of the identity, and of the HMAC key of `acme.eab`",
        "others can read one, its group can write it, or it belongs to another user",
        "",
        "a user that reads a key can pass for this node or site",
    ),
    "state-folder": Check(
        "owner and mode of the state folder and of the files with secrets in it",
        "another user can write to the folder, or read the state or the keys of session tickets",
        "",
        "the state decides what is active; ticket keys decrypt recorded sessions",
    ),
    "run-folder": Check(
        "owner and mode of the folder of the API socket",
        "another user can write to it",
        "",
        "a socket of another process in the place of this one receives all commands",
    ),
    "sockets": Check(
        "mode of the API socket",
        "all users can connect",
        'the group can connect (`socket_mode = "0660"`)',
        "the API registers instances and changes policies",
    ),
    "programs": Check(
        "programs of hooks and of roles",
        "another user can replace one, or the folder that it is in",
        "",
        "the node runs it with its own rights",
    ),
    "private-listeners": Check(
        "the listeners that are not for clients: `listen.metrics`",
        "it is on all addresses, or on a public one",
        "",
        "metrics reveal services, versions and addresses",
    ),
    "shared-ports": Check(
        "the processes that listen on the ports of this node (/proc/net/tcp)",
        "another process listens on one of them",
        "the processes of other users cannot be seen, or the node does not run",
        "a process that shares the port gets part of the connections",
    ),
    "node-links": Check(
        "encryption of the links between nodes",
        "a link to another machine is unencrypted",
        "links on this machine are unencrypted",
        "anyone who reaches the node address can claim routes and send requests past the entry",
    ),
    "certificates": Check(
        "certificates of sites",
        "one is refused, expired or not yet valid, or does not name a host of its site",
        "less than a third of its lifetime is left, or the site has `dhe = true`",
        "clients refuse the connection, or learn to ignore warnings",
    ),
    "identity": Check(
        "the certificate of the node",
        "it has expired, or cannot be read",
        "less than a third of its lifetime is left",
        "without a valid certificate the node makes no new links",
    ),
    "public": Check(
        "`public` of a node with listeners for clients",
        "",
        "a listener is on all addresses or on a public one, and `public` is not set",
        "without the preset, limits and checks for the internet are off",
    ),
    "hardening": Check(
        "each part of the preset of a public node: [node file](../reference/node-file.md)",
        "",
        "a part is weaker than the preset",
        "the reason of the part",
    ),
    "engine": Check(
        "the engine",
        '`engine = "haproxy"` on a public node with a HAProxy older than 3.0: it has no limits against HTTP/2 floods',
        "its version is not that of control",
        "known faults stay until the engine is replaced",
    ),
    "attacks": Check(
        "with `--attack`: the [attacks](attacks.md#attacks-that-sdlb-audit-plays) against the listeners for clients",
        "one is not refused as listed, or the canary cannot be reached",
        "a listener cannot be attacked, for example because no site has a certificate that works",
        "attackers know it",
    ),
    "user": Check(
        "the user of the node",
        "",
        "it runs as root",
        "a fault of the node is a fault of the whole machine",
    ),
}
