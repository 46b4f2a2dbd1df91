"""PROVES: the `Balancer` objects of production by the hundred, in virtual time, with faults; promise n = check n.

    world      time, nodes, links: what happens, in one order that the seed alone decides
    engine     a model of the engine: what it was told, and what is in flight through it
    host       one node: disk, control (the real `Balancer`), engine, and the processes that it serves
    network    links between nodes: delay, loss, resets, partitions
    traffic    requests that walk from an entry to an instance through the engines' tables
    workload   what operators and programs do; faults: what goes wrong
    checks     the promises, looked at after every step; oracle: what the tree must come to when faults stop

`docs/internals/simulator.md` says how to read a failing seed.
"""
