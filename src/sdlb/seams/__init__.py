"""Interfaces to everything outside the core, as Protocols: one file each, with one test suite for all implementations."""
