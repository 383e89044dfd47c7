import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo
from typer.testing import CliRunner

from imputune.cli.commands import app
from imputune.data.cohort import read_cohort
from imputune.datasets import Destination
from imputune.datasets.meds import MedsOptions, MedsSource, extract
from imputune.errors import UserError
from meds_raw import Event, stay, two_stays, write_labels, write_meds, write_variables
from planted import MARKED_ID, MARKED_TEXT, MARKED_VALUES, STAYS, cached_data, copies
from projects import grid_of, new_project, refused, run_all

GRID = {
    "mlp": {"imputer": ["csai"], "mode": ["frozen"], "head": ["mlp2"], "input": ["hidden"], "schedule": ["plateau"]}
}
LINES = """name,kind,unit,codes,combined,lowest,highest,value,words
heart_rate,,beats/min,HR,mean,1,300,,
sugar,,mg/dL,SUGAR,mean,10,2000,,
eyes,,points,EYES,last,1,4,,open=4
gender,static,,GENDER//F,,,,0,
"""


def invoke(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str):
    """Run `imputune extract meds` in a project."""
    monkeypatch.chdir(folder)
    return CliRunner().invoke(app, ["extract", "meds", *words])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project, with two stays beside it in raw/ and their variable file in variables.csv."""
    folder = new_project(tmp_path / "project")
    write_meds(tmp_path / "raw", two_stays())
    write_variables(tmp_path)
    return folder


def test_the_command_makes_a_cohort(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes data/<name>, tells its counts, and names the dataset in params.yaml."""
    words = ["--raw", "../raw", "--variables", "../variables.csv", "--name", "ward_3"]
    result = invoke(project, monkeypatch, *words)
    assert result.exit_code == 0, result.output
    assert "ward_3: 2 stays, 1 death, 2 observed cells (0 stays left out)" in result.stdout
    assert "params.yaml now says dataset: ward_3" in result.stdout
    assert "10 events read, 2 of the variables in the windows; dropped: none" in result.stderr
    assert "7 of the variables have no event in this dataset: temperature, oxygen, urine, eyes, lowest_sugar, ..." in (
        result.stderr
    )
    cohort = read_cohort(project / "data/ward_3")
    assert (cohort.stay_ids_N.tolist(), cohort.subjects_N.tolist()) == ([1, 2], [1, 2])
    assert cohort.outcome_N.tolist() == [0, 1]
    source = MedsSource.model_validate(cohort.source)
    assert (source.variable_file, cohort.outcome, source.stays_read) == ("own", "in_hospital_death", 2)
    text = (project / "data/ward_3/source.json").read_text()
    assert not any(part in text for part in (str(project), "2150", "raw"))
    assert not list((project / "data").glob(".*"))


