import re
import shutil
from pathlib import Path

import pytest
import torch
from dvc.repo import Repo

from imputune.data.cohort import write_cohort
from imputune.data.synthetic import extract_synthetic
from projects import ROOT, STAYS, run


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
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "DVC_STAGE"):
        monkeypatch.setenv(name, "")  # so that what the test itself sets, as mlflow.set_tracking_uri does, is undone
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """A copy of the project with a tiny cohort and tiny sizes, after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    text = (ROOT / "params.yaml").read_text()
    text = re.sub(r"synthetic: \{.*\}", "synthetic: { pretrain_epochs: 2, frozen_epochs: 3, unfrozen_epochs: 3 }", text)
    text = re.sub(r"stays: 1000", f"stays: {STAYS}", text)
    text = re.sub(r"hidden: 108", "hidden: 8", text)
    (folder / "params.yaml").write_text(text)
    write_cohort(extract_synthetic(STAYS, 2012), folder / "data/synthetic")
    Repo.init(str(folder), no_scm=True).close()
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
