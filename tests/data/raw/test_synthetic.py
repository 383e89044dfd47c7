import errno
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from imputune.data.cohort import Cohort, cohort_hash, write_cohort
from imputune.data.cohort_facts import describe
from imputune.data.raw.physionet2012_parameters import VARIABLES
from imputune.data.raw.synthetic import extract_synthetic, write_synthetic_records
from imputune.errors import UserError


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """The default cohort."""
    return extract_synthetic()


def summaries(cohort: Cohort) -> np.ndarray:
    """Return last value, mean and count of each variable over the 48 hours, NaN if it was never observed."""
    observed_NTD = cohort.observed_NTD
    last_hour_ND = 47 - observed_NTD[:, ::-1].argmax(axis=1)
    last_ND = np.take_along_axis(cohort.values_NTD, last_hour_ND[:, None], axis=1)[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of a variable never observed is NaN
        mean_ND = np.nanmean(cohort.values_NTD, axis=1)
    return np.concatenate([last_ND, mean_ND, observed_NTD.sum(axis=1)], axis=1)


def cross_validated_auc(features: np.ndarray, outcome_N: np.ndarray) -> float:
    """Return the mean test AUC of a logistic regression over five folds."""
    model = make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=0.01, max_iter=500)
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(model, features, outcome_N, cv=folds, scoring="roc_auc").mean())


def test_the_default_cohort_has_its_size_and_mortality(cohort: Cohort) -> None:
    """1,000 stays with ids that no real stay has, all 35 variables, about 14 % deaths, no stay left out."""
    facts = describe(cohort)
    assert (facts.stays, facts.hours, facts.variables) == (1000, 48, 35)
    assert facts.event_share == pytest.approx(0.14, abs=0.02)
    assert facts.exclusions == {"no measurements": 0}
    assert cohort.dataset == "synthetic"
    assert cohort.variables == VARIABLES
    assert (cohort.stay_ids_N[0], cohort.stay_ids_N[-1]) == (900_001, 901_000)
    assert cohort.observed_NTD.any(axis=(0, 1)).all()


def test_missing_shares_resemble_the_challenge(cohort: Cohort) -> None:
    """Vital signs are missing as often as in set a, and rare labs are rare."""
    missing = describe(cohort).missing_share_by_variable
    expected = {"HR": 0.10, "Urine": 0.31, "SysABP": 0.46, "Temp": 0.63, "BUN": 0.93, "Albumin": 0.988}
    for name, share in expected.items():
        assert missing[name] == pytest.approx(share, abs=0.03)
    assert missing["Cholesterol"] > 0.995


def test_a_simple_model_predicts_the_outcome_but_not_a_shuffled_one(cohort: Cohort) -> None:
    """Logistic regression on summaries has an AUC of 0.82 to 0.88, and about 0.5 with shuffled outcomes."""
    features = summaries(cohort)
    assert 0.82 <= cross_validated_auc(features, cohort.outcome_N) <= 0.88
    shuffled_N = np.random.default_rng(0).permutation(cohort.outcome_N)
    assert cross_validated_auc(features, shuffled_N) == pytest.approx(0.5, abs=0.06)


def test_variables_follow_physiology(cohort: Cohort) -> None:
    """Mean pressure is diastolic plus a third of the pulse pressure; pH follows the buffer equation."""
    column = {name: cohort.values_NTD[:, :, index] for index, name in enumerate(cohort.variable_names)}
    third = column["DiasABP"] + (column["SysABP"] - column["DiasABP"]) / 3
    assert np.nanmedian(np.abs(column["MAP"] - third)) < 2
    buffered = 6.1 + np.log10(column["HCO3"] / (0.03 * column["PaCO2"]))
    assert np.nanmedian(np.abs(column["pH"] - buffered)) < 0.02
    together = ~np.isnan(column["BUN"])
    kidneys = np.corrcoef(np.log(column["BUN"][together]), np.log(column["Creatinine"][together]))[0, 1]
    assert kidneys > 0.25
    assert np.nanmin(column["GCS"]) >= 3
    assert np.nanmax(column["GCS"]) <= 15


def test_sicker_stays_are_measured_more_often(cohort: Cohort) -> None:
    """Patients who die have more observed cells than those who survive, on average."""
    observed_N = cohort.observed_NTD.sum(axis=(1, 2))
    died_N = cohort.outcome_N == 1
    assert observed_N[died_N].mean() > observed_N[~died_N].mean() + 20


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs write bit-equal folders, another seed another one, and no file has a path in it."""
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        write_cohort(extract_synthetic(20, seed), tmp_path / name)
    assert cohort_hash(tmp_path / "first") == cohort_hash(tmp_path / "second")
    assert cohort_hash(tmp_path / "first") != cohort_hash(tmp_path / "other")
    text = (tmp_path / "first" / "source.json").read_text()
    assert '"command": "imputune extract synthetic --stays 20 --seed 3"' in text
    assert "tmp" not in text


def test_default_records_have_their_golden_hash(cohort: Cohort) -> None:
    """The default records are those of data.dvc, on every machine."""
    assert cohort.source["sha256"] == {
        "set-s/": "5cd80c2a54b9b1ede7815a384c2bf9ad35d6eaecc366d57ee5b434c4b1135da8",
        "Outcomes-s.txt": "670789a060ca67e11cdb66c3ae3d858baaa437fab6019727c6e52de20485097d",
    }


def test_records_have_the_challenge_format(tmp_path: Path) -> None:
    """A record has the header, its id and five static rows, then rows in the order of time; it has an outcome."""
    write_synthetic_records(tmp_path, stays=3, seed=1)
    assert sorted(path.name for path in (tmp_path / "set-s").iterdir()) == [
        "900001.txt",
        "900002.txt",
        "900003.txt",
    ]
    lines = (tmp_path / "set-s" / "900002.txt").read_text().splitlines()
    assert lines[:2] == ["Time,Parameter,Value", "00:00,RecordID,900002"]
    assert [line.split(",")[1] for line in lines[2:7]] == ["Age", "Gender", "Height", "ICUType", "Weight"]
    times = [line.split(",")[0] for line in lines[1:]]
    assert times == sorted(times)
    assert times[-1] < "48:00"
    outcomes = (tmp_path / "Outcomes-s.txt").read_text().splitlines()
    assert outcomes[0] == "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"
    assert [line.split(",")[0] for line in outcomes[1:]] == ["900001", "900002", "900003"]


@pytest.mark.parametrize(("stays", "seed"), [(0, 1), (-5, 1), (90_001, 1), (10, -1)])
def test_arguments_out_of_range_are_named(stays: int, seed: int) -> None:
    """No stays, too many stays, and a negative seed are errors that name the range."""
    with pytest.raises(UserError, match=f"1 to 90000 and --seed 0 or more, got {stays} and {seed}"):
        extract_synthetic(stays, seed)


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk in the temporary folder is a one-line error with the remedy."""

    def fail(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match="No space left on device; free it or set TMPDIR"):
        extract_synthetic(2)
