import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from imputune.registry.joined_requests import JoinedRequests


class Slow:
    """Doubles numbers; the first batch waits until all other requests have come."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        """Double the numbers of a batch; 13 is a failure."""
        self.batches.append(list(numbers))
        if len(self.batches) == 1:
            assert self.go_on.wait(30)
        if 13 in numbers:
            raise ValueError("unlucky")
        return [2 * number for number in numbers]


def asked(compute: Slow, numbers: Sequence[int], most: int) -> list[int | str]:
    """Ask from a thread each; the first request is being computed when the others come, in their order."""
    requests = JoinedRequests(compute, size=lambda number: number, most=most)

    def ask(number: int) -> int | str:
        try:
            return requests.ask(number)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(numbers)) as pool:
        futures = []
        for place, number in enumerate(numbers):
            futures.append(pool.submit(ask, number))
            while (len(requests._waiting) < place and number <= most) or not compute.batches:
                pass
        compute.go_on.set()
        return [future.result(30) for future in futures]


def test_requests_that_wait_are_computed_together() -> None:
    """While the first is computed, the others come; each gets its own answer, and a batch is no larger than allowed."""
    slow = Slow()
    assert asked(slow, [1, 2, 3, 4, 5], most=9) == [2, 4, 6, 8, 10]
    assert slow.batches == [[1], [2, 3, 4], [5]]


def test_a_failure_is_told_to_the_request_that_failed() -> None:
    """The others of its batch get their answers, and so do later ones."""
    slow = Slow()
    assert asked(slow, [1, 13, 2, 14], most=16) == [2, "unlucky", 4, 28]
    assert slow.batches == [[1], [13, 2], [13], [2], [14]]


def test_an_answer_is_not_held_up_by_the_next_batch() -> None:
    """A request returns when its batch is computed, also if another thread is computing the next batch by then."""
    next_batch, go_on = threading.Event(), threading.Event()

    def compute(numbers: Sequence[int]) -> list[int]:
        if 3 in numbers:
            next_batch.set()
            assert go_on.wait(30)
        elif 1 in numbers:
            while len(requests._waiting) < 3:
                pass
        return [2 * number for number in numbers]

    requests = JoinedRequests(compute, size=lambda number: 2 if number == 3 else 1, most=3)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(requests.ask, 1)
        while not requests._is_computing:
            pass
        others = [pool.submit(requests.ask, number) for number in (0, 2)]
        while len(requests._waiting) < 2:
            pass
        last = pool.submit(requests.ask, 3)
        try:
            assert next_batch.wait(30)
            assert [first.result(30), *(each.result(30) for each in others)] == [2, 0, 4]
        finally:
            go_on.set()
        assert last.result(30) == 6


def test_a_stopped_thread_leaves_the_others_requests_to_them() -> None:
    """What stops the computing thread, such as Ctrl-C, ends its own request alone."""
    stopped = threading.Event()

    def compute(numbers: Sequence[int]) -> list[int]:
        if not stopped.is_set():
            while len(requests._waiting) < 2:
                pass
            stopped.set()
            raise KeyboardInterrupt
        return [2 * number for number in numbers]

    requests = JoinedRequests(compute, size=lambda number: 1, most=4)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(requests.ask, 1)
        while not requests._is_computing:
            pass
        others = [pool.submit(requests.ask, number) for number in (2, 3)]
        assert [each.result(30) for each in others] == [4, 6]
        with pytest.raises(KeyboardInterrupt):
            first.result(30)
    assert not requests._waiting


def test_a_lone_request_does_not_wait() -> None:
    """It is a batch of its own, at once."""
    slow = Slow()
    slow.go_on.set()
    requests = JoinedRequests(slow, size=lambda number: number, most=4)
    assert [requests.ask(number) for number in (1, 2)] == [2, 4]
    assert slow.batches == [[1], [2]]


def test_a_large_request_holds_nobody_up() -> None:
    """A request above the largest batch is computed beside the others, not before them."""
    slow = Slow()
    requests = JoinedRequests(slow, size=lambda number: number, most=4)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(requests.ask, 100)
        while not slow.batches:
            pass
        assert requests.ask(1) == 2
        slow.go_on.set()
        assert large.result(30) == 200


def test_an_unlucky_lone_request_raises() -> None:
    """The exception is the function's own."""
    slow = Slow()
    slow.go_on.set()
    with pytest.raises(ValueError, match="unlucky"):
        JoinedRequests(slow, size=lambda number: number, most=20).ask(13)
