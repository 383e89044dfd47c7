import threading
import time

import pytest

from imputune.errors import UserError
from imputune.tracking import outbox, store
from imputune.tracking.outbox import Outbox
from imputune.tracking.store_failures import SERVER_ERROR, StoreUnavailableError

URI = "http://me:planted@tracker:5000"


class Server:
    """What steps write to: it is away while `failures` are left, of each try one."""

    def __init__(self, failures=0):
        self.failures = failures
        self.tries = 0
        self.taken = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def step(self, number):
        """Return a step that writes a number."""

        def write():
            self.may_answer.wait(10)
            self.tries += 1
            if self.failures:
                self.failures -= 1
                raise StoreUnavailableError("the store failed", "no answer")
            self.taken.append(number)

        return write


@pytest.fixture
def box(monkeypatch):
    """An outbox that tries again at once, and tells at once."""
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outbox, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(outbox, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(outbox, "TELL_SECONDS", 0.0)
    box = Outbox(URI)
    yield box
    box.close()


@pytest.fixture
def told(monkeypatch):
    """The lines that the user sees."""
    lines = []
    monkeypatch.setattr(outbox, "warn", lines.append)
    return lines


def test_steps_are_sent_in_order_and_nobody_waits(box):
    """Putting returns while the server has not answered the first step; draining waits for all."""
    server = Server()
    server.may_answer.clear()
    for number in range(20):
        box.put(server.step(number))
    assert not box.is_idle
    assert server.taken == []
    server.may_answer.set()
    box.drain()
    assert box.is_idle
    assert server.taken == list(range(20))


def test_a_server_that_is_away_is_tried_again_and_told_once(box, told):
    """Each step arrives once, in order; one line says that the server is away and one that it is back."""
    server = Server(failures=5)
    for number in range(3):
        box.put(server.step(number))
    box.drain()
    assert server.taken == [0, 1, 2]
    assert server.tries == 8
    assert not box.is_away
    away, *waits, back = told
    assert away.startswith("the tracking server http://tracker:5000 is away since ")
    assert away.endswith("(no answer): what is recorded waits here, and the work goes on")
    assert waits in ([], ["the work is done; waiting up to 10 minutes for the tracking server"])
    assert back.startswith("the tracking server answers again")


def test_a_short_absence_is_not_told(box, told, monkeypatch):
    """A server that restarts within seconds needs no line."""
    monkeypatch.setattr(outbox, "TELL_SECONDS", 60.0)
    server = Server(failures=3)
    box.put(server.step(0))
    box.drain()
    assert (server.taken, told) == ([0], [])


def test_a_server_that_never_comes_back_is_an_error_with_what_is_kept(box, told):
    """Draining ends after the patience; the line says how to send later, without the password."""
    box.put(Server(failures=10**6).step(0))
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=r"is away since \d\d:\d\d \(no answer\): results and "):
        box.drain(patience=0.2)
    assert 0.2 <= time.monotonic() - begun < 5
    assert box.is_away
    assert "planted" not in "".join(told)


def test_patience_counts_from_the_end_of_the_work(box, told):
    """The time that the server was away before, while training went on, does not count."""
    server = Server(failures=10**6)
    box.put(server.step(0))
    while not box.is_away:
        time.sleep(0.01)
    time.sleep(0.3)
    server.failures = 8
    box.drain(patience=0.25)
    assert server.taken == [0]


def test_not_waiting_raises_at_once(box, told):
    """Inside the block neither draining nor insisting waits."""
    server = Server(failures=10**6)
    with box.not_waiting():
        with pytest.raises(StoreUnavailableError):
            box.insist(server.step(0))
        assert server.tries == 1
        box.put(server.step(0))
        with pytest.raises(StoreUnavailableError):
            box.drain()
    server.failures = 2
    box.drain()
    assert server.taken == [0]


def test_insisting_returns_what_the_server_answers_at_last(box, told):
    """A request of the main thread is tried again too."""
    tries = []

    def ask():
        tries.append(1)
        if len(tries) < 4:
            raise StoreUnavailableError("the store failed", "no answer")
        return "version 3"

    assert box.insist(ask) == "version 3"
    assert len(tries) == 4
    assert not box.is_away


@pytest.mark.parametrize("error", [UserError("the experiment was deleted"), ValueError("a bug")])
def test_what_a_step_raises_is_raised_in_the_main_thread_once(box, error):
    """A refused step is dropped, and the others are sent, so that the run can still be ended."""
    server = Server()

    def refuse():
        raise error

    box.put(refuse)
    box.put(server.step(1))
    with pytest.raises(type(error)) as caught:
        box.drain()
    assert caught.value is error
    box.drain()
    assert server.taken == [1]


def test_a_step_after_the_end_is_done_at_once(box):
    """Whoever opened the outbox has closed it, and nothing waits: the step's turn is now."""
    server = Server()
    box.put(server.step(0))
    box.drain()
    box.close()
    box.then(server.step(1))
    assert server.taken == [0, 1]


def test_a_step_after_steps_that_were_lost_is_refused(box):
    """It might say that something is stored which is not."""
    server = Server(failures=10**6)
    box.put(server.step(0))
    box.close()
    with pytest.raises(ValueError, match="closed with 1 step left"):
        box.then(server.step(1))
    assert server.taken == []


def test_insisting_without_a_failure_says_nothing_of_the_server(box, told):
    """An attempt that asks the server nothing does not show that it is back."""
    server = Server(failures=10**6)
    box.put(server.step(0))
    while not told:
        time.sleep(0.01)
    assert box.insist(lambda: "done already") == "done already"
    assert box.is_away
    assert not [line for line in told if "answers again" in line]


def test_a_short_patience_is_not_told(box, told):
    """A command that is ending waits for seconds: no line speaks of a minute."""
    box.put(Server(failures=10**6).step(0))
    while not told:
        time.sleep(0.01)
    with pytest.raises(StoreUnavailableError):
        box.drain(patience=0.1)
    assert not [line for line in told if "waiting" in line]


@pytest.mark.parametrize("answers", [True, False])
def test_a_lasting_error_500_is_a_refusal_if_the_server_answers_else(box, told, monkeypatch, answers):
    """One record that the server cannot store does not keep back the others; a server that fails wholly is away."""
    monkeypatch.setattr(store, "answers", lambda uri: answers)
    server = Server()

    def break_server():
        raise StoreUnavailableError("the store failed", SERVER_ERROR)

    for put in (lambda: box.put(break_server), lambda: box.insist(break_server)):
        with pytest.raises(UserError, match="does not store one record" if answers else "is away since"):  # noqa: PT012
            box.patience = 10.0 if answers else 0.3
            put()
            box.drain()
    assert box.is_away is not answers
    if answers:
        box.put(server.step(1))
        box.drain()
        assert server.taken == [1]


def test_giving_up_forgets_what_waits(box, told):
    """Nothing is sent later, and the step that was being tried does no harm."""
    server = Server(failures=10**6)
    box.put(server.step(0))
    while not box.is_away:
        time.sleep(0.01)
    box.give_up()
    server.failures = 0
    box.put(server.step(1))
    box.drain()
    assert server.taken == [1]
