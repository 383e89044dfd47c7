"""Requests that a server receives at the same time, computed together.

While one batch is computed, further requests wait; the next batch is all that wait then. A lone request is computed at
once. A stay of a small batch takes less time than one alone (see `models.stacked_csai`), so a server answers more.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Condition
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class JoinedRequests(Generic[Request, Answer]):
    """Hands the requests of several threads to one function, as many at a time as fit.

    compute: returns an answer for each request, in order. size: how large a request is. most: the largest batch; larger
    requests are computed alone, at once, so that none waits for them.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Request]], Sequence[Answer]],
        size: Callable[[Request], int],
        most: int,
    ) -> None:
        self.compute, self.size, self.most = compute, size, most
        self._waiting: deque[tuple[Request, Future[Answer]]] = deque()
        self._is_computing = False
        self._changed = Condition()

    def ask(self, request: Request) -> Answer:
        """Return a request's answer; raises what `compute` raises for it, which no other request notices."""
        if self.size(request) > self.most:
            [alone] = self.compute([request])
            return alone
        answer: Future[Answer] = Future()
        with self._changed:
            self._waiting.append((request, answer))
        while not answer.done():
            self._compute_or_wait(answer)
        return answer.result()

    def _compute_or_wait(self, answer: Future[Answer]) -> None:
        """Compute the next batch if no other thread computes; else wait until it ends, or has this answer."""
        with self._changed:
            self._changed.wait_for(lambda: answer.done() or not self._is_computing)
            if answer.done():
                return
            batch = self._next_batch()
            self._is_computing = True
        try:
            self._answer(batch)
        finally:
            with self._changed:
                left = [(request, answer) for request, answer in batch if not answer.done()]
                self._waiting.extendleft(reversed(left))  # this thread was stopped: another one computes them
                self._is_computing = False
                self._changed.notify_all()

    def _answer(self, batch: Sequence[tuple[Request, Future[Answer]]]) -> None:
        requests, answers = zip(*batch, strict=True)
        try:
            found = list(zip(answers, self.compute(requests), strict=True))
        except Exception as error:  # of whatever kind: the thread that asked raises it
            if len(batch) == 1:
                answers[0].set_exception(error)
            else:
                for each in batch:  # each alone: only one of them may be at fault
                    self._answer([each])
        else:
            for answer, result in found:
                answer.set_result(result)

    def _next_batch(self) -> list[tuple[Request, Future[Answer]]]:
        batch: list[tuple[Request, Future[Answer]]] = []
        left = self.most
        while self._waiting and (needed := self.size(self._waiting[0][0])) <= left:
            batch.append(self._waiting.popleft())
            left -= needed
        return batch
