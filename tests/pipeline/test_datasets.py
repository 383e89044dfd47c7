import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from networkx import dfs_postorder_nodes
from typer.testing import CliRunner

from benchmarks.mimic3_tables import write_tables
from imputune.cli.commands import app
from imputune.data.cohort import read_cohort
from imputune.data.raw.mimic3.extraction import PAPER_STAYS
from imputune.models.heads import HEAD_BUILDERS, HeadSizes
from imputune.settings.file import use_dataset
from mimic3_raw import CHART, Row, tables, write
from planted import MARKED_ID, MARKED_TEXT, MARKED_VALUES, STAYS, cached_data, copies
from projects import ROOT, grid_of, new_project, run, run_all

TOY = {"mlp": {"imputer": ["csai"], "mode": ["frozen"], "head": ["mlp2"], "input": ["hidden"], "schedule": ["plateau"]}}
MARKED = {
    **TOY,
    "mlp_imputed": {
        **{"imputer": ["mean"], "mode": ["frozen"], "head": ["mlp2"]},
        **{"input": ["imputed"], "schedule": ["plateau"]},
    },
    "recurrent": {
        **{"imputer": ["csai"], "mode": ["frozen"], "head": ["gru"]},
        **{"input": ["raw"], "schedule": ["plateau"]},
    },
    "non_neural": {"imputer": ["csai"], "head": ["xgboost"], "input": ["summary"]},
}


def test_list_variables_as_json():
    """`imputune extract mimic3 --list-variables --json` prints a row for each of the 89 variables."""
    printed = CliRunner().invoke(app, ["extract", "mimic3", "--list-variables", "--json"]).stdout
    rows = json.loads(printed)
    assert len(rows) == 89
    temperature = next(row for row in rows if row["name"] == "temperature")
    assert temperature == {
        "name": "temperature",
        "unit": "°C",
        "combined": "mean",
        "lowest": 25,
        "highest": 45,
        "items": {"chartevents_carevue": [676, 677, 678, 679], "chartevents_metavision": [223762, 223761]},
        "conversions": {"678": "fahrenheit", "679": "fahrenheit", "223761": "fahrenheit"},
    }
    table = CliRunner().invoke(app, ["extract", "mimic3", "--list-variables"]).stdout
    assert "89 variables" in table
    assert "679 (fahrenheit)" in table


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "error: --raw is missing: name the folder"),
        (["--json"], "error: --json works only with --list-var"),
        (["--list-variables", "--hours", "24"], "error: --hours or --bin-hours has no effect beside --list-variables"),
        (["--list-variables", "--raw", "."], "error: --raw has no effect beside --list-variables, which reads nothing"),
    ],
)
def test_options_that_do_not_go_together(words, told):
    """Neither a folder nor the list, and JSON of nothing, are refused in one line."""
    result = CliRunner().invoke(app, ["extract", "mimic3", *words])
    assert result.exit_code == 2
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1


def test_a_wrong_place_is_told_before_anything_is_read(tmp_path):
    """A folder with other files is refused as the output before the tables are looked at."""
    (tmp_path / "thesis.txt").write_text("mine")
    result = CliRunner().invoke(app, ["extract", "mimic3", "--raw", "no/such", "--out", str(tmp_path)])
    assert result.exit_code == 2
    told = f"error: {tmp_path} holds other files (thesis.txt); choose an empty or a new folder with --out\n"
    assert result.stderr == told


def test_variables_without_a_value_are_told(marked):
    """Where no stay has any value of some variables, the command says how many, because a table may be cut short."""
    _, said = marked
    assert "87 of the variables were never observed (systolic_pressure_invasive, " in said[1]


def test_heads_grow_with_the_variables():
    """Recurrent heads read 89 variables where the cohort has them; perceptrons read the hidden representation alone."""
    sizes = HeadSizes(input_size=108, variables=89, mlp_width=128)
    counts = {
        head: sum(weights.numel() for weights in HEAD_BUILDERS[head](sizes).parameters())
        for head in ("mlp2", "lstm", "gru")
    }
    # LSTM(89, 108) and GRU(89, 108) under Linear(108, 128)-Linear(128, 1)
    assert counts == {"mlp2": 14_081, "lstm": 100_049, "gru": 78_557}


