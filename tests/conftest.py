import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import networkx
import pytest
import torch
from dvc.repo import Repo
from filelock import FileLock

from imputune.data.cohort import write_cohort
from imputune.data.raw.synthetic import extract_synthetic, write_synthetic_records
from projects import OUTER, ROOT, STAYS, copy_of, edit, finished, run

pytest_plugins = ["fold_fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that rewrites golden numbers."""
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="rewrite tests/golden/ from the code as it is, instead of comparing with it",
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are fastest on one thread, and the folds of the product train on one too."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_outer_tracking(monkeypatch):
    """Hide an outer server, mlflow run or dvc from each test, and each test's own from the next."""
    for name in OUTER:
        monkeypatch.setenv(name, "")  # so that what the test itself sets, as mlflow.set_tracking_uri does, is undone
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def project(tmp_path_factory, worker_id) -> Path:
    """A copy of the project, its cohort and sizes tiny, after the commands of dvc.yaml; tests change copies of it.

    The commands run in this process, where `dvc repro` would start one for each; dvc itself runs in test_datasets.py.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent  # one for the processes in which tests run side by side
    with FileLock(shared / "project.lock"):
        if not (shared / "project.ready").exists():
            _make_project(shared / "project")
            (shared / "project.ready").touch()
    return shared / "project"


def _make_project(folder: Path) -> None:
    folder.mkdir()
    for name in ("dvc.yaml", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    text = (ROOT / "params.yaml").read_text()
    text = re.sub(r"synthetic: \{.*\}", "synthetic: { pretrain_epochs: 2, frozen_epochs: 3, unfrozen_epochs: 3 }", text)
    text = re.sub(r"stays: 1000", f"stays: {STAYS}", text)
    text = re.sub(r"hidden: 108", "hidden: 8", text)
    text = re.sub(r"imputer: \[csai_untrained, mean, locf\]", "imputer: [mean]", text)
    text = re.sub(r"head: \[mlp2, gru, xgboost\]", "head: [mlp2, xgboost]", text)
    text = re.sub(r"shares: \[.*\]", "shares: [0.1, 0.5]", text)
    (folder / "params.yaml").write_text(text)
    write_cohort(extract_synthetic(STAYS, 2012), folder / "data/synthetic")
    with Repo.init(str(folder), no_scm=True) as repo:
        commands = [stage.cmd for stage in networkx.dfs_postorder_nodes(repo.index.graph)]
    for command in commands:
        name, *words = command.split()
        assert name == "imputune"
        finished(folder, words)
    done = run(folder, "dvc", "commit", "--force")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def models(project, tmp_path, monkeypatch) -> Path:
    """A copy of the project, with a store and a registry of its own, whose gates let anything pass."""
    copy = copy_of(project, tmp_path)
    shutil.copytree(project / "mlruns", copy / "mlruns")
    with closing(sqlite3.connect(copy / "mlflow.db")) as store, store:
        for table, column in (("logged_models", "artifact_location"), ("model_versions", "storage_location")):
            store.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(project), str(copy)))
    edit(copy, r"minimum_auc: [\d.]+", "minimum_auc: 0.001")
    edit(copy, r"_margin: [\d.]+", "_margin: 9.0")
    edit(copy, r"resamples: \d+", "resamples: 30")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> Path:
    """The raw records from which the project's cohort was extracted."""
    folder = tmp_path_factory.mktemp("raw")
    write_synthetic_records(folder, STAYS, 2012)
    return folder / "set-s"
