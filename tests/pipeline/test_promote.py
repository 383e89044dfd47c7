import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from typer.testing import Result

from imputune.artifacts.stage_files import weights_file
from imputune.errors import UserError
from imputune.pipeline import candidate as judging
from imputune.pipeline.candidate import Choice
from imputune.pipeline.project import Project
from imputune.pipeline.promote import run_promote
from imputune.registry.versions import Registry
from projects import clean_environment, edit, heads_folder, invoke, refused

NAME = "imputune-mortality-synthetic"


def aliases(models: Path) -> dict[str, int]:
    """Return what the model's aliases stand for."""
    return Registry(models, NAME).aliases()


def best(models: Path, score: str = "validation_auc") -> int:
    """Return the version with the best mean of a score."""
    return max(Registry(models, NAME).versions(), key=lambda version: version.mean(score)).number


def promote(models: Path, monkeypatch, *words: str) -> Result:
    """Run `imputune promote`."""
    return invoke(models, ["promote", *words], monkeypatch)


def test_a_version_says_where_it_comes_from(models):
    """Every version names its run, imputer version, data, folds and variant, and has each fold's scores."""
    for version in Registry(models, NAME).versions():
        result = json.loads((heads_folder(models) / version.variant / "result.json").read_text())
        assert version.tag("run_id") == version.run_id == result["run_id"]
        assert version.tag("imputer_run") == result["made_from"]["imputer_run_id"]
        assert version.tag("imputer_version") == "1"
        assert version.tag("cohort_hash") == result["made_from"]["cohort_hash"]
        assert version.tag("folds_hash") == result["made_from"]["folds_hash"]
        for fold in result["folds"]:
            assert version.fold_scores[fold["fold"]]["test_auc"] == pytest.approx(fold["scores"]["test_auc"], abs=1e-6)


def test_the_best_by_validation_becomes_champion(models, monkeypatch):
    """Validation AUC alone chooses; the decision stands on the version; a second promotion changes nothing."""
    done = promote(models, monkeypatch, "--json")
    assert done.exit_code == 0, done.stderr
    decision = json.loads(done.stdout)
    assert (decision["outcome"], decision["candidate"], decision["champion"]) == ("promoted", best(models), None)
    assert aliases(models) == {"champion": best(models)}
    version = Registry(models, NAME).find("champion")
    assert json.loads(version.tag("decision")) == decision
    again = promote(models, monkeypatch)
    assert again.exit_code == 0
    assert "is the champion already" in again.stdout
    assert aliases(models) == {"champion": best(models)}


def test_test_scores_do_not_choose(models, monkeypatch):
    """A version whose recorded test AUC is perfect, and validation AUC the worst, is not the candidate."""
    registry = Registry(models, NAME)
    worst = min(registry.versions(), key=lambda version: version.mean("validation_auc"))
    scores = {fold: {**each, "test_auc": 1.0} for fold, each in worst.fold_scores.items()}
    registry.set_tags(worst, {"fold_scores": json.dumps(scores)})
    decision = json.loads(promote(models, monkeypatch, "--dry-run", "--json").stdout)
    assert decision["candidate"] == best(models) != worst.number


def test_champion_and_previous_move_and_roll_back(models, monkeypatch):
    """A better candidate takes over, with its difference on the same test stays; --rollback exchanges the two."""
    other = next(version.number for version in Registry(models, NAME).versions() if version.number != best(models))
    assert promote(models, monkeypatch, "--version", str(other)).exit_code == 0
    done = promote(models, monkeypatch)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"test AUC minus the champion's, paired: [+-]0\.\d{4} \(95 %", done.stdout)
    assert aliases(models) == {"champion": best(models), "previous": other}
    back = promote(models, monkeypatch, "--rollback")
    assert back.stdout == f"champion is version {other} again; previous is version {best(models)}\n"
    assert aliases(models) == {"champion": other, "previous": best(models)}
    assert Registry(models, NAME).find(str(best(models))).tag("rolled_back_to") == str(other)


def test_a_rollback_that_is_killed_between_two_aliases_has_moved_the_champion(models, monkeypatch):
    """The version that is champion again keeps an alias, and the tag says what it replaced."""
    other = next(version.number for version in Registry(models, NAME).versions() if version.number != best(models))
    assert promote(models, monkeypatch, "--version", str(other)).exit_code == 0
    assert promote(models, monkeypatch).exit_code == 0
    set_alias = Registry.set_alias

    def killed(registry, alias, number):
        if alias == "previous":
            raise KeyboardInterrupt
        set_alias(registry, alias, number)

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "set_alias", killed)
        promote(models, monkeypatch, "--rollback")
    assert aliases(models) == {"champion": other, "previous": other}
    assert Registry(models, NAME).find(str(best(models))).tag("rolled_back_to") == str(other)


def test_a_dry_run_writes_nothing(models, monkeypatch):
    """It shows the decision; no alias, tag or run is made."""
    before = [version.tags for version in Registry(models, NAME).versions()]
    runs = len(MlflowClient(f"sqlite:///{models}/mlflow.db").search_runs(["1"]))
    done = promote(models, monkeypatch, "--dry-run")
    assert done.exit_code == 0
    assert "dry run, no alias changed: promoted" in done.stdout
    assert aliases(models) == {}
    assert [version.tags for version in Registry(models, NAME).versions()] == before
    assert len(MlflowClient(f"sqlite:///{models}/mlflow.db").search_runs(["1"])) == runs


