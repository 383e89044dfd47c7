import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.store.db.utils import _get_latest_schema_revision

from imputune.errors import UserError
from imputune.pipeline.predict import load_model
from imputune.pipeline.project import Project
from imputune.registry.local_store import SCHEMA, find_locally
from imputune.registry.names import classifier_name
from imputune.registry.versions import Registry
from projects import invoke, run

NAME = classifier_name("synthetic")
ONE_STAY = "RecordID,Time,Parameter,Value\n1,00:10,HR,112\n1,13:40,Lactate,4.1\n"
# A command, and then which of these packages it has loaded.
LOADED = """
import sys
from imputune.cli import main
sys.argv[0] = "imputune"
try:
    main()
except SystemExit as ended:
    found = [name for name in ("mlflow", "sklearn", "captum", "xgboost", "matplotlib") if name in sys.modules]
    print("loaded", *found)
    raise
"""


def test_the_schema_is_that_of_the_pinned_mlflow() -> None:
    """If this fails after an upgrade of MLflow: check the tables that `local_store` reads, then name the new schema."""
    assert _get_latest_schema_revision() == SCHEMA


@pytest.mark.slow
def test_a_version_is_found_as_mlflow_finds_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number and by alias: the same tags, run and files; what MLflow has to refuse is left to MLflow."""
    assert invoke(models, ["promote"], monkeypatch).exit_code == 0
    registry = Registry(models, NAME)
    for wanted in ("champion", "1"):
        found, expected = find_locally(models, NAME, wanted), registry.find(wanted)
        assert found is not None
        assert vars(found.version) == vars(expected)
        assert found.folder == registry.folder_of(expected)
    for name, wanted in ((NAME, "99"), (NAME, "challenger"), (NAME, ""), ("imputune-other", "1")):
        assert find_locally(models, name, wanted) is None
    (models / "stay.csv").write_text(ONE_STAY)
    done = run(models, sys.executable, "-c", LOADED, "predict", "--records", "stay.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RecordID,risk,")
    assert done.stdout.splitlines()[-1] in ("loaded", "loaded xgboost")


@pytest.mark.slow
def test_other_stores_are_left_to_mlflow(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named store, another schema, missing files, a broken or missing database, a moved project: predict works on."""
    database = models / "mlflow.db"
    found = find_locally(models, NAME, "1")
    assert found is not None
    project = Project.open(models)
    with monkeypatch.context() as patched:
        patched.setattr("imputune.registry.local_store.SCHEMA", "another")
        assert find_locally(models, NAME, "1") is None
        assert vars(load_model(project, "1").version) == vars(found.version)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE"):
        with monkeypatch.context() as patched:
            patched.setenv(variable, f"sqlite:///{database}")
            assert find_locally(models, NAME, "1") is None
    bundle = found.folder.rename(found.folder.with_name("elsewhere"))
    assert find_locally(models, NAME, "1") is None
    with pytest.raises(UserError, match="artifacts/bundle"):
        load_model(project, "1")
    bundle.rename(found.folder)
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, '/elsewhere')", (str(models),))
    assert find_locally(models, NAME, "1") is None
    database.write_bytes(b"no database")
    assert find_locally(models, NAME, "1") is None
    database.unlink()
    assert find_locally(models, NAME, "1") is None
