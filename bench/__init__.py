"""Measurements of sdlb and other proxies against limits (`make bench`). Not part of the tests: results depend on the
machine.

Each case has one file with its name. `stand` sets up the engine beside its peers (`peers`, `envoy`), `load` sends
requests, `report` prints and writes the tables.
"""
