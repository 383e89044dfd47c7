import os
from pathlib import Path

import pytest

from imputune.runtime.experiments import experiment_of, other_experiment, owner_of, use_code_of_copy
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


def test_a_copy_names_its_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DVC names it, or by its folder; the project has no experiment, also if DVC runs one in it."""
    copy = tmp_path / ".dvc/tmp/exps/tmp12"
    copy.mkdir(parents=True)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert experiment_of(copy) == "tmp12"
    monkeypatch.setenv("DVC_EXP_NAME", "five")
    assert (experiment_of(copy), experiment_of(tmp_path)) == ("five", "")
    assert [other_experiment(copy, name) for name in ("", "five", "six")] == ["", "", "six"]
    assert other_experiment(tmp_path, "five") == "five"


@pytest.mark.parametrize("below", ["", "docs/pictures"])
def test_a_command_in_a_copy_runs_the_copys_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    """Wherever in the copy it is started; in the project nothing starts again."""
    copy = tmp_path / ".dvc/tmp/exps/tmp12"
    for project in (tmp_path, copy):
        (project / "src/imputune").mkdir(parents=True)
        (project / below).mkdir(parents=True, exist_ok=True)
        for name in ("params.yaml", "src/imputune/__init__.py"):
            (project / name).touch()
    started: list[str] = []
    monkeypatch.setattr(os, "execve", lambda program, words, environment: started.append(environment["PYTHONPATH"]))
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.chdir(tmp_path / below)
    use_code_of_copy(tmp_path / "src/imputune")
    assert started == []
    monkeypatch.chdir(copy / below)
    use_code_of_copy(tmp_path / "src/imputune")
    assert started == [f"{copy}/src{os.pathsep}elsewhere"]


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
