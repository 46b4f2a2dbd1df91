"""Bytes <-> core messages. `*_pb2` are generated from proto/ (`make proto`); the other modules convert."""
