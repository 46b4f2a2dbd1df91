"""Pebble, a real ACME server for tests, with its DNS server, on free ports of loopback.

They are Go programs: `go install github.com/letsencrypt/pebble/v2/cmd/pebble@latest` and the same with
`cmd/pebble-challtestsrv`, or the variables PEBBLE and PEBBLE_CHALLTESTSRV name the programs.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.certificates import OPENSSL, Authority

GO_BIN = Path.home() / "go" / "bin"


def _program(variable: str, name: str) -> str:
    return os.environ.get(variable) or shutil.which(name) or shutil.which(name, path=str(GO_BIN)) or ""


PEBBLE = _program("PEBBLE", "pebble")
DNS = _program("PEBBLE_CHALLTESTSRV", "pebble-challtestsrv")
needs_pebble = pytest.mark.skipif(
    not (PEBBLE and DNS and OPENSSL),
    reason="Pebble is not installed: go install github.com/letsencrypt/pebble/v2/cmd/{pebble,pebble-challtestsrv}@latest",
)


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


class Pebble:
    """`http_port`, `tls_port`: where it validates challenges; every name resolves to 127.0.0.1. `profiles`: name -> lifetime in
    seconds. `eab`: key identifier -> HMAC key in base64url; accounts must be bound to one of them. `environment`: further
    variables of Pebble."""

    def __init__(
        self,
        folder: Path,
        http_port: int = 0,
        tls_port: int = 0,
        profiles: Mapping[str, int] | None = None,
        eab: Mapping[str, str] | None = None,
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        authority = Authority(folder / "front")
        front = authority.issue("localhost", "IP:127.0.0.1")
        self.ca_file = authority.pem
        self.port, self.management_port, self._dns_port, self._dns_management = (free_port() for _ in range(4))
        self.directory = f"https://127.0.0.1:{self.port}/dir"
        lifetimes = profiles or {"default": 90 * 86_400, "shortlived": 6 * 86_400}
        self._config = folder / "pebble.json"
        self._config.write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{self.port}",
                        "managementListenAddress": f"127.0.0.1:{self.management_port}",
                        "certificate": str(front.chain),
                        "privateKey": str(front.key),
                        "httpPort": http_port or free_port(),
                        "tlsPort": tls_port or free_port(),
                        "ocspResponderURL": "",
                        "externalAccountBindingRequired": eab is not None,
                        "externalAccountMACKeys": dict(eab or {}),
                        "domainBlocklist": ["blocked.example"],
                        "retryAfter": {"authz": 0, "order": 0},
                        "keyAlgorithm": "ecdsa",
                        "profiles": {
                            name: {"description": name, "validityPeriod": seconds}
                            for name, seconds in lifetimes.items()
                        },
                    }
                }
            )
        )
        self._environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", **environment}
        self._dns = self._start(
            DNS,
            *("-dnsserver", f"127.0.0.1:{self._dns_port}", "-management", f"127.0.0.1:{self._dns_management}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-defaultIPv6", ""),
        )
        self._pebble: subprocess.Popen[bytes] | None = None
        self.start()

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        log: IO[bytes]
        with open(self.folder / f"{Path(program).name}.log", "ab") as log:
            return subprocess.Popen(
                [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def start(self) -> None:
        words = ("-config", str(self._config), "-dnsserver", f"127.0.0.1:{self._dns_port}", "-strict")
        self._pebble = self._start(PEBBLE, *words)
        for port in (self.port, self._dns_management):
            self._wait(port)

    def _wait(self, port: int) -> None:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1.0).close()
                return
            except OSError:
                time.sleep(0.025)
        raise TimeoutError(self.log())

    def stop(self) -> None:
        """An outage; everything that it has issued is forgotten."""
        if self._pebble is not None:
            self._pebble.kill()
            self._pebble.wait()
            self._pebble = None

    def close(self) -> None:
        self.stop()
        self._dns.kill()
        self._dns.wait()

    def log(self) -> str:
        return (self.folder / "pebble.log").read_text(errors="replace")

    def roots(self) -> str:
        """The CA of the certificates that it issues, PEM."""
        answer = httpx.get(f"https://127.0.0.1:{self.management_port}/roots/0", verify=False)
        assert answer.status_code == 200, answer.text
        return answer.text

    def revocation(self, serial: int) -> int | None:
        """The reason with which the certificate was revoked (RFC 5280, section 5.3.1); None: it is valid."""
        url = f"https://127.0.0.1:{self.management_port}/cert-status-by-serial/{serial:x}"
        answer = httpx.get(url, verify=False).json()
        return int(answer.get("Reason") or 0) if answer["Status"] == "Revoked" else None

    def hook(self) -> list[str]:
        """The command of a dns-01 hook that sets records at this DNS server, and logs its calls in `hook.log`."""
        script = self.folder / "hook.py"
        script.write_text(
            "import json, os, sys, urllib.request\n"
            "action, record, value = (os.environ['SDLB_' + name] for name in ('ACTION', 'RECORD', 'VALUE'))\n"
            f"open({str(self.folder / 'hook.log')!r}, 'a').write(f'{{action}} {{record}}\\n')\n"
            "body = {'host': record + '.'} | ({'value': value} if action == 'present' else {})\n"
            "path = 'set-txt' if action == 'present' else 'clear-txt'\n"
            f"url = 'http://127.0.0.1:{self._dns_management}/' + path\n"
            "urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()))\n"
        )
        return [sys.executable, str(script)]

    def hook_calls(self) -> list[str]:
        log = self.folder / "hook.log"
        return log.read_text().splitlines() if log.exists() else []
