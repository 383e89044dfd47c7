import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from imputune.errors import UserError
from imputune.tracking import store
from imputune.tracking.interrupted import noted
from imputune.tracking.moved import follow_move, former_folder
from imputune.tracking.runs import tracked_run

TRACK = """
import sys
from pathlib import Path
from imputune.tracking.runs import tracked_run

with tracked_run(Path(sys.argv[1]), experiment="heads", command="test", params={}, tags={}, folds=[]) as run:
    run.log_text("new", "note.txt")
"""


def track(root: Path, text: str) -> str:
    """Track a run that logs a text; return its id."""
    with tracked_run(root, experiment="heads", command="test", params={}, tags={}, folds=[]) as run:
        run.log_text(text, "note.txt")
    return run.run_id


def note_of(root: Path, run_id: str) -> str:
    """Read the text of a run from the store in a folder."""
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    return Path(client.download_artifacts(run_id, "note.txt")).read_text()


def places(root: Path) -> set[str]:
    """Return where a store says that artifacts of its experiments and runs are."""
    with closing(sqlite3.connect(root / "mlflow.db")) as content:
        return {
            place
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"))
            for (place,) in content.execute(f"SELECT {column} FROM {table}")
        }


def dump(database: Path) -> list[str]:
    """Return a database's content as SQL."""
    with closing(sqlite3.connect(database)) as content:
        return list(content.iterdump())


@pytest.fixture
def original(tmp_path: Path) -> tuple[Path, str]:
    """A project's folder, in a folder above with odd characters in its name, with one tracked run; the run's id."""
    root = tmp_path / "a b 50% é" / "project"
    root.mkdir(parents=True)
    return root, track(root, "old")


def test_a_store_that_was_not_moved_stays_as_it_is(original, capsys):
    """No line, no backup, and the same bytes."""
    root, run_id = original
    before = (root / "mlflow.db").read_bytes()
    store.open_store(root)
    store.open_existing_store(root)
    assert (root / "mlflow.db").read_bytes() == before
    assert note_of(root, run_id) == "old"
    assert not list(root.glob("*before*"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["moved", "parent renamed", "copied"])
def test_a_moved_or_copied_store_finds_its_artifacts_and_takes_new_ones(original, how, capsys):
    """One line says so; the former folder is not touched any more; the store as it was is kept."""
    root, run_id = original
    if how == "parent renamed":
        here = root.parent.rename(root.parent.with_name("other parent")) / root.name
    elif how == "moved":
        here = root.rename(root.with_name("moved here"))
    else:
        here = Path(shutil.copytree(root, root.with_name("copy")))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    content = dump(here / "mlflow.db")
    assert former_folder(here / "mlflow.db") == root
    new = track(here, "new")
    line = f"note: {here} was moved or copied from {root}; its tracking store now finds artifacts here "
    assert capsys.readouterr().err == f"{line}(the store as it was: mlflow.db.before-move)\n"
    assert all(place.startswith((here / "mlruns").as_uri()) for place in places(here))
    assert (note_of(here, run_id), note_of(here, new)) == ("old", "new")
    assert len(list((here / "mlruns/heads").iterdir())) == 2
    assert dump(here / "mlflow.db.before-move") == content
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    track(here, "another")
    assert capsys.readouterr().err == ""


def test_a_symbolic_link_to_the_project_is_no_move(original):
    """The store keeps the places in the folder behind the link."""
    root, _ = original
    link = root.with_name("link")
    link.symlink_to(root)
    before = places(root)
    new = track(link, "new")
    assert before < places(root)
    assert note_of(root, new) == "new"
    assert not (root / "mlflow.db.before-move").exists()


def test_files_that_were_not_brought_along_stay_readable(original, capsys):
    """A copy without mlruns/ writes new artifacts beside itself and reads old ones in the former folder."""
    root, run_id = original
    here = Path(shutil.copytree(root, root.with_name("copy"), ignore=shutil.ignore_patterns("mlruns")))
    new = track(here, "new")
    left = "; the files of 1 runs and models are only in the old folder and are read there ("
    assert f"now finds artifacts here{left}" in capsys.readouterr().err
    assert (note_of(here, run_id), note_of(here, new)) == ("old", "new")
    assert {run.name for run in (here / "mlruns/heads").iterdir()} == {new}
    assert {run.name for run in (root / "mlruns/heads").iterdir()} == {run_id}


def test_experiments_that_lie_elsewhere_stay_there(original, tmp_path):
    """Artifacts in a bucket, or in a folder of the user's choice, did not move with the project."""
    root, _ = original
    client = MlflowClient(store.open_store(root))
    elsewhere = {"s3://bucket/mlruns/mine", (tmp_path / "disk/mlruns/7").as_uri(), (tmp_path / "mine").as_uri()}
    for number, place in enumerate(sorted(elsewhere)):
        client.create_experiment(f"mine-{number}", artifact_location=place)
    here = root.rename(root.with_name("moved"))
    assert follow_move(here / "mlflow.db").former == root
    assert elsewhere < places(here)


def test_a_store_that_the_user_names_is_left_alone(original, tmp_path, monkeypatch):
    """MLFLOW_TRACKING_URI names a store whose artifacts another program may have put where they are."""
    root, _ = original
    here = root.rename(root.with_name("moved"))
    before = places(here)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db".replace("%", "%25"))
    store.open_store(tmp_path / "project")
    assert places(here) == before
    store.open_store(here)  # as mlflow run does
    assert all(place.startswith((here / "mlruns").as_uri()) for place in places(here))


def test_files_that_are_brought_along_later_are_found(original, capsys):
    """The next command finds them; until then they are read in the former folder."""
    root, run_id = original
    here = Path(shutil.copytree(root, root.with_name("copy"), ignore=shutil.ignore_patterns("mlruns")))
    assert follow_move(here / "mlflow.db").left_behind == 1
    assert follow_move(here / "mlflow.db") is None
    shutil.copytree(root / "mlruns", here / "mlruns")
    store.open_store(here)
    assert "was moved or copied from" in capsys.readouterr().err
    assert all(place.startswith((here / "mlruns").as_uri()) for place in places(here))
    assert note_of(here, run_id) == "old"


def test_a_store_does_not_move_while_a_command_runs_under_its_other_path(original, tmp_path):
    """Its artifacts would go where that command does not see them."""
    root, _ = original
    here = root.rename(root.with_name("mounted"))
    before = places(here)
    with noted(root, here / "artifacts/synthetic/unfinished/runs", "grid"):
        with pytest.raises(UserError, match=f"^a command is running in this project under another path, {root}: wait"):
            store.open_store(here)
        assert places(here) == before
    store.open_store(here)
    assert places(here) != before


@pytest.mark.slow
def test_two_commands_at_once_in_a_moved_project_lose_nothing(original):
    """One of them changes the store, the other waits."""
    root, run_id = original
    here = root.rename(root.with_name("moved"))
    commands = [
        subprocess.Popen([sys.executable, "-c", TRACK, str(here)], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [command.communicate()[1] for command in commands]
    assert [command.returncode for command in commands] == [0, 0]
    assert sorted(text.count("was moved or copied") for text in said) == [0, 1]
    assert len(list((here / "mlruns/heads").iterdir())) == 3
    assert note_of(here, run_id) == "old"
