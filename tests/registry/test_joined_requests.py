import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from imputune.registry.joined_requests import JoinedRequests


class Slow:
    """Doubles numbers; the first batch waits until all other requests have come."""

    def __init__(self, others: int) -> None:
        self.batches: list[list[int]] = []
        self.others, self.go_on = others, threading.Event()

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
    slow = Slow(4)
    assert asked(slow, [1, 2, 3, 4, 5], most=9) == [2, 4, 6, 8, 10]
    assert slow.batches == [[1], [2, 3, 4], [5]]


def test_a_failure_is_told_to_those_of_its_batch() -> None:
    """Others get their answers."""
    slow = Slow(3)
    assert asked(slow, [1, 13, 2, 14], most=16) == [2, "unlucky", "unlucky", 28]
    assert slow.batches == [[1], [13, 2], [14]]


def test_a_lone_request_does_not_wait() -> None:
    """It is a batch of its own, at once."""
    slow = Slow(0)
    slow.go_on.set()
    requests = JoinedRequests(slow, size=lambda number: number, most=4)
    assert [requests.ask(number) for number in (1, 2)] == [2, 4]
    assert slow.batches == [[1], [2]]


def test_a_large_request_holds_nobody_up() -> None:
    """A request above the largest batch is computed beside the others, not before them."""
    slow = Slow(0)
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
    slow = Slow(0)
    slow.go_on.set()
    with pytest.raises(ValueError, match="unlucky"):
        JoinedRequests(slow, size=lambda number: number, most=20).ask(13)