@pytest.mark.slow
def test_a_toy_dataset_is_one_file(tmp_path):
    """With the file that docs/adding-a-dataset.md shows in place, its command, dvc and mlflow run take the dataset.

    The commands of dvc.yaml's stages run in one process; dvc itself starts the first, and then finds all done.
    """
    toy = new_project(tmp_path / "toy", imputers=["csai"], **grid_of(**TOY))
    use_dataset(toy / "params.yaml", "physionet2012")  # so that the file is laid out as commands write it
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/adding-a-dataset.md").read_text(), re.DOTALL)
    (toy / "src/imputune/datasets/toy.py").write_text(code)
    source = {"PYTHONPATH": str(toy / "src")}
    before = (toy / "params.yaml").read_text()
    words = ["-P", "dataset=toy", "-P", "stays=70"]
    done = run(toy, "mlflow", "run", ".", "-e", "extract", *words, "--env-manager", "local")
    assert done.returncode == 0, done.stderr
    assert "params.yaml now has a budget for toy, copied from physionet2012: change it as you need" in done.stdout
    changed = (toy / "params.yaml").read_text()
    assert "\n  toy: {pretrain_epochs: 2," in changed
    assert len(read_cohort(toy / "data/toy").outcome_N) == 70
    with Repo.init(str(toy), no_scm=True) as repo:
        stages = [stage.cmd.split() for stage in dfs_postorder_nodes(repo.index.graph) if getattr(stage, "cmd", None)]
    assert [words[:3] for words in stages[:2]] == [["imputune", "folds", "toy"], ["imputune", "pretrain", "toy"]]
    first = ["dvc", "repro", "--single-item", "--force", "folds@toy"]
    commands = [["imputune", "extract", "toy"], *stages, ["dvc", "commit", "--force"], first, ["dvc", "repro"]]
    asked = [["imputune", "extract", "--help"], ["imputune", "extract", "toy", "--stays", "7"]]
    done = run_all(toy, [*commands, *asked], **source)
    refusal = "error: --stays must be 30 or more, got 7: change it"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, refusal), done.stdout + done.stderr
    assert "Draw stays of two variables" in done.stdout
    assert "toy: 60 stays" in done.stdout.splitlines()[0]
    assert "params.yaml now" not in done.stdout
    assert (toy / "params.yaml").read_text() == changed
    assert len(changed.splitlines()) == len(before.splitlines()) + 1
    assert re.findall("Running stage '(.*)'", done.stdout) == ["folds@toy"]
    rows = json.loads((toy / "results/toy/results.json").read_text())["rows"]
    assert {row["head"] for row in rows} == {"mlp2"}
    assert (toy / "results/toy/report.html").is_file()


def marked_tables() -> dict[str, list[Row]]:
    """Tables of forty stays whose ids, texts and values are marked, so that a copy of them can be found anywhere."""
    content = tables()
    ids = [(MARKED_ID + n, MARKED_ID + 1000 + n, MARKED_ID + 2000 + n) for n in range(STAYS)]
    content["PATIENTS"] = [
        {"SUBJECT_ID": subject, "GENDER": "F", "DOB": "2077-07-07 00:00:00"} for subject, _, _ in ids
    ]
    content["ADMISSIONS"] = [
        {"SUBJECT_ID": one, "HADM_ID": two, "HOSPITAL_EXPIRE_FLAG": int(one % 3 == 0), "DIAGNOSIS": MARKED_TEXT}
        for one, two, _ in ids
    ]
    stay = content["ICUSTAYS"][0]
    content["ICUSTAYS"] = [
        dict(stay) | {"SUBJECT_ID": one, "HADM_ID": two, "ICUSTAY_ID": three} for one, two, three in ids
    ]
    content["CHARTEVENTS"] = [
        CHART
        | {"SUBJECT_ID": one, "HADM_ID": two, "ICUSTAY_ID": three, "ITEMID": item, "VALUE": value, "VALUENUM": number}
        | {"CHARTTIME": f"2150-03-0{1 + (10 + hour) // 24} {(10 + hour) % 24:02d}:05:00"}
        for place, (one, two, three) in enumerate(ids)
        for hour in range(0, 48, 4)
        for item, number in (
            (211, 70 + place % 40 + hour / 100),
            # The ends of the range are statistics, which a model keeps: no marked value is one of them.
            (807, MARKED_VALUES[place] if hour % 12 == 4 else 20 + place % 3 if hour % 8 else 1800 + place % 3),
            (646, ""),
        )
        for value in [MARKED_TEXT if number == "" else number]
    ]
    return content


