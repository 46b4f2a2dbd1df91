"""A child that is not an sdlb node: it speaks proto/tree.proto by the generated stubs, and sends malicious claims.

    python stranger.py PARENT NAME SERVICE VERSION ROUTE POLICY_JSON

It claims the version as open in a generation of 2^40, and sends the policy with a revision of 2^40. Prints "heard" once its
parent has taken that into account, and beats until it is killed.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator

import grpc

from sdlb.wire import tree_pb2 as pb

HUGE = 1 << 40


def main(parent: str, name: str, service: str, version: str, route: str, policy: str) -> None:
    outbox: queue.SimpleQueue[pb.Up] = queue.SimpleQueue()

    def beat() -> None:
        while True:
            time.sleep(0.2)
            outbox.put(pb.Up(beat=pb.Beat(sent=1, received=received)))

    def sent() -> Iterator[pb.Up]:
        while True:
            yield outbox.get()

    received = 0
    outbox.put(pb.Up(hello=pb.Hello(protocol=1, node=name, node_id=name, incarnation=1, data_address="127.0.0.1:9")))
    channel = grpc.insecure_channel(f"ipv4:{parent}")
    link = channel.stream_stream(
        "/sdlb.tree.v1.Tree/Link",
        request_serializer=pb.Up.SerializeToString,
        response_deserializer=pb.Down.FromString,
    )
    for down in link(sent()):
        match down.WhichOneof("kind"):
            case "welcome":
                claim = pb.Claim(
                    key=pb.ClaimKey(service=service, version=version, route=route),
                    capacity=1000,
                    count=1,
                    hosts=[name],
                    open=True,
                    granted=True,
                    stamp=1,
                    generation=HUGE,
                )
                policies = [pb.Policy(service=service, revision=HUGE, origin=name, json=policy)]
                outbox.put(pb.Up(state=pb.UpState(seq=1, full=True, claims=[claim], policies=policies)))
                threading.Thread(target=beat, daemon=True).start()
            case "state":
                received = down.state.seq
            case "beat":
                if down.beat.received:
                    print("heard", flush=True)
            case other:
                print(f"{other}: {down}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
