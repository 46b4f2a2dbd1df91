"""Measurements of sdlb and other proxies against limits (`make bench`). Not part of the tests: results depend on the
machine.

One file a case, by its name. `stand` sets the engine and its peers up side by side (`peers`, `envoy`), `load` asks;
`report` prints and writes the tables.
"""
