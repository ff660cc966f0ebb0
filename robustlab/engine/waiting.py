"""One process at a time makes what the cache lacks; whoever waits for it pays for the time and takes what is there.

The wait is the laboratory's, in a phase of its own, so that it is in no price of loading, training or measuring.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from robustlab.cost.meter import Meter
from robustlab.record.locks import hold_lock
from robustlab.session import Session

WAIT = "wait"


@contextmanager
def hold_node(node: str, what: str, session: Session, meter: Meter) -> Iterator[None]:
    """Hold a node of the cache while the block runs; look again whether it is there before making it.

    Args:
        node: What tells it apart from every other entry of the cache, in characters of a file name.
        what: How people name it.
        session: The run.
        meter: The node's own; what is waited is billed through it.

    Yields:
        None: No other process makes this node now.

    Raises:
        RecordError: If the lock's file cannot be written.
    """

    def waiting() -> AbstractContextManager[None]:
        return meter.phase("laboratory", WAIT)

    path = session.cache / "locks" / f"{node}.lock"
    with hold_lock(path, what, say=session.line.say, waiting=waiting):
        yield
