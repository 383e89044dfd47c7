from pathlib import Path

import pytest

from imputune.runtime.experiments import owner_of
from imputune.tracking import store

PLACES = [
    ("project/.dvc/tmp/exps/standalone/tmp12/", "project"),
    ("project/.dvc/tmp/exps/tmp12/part", "project"),
    ("project", None),
    ("project/.dvc/tmp/exps", None),
    ("project/exps/tmp12", None),
]


@pytest.mark.parametrize(("place", "owner"), PLACES)
def test_a_copy_of_dvc_belongs_to_a_project(tmp_path: Path, place: str, owner: str | None) -> None:
    """A folder below .dvc/tmp/exps belongs to the project that has this .dvc; any other to none."""
    (tmp_path / place).mkdir(parents=True)
    assert owner_of(tmp_path / place) == (tmp_path / owner if owner else None)


def test_an_experiment_uses_the_store_of_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its runs go to the project's database, which a line says once; MLFLOW_TRACKING_URI still names another."""
    copy = tmp_path / "project/.dvc/tmp/exps/standalone/tmp12"
    copy.mkdir(parents=True)
    assert not store.has_store(copy)
    own = tmp_path / "project/mlflow.db"
    assert store.open_store(copy) == store.open_store(copy) == f"sqlite:///{own}"
    assert store.has_store(copy)
    assert not (copy / "mlflow.db").exists()
    line = f"note: the runs of this experiment go to the store of the project: {own}\n"
    assert capsys.readouterr().err == line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert store.open_store(copy) == f"sqlite:///{tmp_path}/other.db"
