"""What a user of DVC types, as docs/dvc.md says: metrics, plots, experiments, push and pull, an earlier extraction."""

import csv
import io
import json
import re
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from dvc_projects import dvc, git, hashes, objects, ran
from imputune.protocol.choice import grid_variants
from imputune.settings.file import read_params
from projects import ROOT, STAYS, client_of, heads_folder, run, run_all

TERMINAL = 120  # columns
METRICS = "metrics/synthetic"
PLOTS = "plots/synthetic"
GENERATED = ("data", "artifacts", "metrics", "plots", "results", "mlruns")
COMPARE = "compare@synthetic"
XGBOOST = "finetune_non_neural_more@synthetic-csai-xgboost-summary"
FEWER_TREES = "-S non_neural.xgboost.trees=7 --name seven"


def runs(project: Path) -> list[str]:
    """Return the commands of the finished runs in a project's store, folds aside."""
    client = client_of(project)
    found = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000)
    return [each.data.tags["imputune.command"] for each in found if "imputune.fold" not in each.data.tags]


def test_dvc_takes_over_what_commands_made(handed_over: Path) -> None:
    """After `dvc commit --force` nothing runs, and git has every tracked file as it is."""
    printed = dvc(handed_over, "repro", "status")
    assert ran(printed) == []
    assert printed.count("Data and pipelines are up to date.") == 2
    assert git(handed_over, "status", "--porcelain") == ""
    tracked = git(handed_over, "ls-files").split()
    assert {"dvc.lock", "data.dvc", ".dvc/plots/curves.json"} < set(tracked)
    assert {path.split("/")[0] for path in tracked}.isdisjoint(GENERATED)


def test_metrics_are_a_table_for_a_terminal(owner: Path) -> None:
    """A line for each variant of 120 columns at most, also for the longest name of the default grid."""
    header, *lines = dvc(owner, "metrics show").splitlines()
    assert header.split() == ["Path", "AUC", "AUPRC", "ECE", "val_AUC"]
    assert len(lines) == len(list((owner / METRICS).glob("*.json"))) == 6
    assert all(re.fullmatch(rf"{METRICS}/\S+\.json( +[01]\.\d+){{4}}", line) for line in lines)
    params = read_params(ROOT / "params.yaml")
    names = [variant.name for variant in grid_variants(params.grid, params.imputers)]
    longest = f"metrics/physionet2012/{max(names, key=len)}.json"
    scores = len(header) - header.index("AUC") + 2
    assert len(longest) + scores <= TERMINAL
    assert max(map(len, [header, *lines])) <= TERMINAL
    path = owner / METRICS / "mlp2-unfrozen-hidden-plateau.json"
    changed = json.loads(path.read_text()) | {"AUC": 0.9999}
    path.write_text(json.dumps(changed))
    header, line = dvc(owner, "metrics diff").splitlines()
    assert header.split() == ["Path", "Metric", "HEAD", "workspace", "Change"]
    assert line.split()[:2] == [str(path.relative_to(owner)), "AUC"]
    assert len(longest) + len(line) - len(line.split()[0]) <= TERMINAL


def test_plots_are_drawn_and_show_no_single_stay(owner: Path) -> None:
    """`dvc plots show` and `diff` draw every plot; at least five stays lie between two points of a curve."""
    tables = {path.stem: list(csv.DictReader(path.open())) for path in (owner / PLOTS).iterdir()}
    assert all(tables.values())
    assert {row["variant"] for row in tables["roc"]} == {path.stem for path in (owner / METRICS).iterdir()}
    died = int(pd.read_csv(owner / "data/synthetic/stays.csv")["died"].sum())
    for name, stays in (("roc", STAYS - died), ("precision_recall", died)):
        most = max(Counter(row["variant"] for row in tables[name]).values())
        assert 1 < most <= stays / 5 + 1, name
    (owner / PLOTS / "auc.csv").write_text("variant,test_auc\nmlp2-frozen-hidden-plateau,0.9\n")
    for command in ("plots show", "plots diff HEAD"):
        printed = dvc(owner, command)
        page = (owner / "dvc_plots/index.html").read_text()
        titles = re.findall(r'"title": \{"text": "([^"]*)"', page)
        assert titles == [
            "Test AUC",
            "AUC against parameters",
            "ROC",
            "Precision and recall",
            "Calibration",
            "Training",
        ]
        assert "mlp2-unfrozen-hidden-plateau" in page
        assert "index.html" in printed
    assert '"test_auc": "0.9", "rev": "workspace"' in page
    assert '"rev": "HEAD"' in page
    assert git(owner, "status", "--porcelain") == ""


