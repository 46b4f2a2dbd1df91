"""The process that supervises the program in a slot. It imports the standard library only, and little of it: one runs for each slot.

Control starts it, tells it what it wants in a file, and reads its state from another. It outlives control. When it is killed
itself, the program goes on, and the next supervisor adopts it by process id and start time.

| file in the folder of the slot | written by | content |
| --- | --- | --- |
| `want.json` | control | what shall run, and whether (`files.Want`) |
| `state.json` | the supervisor | what runs (`files.State`) |
| `lock` | | held by the supervisor while it lives |
| `wake` | control | a FIFO: a byte makes the supervisor read `want.json` |
| `out` | the program | a FIFO that the program holds open in both directions, so that its output never fails |
| `log`, `log.1` | the supervisor | the output, at most `log_bytes_max` together |
"""
