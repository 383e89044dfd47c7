"""What waits for a tracking server: a thread sends it in order, and the work that recorded it goes on."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from imputune import signals
from imputune.errors import UserError
from imputune.runtime.console import counted, warn
from imputune.tracking import store
from imputune.tracking.credentials import without_password
from imputune.tracking.store_failures import SERVER_ERROR, StoreUnavailableError, failures

PATIENCE_SECONDS = 600.0
TELL_SECONDS = 5.0  # a server that restarts within them is not worth a line
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0  # seconds between two tries
POLL_SECONDS = 0.5
REFUSED_TRIES = 5  # so many errors 500 are a refusal, if the server answers another request
Step = Callable[[], object]
Result = TypeVar("Result")


@dataclass(kw_only=True)
class _Absence:
    """Since when a server has been away, why, and whether a line has said so."""

    since: float
    clock: str
    cause: str
    told: bool = False


class Outbox:
    """Sends the steps that a command records to a server; see `delivery.Delivery`.

    While the server does not answer, or refuses the login, steps wait here and are tried again after 1, 2, 4, 8 and
    then every 15 seconds. A line says that the server is away, and another one that it is back. A step that the server
    refuses for another reason, or to which alone it answers with error 500 again and again, is an error at the next
    call.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.patience = PATIENCE_SECONDS
        self._steps: deque[Step] = deque()
        self._changed = threading.Condition()
        self._absence: _Absence | None = None
        self._failed: Exception | None = None
        self._is_closed = False
        self._pause = FIRST_PAUSE
        threading.Thread(target=self._send_all, name="outbox", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether no step waits."""
        return not self._steps

    @property
    def is_away(self) -> bool:
        """Whether the server does not answer now."""
        return self._absence is not None

    def put(self, step: Step) -> None:
        """Send a step when its turn comes; raises what an earlier step raised."""
        self.then(partial(_in_store, self.uri, step))

    def then(self, step: Step) -> None:
        """Do a step that concerns no store when its turn comes; raises what an earlier step raised.

        After `close`, its turn is now; ValueError if steps were lost then.
        """
        with self._locked():
            self._raise_failed()
            if not self._is_closed:
                self._steps.append(step)
                self._changed.notify_all()
                return
            if self._steps:
                raise ValueError(f"the outbox was closed with {counted(len(self._steps), 'step')} left")
        step()

    def drain(self, patience: float | None = None) -> None:
        """Wait until every step is sent; raises what a step raised, StoreUnavailableError if the server stays away."""
        begun, told = time.monotonic(), False
        patience = self.patience if patience is None else patience
        while True:
            signals.check()
            with self._locked():
                self._raise_failed()
                if not self._steps:
                    return
                if absence := self._absence:
                    self._check_patience(absence, begun, patience)
                    told = told or self._tell_waiting(absence, patience)
                self._changed.wait(POLL_SECONDS)

    def insist(self, attempt: Callable[[], Result]) -> Result:
        """Call `attempt` again until the server answers it, and return its result; raises what `drain` raises."""
        begun, told, pause, tries = time.monotonic(), False, FIRST_PAUSE, 0
        while True:
            signals.check()
            try:
                result = attempt()
            except StoreUnavailableError as failure:
                tries += 1
                if refused := self._refusal(failure, tries):
                    raise refused from failure
                with self._locked():
                    absence = self._note_absence(failure)
                    self._check_patience(absence, begun, self.patience)
                    told = told or self._tell_waiting(absence, self.patience)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if tries:  # an attempt that never failed may have asked the server nothing
                    with self._locked():
                        self._note_answer()
                return result

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Inside the block, `drain` and `insist` raise StoreUnavailableError as soon as the server is away."""
        before, self.patience = self.patience, 0.0
        try:
            yield
        finally:
            self.patience = before

    def give_up(self) -> None:
        """Forget the steps that wait."""
        with self._locked():
            self._steps.clear()
            self._failed = None
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; the steps that wait are lost."""
        with self._locked():
            self._is_closed = True
            self._changed.notify_all()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock for a short block, at whose end a stop is raised: raised inside, it could leave it locked."""
        with signals.held(), self._changed:
            yield

    def _send_all(self) -> None:
        last, tries = None, 0
        while (step := self._next()) is not None:
            last, tries = step, tries + 1 if step is last else 1
            try:
                step()
            except StoreUnavailableError as failure:
                if refused := self._refusal(failure, tries):
                    self._drop(step, refused)
                else:
                    self._wait(failure)
            except Exception as error:  # of whatever kind: the main thread raises it
                self._drop(step, error)
            else:
                with self._changed:
                    self._remove(step)
                    self._note_answer()
                    self._changed.notify_all()

    def _wait(self, failure: StoreUnavailableError) -> None:
        with self._changed:
            self._note_absence(failure)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_closed, self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _drop(self, step: Step, error: Exception) -> None:
        """Forget a step that the server refused; the main thread raises the error."""
        with self._changed:
            self._remove(step)
            self._failed = error
            self._changed.notify_all()

    def _refusal(self, failure: StoreUnavailableError, tries: int) -> UserError | None:
        """Return the error of a request to which alone the server answers with error 500; None if it may be away."""
        if tries < REFUSED_TRIES or failure.cause != SERVER_ERROR or not store.answers(self.uri):
            return None
        with self._locked():
            self._note_answer()
        return UserError(
            f"the tracking server {without_password(self.uri)} answers other requests, but does not store one record "
            f"({failure.cause}, {tries} times): see the server's log"
        )

    def _next(self) -> Step | None:
        """Wait for a step; None if the outbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or (self._steps and self._failed is None))
            return None if self._is_closed else self._steps[0]

    def _remove(self, step: Step) -> None:
        if self._steps and self._steps[0] is step:  # not if everything was given up meanwhile
            self._steps.popleft()

    def _raise_failed(self) -> None:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            self._changed.notify_all()  # the thread goes on with the other steps
            raise failed

    def _note_absence(self, failure: StoreUnavailableError) -> _Absence:
        now = time.monotonic()
        if self._absence is None:
            self._absence = _Absence(since=now, clock=time.strftime("%H:%M"), cause=failure.cause)
        absence = self._absence
        absence.cause = failure.cause
        if not absence.told and now - absence.since >= TELL_SECONDS:
            absence.told = True
            warn(f"{self._away(absence)}: what is recorded waits here, and the work goes on")
        return absence

    def _note_answer(self) -> None:
        if self._absence is not None and self._absence.told:
            waiting = f", and gets {counted(len(self._steps), 'record')} that waited" if self._steps else ""
            warn(f"the tracking server answers again{waiting}")
        self._absence, self._pause = None, FIRST_PAUSE

    def _check_patience(self, absence: _Absence, begun: float, patience: float) -> None:
        """Raise StoreUnavailableError if the command has only waited for the server for too long."""
        if time.monotonic() - max(absence.since, begun) >= patience:
            raise StoreUnavailableError(
                f"{self._away(absence)}: results and finished folds are kept in artifacts/; when it answers, run the "
                "same command again: it trains no finished fold again, and sends the whole run",
                absence.cause,
            )

    def _tell_waiting(self, absence: _Absence, patience: float) -> bool:
        """Say that the command waits for minutes, if a line has said that the server is away; return whether."""
        if not absence.told or patience < 60:
            return False
        warn(f"the work is done; waiting up to {counted(round(patience / 60), 'minute')} for the tracking server")
        return True

    def _away(self, absence: _Absence) -> str:
        return f"the tracking server {without_password(self.uri)} is away since {absence.clock} ({absence.cause})"


def _in_store(uri: str, step: Step) -> None:
    with failures(uri):
        step()