def test_an_experiment_in_the_project(owner: Path) -> None:
    """`dvc exp run -S` changes one line of params.yaml; show lists the experiment, and its run is in the store."""
    before = runs(owner)
    printed = dvc(owner, f"exp run {FEWER_TREES} {XGBOOST}", "exp show --csv")
    assert ran(printed) == [XGBOOST]
    assert sorted(runs(owner)) == sorted([*before, "finetune"])
    added = [line for line in git(owner, "diff", "params.yaml").splitlines() if line.startswith("+ ")]
    assert [line.split() for line in added] == [["+", "trees:", "7", "#", "at", "most"]]
    branch = git(owner, "branch", "--show-current").strip()
    table = "Experiment," + printed.partition("\nExperiment,")[2]
    trees = {
        row["Experiment"] or row["rev"]: row["non_neural.xgboost.trees"] for row in csv.DictReader(io.StringIO(table))
    }
    assert trees[branch] == "20"
    assert trees["seven"] == "7"


@pytest.mark.cluster
def test_experiments_outside_the_project(owner: Path) -> None:
    """--temp and --queue find data/, run the copy's code and track in the project's store; apply brings the outputs."""
    module = owner / "src/imputune/pipeline/compare.py"
    module.write_text(module.read_text() + '\nprint("the code of this experiment")\n')
    before = runs(owner)
    printed = dvc(owner, f"exp run --temp --name other {COMPARE}")
    assert ran(printed) == [COMPARE]
    assert "the code of this experiment" in printed
    assert f"the runs of this experiment go to the store of the project: {owner}/mlflow.db" in printed
    assert sorted(runs(owner)) == sorted([*before, "compare"])
    git(owner, "checkout", "--quiet", str(module))
    dvc(owner, f"exp run --queue {FEWER_TREES} {XGBOOST}", "queue start")
    while re.search(r"seven +\S+ \S+ +(Queued|Running)", status := dvc(owner, "queue status")):
        time.sleep(1)
    assert "Success" in status, dvc(owner, "queue logs seven")
    assert sorted(runs(owner)) == sorted([*before, "compare", "finetune"])
    assert not list((owner / ".dvc/tmp").rglob("mlflow.db"))
    assert f"{XGBOOST}:" not in dvc(owner, "exp apply seven", "status")
    assert re.search("trees: 7 +# at most", (owner / "params.yaml").read_text())
    assert '"trees": 7' in (heads_folder(owner) / "xgboost-frozen-summary-none/result.json").read_text()


def test_push_leaves_data_here_and_a_clone_runs_nothing(owner: Path, tmp_path: Path) -> None:
    """The remote has the artifacts and no record; a clone pulls them, extracts, and `dvc repro` runs nothing."""
    records, remote = hashes(owner / "data"), tmp_path / "remote"
    dvc(owner, f"remote add --default store {remote}", "push")
    git(owner, "commit", "--all", "--quiet", "--message", "remote")
    assert records <= objects(owner / ".dvc/cache")
    assert len(objects(remote)) > 10
    assert not records & objects(remote)
    git(tmp_path, "clone", "--quiet", str(owner), "clone")
    clone = tmp_path / "clone"
    printed = dvc(clone, "pull dvc.yaml", "repro --allow-missing")
    assert ran(printed) == []
    assert not (clone / "data").exists()
    assert hashes(clone / METRICS) == hashes(owner / METRICS)
    done = run_all(clone, [["imputune", "extract", "synthetic"], ["dvc", "repro"], ["dvc", "status"]])
    assert done.returncode == 0, done.stdout + done.stderr
    assert ran(done.stdout) == []
    assert "Data and pipelines are up to date." in done.stdout
    assert git(clone, "status", "--porcelain") == ""


def test_checkout_brings_an_earlier_extraction_back(owner: Path) -> None:
    """data.dvc of an earlier commit, and `dvc checkout`, restore the cohort of then."""
    earlier = hashes(owner / "data")
    assert run(owner, "imputune", "extract", "synthetic", "--stays", "70").returncode == 0
    assert hashes(owner / "data") != earlier
    dvc(owner, "commit --force data.dvc")
    git(owner, "commit", "--all", "--quiet", "--message", "more stays")
    assert "push: false" in (owner / "data.dvc").read_text()
    git(owner, "checkout", "--quiet", "HEAD~1", "data.dvc")
    dvc(owner, "checkout data.dvc")
    assert hashes(owner / "data") == earlier
