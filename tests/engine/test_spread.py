"""Few connections that last for long are spread over the workers of a node."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.certificates import needs_openssl
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine
from tests.engine.test_links import HTTP, NODE, ask, node

WORKERS = 4
REQUESTS = 60


def turns(engine: Engine) -> dict[str, int]:
    """How often each worker has waited for something to do, and got it."""
    found = {}
    for task in Path(f"/proc/{engine.process.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("worker-"):
            status = (task / "status").read_text()
            found[name] = int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return found


@needs_openssl
def test_links_of_parents(recorder: Recorder, authority: Authority) -> None:
    """As many parents as workers, each with one link."""
    with ExitStack() as stack:
        host = stack.enter_context(node("host-1", authority, NODE, workers=WORKERS))
        host.serve("*", recorder.endpoint)
        edges = [stack.enter_context(node(f"edge-{n}", authority, HTTP, NODE, workers=1)) for n in range(WORKERS)]
        for edge in edges:
            edge.serve("*", "{}:{}".format(*host.address["node"]), node="host-1")
            assert ask(edge).status_code == 200
        before = turns(host)
        assert len(before) == WORKERS
        for _ in range(REQUESTS):
            assert {ask(edge).status_code for edge in edges} == {200}
        after = turns(host)
        assert all(after[worker] - before[worker] >= REQUESTS for worker in before), (before, after)
