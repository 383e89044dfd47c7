"""Runs and versions that experiments of DVC made outside the project: commands leave them out and say so."""

import shutil
from pathlib import Path

import pytest

from imputune.pipeline.project import Project
from imputune.registry.versions import Registry
from projects import client_of, copy_of, finished, heads_folder, invoke

TAG = "imputune.dvc_experiment"
VARIANT = "mlp2-frozen-hidden-plateau"


def test_promote_takes_no_version_of_an_experiment(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best version of the project itself is the candidate; --version names the other one."""
    registry = Registry(models, "imputune-mortality-synthetic")
    best, second, *_ = sorted(registry.versions(), key=lambda each: (-each.mean("validation_auc"), -each.number))
    registry.set_tags(best, {"dvc_experiment": "five"})
    done = invoke(models, ["promote", "--dry-run", "--json"], monkeypatch)
    assert f'"candidate": {second.number},' in done.stdout
    assert '"of DVC experiments": 1' in done.stdout
    named = invoke(models, ["promote", "--dry-run", "--json", "--version", str(best.number)], monkeypatch)
    assert f'"candidate": {best.number},' in named.stdout


def test_compare_reads_no_run_of_an_experiment(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that is not in artifacts is read from its run, unless an experiment made it."""
    client = client_of(models)
    head, mode, *_ = VARIANT.split("-")
    words = {"head": head, "mode": mode, "imputer": "csai"}
    found = " and ".join(
        [*(f"params.{name} = '{text}'" for name, text in words.items()), "tags.`imputune.fold` IS NULL"]
    )
    [run] = client.search_runs([client.get_experiment_by_name("imputune").experiment_id], found)
    shutil.rmtree(heads_folder(models) / VARIANT)
    before = invoke(models, ["compare"], monkeypatch)
    assert f"csai/{VARIANT}: scores are read from its newest run {run.info.run_id}" in before.output
    client.set_tag(run.info.run_id, TAG, "five")
    after = invoke(models, ["compare"], monkeypatch)
    assert "scores are read from its newest run" not in after.output
    assert f"runs of DVC experiments are left out: csai/{VARIANT} (five)" in after.output


def test_what_an_experiment_makes_carries_its_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is in the project's store, and its note in the project's artifacts, which outlive the copy."""
    owner = copy_of(project, tmp_path, with_mlruns=True)
    inside = owner / ".dvc/tmp/exps/tmp12"
    inside.mkdir(parents=True)
    copy = copy_of(project, inside)
    monkeypatch.setenv("DVC_EXP_NAME", "five")
    assert Project.open(copy, "synthetic").notes_folder == owner / "artifacts/synthetic/unfinished/runs"
    finished(copy, ["folds", "synthetic"])
    client = client_of(owner)
    experiment = client.get_experiment_by_name("imputune").experiment_id
    [run] = client.search_runs([experiment], f"tags.`{TAG}` = 'five'")
    assert run.data.tags["imputune.command"] == "folds"
