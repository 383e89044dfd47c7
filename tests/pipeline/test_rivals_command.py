"""The command rivals on a small cohort, without an imputer; and the rivals in a comparison."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imputune.pipeline import rival_work, rivals
from imputune.tracking.history import RunRecord, finished_runs
from projects import FOLDS, client_of, copy_of, invoke, new_project, refused, set_params

pytestmark = pytest.mark.slow
SEFT = ["rivals", "--rival", "seft"]
Do = Callable[..., str]


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch) -> Do:
    """Run a command in a project, which succeeds; return what it said on standard error."""

    def run(project: Path, *words: str) -> str:
        result = invoke(project, list(words), monkeypatch)
        assert result.exit_code == 0, result.output
        return result.stderr

    return run


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a cohort and its folds, and no imputer; to be read only."""
    project = new_project(tmp_path_factory.mktemp("rivals") / "project")
    with pytest.MonkeyPatch.context() as patch:
        for words in (["extract", "synthetic"], ["folds"]):
            assert invoke(project, words, patch).exit_code == 0
    return project


@pytest.fixture
def fresh(divided: Path, tmp_path: Path) -> Path:
    """A copy of that project, in which commands run."""
    return copy_of(divided, tmp_path, without=("src",))


def results(project: Path) -> dict[str, Any]:
    """Return the committed file of the rivals."""
    return json.loads((project / "results/synthetic/rivals.json").read_text())


def folds_of(project: Path) -> dict[str, list[int]]:
    """Return the folds in the committed file by rival."""
    return {
        f"{each['rival']['name']}-{each['rival']['input']}": [fold["fold"] for fold in each["folds"]]
        for each in results(project)["rivals"]
    }


def runs_of(project: Path) -> list[RunRecord]:
    """Return the finished runs of rivals, without that of the command."""
    runs = finished_runs(project, "imputune", "rivals", "synthetic")
    return [run for run in runs if "imputune.rival" in run.tags]


def without_seconds(result: dict[str, Any]) -> list[Any]:
    """Return each fold's scores without times."""
    return [
        {name: score for name, score in fold["scores"].items() if "seconds" not in name} for fold in result["folds"]
    ]


def test_rivals_are_trained_fold_by_fold_tracked_and_resumed(fresh: Path, do: Do) -> None:
    """Folds come into the committed file as they are finished; the last one completes the rival and its run."""
    do(fresh, *SEFT, "--fold", "0")
    assert folds_of(fresh) == {"seft-raw": [0]}
    assert runs_of(fresh) == []
    said = do(fresh, "rivals", "--rival", "seft,mtan")
    assert "done already: 1 fold of unfinished rivals" in said
    assert f"{2 * FOLDS - 1} of {2 * FOLDS - 1} folds done" in said
    assert folds_of(fresh) == {key: list(range(FOLDS)) for key in ("seft-raw", "mtan-raw")}
    tracked = {run.tags["imputune.rival"]: run for run in runs_of(fresh)}
    assert set(tracked) == {"seft", "mtan"}
    assert [fold.fold for fold in tracked["seft"].folds] == list(range(FOLDS))
    assert {"test_auc", "seconds_for_1000_stays"} <= set(tracked["seft"].folds[0].metrics)
    [parent] = {run.tags["mlflow.parentRunId"] for run in tracked.values()}
    assert client_of(fresh).get_run(parent).info.status == "FINISHED"
    assert not client_of(fresh).search_registered_models()
    seft, mtan = results(fresh)["rivals"]
    assert seft["run_id"] == tracked["seft"].run_id
    assert set(seft["rates"]) == {"0.01", "0.001"}
    assert seft["num_parameters"] != mtan["num_parameters"]
    assert results(fresh)["head_seconds_for_1000_stays"] > 0
    assert not list((fresh / "artifacts/synthetic/unfinished").glob("rivals-seft*"))
    before = (fresh / "results/synthetic/rivals.json").read_bytes()
    assert "1 of 1 rival done already" in do(fresh, *SEFT)
    assert (fresh / "results/synthetic/rivals.json").read_bytes() == before
    do(fresh, *SEFT, "--again")
    again = results(fresh)["rivals"][0]
    assert again["run_id"] != seft["run_id"]
    assert without_seconds(again) == without_seconds(seft)