def test_a_candidate_that_fails_a_gate_is_refused(models, monkeypatch):
    """Exit code 3, the table of gates, no alias moved, and the decision kept on the version."""
    assert promote(models, monkeypatch, "--version", str(best(models))).exit_code == 0
    other = next(version.number for version in Registry(models, NAME).versions() if version.number != best(models))
    edit(models, r"minimum_auc: 0.001", "minimum_auc: 0.999")
    done = promote(models, monkeypatch, "--version", str(other))
    assert done.exit_code == 3
    assert re.search(r"minimum AUC\s+≥ 0\.999\s+0\.\d{4}\s+FAILED", done.stdout)
    assert aliases(models) == {"champion": best(models)}
    assert json.loads(Registry(models, NAME).find(str(other)).tag("decision"))["outcome"] == "refused"


def test_other_data_needs_the_override(models, monkeypatch):
    """A version of other data is no candidate; named, it fails its gate, and --other-data lets it pass."""
    registry = Registry(models, NAME)
    one, *others = registry.versions()
    registry.set_tags(one, {"cohort_hash": "0" * 64})
    done = promote(models, monkeypatch, "--version", str(one.number))
    assert done.exit_code == 3
    assert re.search(r"same variables and data\s+yes, or --other-data\s+other data or folds than data/", done.stdout)
    assert promote(models, monkeypatch, "--version", str(one.number), "--other-data").exit_code == 0
    for version in others:
        registry.set_tags(version, {"folds_hash": "0" * 64})
    line = refused(promote(models, monkeypatch, "--other-data"))
    assert line.startswith(f"{NAME} has no candidate of the present data and folds ({len(others) + 1} of other data")


@pytest.mark.parametrize("fault", ["data", "folds", "weights"])
def test_a_champion_that_cannot_be_compared_closes_a_gate(models, monkeypatch, fault):
    """Of other data or folds, or with altered weights, it is named with the reason; --other-data opens the gate."""
    registry = Registry(models, NAME)
    other = next(version for version in registry.versions() if version.number != best(models))
    assert promote(models, monkeypatch, "--version", str(other.number)).exit_code == 0
    reason = "the champion is of other data or folds than data/"
    if fault == "weights":
        uri = f"models:/{NAME}/{other.number}"
        folder = Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=registry.uri))
        weights_file(folder / "artifacts/bundle", 0).unlink()
        reason = "the champion cannot be loaded: "
    else:
        registry.set_tags(other, {"cohort_hash" if fault == "data" else "folds_hash": "0" * 64})
    decision = json.loads(promote(models, monkeypatch, "--json").stdout)
    assert decision["outcome"] == "refused"
    [failed] = [gate for gate in decision["gates"] if not gate["passed"]]
    assert failed["name"] == "comparable with the champion"
    assert failed["found"].startswith(reason)
    assert promote(models, monkeypatch, "--other-data").exit_code == 0
    assert aliases(models) == {"champion": best(models), "previous": other.number}


def test_a_champion_that_changes_meanwhile_is_left_alone(models, monkeypatch):
    """When another machine promotes between the decision and the move, nothing moves and no decision is written."""
    registry = Registry(models, NAME)
    other = next(version.number for version in registry.versions() if version.number != best(models))
    judged = judging.paired_difference
    assert promote(models, monkeypatch, "--version", str(other)).exit_code == 0

    def interrupted(*arguments, **named):
        registry.set_alias("champion", best(models))
        return judged(*arguments, **named)

    third = next(version.number for version in registry.versions() if version.number not in (other, best(models)))
    monkeypatch.setattr(judging, "paired_difference", interrupted)
    line = refused(promote(models, monkeypatch, "--version", str(third)))
    assert line == f"the champion of {NAME} changed meanwhile: run the command again"
    assert aliases(models) == {"champion": best(models)}
    assert registry.find(str(third)).tag("decision") == ""


def test_nothing_to_roll_back_to_and_nothing_registered(models, monkeypatch):
    """Each is one line with what to do."""
    assert (
        refused(promote(models, monkeypatch, "--rollback"))
        == f"{NAME} has no previous champion: nothing to roll back to"
    )
    assert "--rollback cannot be combined with other options" in refused(
        promote(models, monkeypatch, "--rollback", "--dry-run")
    )
    MlflowClient(f"sqlite:///{models}/mlflow.db").delete_registered_model(NAME)
    line = refused(promote(models, monkeypatch))
    assert line.startswith(
        f"no model {NAME} is registered in {models}/mlflow.db; the registry has imputune-csai-synthetic: run `imputune "
    )


def test_of_two_promotions_at_once_one_wins(models, monkeypatch):
    """While one holds the lock the other is refused; two started together leave one champion."""
    with FileLock(models / "artifacts/synthetic/.promote.lock"):
        assert "another command is promoting a model of synthetic" in refused(promote(models, monkeypatch))
    together = threading.Barrier(2)

    def promoted() -> str:
        project = Project.open(models)
        together.wait()
        try:
            return run_promote(project, Choice()).outcome
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(each.result() for each in [pool.submit(promoted) for _ in range(2)])
    late = "unchanged" if "unchanged" in outcomes else next(each for each in outcomes if each != "promoted")
    assert outcomes == sorted([late, "promoted"])  # the second came late, and found its candidate champion; or
    assert late == "unchanged" or late.startswith("another command is promoting a model of synthetic")  # was refused
    assert aliases(models) == {"champion": best(models)}


def test_promotion_through_mlflow_run(models, monkeypatch):
    """MLproject's entry point promote moves the alias, and its run holds the decision."""
    mlflow.set_tracking_uri(f"sqlite:///{models}/mlflow.db")
    monkeypatch.setenv("PATH", clean_environment()["PATH"])
    submitted = mlflow.projects.run(str(models), entry_point="promote", env_manager="local")
    assert submitted.get_status() == "FINISHED"
    assert aliases(models) == {"champion": best(models)}
    assert Registry(models, NAME).find("champion").tag("decision_run") == submitted.run_id
