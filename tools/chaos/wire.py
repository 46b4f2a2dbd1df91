"""Forwards frames between a machine's cable and the switch, and loses or delays some of them. A program: `wire.py SEED`.

It runs in the switch's namespace. Each line on standard input is one JSON object: `{"cable": NAME, "rules": [...]}` replaces
that cable and applies these rules (network.Rule); `"rules": null` puts the cable back. The answer to each line is one number: the
frames that the rules of this cable have lost or delayed so far. The program exits at the end of the input.
Rules apply only to IPv4 frames. A frame may be one large segment of TCP: its offload header (PACKET_VNET_HDR) goes along.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

ETH_P_ALL = 3
ETH_P_IP = b"\x08\x00"
SOL_PACKET, PACKET_VNET_HDR, PACKET_OUTGOING = 263, 15, 4
HEADER_BYTES = 10
"""The size of `struct virtio_net_hdr`, in front of each frame."""
FRAME_BYTES_MAX = 70_000
QUEUE_FRAMES_MAX = 20_000
"""Frames that are delayed at the same time; more are lost, as in any queue."""
BUFFER_BYTES = 8 << 20


def near(cable: str) -> str:
    """The interface by which the switch is reached instead of the cable."""
    return f"{cable}.n"


def far(cable: str) -> str:
    """The other end of that interface, a port of the switch."""
    return f"{cable}.f"


@dataclass(frozen=True, slots=True)
class Fate:
    loss: float
    delay_s: float


def pair(frame: bytes) -> tuple[bytes, bytes] | None:
    """Source and target address of an IPv4 frame."""
    start = HEADER_BYTES + 14
    if frame[start - 2 : start] != ETH_P_IP or len(frame) < start + 20:
        return None
    return frame[start + 12 : start + 16], frame[start + 16 : start + 20]


class Cable:
    """Both ends of a replaced cable, with its rules."""

    def __init__(self, name: str) -> None:
        self.ends = (_open(name), _open(near(name)))
        self.rules: dict[tuple[bytes, bytes], Fate] = {}
        self.touched = 0

    def other(self, end: socket.socket) -> socket.socket:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def close(self) -> None:
        for end in self.ends:
            end.close()


def _open(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    end.bind((interface, ETH_P_ALL))
    end.setblocking(False)
    return end


class Wire:
    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._cables: dict[str, Cable] = {}
        self._by_end: dict[socket.socket, Cable] = {}
        self._late: list[tuple[float, int, socket.socket, bytes]] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        unread = b""
        while True:
            wait_s = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            for key, _ in self._selector.select(wait_s):
                if isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)
                    continue
                more = os.read(sys.stdin.fileno(), 1 << 16)
                if not more:
                    return
                *lines, unread = (unread + more).split(b"\n")
                for line in lines:
                    print(self._obey(json.loads(line)), flush=True)
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(self._late)
                _send(end, frame)

    def _obey(self, order: Any) -> int:
        name, rules = order["cable"], order["rules"]
        cable = self._cables.get(name)
        if rules is None:
            if cable is None:
                return 0
            self._leave(name, cable)
            return cable.touched
        if cable is None:
            cable = self._cables[name] = Cable(name)
            for end in cable.ends:
                self._by_end[end] = cable
                self._selector.register(end, selectors.EVENT_READ)
        cable.rules = {
            (socket.inet_aton(rule["source"]), socket.inet_aton(rule["target"])): Fate(
                rule["loss"], rule["delay_ms"] / 1000
            )
            for rule in rules
        }
        return cable.touched

    def _leave(self, name: str, cable: Cable) -> None:
        """Puts the cable back. Delayed frames are sent immediately."""
        del self._cables[name]
        for item in sorted(self._late):
            if item[2] in cable.ends:
                _send(item[2], item[3])
        self._late = [item for item in self._late if item[2] not in cable.ends]
        heapq.heapify(self._late)
        for end in cable.ends:
            del self._by_end[end]
            self._selector.unregister(end)
        cable.close()

    def _read(self, end: socket.socket) -> None:
        cable = self._by_end.get(end)
        if cable is None:
            return  # an order in this iteration has put the cable back
        for _ in range(64):
            try:
                frame, address = end.recvfrom(FRAME_BYTES_MAX)
            except OSError:  # nothing more, or the cable is pulled
                return
            if address[2] != PACKET_OUTGOING:
                self._pass(cable, cable.other(end), frame)

    def _pass(self, cable: Cable, end: socket.socket, frame: bytes) -> None:
        ends = pair(frame)
        fate = cable.rules.get(ends) if ends is not None else None
        if fate is None:
            _send(end, frame)
        elif self._rng.random() < fate.loss:
            cable.touched += 1
        elif not fate.delay_s:
            _send(end, frame)
        else:
            cable.touched += 1
            if len(self._late) < QUEUE_FRAMES_MAX:
                heapq.heappush(self._late, (time.monotonic() + fate.delay_s, next(self._numbers), end, frame))


def _send(end: socket.socket, frame: bytes) -> None:
    try:
        end.send(frame)
    except OSError:
        return  # full, or the cable is pulled: lost, as on any network


if __name__ == "__main__":
    Wire(int(sys.argv[1])).run()
