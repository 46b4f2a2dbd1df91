"""Every order of events in small trees of the real `Balancer` objects (`sdlb sim --explore`): a model checker.

`sim` plays long stories in large trees, decided by a seed; this package plays *all* short ones in trees of two to five
nodes. A state of the whole tree is a tuple of small numbers (`world`): of each node its control, disk, engine and what is
on its way between them (`node`), of each link its two queues (`links`). What a node does about an event is worked out by
the real object once for each distinct (node state, event) and remembered; then a step of the tree costs a few look-ups.
After each step promises 1, 2 and 3 are checked over the whole tree (`promises`), 4 and 8 within the node (`local`); from
every state at rest the tree must come to what its instances imply (`converge`: promise 5).

What a step is: a message or an engine's event is taken; an engine applies a delta, or ends the last request to an endpoint
that drains; a node connects; an operator acts; control is killed (also between two effects of one step) or starts; a link
breaks, is cut in silence, or heals; an engine, the connection to it, or a machine fails; most of a lease passes.

What is abstracted:

* Time. A lease is longer than any number of other steps. It passes only in a step of its own, in halves, when nothing else
  can happen, and then beats are received on every link that is whole. So a message is never late by a lease, and clocks
  run equally fast. Short timers (back-off, retries) run at once; jitter is none.
* Beats exist only within such steps, and are never lost one by one.
* One queue a pair of nodes and direction: a new connection's messages come after what the last one left.
* An attempt to connect succeeds or is not made. One that was refused is made again when time has passed.
* One event is one step of a node (the loop of production may take several).
* In flight at an endpoint is a request or none; it ends at any time after the endpoint was taken out.
* The disk loses all that was not written durably, or nothing.
* Numbers that only grow are kept as they are, so states that differ in nothing else are counted as different.

What is left out because it makes no difference: orders of steps of different nodes (`reduce`), nodes that only their names
tell apart. States are told apart by 64 bits.
"""
