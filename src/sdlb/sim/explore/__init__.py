"""Every order of events in small trees of the real `Balancer` objects (`sdlb sim --explore`): a model checker.

The random simulator runs long histories of large trees, chosen by a seed. This package runs *all* short histories of trees
with two to five nodes. A state of the tree is a tuple of small numbers (`world`): for each node its control, disk, engine and
the messages between them (`node`), for each link its two queues (`links`). The real object computes the reaction of a node
once for each distinct (node state, event). The result is cached, so a step of the tree costs a few look-ups. After each step
promises 1, 2 and 3 are checked over the whole tree (`promises`), and 4 and 8 within the node (`local`). From every state
without pending messages the tree must reach what its instances imply (`converge`: promise 5).

A step is one of these: a node handles a message, or an event of its engine or its driver; a driver carries out a call; an engine
applies a delta, or ends the last request to a draining endpoint; a node connects; an operator acts; control is killed (also
between two effects of a step) or starts; a link breaks, is cut silently, or heals; an engine, its connection, or a machine fails;
most of a lease passes.

Abstractions:

* Time: a lease is longer than any number of other steps. It passes only in a step of its own, in halves, when nothing else
  can happen, and then heartbeats arrive on every working link. So no message is late by a lease, and all clocks run equally
  fast. Short timers (back-off, retries) run immediately, without jitter.
* Heartbeats exist only within such steps. Single ones are never lost.
* Each pair of nodes has one queue per direction: messages of a new connection follow those that the last one left.
* A connection attempt succeeds or is not made. After a refusal, the next attempt follows when time has passed.
* One event is one step of a node, while the real loop may handle several in one iteration.
* A driver carries out one call at a time, and its programs are healthy when they run. Killed control loses the calls that were not
  carried out.
* An endpoint has one request in flight or none. It ends at any time after the endpoint was deleted.
* The disk loses all writes that are not durable, or none.
* Growing numbers are kept, so states that differ only in them count as different.

Two things are skipped because they make no difference: orders of steps of different nodes (`reduce`), and nodes that differ
only in their names. States are identified by 64 bits.
"""
