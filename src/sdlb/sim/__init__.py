"""PROVES: the `Balancer` objects of production by the hundred, in virtual time, with faults; promise n = check n.

    world      time, nodes, links: what happens, in one order that the seed alone decides
    engine     a model of the engine: its table and its requests in flight
    host       one node: disk, control (the real `Balancer`), engine, and the processes that it serves
    network    links between nodes: delay, loss, resets, partitions
    traffic    requests that walk from an entry to an instance through the engines' tables
    workload   actions of operators and programs; faults: what goes wrong
    checks     the promises, checked after every step; oracle: the state that the tree must reach when faults stop

`docs/internals/simulator.md` describes how to read a failing seed.
"""
