"""Measurements beside the issue's targets (`make bench`). Never part of the tests: figures depend on the machine.

One file a case: `proxy`, `change`, `idle`, `register`. `report` prints and writes the tables.
"""
