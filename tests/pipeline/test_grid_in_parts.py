"""The committed files of results/: written as soon as a variant is complete, and enough for compare's tables."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imputune.artifacts.results_files import read_results_file
from imputune.artifacts.variant_file import VariantFile
from imputune.pipeline import variant_work
from imputune.tracking.history import finished_runs
from projects import FOLDS, client_of, copy_of, heads_folder, imputer_folder, invoke, refused, set_params

RESULTS = Path("results/synthetic")
NAME = "xgboost-frozen-summary-none"
WORDS = ["grid", "--head", "xgboost", "--input", "summary"]
CSAI = RESULTS / "variants/csai"


@pytest.fixture
def copy(project, tmp_path, monkeypatch) -> Path:
    """A copy of the project in which commands run."""
    copy = copy_of(project, tmp_path, without=("src",))
    monkeypatch.chdir(copy)
    return copy


def content_of(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file."""
    return json.loads(path.read_text())


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the content of a JSON file."""
    content = content_of(path)
    edit(content)
    path.write_text(json.dumps(content))


def compared(copy: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what compare finds."""
    done = invoke(copy, ["compare", "--json"], monkeypatch)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def clone(project, tmp_path, monkeypatch) -> Path:
    """What git has of the project after its results were committed: no data, no artifacts, no store."""
    clone = tmp_path / "clone"
    shutil.copytree(project / "results", clone / "results")
    for name in ("params.yaml", "dvc.yaml", "data.dvc"):
        shutil.copy(project / name, clone)
    monkeypatch.chdir(clone)
    return clone


def tables(copy: Path) -> str:
    """Return comparison.md without its notes."""
    lines = (copy / RESULTS / "comparison.md").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("Note: ")).rstrip()


