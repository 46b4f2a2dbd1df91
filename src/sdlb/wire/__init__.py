"""Conversion between bytes and core messages. `*_pb2` are generated from proto/ (`make proto`)."""
