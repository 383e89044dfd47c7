import json
import sqlite3
from contextlib import closing
from random import Random

import pytest

from benchmarks import stops
from benchmarks.stopped_command import Command, Stop, finish
from benchmarks.stopped_project import differences
from benchmarks.stops import Journal, stop_until_done
from projects import copy_of, heads_folder

GRID = Command(("grid", "--head", "mlp2", "--mode", "frozen", "--schedule", "cyclic"), 6)


def double(store, run_id):
    """Add a second run with a run's own columns and tags."""
    for table in ("runs", "tags"):
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({table})")]
        values = ", ".join("?" if column == "run_uuid" else column for column in columns)
        store.execute(f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run_uuid = ?", ("f" * 32, run_id))


def test_a_grid_that_is_stopped_up_to_six_times_comes_to_the_same(project, tmp_path):
    """Each stop ends it in time, with one line; it goes on, and nothing is lost, there twice, or left over."""
    folders = [tmp_path / name for name in ("stopped", "reference")]
    for folder in folders:
        folder.mkdir()
    stopped, reference = (copy_of(project, folder, without=("src",)) for folder in folders)
    life = finish(reference, GRID)
    # In its first half, so that a machine that gets faster meanwhile stops it too.
    made = stop_until_done(stopped, GRID, life / 2, Random(3), GRID.share, Journal(tmp_path))
    assert len(made) >= 3
    assert [each for each in made if each.problems] == []
    assert differences(stopped, reference) == []


def test_a_campaign_sees_what_stops_must_not_do(project, tmp_path):
    """A changed number, a run that is there twice or did not end, and a temporary file each give a line."""
    copy = copy_of(project, tmp_path, without=("src",))
    assert differences(copy, project) == []
    folder = heads_folder(copy) / "mlp2-frozen-hidden-plateau"
    for path in (folder / "fold-0.safetensors", folder / "predictions.csv"):
        path.write_bytes(path.read_bytes() + b"1")
    temporary = f".mlp2.host-1.2.{'0' * 32}.new"
    (folder.parent / temporary).mkdir()
    with closing(sqlite3.connect(copy / "mlflow.db")) as store, store:
        double(store, json.loads((folder / "result.json").read_text())["run_id"])
        store.execute("UPDATE runs SET status = 'RUNNING' WHERE name LIKE 'folds%'")
        store.execute("UPDATE runs SET status = 'KILLED' WHERE name = 'csai · pretrain'")
        store.execute("DELETE FROM registered_model_aliases")
        store.execute("DELETE FROM model_versions WHERE version = 1")
    found = differences(copy, project)
    heads = folder.relative_to(copy)
    assert {f"{heads.parent}/{temporary} is left over", "1 runs are left RUNNING", "versions differs"} <= set(found)
    assert {f"{heads}/fold-0.safetensors differs", f"{heads}/predictions.csv differs"} <= set(found)
    assert "runs of finetune csai mlp2 frozen hidden plateau differs" in found
    assert "run of artifacts/synthetic/imputers/csai/result.json differs" in found


def test_a_line_after_one_that_was_cut_off_can_be_read(tmp_path):
    """A journal that ends in the middle of a line loses this line only."""
    journal = Journal(tmp_path)
    journal.write({"lives": [1.0]})
    with journal.path.open("a") as file:
        file.write('{"stop"')
    journal.write({"round": 0})
    journal.write({"round": 1})
    assert journal.lines() == [{"lives": [1.0]}, {"round": 0}, {"round": 1}]
    assert len(journal.path.read_text().splitlines()) == 4


def test_an_interrupted_campaign_goes_on(tmp_path, monkeypatch):
    """Finished rounds count, the round that was interrupted is made again, with the same moments."""
    drawn: list[tuple[str, float]] = []

    def drawn_only(project, command, kind, moment):
        drawn.append((project.name, moment))
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return Stop(command=command.words[0], signal=kind[0], target=kind[1], moment=moment)

    monkeypatch.setattr(stops, "stop", drawn_only)
    monkeypatch.setattr(stops, "finish", lambda project, command: 10.0)
    monkeypatch.setattr(stops, "differences", lambda project, reference: [])
    commands = (Command(("folds",), 1), Command(("promote",), 2))
    with pytest.raises(KeyboardInterrupt):
        stops.campaign(tmp_path / "campaign", 7, 1, commands)
    done = stops.campaign(tmp_path / "campaign", 7, 1, commands)
    assert [name for name, _ in drawn] == ["round-0"] * 3 + ["round-1"] + ["round-1"] * 3 + ["round-2"]
    assert drawn[3] == drawn[4]
    assert (done.stops, done.rounds, done.problems) == (7, 3, ())
    assert done.stops_by_command == {"folds": 3, "promote": 4}
