"""`make chaos`: a tree of real nodes in network namespaces, under load and faults, by a seeded plan.

plan.py decides what happens (pure), tree.py and network.py are the machines, acts.py does one step, clients.py and app.py are the
two ends of each request, report.py reads and checks the logs (pure). Described in docs/operate/chaos.md.
"""
