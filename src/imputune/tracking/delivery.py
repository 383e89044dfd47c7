"""How records of runs reach the store: at once into a file; through an outbox to a server, which may be away."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from imputune.tracking import store
from imputune.tracking.outbox import Outbox, Step
from imputune.tracking.store_failures import failures

Result = TypeVar("Result")
REQUEST_SECONDS = 60
_outboxes: dict[str, Outbox] = {}
"""The outbox of each server to which this process records, shared by the runs of a command."""


class Delivery(Protocol):
    """Takes steps that write to the store, and does them in order. Every method raises UserError when a step fails."""

    @property
    def is_idle(self) -> bool:
        """Whether no step waits."""

    @property
    def is_away(self) -> bool:
        """Whether the server does not answer now."""

    def put(self, step: Step) -> None:
        """Do a step when its turn comes. It is done again if the server failed, and must then write nothing twice."""

    def then(self, step: Step) -> None:
        """Do a step that concerns no store as soon as those before it are done; a thread may do it."""

    def drain(self, patience: float | None = None) -> None:
        """Wait until every step is done.

        patience: seconds that the server may be away meanwhile, before StoreUnavailableError is raised; None: the
        usual ones.
        """

    def insist(self, attempt: Callable[[], Result]) -> Result:
        """Return what `attempt` returns, once the server answers it; raises StoreUnavailableError as `drain` does."""

    def give_up(self) -> None:
        """Forget the steps that wait."""

    def not_waiting(self) -> AbstractContextManager[None]:
        """Inside the block, raise StoreUnavailableError at the first sign that the server is away."""


class DirectDelivery:
    """Does every step at once, in a store that is a file; see `Delivery`."""

    is_idle, is_away = True, False

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def put(self, step: Step) -> None:
        """Do a step now."""
        with failures(self.uri):
            step()

    def then(self, step: Step) -> None:
        """Do a step now."""
        step()

    def drain(self, patience: float | None = None) -> None:
        """Do nothing: no step waits."""

    def insist(self, attempt: Callable[[], Result]) -> Result:
        """Return what `attempt` returns."""
        return attempt()

    def give_up(self) -> None:
        """Do nothing: no step waits."""

    def not_waiting(self) -> AbstractContextManager[None]:
        """Change nothing: there is no server to wait for."""
        return nullcontext()


@contextmanager
def delivery(uri: str) -> Iterator[tuple[Delivery, bool]]:
    """Give what delivers to a store, and whether this block is the one that began it.

    Runs inside this block share it. Its outbox ends with the block: whoever began it drains it.
    """
    if uri.startswith("sqlite"):
        yield DirectDelivery(uri), True
        return
    if uri in _outboxes:
        yield _outboxes[uri], False
        return
    outbox = _outboxes[uri] = Outbox(uri)
    store.in_use.add(uri)
    try:
        with store.single_requests(REQUEST_SECONDS):
            yield outbox, True
    finally:
        store.in_use.discard(uri)
        del _outboxes[uri]
        outbox.close()
