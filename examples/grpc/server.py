"""A gRPC server: PORT=8001 python server.py"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import shop_pb2
import shop_pb2_grpc

VERSION = os.environ.get("VERSION", "1.0.0")


class Shop(shop_pb2_grpc.ShopServicer):
    def Find(self, request: shop_pb2.FindRequest, context: grpc.ServicerContext) -> shop_pb2.FindReply:
        time.sleep(request.delay_s)
        return shop_pb2.FindReply(text=f"{request.item} from shop {VERSION}")

    def Watch(self, request: shop_pb2.FindRequest, context: grpc.ServicerContext) -> Iterator[shop_pb2.FindReply]:
        for number in range(3):
            time.sleep(request.delay_s)
            yield shop_pb2.FindReply(text=f"{request.item} {number + 1} from shop {VERSION}")


def main() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = grpc.server(ThreadPoolExecutor(16))
    shop_pb2_grpc.add_ShopServicer_to_server(Shop(), server)
    server.add_insecure_port(f"127.0.0.1:{os.environ.get('PORT', '8001')}")
    server.start()
    stop.wait()
    server.stop(grace=10).wait()


if __name__ == "__main__":
    main()
