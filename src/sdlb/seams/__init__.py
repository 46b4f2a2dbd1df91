"""What a node needs from outside, as Protocols: one file each, one test suite over every implementation."""
