"""Requests that a server receives at the same time, computed together.

While one batch is computed, further requests wait; the next batch is all that wait then. A lone request is computed at
once. A stay of a small batch takes half the time of one alone (see `models.stacked_csai`), so a server answers more.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
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
        self._adding, self._computing = Lock(), Lock()

    def ask(self, request: Request) -> Answer:
        """Return a request's answer; an exception of `compute` is raised for each request of its batch."""
        if self.size(request) > self.most:
            [alone] = self.compute([request])
            return alone
        answer: Future[Answer] = Future()
        with self._adding:
            self._waiting.append((request, answer))
        with self._computing:
            while not answer.done():  # another thread may have computed it while this one waited
                self._answer_some()
        return answer.result()

    def _answer_some(self) -> None:
        requests, answers = zip(*self._next_batch(), strict=True)
        try:
            for answer, found in zip(answers, self.compute(requests), strict=True):
                answer.set_result(found)
        except Exception as error:  # of whatever kind: the threads that asked raise it
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error)

    def _next_batch(self) -> list[tuple[Request, Future[Answer]]]:
        batch: list[tuple[Request, Future[Answer]]] = []
        left = self.most
        with self._adding:
            while self._waiting and (needed := self.size(self._waiting[0][0])) <= left:
                batch.append(self._waiting.popleft())
                left -= needed
        return batch
