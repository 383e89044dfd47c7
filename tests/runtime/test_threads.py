import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from imputune.runtime import threads

COMMAND = """
import sys
import imputune.cli.commands
from threadpoolctl import threadpool_info
import torch, sklearn.svm, xgboost
found = {pool["internal_api"]: pool["num_threads"] for pool in threadpool_info()}
print(torch.get_num_threads(), found["openblas"], found["openmp"])
"""


def product_is_zero() -> bool:
    """Say whether a product that is a denormal number is rounded to 0."""
    return (torch.full((64,), 1e-30) * 1e-9).max().item() == 0.0


def settings() -> tuple[int, bool]:
    """Return PyTorch's number of threads, and whether denormal numbers are rounded to 0."""
    return torch.get_num_threads(), product_is_zero()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "expected"), [({}, "1 1 1"), ({"OMP_NUM_THREADS": "2"}, "2 2 2")], ids=["unset", "set"]
)
def test_every_library_of_a_command_has_the_decided_number_of_threads(environment, expected):
    """One thread for PyTorch, NumPy's BLAS and OpenMP; the number in OMP_NUM_THREADS where the user has set it."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("NumPy's BLAS takes no more threads than cores")
    outer = {name: text for name, text in os.environ.items() if name not in threads.ONE_THREAD}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], env=outer | environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == expected.split()


def test_computing_decides_inside_and_restores_afterwards(two_threads):
    """Inside, one thread and no denormal numbers; afterwards, and after an error, what was set before."""
    assert settings() == (2, False)
    with threads.computing():
        assert settings() == (1, True)
    assert settings() == (2, False)
    with pytest.raises(ValueError, match="inside"), threads.computing():
        raise ValueError("inside")
    assert settings() == (2, False)


def test_computing_leaves_a_worker_as_it_is():
    """Where one thread is set and denormal numbers are rounded to 0, both stay so."""
    threads.use_one_thread()
    with threads.computing():
        assert settings() == (1, True)
    assert settings() == (1, True)


def test_threads_that_compute_at_once_all_have_the_decision(two_threads):
    """A thread that leaves its block takes nothing from the one still inside; the last one restores."""
    inside, first_left = Barrier(2, timeout=30), Barrier(2, timeout=30)

    def first() -> None:
        with threads.computing():
            inside.wait()
        first_left.wait()

    def second() -> tuple[int, bool]:
        with threads.computing():
            inside.wait()
            first_left.wait()
            return settings()

    with ThreadPoolExecutor(2) as pool:
        leaving, staying = pool.submit(first), pool.submit(second)
        leaving.result()
        assert staying.result() == (1, True)
    assert ThreadPoolExecutor(1).submit(torch.get_num_threads).result() == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("", 1), ("3", 3), ("4,2", 4), (" 2 ", 2), ("0", 1), ("many", 1), ("-1", 1)]
)
def test_the_users_number_is_respected(monkeypatch, two_threads, text, expected):
    """OMP_NUM_THREADS is the number of threads where it is one; a list gives its first, anything else one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert threads.wanted_threads() == expected
    with threads.computing():
        assert torch.get_num_threads() == expected


def test_a_command_keeps_what_the_user_has_set(monkeypatch):
    """Only what is not set is set."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    threads.prepare_command()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("3", "PASSIVE")


def test_workers_inherit_one_thread_and_the_user_keeps_his_setting(monkeypatch):
    """Inside the block every library is told one thread; afterwards the environment is as before."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with threads.environment_of_workers():
        assert {os.environ[name] for name in threads.ONE_THREAD} == {"1"}
    assert dict(os.environ) == before