def test_static_facts_are_read_and_a_fold_alone_needs_the_first(
    fresh: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fold tries the rates; without it another fold has none."""
    wanted = "seft-raw+static takes the learning rate of fold 0: add this fold"
    words = [*SEFT, "--input", "raw+static"]
    assert refused(invoke(fresh, [*words, "--fold", "1"], monkeypatch)) == wanted
    do(fresh, *words)
    assert folds_of(fresh) == {"seft-raw+static": list(range(FOLDS))}


def test_a_rival_that_fails_stands_in_the_file_as_that(fresh: Path, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches longer than the record: PyPOTS refuses them on the first fold, and the others have no rate to take."""
    pytest.importorskip("pypots", reason="PyPOTS is not installed: pip install -e '.[pypots]'")
    trained: list[int] = []
    task = rivals._RivalQueue._task

    def seen(queue: rivals._RivalQueue, work: rivals.RivalWork, number: int) -> Any:
        trained.append(number)
        return task(queue, work, number)

    monkeypatch.setattr(rivals._RivalQueue, "_task", seen)
    set_params(fresh, {"rivals.patchtst.patch_size": 400})
    said = do(fresh, "rivals", "--rival", "patchtst")
    assert trained == [0]
    assert "patchtst-raw fold 0: PyPOTS cannot use rival patchtst" in said
    [entry] = results(fresh)["rivals"]
    assert [fold["scores"] for fold in entry["folds"]] == [{}] * FOLDS
    assert all("PyPOTS cannot use rival patchtst" in fold["failure"] for fold in entry["folds"])
    assert entry["num_parameters"] is None
    assert "1 of 1 rival done already" in do(fresh, "rivals", "--rival", "patchtst")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rivals"], "params.yaml names no rival under rivals.raw"),
        (["rivals", "--input", "raw"], "--input goes with --rival"),
        ([*SEFT, "--fold", "9"], "there is no fold 9: choose from 0, 1, 2"),
        ([*SEFT, "--list", "--fold", "0"], "--list shows rivals, not their folds"),
        ([*SEFT, "--outcome", "los_over_3_days"], "the 18 labelled train stays of fold 0 have one value of los_over"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    fresh: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained or begun."""
    assert refused(invoke(fresh, words, monkeypatch)).startswith(message)
    assert not list((fresh / "artifacts").rglob("*rivals*"))


def test_a_broken_file_of_results_is_one_line_and_stays(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores of other rivals may be in it."""
    path = fresh / "results/synthetic/rivals.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    line = refused(invoke(fresh, SEFT, monkeypatch))
    assert line.endswith("is broken, or of another version of imputune: restore it with git, or delete it")
    assert path.read_text() == "{"


def test_a_comparison_shows_rivals_beside_heads(
    project: Path, tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the best small head; other settings have a note, and a file of other folds is skipped with one."""
    copy = copy_of(project, tmp_path, without=("src",))
    do(copy, *SEFT)
    set_params(copy, {"rivals.seft.width": 6, "rivals.mtan.hidden_size": 6})
    result = invoke(copy, ["compare"], monkeypatch)
    assert "seft-raw: these settings now differ in params.yaml: rivals.seft.width" in result.stderr
    assert "Complex models on the same folds" in result.stdout
    assert "A simple head on CSAI" in result.output
    found = json.loads((copy / "results/synthetic/results.json").read_text())["rivals"]
    assert [row["label"] for row in found["rivals"]] == ["SeFT"]
    assert {"frozen head", "unfrozen head"} <= {row["part"] for row in found["heads"]}
    assert found["rivals"][0]["lead"]["mean"] == pytest.approx(
        found["rivals"][0]["scores"]["test_auc"][0] - found["reference"]["scores"]["test_auc"][0]
    )
    path = copy / "results/synthetic/rivals.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"folds_hash": "other"}))
    result = invoke(copy, ["compare"], monkeypatch)
    assert "Complex models on the same folds" not in result.stdout
    assert "rivals.json is of other data, folds, labels or another seed: rivals are skipped" in result.stderr


def test_killed_while_a_rival_is_put_together(fresh: Path, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between writing its output and the end of its run, it is put together anew, and no fold is trained."""

    class Killed(BaseException):
        """Stands for the end of the process."""

    write = rival_work.write_training

    def dying(*arguments: Any) -> None:
        write(*arguments)
        raise Killed

    # The end of the run that an exception would bring does not come with kill -9.
    with monkeypatch.context() as patched:
        patched.setattr(rival_work, "write_training", dying)
        patched.setattr("imputune.tracking.runs.TrackedRun._abandon", lambda self, status: None)
        with pytest.raises(Killed):
            invoke(fresh, SEFT, monkeypatch)
    assert runs_of(fresh) == []
    said = do(fresh, *SEFT)
    assert "folds done" not in said
    assert f"done already: {FOLDS} folds of unfinished rivals" in said
    [tracked] = runs_of(fresh)
    assert results(fresh)["rivals"][0]["run_id"] == tracked.run_id
    assert not list((fresh / "artifacts/synthetic/unfinished").glob("rivals-seft*"))


def test_other_settings_train_a_rival_anew(fresh: Path, do: Do) -> None:
    """A setting that it depends on does; another rival's does not. Missing seconds of a head are measured again."""
    do(fresh, *SEFT)
    before = results(fresh)["rivals"][0]
    set_params(fresh, {"rivals.mtan.hidden_size": 6, "finetune.masking_rate": 0.2, "workers": 1})
    path = fresh / "results/synthetic/rivals.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"head_seconds_for_1000_stays": None}))
    assert "1 of 1 rival done already" in do(fresh, *SEFT)
    assert results(fresh)["head_seconds_for_1000_stays"] > 0
    assert results(fresh)["rivals"][0] == before
    set_params(fresh, {"rivals.seft.width": 6})
    do(fresh, *SEFT)
    after = results(fresh)["rivals"][0]
    assert after["num_parameters"] < before["num_parameters"]
    assert after["settings"]["rivals"]["seft"]["width"] == 6
