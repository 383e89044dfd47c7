# ruff: noqa: E402 (garbage collection costs a third of the time of imports, and finds nothing)
import gc

gc.disable()

from collections import Counter
from collections.abc import Iterator
from math import inf
from pathlib import Path

import networkx
import pytest
from dvc.repo import Repo
from filelock import FileLock

from imputune.data.cohort import write_cohort
from imputune.data.raw.synthetic import extract_synthetic, write_synthetic_records
from imputune.runtime import console, local_pool, threads
from projects import OUTER, SHARED, STAYS, copy_of, fingerprint, finished, grid_of, new_project, set_params

pytest_plugins = ["fold_fixtures"]
VARIANTS = {
    "mlp": {"imputer": ["csai"], "mode": ["frozen"], "head": ["mlp2"], "input": ["hidden"], "schedule": ["plateau"]},
    "mlp_imputed": {
        **{"imputer": ["mean"], "mode": ["frozen"], "head": ["mlp2"]},
        **{"input": ["imputed"], "schedule": ["plateau"]},
    },
    "mlp_unfrozen": {
        **{"imputer": ["csai"], "mode": ["unfrozen"], "head": ["mlp2"]},
        **{"input": ["hidden"], "schedule": ["plateau"]},
    },
    "recurrent": {
        **{"imputer": ["csai"], "mode": ["frozen"], "head": ["gru"]},
        **{"input": ["imputed"], "schedule": ["plateau"]},
    },
    "non_neural": {"imputer": ["csai", "mean"], "head": ["xgboost"], "input": ["imputed"]},
    "non_neural_more": {"imputer": ["csai"], "head": ["xgboost"], "input": ["hidden", "summary"]},
}
"""The grid of the shared project: six variants on CSAI, two on the training mean."""
SLOW_FIXTURES = {"_shared_project", "marked"}
"""Fixtures that run the commands of a whole project."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that rewrites golden numbers."""
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="rewrite tests/golden/ from the code as it is, instead of comparing with it",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that take seconds each, as far as their fixtures tell, and order files so that none waits.

    `make quick` leaves marked tests out. Within the four groups of files the order stays, random or not.
    """
    for item in items:
        if SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    needing = Counter(item.path for item in items if "_shared_project" in getattr(item, "fixturenames", ()))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    maker = max(needing, key=needing.__getitem__, default=None)
    # One process makes the shared project with the first file; the other has slow tests to run that do without.
    ranks = {path: 0 if path == maker else 2 if path in needing else 1 for path in slow}
    items.sort(key=lambda item: ranks.get(item.path, 3))


def pytest_collection_finish() -> None:
    """Collect garbage again from here on, without going through what the imports made."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Leave what is there to the end of the process, which is many times faster."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _small_and_fast() -> None:
    """Compute as the product's workers do; have them ready early, and ask for their results often.

    Lines on epochs, which come every ten seconds, would depend on how busy the machine is.
    """
    threads.use_one_thread()
    local_pool.POLL_SECONDS = 0.02
    console.SECONDS_BETWEEN = inf
    local_pool.PRELOADED.append("torch._dynamo")  # torch imports it with a process's first optimizer, in over a second


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch as it is where nobody has decided: with two threads and denormal numbers."""
    import torch

    torch.set_num_threads(2)
    torch.set_flush_denormal(False)
    yield
    threads.use_one_thread()


@pytest.fixture(autouse=True)
def _no_outer_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide an outer server, mlflow run or dvc from each test, and each test's own from the next."""
    for name in OUTER:
        monkeypatch.setenv(name, "")  # so that what the test itself sets, as mlflow.set_tracking_uri does, is undone
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _as_talkative_as_before() -> Iterator[None]:
    """Leave nothing of a verbose or quiet command to the next test, which may read what is said without a command."""
    yield
    console.set_verbosity(console.Verbosity.NORMAL)


@pytest.fixture(scope="session")
def _shared_project(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A tiny project after the commands of dvc.yaml, made once for all processes in which tests run side by side.

    The commands run in this process, where `dvc repro` would start one for each; dvc itself runs in test_datasets.py.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    with FileLock(shared / "project.lock"):
        if not (shared / "project" / SHARED).exists():
            _make_project(shared / "project")
    return shared / "project"


@pytest.fixture
def project(_shared_project: Path) -> Iterator[Path]:
    """The shared project, to be read only: commands refuse to run in it, and a test after which it differs fails.

    A test that changes anything takes a copy: `copy_of`, or the fixture `models`.
    """
    before = fingerprint(_shared_project)
    yield _shared_project
    after = fingerprint(_shared_project)
    changed = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    assert not changed, f"the shared project changed while this test ran: {', '.join(changed[:5])}"


def _make_project(folder: Path) -> None:
    new_project(folder, imputers=["csai", "mean"], **grid_of(**VARIANTS))
    write_cohort(extract_synthetic(STAYS, 2012), folder / "data/synthetic")
    with Repo.init(str(folder), no_scm=True) as repo:
        commands = [stage.cmd for stage in networkx.dfs_postorder_nodes(repo.index.graph) if stage.cmd]
    for command in commands:
        name, *words = command.split()
        assert name == "imputune"
        finished(folder, words)
    (folder / SHARED).touch()


@pytest.fixture
def models(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, with a store and a registry of its own, whose gates let anything pass."""
    copy = copy_of(project, tmp_path, with_mlruns=True)
    margins = {"promote.minimum_auc": 0.001, "promote.auc_margin": 9.0, "promote.calibration_margin": 9.0}
    set_params(copy, margins)
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw records from which the project's cohort was extracted; to be read only."""
    folder = tmp_path_factory.mktemp("raw")
    write_synthetic_records(folder, STAYS, 2012)
    return folder / "set-s"
