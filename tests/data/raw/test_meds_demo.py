import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.raw.meds.extraction import Resources, extract_meds
from imputune.data.raw.meds.stays import MedsStays, WindowRules
from imputune.data.raw.meds.suggestion import suggest_variables
from imputune.data.raw.meds.variable_file import read_variable_file
from meds_raw import write_variables


@pytest.fixture(scope="module")
def demo() -> Path:
    """The public demo of MIMIC-IV in MEDS."""
    if "IMPUTUNE_REAL_DATA" not in os.environ:
        pytest.skip("IMPUTUNE_REAL_DATA is not set: no real records to read")
    return Path(os.environ["IMPUTUNE_REAL_DATA"]) / "mimic-iv-demo-meds"


@pytest.fixture(scope="module")
def first_stays(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> MedsStays:
    """The first stay of each subject, by the ready variable file."""
    home = tmp_path_factory.mktemp("demo_meds")
    return extract_meds(demo, read_variable_file("mimic4"), WindowRules(), Resources(home=home))


def test_first_stays_of_the_demo(first_stays: MedsStays) -> None:
    """53 of 140 stays remain, 7 of them with death in hospital; ages go from 21.2 to 90 and over."""
    assert first_stays.stays_read == 140
    assert len(np.unique(first_stays.subject_ids_N)) == len(first_stays.subject_ids_N) == 53
    assert first_stays.labels["in_hospital_death"].sum() == 7
    assert {reason: count for reason, count in first_stays.exclusions.items() if count} == {
        "not the subject's first stay": 40,
        "shorter than 48 hours": 47,
    }
    age_N = first_stays.static["age_years"].to_numpy()
    assert (round(age_N.min(), 1), age_N.max()) == (21.2, 90)
    assert set(first_stays.static["gender"]) == {0, 1}
    assert first_stays.events.read == 916_166
    assert not first_stays.absent
    assert not any(first_stays.events.ignored.values())


@pytest.mark.parametrize(
    ("name", "hours", "mean"),
    [
        ("heart_rate", 2451, 89.986),
        ("oxygen_saturation", 2416, 96.750),
        ("creatinine", 237, 1.671),
        ("lactate", 219, 3.266),
    ],
)
def test_variables_of_the_demo(first_stays: MedsStays, name: str, hours: int, mean: float) -> None:
    """Observed hours and the mean of hourly means are those that pandas finds in the files."""
    place = [each.name for each in first_stays.variables].index(name)
    series_NT = first_stays.values_NTD[:, :, place]
    assert (~np.isnan(series_NT)).sum() == hours
    assert np.nanmean(series_NT.astype(np.float64)) == pytest.approx(mean, abs=5e-4)


def test_all_stays_of_the_demo(demo: Path, tmp_path: Path) -> None:
    """74 stays of 48 hours, of 56 subjects, 12 of them in a hospital stay that ends with death."""
    lines = "name,codes\nheart_rate,LAB//220045//bpm\n"
    file = read_variable_file(write_variables(tmp_path, lines))
    stays = extract_meds(demo, file, WindowRules(stays="all"), Resources(home=tmp_path))
    assert (len(stays.subject_ids_N), len(np.unique(stays.subject_ids_N))) == (74, 56)
    assert stays.labels["in_hospital_death"].sum() == 12


def test_suggested_variables_of_the_demo(demo: Path, tmp_path: Path) -> None:
    """The suggestion is a variable file: the commonest codes first, none that gives an outcome away, and it is read."""
    text, rare = suggest_variables(demo, Resources(home=tmp_path))
    (tmp_path / "suggested.csv").write_text(text)
    table = pd.read_csv(tmp_path / "suggested.csv")
    assert table["codes"][0] in ("LAB//220045//bpm", "LAB//220210//insp/min")
    pulse = table.set_index("codes").loc["LAB//220045//bpm"]
    assert (pulse["unit"], pulse["events"], pulse["subjects"]) == ("bpm", 13_913, 100)
    assert pulse["median"] == pytest.approx(90, abs=1)
    assert table["subjects"].min() >= 10
    assert rare > 100
    assert table["name"].is_unique
    file = read_variable_file(str(tmp_path / "suggested.csv"))
    assert len(file.variables) == len(table)
    stays = extract_meds(demo, file, WindowRules(), Resources(home=tmp_path))
    assert stays.values_NTD.shape == (53, 48, len(table))
