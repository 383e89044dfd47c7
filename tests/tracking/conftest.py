import os
import sys

import pytest

from imputune.tracking import credentials
from projects import OUTER


@pytest.fixture(autouse=True)
def _no_outer_tracking(monkeypatch):
    """Keep an outer server, mlflow run or dvc away from the test and its subprocesses."""
    for name in OUTER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.fixture(autouse=True)
def _no_login(monkeypatch):
    """Hide the user's own login, and forget the login that an earlier test handed over."""
    monkeypatch.setattr(credentials, "_handed_over", {})
    for name in (credentials.USERNAME, credentials.PASSWORD):
        monkeypatch.setenv(name, "")  # so that what the test itself changes is undone
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One project folder per test module: creating a store takes a second."""
    return tmp_path_factory.mktemp("project")
