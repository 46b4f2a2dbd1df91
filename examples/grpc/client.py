"""Calls the service through an entry: python client.py 127.0.0.1:8080 Find tea"""

import sys

import grpc
import shop_pb2
import shop_pb2_grpc

entry, method, item, *delay = sys.argv[1:]
# In production: grpc.secure_channel("example.com:443", grpc.ssl_channel_credentials())
with grpc.insecure_channel(entry, [("grpc.default_authority", "example.com")]) as channel:
    shop = shop_pb2_grpc.ShopStub(channel)
    request = shop_pb2.FindRequest(item=item, delay_s=float(delay[0]) if delay else 0.0)
    replies = shop.Watch(request, timeout=30) if method == "Watch" else [shop.Find(request, timeout=30)]
    for reply in replies:
        print(reply.text, flush=True)
