from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from imputune.cli.commands import app
from imputune.data.cohort import Cohort, cohort_hash, read_cohort, write_cohort
from imputune.data.outcome_file import NO_LABEL
from imputune.data.raw.meds.extraction import Outcome
from imputune.data.raw.meds.variable_file import read_variable_file
from imputune.data.raw.mimic3.extraction import extract_mimic3
from imputune.data.raw.synthetic import extract_synthetic
from imputune.datasets.meds import to_cohort
from imputune.pipeline.label import run_label
from meds_raw import Label, read_stays, stay, two_stays, write_labels
from mimic3_raw import RULES, tables, write
from projects import refused

AGAIN = [*stay(2, "2150-09-01 10:00:00", "2150-09-04 10:00:00"), (2, "2150-09-01 10:00:00", "HR//bpm", 60)]
LABELS: list[Label] = [
    (1, "2150-03-03 10:00:00", True),  # as the window ends
    (1, "2150-03-03 09:59:59", False),  # before it ends
    (2, "2150-04-05 00:00:00", False),
    (2, "2150-09-02 00:00:00", True),  # in the window of the second stay, which this study has not read
    (9, "2150-04-05 00:00:00", True),
    (2, "2150-04-06 00:00:00", None),
]


def cohort_of(folder: Path, outcome: Outcome | None = None) -> Cohort:
    """Read the first stays of two subjects, of which the second has another one."""
    stays = read_stays(folder, [*two_stays(), *AGAIN], outcome=outcome)
    return to_cohort(stays, "ward", read_variable_file(str(folder / "variables.csv")))


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """The folder of their cohort."""
    write_cohort(cohort_of(tmp_path), tmp_path / "ward")
    return tmp_path / "ward"


def invoke(folder: Path, outcome: str, labels: Path, *words: str):
    """Run `imputune label`."""
    return CliRunner().invoke(app, ["label", str(folder), "--outcome", outcome, "--labels", str(labels), *words])


def test_an_outcome_is_added_beside_the_cohort(ward: Path, tmp_path: Path) -> None:
    """Labels join windows by subject and time, each that does not is counted, and the five files keep their bytes."""
    before = cohort_hash(ward)
    result = invoke(ward, "sepsis", write_labels(tmp_path, LABELS))
    assert result.stdout == f"{ward}: outcome sepsis: 2 of 2 stays have a label, 1 event\n"
    assert result.stderr == "6 labels read, 1 label without a value or time, 3 labels without a window\n"
    assert (ward / "outcomes.csv").read_text() == "stay_id,sepsis\n1,1\n2,0\n"
    assert cohort_hash(ward) == before
    assert list(read_cohort(ward).outcomes) == ["in_hospital_death", "sepsis"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "labels.parquet",
        "raw",
        "variables.csv",
        "ward",
    ]


def test_labels_are_those_of_an_extraction_with_them(ward: Path, tmp_path: Path) -> None:
    """`extract meds --labels` joins the same labels to the same stays."""
    labels = write_labels(tmp_path, LABELS)
    run_label(ward, "sepsis", labels)
    extracted = cohort_of(tmp_path, Outcome(name="sepsis", labels=labels))
    assert extracted.outcome == "sepsis"
    assert read_cohort(ward).outcomes["sepsis"].tolist() == extracted.outcome_N.tolist()


def test_an_outcome_is_not_overwritten_unasked(ward: Path, tmp_path: Path) -> None:
    """The name must be new, or --replace given: then it is told how many labels changed; another outcome stays."""
    run_label(ward, "shock", write_labels(tmp_path, LABELS))
    run_label(ward, "sepsis", write_labels(tmp_path, LABELS))
    other = write_labels(tmp_path, [(1, "2150-03-04 10:00:00", True), (2, "2150-04-05 00:00:00", True)])
    before = (ward / "outcomes.csv").read_bytes()
    assert "has the outcome sepsis already: choose another name, or give --replace" in (
        refused(invoke(ward, "sepsis", other))
    )
    assert "is the first outcome of" in refused(invoke(ward, "in_hospital_death", other, "--replace"))
    told = "sepsis is 1 in all 2 labelled stays of"
    assert told in refused(invoke(ward, "sepsis", other, "--replace"))
    assert (ward / "outcomes.csv").read_bytes() == before
    changed = write_labels(tmp_path, [(1, "2150-03-04 10:00:00", False), (2, "2150-04-05 00:00:00", True)])
    result = invoke(ward, "sepsis", changed, "--replace")
    assert result.stdout.splitlines()[-1] == "2 stays had another label of sepsis before"
    assert (ward / "outcomes.csv").read_text() == "stay_id,shock,sepsis\n1,1,0\n2,0,1\n"