@pytest.fixture(scope="module")
def marked(tmp_path_factory) -> tuple[Path, list[str]]:
    """A project after the pipeline's commands and a promotion on marked tables, and all that its commands said."""
    gates = {"promote.minimum_auc": 0.001}
    folder = new_project(tmp_path_factory.mktemp("marked"), imputers=["csai", "mean"], **gates, **grid_of(**MARKED))
    Repo.init(str(folder), no_scm=True).close()
    raw = write(tmp_path_factory.mktemp("marked_raw"), marked_tables())
    commands = [
        ["imputune", "extract", "mimic3", "--raw", str(raw)],
        ["imputune", "folds"],
        ["imputune", "pretrain", "--imputer", "all"],
        ["imputune", "grid"],
        ["imputune", "grid", "--imputer", "mean", "--head", "mlp2"],
        ["imputune", "assess"],
        ["imputune", "compare"],
        ["imputune", "compare", "--by", "imputer,head"],
        ["imputune", "describe", "data/mimic3"],
        ["imputune", "describe", "data/mimic3", "--card", "--out", "data-card.md"],
        ["imputune", "promote"],
        ["dvc", "add", "data"],
        ["dvc", "commit", "--force"],
        ["dvc", "repro"],
    ]
    done = run_all(folder, commands)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, [done.stdout, done.stderr]


def test_patient_data_stays_in_data(marked, tmp_path):
    """Nothing marked is in runs, artifacts, models, results or on the screen; in data/ and DVC's copy it is found."""
    folder, said = marked
    cached = cached_data(folder)
    assert len(cached) == len(list((folder / "data/mimic3").iterdir()))
    assert set(copies(folder)) - cached == set()
    assert {path.read_bytes() for path in set(copies(folder)) & cached} == {
        (folder / "data/mimic3" / name).read_bytes() for name in ("values.npy", "stays.csv", "windows.csv")
    }
    assert "push: false" in (folder / "data.dvc").read_text()
    for text in said:
        assert MARKED_TEXT not in text
        assert str(MARKED_ID)[:5] not in text
        assert ".4567" not in text
    written = {path.name for path in folder.iterdir()}
    assert {"mlflow.db", "mlruns", "artifacts", "metrics", "plots", "results", ".dvc"} <= written
    assert len(list((folder / ".dvc/cache").rglob("*"))) > 10
    cards = [folder / "data-card.md", *(folder / "mlruns").rglob("model_card.*")]
    assert len(cards) > 8  # of every version, and of the data
    assert all("2150" not in path.read_text() for path in cards)  # the year of every record
    kept = [json.loads(path.read_text()) for path in (folder / "results/mimic3/variants").rglob("*.json")]
    assert {each["variant"]["head"] for each in kept} == {"mlp2", "gru", "xgboost"}
    assert [each["calibration"] for each in kept] == [[]] * 4  # its groups would have four stays
    cohort = read_cohort(folder / "data/mimic3")
    assert cohort.source_ids_N is not None
    assert cohort.source_ids_N.tolist() == [MARKED_ID + 2000 + n for n in range(STAYS)]
    shutil.copytree(folder / "data/mimic3", tmp_path / "leaked")
    assert {path.name for path in copies(tmp_path)} == {"values.npy", "stays.csv", "windows.csv"}


def test_results_stand_beside_the_papers(marked):
    """Compare puts the paper's MIMIC-III figures beside ours; stays are numbered in folds and predictions."""
    folder, said = marked
    rows: list[dict[str, Any]] = json.loads((folder / "results/mimic3/results.json").read_text())["rows"]
    [mlp2] = [row for row in rows if (row["head"], row["mode"]) == ("mlp2", "frozen")]
    assert mlp2["paper_test_auc"] == 0.756
    assert {row["head"] for row in rows} == {"mlp2", "gru", "xgboost"}
    assert f"40 ICU stays read, 40 kept; the paper's extract has {PAPER_STAYS:,}, by rules" in said[1]
    predictions = (
        folder / "artifacts/mimic3/heads/in_hospital_death/csai/mlp2-frozen-hidden-plateau/predictions.csv"
    ).read_text()
    assert predictions.splitlines()[0] == "stay_id,split,risk,fold"


def test_the_benchmarks_tables_are_the_same_each_time(tmp_path):
    """The same factor and seed give the same rows, another seed others."""
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        write_tables(tmp_path / name, 0.00001, seed)
    one, two, three = ((tmp_path / name / "CHARTEVENTS.csv.gz").read_bytes() for name in ("one", "two", "three"))
    assert one == two
    assert one != three
