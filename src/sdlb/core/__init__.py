"""DECIDES: events in, effects out. No I/O, no clock, no randomness of its own, no threads."""
