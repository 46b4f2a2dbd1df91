"""Measurements beside the issue's targets (`make bench`). Never part of the tests: figures depend on the machine.

One file a case, by its name. `stand` sets the engine and its peers up side by side (`peers`, `envoy`), `load` asks; `report`
prints and writes the tables.
"""