def scores(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without where it was read."""
    return {name: value for name, value in row.items() if name != "source"}


def test_every_finished_variant_and_imputer_has_its_file(project):
    """Each file has what the output has: scores by fold, best epochs, parameters, settings, run; and who made it."""
    for imputer in ("csai", "mean"):
        outputs = {path.parent.name: path for path in heads_folder(project, imputer).glob("*/result.json")}
        files = {path.stem: path for path in (project / RESULTS / "variants" / imputer).iterdir()}
        assert outputs.keys() == files.keys()
        for name, path in outputs.items():
            output, file = content_of(path), content_of(files[name])
            assert file["format"] == 1
            assert [fold["scores"] for fold in file["folds"]] == [fold["scores"] for fold in output["folds"]]
            for field in ("best_epoch", "seconds", "learning_rate"):
                assert [fold[field] for fold in file["folds"]] == [fold[field] for fold in output["folds"]]
            made_from = output["made_from"]
            for field in ("cohort_hash", "folds_hash", "seed", "stays", "events", "variant", "settings", "imputer"):
                assert file[field] == made_from[field]
            assert file["variables"] == len(made_from["variables"])
            assert (file["run_id"], file["imputer_run_id"]) == (output["run_id"], made_from["imputer_run_id"])
            assert file["num_parameters"] == output["num_parameters"]
            assert file["code"]["device"] == "cpu"
            assert re.fullmatch(r"\d+\.\d+\.\d+", file["code"]["version"])
            assert [point["stays"] for point in file["calibration"]] == [6] * 10
            pretrained = content_of(imputer_folder(project, imputer) / "result.json")
            budget = {"pretrain_epochs": pretrained["made_from"]["settings"]["budget"]["pretrain_epochs"]}
            assert file["imputer_settings"] == pretrained["made_from"]["settings"] | {"budget": budget}
        errors = content_of(project / RESULTS / f"imputers/{imputer}.json")
        assert errors["settings"] == file["imputer_settings"]
        assert [fold["fold"] for fold in errors["folds"]] == list(range(FOLDS))
        first = pretrained["folds"][1]["imputation"][0]
        assert errors["folds"][1]["errors"][0] == first["overall"] | {
            name: first[name] for name in ("imputer", "pattern", "split")
        }


def test_the_files_have_no_stay_path_or_time(project):
    """They are small, and hold no list as long as a split, no folder, no date; run ids are all that is unreadable."""
    paths = [path for name in ("variants", "imputers") for path in (project / RESULTS / name).rglob("*.json")]
    assert len(paths) == 8 + 2

    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        if isinstance(value, list):
            return max([len(value), *map(longest, value)])
        return 0

    for path in paths:
        text = path.read_text()
        assert longest(json.loads(text)) <= 16  # imputer x pattern x split; ten groups of stays
        assert len(text) < (80_000 if path.parent.name == "imputers" else 8_000)
        assert str(project) not in text
        assert "/" not in text
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d", text)
        assert "stay_id" not in text


def test_tables_come_from_the_files_alone(clone, monkeypatch):
    """In a fresh clone compare makes the same tables from the files; figures of curves stay as they are."""
    theirs = content_of(clone / RESULTS / "results.json")
    before = tables(clone)
    figures = {path.name: path.read_bytes() for path in (clone / RESULTS / "figures").iterdir()}
    ours = compared(clone, monkeypatch)
    assert tables(clone) == before
    assert not (clone / "metrics").exists()  # DVC owns them, and `dvc pull` would not replace them
    assert {row["source"] for row in ours["rows"]} == {"results file"}
    assert [*map(scores, ours["rows"])] == [*map(scores, theirs["rows"])]
    assert ours["imputers"] == theirs["imputers"]
    assert {path.name: path.read_bytes() for path in (clone / RESULTS / "figures").iterdir()} == figures
    alone, counts, *rest = ours["notes"]
    assert alone == "data/synthetic is missing, so scores are read from the files in results/synthetic alone"
    assert counts.startswith("6 variants not in artifacts: scores are read from the files in results/synthetic/var")
    assert rest[:-1] == theirs["notes"]
    kept = "figures of curves (curves, decision) are kept from an earlier comparison, because not all curves are in"
    assert rest[-1] == f"{kept} artifacts"
    assert "Table II" in invoke(clone, ["compare"], monkeypatch).stdout


def test_a_variant_made_elsewhere_joins_those_in_artifacts(project, tmp_path, monkeypatch):
    """A variant that is in neither artifacts nor runs is read from its file; a broken file is named."""
    copy = copy_of(project, tmp_path, without=("src", "mlflow.db"))
    theirs = content_of(copy / RESULTS / "results.json")
    shutil.rmtree(heads_folder(copy) / NAME)
    broken = copy / CSAI / "gru-frozen-imputed-plateau.json"
    broken.write_text("<<<<<<< HEAD")
    ours = compared(copy, monkeypatch)
    sources = {row["input"]: row["source"] for row in ours["rows"] if row["head"] == "xgboost"}
    assert sources == {"imputed": "stage outputs", "hidden": "stage outputs", "summary": "results file"}
    for row, other in zip(ours["rows"], theirs["rows"], strict=True):
        assert scores(row) == scores(other)
    assert f"{broken} is broken: it is skipped. Restore it with git, or make it anew" in ours["notes"]
    [counts] = [note for note in ours["notes"] if note.startswith("1 variant not in artifacts: scores are read from ")]
    assert "results/synthetic/variants" in counts


def test_curves_that_artifacts_lack_are_not_drawn_over(project, tmp_path, monkeypatch):
    """Where the curves of a variant are elsewhere, an earlier figure stays; without one, those at hand are drawn."""
    copy = copy_of(project, tmp_path, without=("src", "mlflow.db"))
    shutil.rmtree(heads_folder(copy) / "gru-frozen-imputed-plateau")
    figures = [copy / RESULTS / "figures" / f"curves.{form}" for form in ("png", "svg")]
    before = [path.read_bytes() for path in figures]
    kept = "figures of curves (curves, decision) are kept"
    assert any(note.startswith(kept) for note in compared(copy, monkeypatch)["notes"])
    assert [path.read_bytes() for path in figures] == before
    for path in figures:
        path.unlink()
    assert not any(note.startswith(kept) for note in compared(copy, monkeypatch)["notes"])
    drawn = figures[1].read_text()
    assert "mlp2-frozen-hidden-plateau" in drawn
    assert "gru" not in drawn


@pytest.mark.parametrize(
    ("key", "value"),
    [("cohort_hash", "other"), ("folds_hash", "other"), ("seed", 1), ("imputer_settings", {"csai": {}})],
)
def test_files_of_other_origin_are_counted_and_skipped(clone, monkeypatch, key, value):
    """Other data, folds, seed, or settings of the imputer: the file does not count, and one note counts all such."""
    for name in (NAME, "xgboost-frozen-hidden-none"):
        change(clone / CSAI / f"{name}.json", lambda content: content.update({key: value}))
    ours = compared(clone, monkeypatch)
    assert [row["input"] for row in ours["rows"] if row["head"] == "xgboost"] == ["imputed"]
    skipped = "2 files in results/synthetic/variants of other data, labels, folds, seeds or settings of the imputer"
    assert f"{skipped} skipped" in ours["notes"]


def test_another_budget_of_fine_tuning_is_the_same_imputer(copy, monkeypatch):
    """Pretrained anew under another budget for heads, an imputer counts as the same; with other sizes it does not."""
    shutil.rmtree(heads_folder(copy))
    (copy / "mlflow.db").unlink()
    budget = {"pretrain_epochs": 2, "frozen_epochs": 4, "unfrozen_epochs": 2}
    set_params(copy, {"budget.synthetic": budget})
    assert invoke(copy, ["pretrain"], monkeypatch).exit_code == 0
    ours = compared(copy, monkeypatch)
    assert len(ours["rows"]) == 6
    differing = [note for note in ours["notes"] if "these settings now differ" in note]
    assert len(differing) == 1
    assert differing[0].endswith("these settings now differ in params.yaml: budget.frozen_epochs")
    set_params(copy, {"csai.channels": 16})
    assert invoke(copy, ["pretrain"], monkeypatch).exit_code == 0
    told = refused(invoke(copy, ["compare"], monkeypatch))
    assert "6 files in results/synthetic/variants of other data" in told


def test_files_of_other_data_than_the_projects_are_refused(copy, monkeypatch):
    """Without artifacts, files that tell of other data than data/ holds make no tables, and nothing is written."""
    shutil.rmtree(copy / "artifacts")
    change(copy / RESULTS / "imputers/csai.json", lambda content: content.update(cohort_hash="other"))
    before = (copy / RESULTS / "comparison.md").read_bytes()
    told = refused(invoke(copy, ["compare"], monkeypatch))
    data = copy / "data/synthetic"
    remedy = "run `imputune pretrain synthetic` (or `dvc repro`) first"
    assert told == f"results/synthetic is of other data than {data}: {remedy}"
    (copy / RESULTS / "imputers/csai.json").write_text("{")
    told = refused(invoke(copy, ["compare"], monkeypatch))
    assert told.endswith(f"csai.json is broken: restore it with git, or {remedy}")
    assert (copy / RESULTS / "comparison.md").read_bytes() == before


def test_other_settings_replace_the_file(copy, monkeypatch):
    """A variant fine-tuned again has its new run and settings in its file; overfitting leaves the file alone."""
    before = content_of(copy / CSAI / f"{NAME}.json")
    set_params(copy, {"non_neural.xgboost.max_depth": 2})
    assert invoke(copy, WORDS, monkeypatch).exit_code == 0
    after = content_of(copy / CSAI / f"{NAME}.json")
    assert after["settings"]["non_neural"]["xgboost"]["max_depth"] == 2
    assert after["run_id"] == content_of(heads_folder(copy) / NAME / "result.json")["run_id"] != before["run_id"]
    other = {path: path.read_bytes() for path in (copy / CSAI).iterdir()}
    assert invoke(copy, ["overfit", "--head", "gru", "--input", "imputed", "--fold", "0"], monkeypatch).exit_code == 0
    assert {path: path.read_bytes() for path in (copy / CSAI).iterdir()} == other


def test_a_missing_file_is_written_by_the_next_command(copy, monkeypatch):
    """Where variant and imputer were finished without their files, grid writes these and trains nothing."""
    paths = [copy / CSAI / f"{NAME}.json", copy / RESULTS / "imputers/csai.json"]
    before = [content_of(path) for path in paths]
    shutil.rmtree(copy / RESULTS)
    done = invoke(copy, WORDS, monkeypatch)
    assert "1 variant is done already" in done.stderr
    after = [content_of(path) for path in paths]
    for ours, theirs in zip(after, before, strict=True):
        assert ours["code"].pop("version") is None  # a run does not tell it
        del theirs["code"]["version"]
    assert after == before


def test_killed_between_output_and_file(copy, monkeypatch):
    """Killed before the file was written, the variant is put together anew; its file tells of the run that ended."""

    class Killed(BaseException):
        """Stands for the end of the process."""

    def dying(*arguments):
        raise Killed

    shutil.rmtree(heads_folder(copy) / NAME)
    path = copy / CSAI / f"{NAME}.json"
    before = path.read_bytes()
    set_params(copy, {"non_neural.xgboost.max_depth": 2})
    # The end of the run that an exception would bring does not come with kill -9.
    with monkeypatch.context() as patched:
        patched.setattr(variant_work, "keep_variant", dying)
        patched.setattr("imputune.tracking.runs.TrackedRun._abandon", lambda self, status: None)
        with pytest.raises(Killed):
            invoke(copy, WORDS, monkeypatch)
    assert (heads_folder(copy) / NAME / "result.json").is_file()
    assert path.read_bytes() == before
    assert "folds done" not in invoke(copy, WORDS, monkeypatch).stderr
    file = read_results_file(path, VariantFile)
    assert file.setting("non_neural.xgboost.max_depth") == 2
    assert client_of(copy).get_run(file.run_id).info.status == "FINISHED"
    assert file.run_id in {run.run_id for run in finished_runs(copy, "imputune", "finetune", "synthetic")}


def test_static_facts_stand_in_the_ablation_table(copy, monkeypatch):
    """A variant that adds static facts has its file, stands beyond the paper, and is compared with the one without."""
    words = ["grid", "--head", "mlp2", "--mode", "frozen", "--input", "hidden+static", "--schedule", "plateau"]
    assert invoke(copy, words, monkeypatch).exit_code == 0
    name = "mlp2-frozen-hidden+static-plateau"
    with_it = content_of(copy / CSAI / f"{name}.json")
    without = content_of(copy / CSAI / "mlp2-frozen-hidden-plateau.json")
    ours = compared(copy, monkeypatch)
    [pair] = [each for each in ours["ablation"]["pairs"] if each["ingredient"] == "static"]
    assert (pair["without"], pair["with_it"]) == ("csai/mlp2-frozen-hidden-plateau", f"csai/{name}")
    aucs = [[fold["scores"]["test_auc"] for fold in file["folds"]] for file in (with_it, without)]
    assert pair["auc"]["by_fold"] == [one - another for one, another in zip(*aucs, strict=True)]
    page = (copy / RESULTS / "comparison.md").read_text()
    beyond = page.index("## Beyond the paper")
    assert page.index("| csai | mlp2 | frozen | hidden+static | plateau |") > beyond
    assert "hidden+static" not in page[:beyond]


def test_several_pretrainings_are_noted(copy, monkeypatch):
    """Variants that were trained on different pretrainings of equal settings are compared, and a note says so."""
    assert not any("pretrainings" in note for note in compared(copy, monkeypatch)["notes"])
    name = "gru-frozen-imputed-plateau"
    path = copy / CSAI / f"{name}.json"
    shutil.rmtree(heads_folder(copy) / name)
    client_of(copy).delete_run(content_of(path)["run_id"])
    change(path, lambda file: file.update(imputer_run_id="of another machine"))
    [note] = [note for note in compared(copy, monkeypatch)["notes"] if "pretrainings" in note]
    assert note.startswith("the variants on csai come from 2 pretrainings with the same settings")


def test_other_settings_of_pretraining_are_noted(clone, monkeypatch):
    """A CSAI on more stays that was pretrained with other settings is compared, and a note names the setting."""
    name = "mlp2-frozen-hidden-plateau"
    file, variant = content_of(clone / RESULTS / "imputers/csai.json"), content_of(clone / CSAI / f"{name}.json")
    for rate, noted in ((file["settings"]["pretrain"]["learning_rate"], False), (0.5, True)):
        settings = {**file["settings"], "pretrain": {**file["settings"]["pretrain"], "learning_rate": rate}}
        settings["also"] = {"more": "hash"}
        path = clone / RESULTS / "variants/csai_more" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            json.dumps(
                {
                    **variant,
                    "imputer": "csai_more",
                    "imputer_settings": settings,
                    "variant": {**variant["variant"], "imputer": "csai_more"},
                }
            )
        )
        more = clone / RESULTS / "imputers/csai_more.json"
        more.write_text(json.dumps({**file, "imputer": "csai_more", "settings": settings}))
        notes = compared(clone, monkeypatch)["notes"]
        told = "csai_more was pretrained with other settings than csai (pretrain.learning_rate)"
        assert any(note.startswith(told) for note in notes) == noted