def test_labels_of_both_values_are_a_warning(tmp_path: Path) -> None:
    """They are told even if the command is quiet; their stays have no label."""
    third = [*stay(3, "2150-05-01 10:00:00", "2150-05-04 10:00:00"), (3, "2150-05-01 10:00:00", "HR//bpm", 60)]
    stays = read_stays(tmp_path, [*two_stays(), *AGAIN, *third])
    write_cohort(to_cohort(stays, "ward", read_variable_file(str(tmp_path / "variables.csv"))), tmp_path / "ward")
    both: list[Label] = [(3, "2150-05-04 00:00:00", True), (3, "2150-05-05 00:00:00", False)]
    result = invoke(tmp_path / "ward", "sepsis", write_labels(tmp_path, [*LABELS, *both]), "--quiet")
    assert result.stderr == "doubtful labels: 1 window with labels of both values\n"
    assert read_cohort(tmp_path / "ward").outcomes["sepsis"].tolist() == [1, 0, NO_LABEL]


def test_labels_of_one_value_are_refused(ward: Path, tmp_path: Path) -> None:
    """Also if one value is left because the other labels contradict each other; outcomes.csv is not written."""
    twice: list[Label] = [*LABELS, (2, "2150-04-07 00:00:00", True)]
    told = "sepsis is 1 in all 1 labelled stay of"
    assert told in refused(invoke(ward, "sepsis", write_labels(tmp_path, twice)))
    none_left = write_labels(tmp_path, [*twice, (1, "2150-03-09 00:00:00", False)])
    assert refused(invoke(ward, "sepsis", none_left)).startswith("no window has a label of --labels")
    assert not (ward / "outcomes.csv").exists()


def test_records_without_dates(tmp_path: Path) -> None:
    """In a generated cohort, as in PhysioNet 2012's, a label belongs to the stay of its id, and the command says so."""
    write_cohort(extract_synthetic(20, 1), tmp_path / "cohort")
    ids = read_cohort(tmp_path / "cohort").stay_ids_N
    labels = [(int(stay_id), "2000-01-01", bool(place % 2)) for place, stay_id in enumerate(ids[:12])]
    result = invoke(tmp_path / "cohort", "sepsis", write_labels(tmp_path, [*labels, (7, "2000-01-01", True)]))
    assert "each label belongs to the stay whose id is its subject_id, at any time" in result.stderr
    assert "13 labels read, 1 label without a window, 8 windows without a label" in result.stderr
    cohort = read_cohort(tmp_path / "cohort")
    assert cohort.outcomes["sepsis"].tolist() == [*[0, 1] * 6, *[NO_LABEL] * 8]
    assert len(cohort.outcomes) == 5


def test_mimic3_by_patient_and_time(tmp_path: Path) -> None:
    """Labels of a MEDS table of MIMIC-III join by SUBJECT_ID; one after the patient's next ICU stay began does not."""
    cohort = extract_mimic3(write(tmp_path / "raw", tables()), RULES, tmp_path / "data", 2)
    write_cohort(cohort, tmp_path / "mimic3")
    labels = [(1, "2150-05-01", True), (1, "2150-06-02", False), (2, "2150-04-04", False), (8, "2150-03-02", True)]
    run_label(tmp_path / "mimic3", "sepsis", write_labels(tmp_path, labels))
    assert read_cohort(tmp_path / "mimic3").outcomes["sepsis"].tolist() == [1, 0, NO_LABEL]


def test_a_cohort_without_its_windows(ward: Path, tmp_path: Path) -> None:
    """An earlier version wrote no windows.csv: one line says how to get it; a broken file has a line of its own."""
    labels = write_labels(tmp_path, LABELS)
    text = (ward / "windows.csv").read_text()
    (ward / "windows.csv").write_text(text.replace("2150-03-01", "first"))
    line = refused(invoke(ward, "sepsis", labels))
    assert f"cannot read {ward}/windows.csv: subject_id must be a whole number, start, end, next_start like" in line
    assert "first" not in line  # no content of the file: it could be a patient's
    (ward / "windows.csv").write_text("".join(text.splitlines(keepends=True)[:2]))
    assert "it must have the stays of stays.csv in the same order" in refused(invoke(ward, "sepsis", labels))
    (ward / "windows.csv").unlink()
    told = "lacks windows.csv, so labels cannot be joined by time: run `imputune extract meds --name ward` again"
    assert told in refused(invoke(ward, "sepsis", labels))
    assert not (ward / "outcomes.csv").exists()
    write_cohort(cohort_of(tmp_path), ward)
    assert (ward / "windows.csv").read_text() == text
    assert np.array_equal(read_cohort(ward).labelled_N, [True, True])