def test_the_name_of_a_ready_file_is_the_datasets(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --name, a cohort by a ready variable file has its name, and one by another file is called meds."""
    result = invoke(project, monkeypatch, "--raw", "../raw", "--variables", "../variables.csv")
    assert "meds: 2 stays" in result.stdout
    result = invoke(project, monkeypatch, "--raw", "../raw")
    told = "no event has a code of the 83 variables (heart_rate, systolic_pressure_invasive, "
    assert told in refused(result)
    assert "--suggest-variables lists what the dataset has" in refused(result)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--raw is missing: name the folder of the MEDS dataset"),
        (["--raw", "../raw", "--hours", "24", "--bin-hours", "5"], "24 hours cannot be divided into bins of 5: give"),
        (
            ["--raw", "../raw", "--hours", "24"],
            "has a cohort of 48 hours with the first outcome in_hospital_death, this one has 24 hours and",
        ),
        (
            ["--raw", "../raw", "--outcome", "sepsis", "--labels", "none.parquet"],
            "this one has 48 hours and sepsis: choose another name or folder, or delete that folder",
        ),
        (
            ["--raw", "../raw", "--outcome", "sepsis", "--name", "ward"],
            "only in_hospital_death can be derived from codes: give --labels",
        ),
        (["--raw", "../raw", "--outcome", "Sepsis 3"], "an outcome's name has lower-case letters, digits and _"),
        (["--raw", "../raw", "--name", "Ward 3"], "--name 'Ward 3' must be of a-z, 0-9, _ and -: choose another name"),
        (["--raw", "../raw", "--name", "mimic3"], "--name 'mimic3' is another dataset's: choose another name"),
        (["--raw", "../raw", "--name", "mimic3_24h_by_2h"], "is another dataset's: choose another name"),
        (["--raw", "../nothing"], "../nothing is not a folder: point --raw at the folder that has data/"),
        (["--raw", "../raw", "--variables", "x.csv"], "--variables x.csv is neither a file nor a ready one"),
        (["--print-variables", "--variables", "x.csv"], "--variables x.csv is no ready file"),
        (["--raw", "../raw", "--suggest-variables"], "no code has numbers of 10 or more subjects"),
        (
            ["--raw", "../raw", "--suggest-variables", "--hours", "24"],
            "--hours has no effect beside --suggest-variables, which writes no cohort: leave one of them out",
        ),
        (["--suggest-variables", "--print-variables"], "--suggest-variables has no effect beside --print-variables"),
        (["--print-variables", "--out", "../x"], "--out has no effect beside --print-variables"),
        (["--print-variables", "--raw", "../raw"], "--raw has no effect beside --print-variables"),
        (
            ["--raw", "../raw", "--variables", "../variables.csv", "--start", "WARD"],
            "no event has the code WARD, which should start a stay",
        ),
    ],
)
def test_bad_input(project: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str) -> None:
    """Each fault is one line, and an earlier cohort stays as it was."""
    good = ["--raw", "../raw", "--variables", "../variables.csv", "--name", "mimic4"]
    assert invoke(project, monkeypatch, *good).exit_code == 0
    before = {path.name: path.read_bytes() for path in (project / "data/mimic4").iterdir()}
    result = invoke(project, monkeypatch, *words)
    assert told in refused(result)
    assert {path.name: path.read_bytes() for path in (project / "data/mimic4").iterdir()} == before
    assert [path.name for path in (project / "data").iterdir()] == ["mimic4"]


def test_another_dataset_never_overwrites_a_cohort(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second hospital needs a name of its own; another version of the same dataset replaces the cohort."""
    words = ["--raw", "../raw", "--variables", "../variables.csv"]
    assert invoke(project, monkeypatch, *words).exit_code == 0
    before = {path.name: path.read_bytes() for path in (project / "data/meds").iterdir()}
    about = tmp_path / "raw/metadata/dataset.json"
    about.write_text('{"dataset_name": "clinic"}')
    told = "data/meds has a cohort of the records MEDS hand-made, this one is of MEDS clinic: choose another name"
    assert told in refused(invoke(project, monkeypatch, *words))
    assert {path.name: path.read_bytes() for path in (project / "data/meds").iterdir()} == before
    assert invoke(project, monkeypatch, *words, "--name", "clinic").exit_code == 0
    about.write_text('{"dataset_name": "hand-made", "dataset_version": "2"}')
    assert invoke(project, monkeypatch, *words).exit_code == 0
    assert (project / "data/meds/source.json").read_bytes() != before["source.json"]


def test_other_codes_start_and_end_a_stay(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--start and --end take the place of the variable file's codes."""
    moved = [(who, when, code.replace("ICU_", "WARD_"), *rest) for who, when, code, *rest in two_stays()]
    write_meds(tmp_path / "ward", moved)
    words = ["--raw", "../ward", "--variables", "../variables.csv", "--start", "WARD_ADMISSION//*"]
    result = invoke(project, monkeypatch, *words, "--end", "WARD_DISCHARGE//*; NONE")
    assert "meds: 2 stays, 1 death" in result.stdout, result.output


def test_a_slip_in_the_code_of_a_start(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes that begin with a similar word are named, as a pattern that means them all."""
    result = invoke(
        project, monkeypatch, "--raw", "../raw", "--variables", "../variables.csv", "--start", "ICU_ADMISION"
    )
    assert "no event has the code ICU_ADMISION, which should start a stay (did you mean 'ICU_ADMISSION//*'?)" in (
        refused(result)
    )


def test_labels_need_the_name_of_their_outcome(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without --outcome they are refused; as in-hospital death, those that differ from the codes are told."""
    labels = write_labels(tmp_path, [(1, "2150-03-03 10:00:00", True), (2, "2150-04-03 10:00:00", False)])
    words = ["--raw", "../raw", "--variables", "../variables.csv", "--labels", str(labels)]
    result = invoke(project, monkeypatch, *words)
    assert "does not say which outcome it has: name it with --outcome, such as --outcome sepsis" in refused(result)
    assert not (project / "data/meds").exists()
    result = invoke(project, monkeypatch, *words, "--outcome", "in_hospital_death")
    assert result.exit_code == 0, result.output
    told = "doubtful labels: 2 labels differ from the in-hospital death that the codes tell"
    assert [line for line in result.stderr.splitlines() if "differ" in line] == [told]
    assert "is not given" not in result.stderr


def test_the_usual_variable_file_is_told(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without --variables, the command says which ready file it reads."""
    write_meds(tmp_path / "raw", [*two_stays(), (1, "2150-03-01 11:00:00", "LAB//220045//bpm", 80)])
    result = invoke(project, monkeypatch, "--raw", "../raw")
    told = "--variables is not given: the ready file mimic4 was read (others: eicu, hirid, or your own)"
    assert result.stderr.splitlines()[0] == told


def test_an_outcome_of_one_value(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dataset in which nobody dies makes no cohort."""
    write_meds(tmp_path / "raw", [event for event in two_stays() if event[0] == 1])
    result = invoke(project, monkeypatch, "--raw", "../raw", "--variables", "../variables.csv")
    told = (
        "error: in_hospital_death is 0 in all 1 labelled stay: a model needs stays with label 0 and stays with label "
        "1; check the codes of kind died and discharge"
    )
    assert result.stderr.splitlines()[-1].startswith(told)
    assert result.exit_code == 2


def test_doubtful_labels_are_warnings(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are told even to those who asked for results alone."""
    write_meds(tmp_path / "raw", [*two_stays(), (1, "2150-03-04 10:00:00", "MEDS_DEATH")])
    words = ["--raw", "../raw", "--variables", "../variables.csv"]
    told = "doubtful labels: 1 stay died during the hospital stay, but the discharge does not say so: it has label 0"
    result = invoke(project, monkeypatch, *words, "--quiet")
    assert [line for line in result.stderr.splitlines() if "label" in line] == [told]
    assert "events read" not in result.stderr


def test_a_ready_file_is_printed(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--print-variables` needs no dataset; what it prints is read as an own file."""
    printed = invoke(project, monkeypatch, "--print-variables", "--variables", "eicu").stdout
    assert printed.startswith("name,kind,unit,codes,")
    (tmp_path / "mine.csv").write_text(printed)
    assert "no event has a code of" in refused(
        invoke(project, monkeypatch, "--raw", "../raw", "--variables", str(tmp_path / "mine.csv"))
    )


def test_a_place_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files have their place in a project's data/, so the command needs a project."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params.yaml"):
        extract(Destination(None), MedsOptions(raw=write_meds(tmp_path / "raw", two_stays())))


def marked_events() -> list[Event]:
    """Return forty stays whose subject ids, texts, values and birth are marked."""
    events: list[Event] = []
    for place in range(STAYS):
        subject = MARKED_ID + place
        marks = stay(subject, "2150-03-01 10:00:00", "2150-03-04 10:00:00", place % 3 == 0, "2077-07-07 00:00:00")
        events += [*marks, (subject, None, "GENDER//F")]
        for hour in range(0, 48, 4):
            time = f"2150-03-0{1 + (10 + hour) // 24} {(10 + hour) % 24:02d}:05:00"
            # The ends of the range are statistics, which a model keeps: no marked value is one of them.
            sugar = MARKED_VALUES[place] if hour % 12 == 4 else 20 + place % 3 if hour % 8 else 1800 + place % 3
            events += [
                (subject, time, "HR", 70 + place % 40 + hour / 100),
                (subject, time, "SUGAR", sugar),
                (subject, time, "EYES", None, MARKED_TEXT),
            ]
    return events


@pytest.mark.slow
def test_patient_data_of_meds_stays_in_data(tmp_path: Path) -> None:
    """Nothing marked is in runs, artifacts, results or on the screen; in data/ and DVC's copy it is found."""
    folder = new_project(tmp_path / "project", imputers=["csai"], **{"promote.minimum_auc": 0.001}, **grid_of(**GRID))
    Repo.init(str(folder), no_scm=True).close()
    write_meds(tmp_path / "raw", marked_events())
    variables = write_variables(tmp_path, LINES)
    commands = [
        ["imputune", "extract", "meds", "--raw", str(tmp_path / "raw"), "--suggest-variables"],
        ["imputune", "extract", "meds", "--raw", str(tmp_path / "raw"), "--variables", variables],
        ["imputune", "folds"],
        ["imputune", "pretrain"],
        ["imputune", "grid"],
        ["imputune", "compare"],
        ["imputune", "describe", "data/meds"],
        ["imputune", "describe", "data/meds", "--card", "--out", "data-card.md"],
        ["imputune", "promote"],
        ["dvc", "add", "data"],
    ]
    done = run_all(folder, commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{STAYS} stays, 14 deaths" in done.stdout
    assert "480 with a text that the variable file does not list" in done.stderr
    assert set(copies(folder)) - cached_data(folder) == set()
    found = {path.read_bytes() for path in copies(folder)}
    assert found == {(folder / "data/meds" / name).read_bytes() for name in ("values.npy", "stays.csv", "windows.csv")}
    for text in (done.stdout, done.stderr):
        assert not any(mark in text for mark in (MARKED_TEXT, str(MARKED_ID)[:5], ".4567", "2150-03", "2077-"))
    rows = json.loads((folder / "results/meds/results.json").read_text())["rows"]
    assert {row["head"] for row in rows} == {"mlp2"}


@pytest.mark.slow
def test_the_pipeline_runs_on_another_window(tmp_path: Path) -> None:
    """The stays of the demo's first day in bins of two hours, of which subjects have several: up to a prediction."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real records to read")
    raw = Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimic-iv-demo-meds"
    folder = new_project(tmp_path / "project", imputers=["csai"], **{"promote.minimum_auc": 0.001}, **grid_of(**GRID))
    window = ["--stays", "all", "--hours", "24", "--bin-hours", "2", "--minimum-hours", "48", "--name", "day"]
    (tmp_path / "stay.csv").write_text("RecordID,Time,Parameter,Value\n1,00:10,heart_rate,80\n1,30:00,heart_rate,90\n")
    commands = [
        ["imputune", "extract", "meds", "--raw", str(raw), *window],
        ["imputune", "folds"],
        ["imputune", "pretrain"],
        ["imputune", "assess"],
        ["imputune", "grid"],
        ["imputune", "compare"],
        ["imputune", "promote"],
        ["imputune", "predict", "--records", str(tmp_path / "stay.csv"), "--out", str(tmp_path / "risk.csv")],
    ]
    done = run_all(folder, commands)
    assert done.returncode == 0, done.stdout + done.stderr
    cohort = read_cohort(folder / "data/day")
    assert (cohort.values_NTD.shape[:2], len(np.unique(cohort.subjects_N)), cohort.events) == ((74, 12), 56, 12)
    heart_ND = cohort.values_NTD[:, :, cohort.variable_names.index("heart_rate")]
    assert (~np.isnan(heart_ND)).sum() > 800
    folds = json.loads((folder / "artifacts/day/folds.json").read_text())["folds"]
    for fold in folds:
        of_split = [set(cohort.subjects_N[np.isin(cohort.stay_ids_N, ids)]) for ids in fold.values()]
        assert sum(map(len, of_split)) == len(set().union(*of_split)) == 56
    risk = pd.read_csv(tmp_path / "risk.csv")
    assert (risk["observed_cells"].tolist(), risk["rows_ignored"].tolist()) == ([1], [1])


@pytest.mark.slow
def test_the_pipeline_runs_on_the_demo(tmp_path: Path) -> None:
    """The public demo's 53 stays go through folds, pretraining, a head and the comparison."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real records to read")
    raw = Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimic-iv-demo-meds"
    folder = new_project(tmp_path / "project", imputers=["csai"], **grid_of(**GRID))
    commands = [
        ["imputune", "extract", "meds", "--raw", str(raw)],
        ["imputune", "folds"],
        ["imputune", "pretrain"],
        ["imputune", "grid"],
        ["imputune", "compare"],
    ]
    done = run_all(folder, commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "53 stays, 7 deaths, 32,615 observed cells" in done.stdout
    path = folder / "artifacts/mimic4/heads/in_hospital_death/csai/mlp2-frozen-hidden-plateau/predictions.csv"
    predicted = pd.read_csv(path)
    assert sorted(predicted[predicted["split"] == "test"]["stay_id"]) == list(range(1, 54))
    assert predicted["risk"].between(0, 1).all()
    [row] = json.loads((folder / "results/mimic4/results.json").read_text())["rows"]
    assert (row["imputer"], row["head"]) == ("csai", "mlp2")
