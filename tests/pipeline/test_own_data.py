"""The page docs/your-own-data.md, run as it stands on a small generated hospital."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import read_cohort
from projects import ROOT, new_project, run_all

PAGE = (ROOT / "docs/your-own-data.md").read_text()
STAYS = 36


def blocks(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def write_hospital(folder: Path) -> None:
    """Write the two tables with the page's columns: 36 patients, of which every third dies, with a high lactate."""
    stays, measurements = (text.splitlines()[0] for text in blocks("")[:2])
    random, first = np.random.default_rng(1), pd.Timestamp("2150-03-01 10:00")
    rows, measured = [], []
    for patient in range(1, STAYS + 1):
        died, start = int(patient % 3 == 0), first + pd.Timedelta(days=patient)
        times = [start + pd.Timedelta(hours=hours) for hours in (60, 100)]
        rows.append((patient, "2090-04-02", "FM"[patient % 2], start, *times, died))
        for hour in range(0, 48, 6):
            time = start + pd.Timedelta(hours=hour, minutes=12)
            measured.append((patient, time, "heart rate", "bpm", round(random.normal(80, 8))))
            measured.append((patient, time, "lactate", "mmol/L", round(random.uniform(1, 2) + 3 * died, 1)))
    pd.DataFrame(rows, columns=stays.split(",")).to_csv(folder / "stays.csv", index=False)
    pd.DataFrame(measured, columns=measurements.split(",")).to_csv(folder / "measurements.csv", index=False)


@pytest.mark.slow
def test_from_csv_files_to_a_champion(tmp_path: Path) -> None:
    """The page's script, variable file and commands make a champion that predicts, and a second window of all stays."""
    folder = new_project(tmp_path / "project", **{"promote.minimum_auc": 0.001})
    write_hospital(folder)
    [script], [variables], new = blocks("python"), blocks("csv"), blocks("")[2]
    for _ in range(2):  # as after a correction of the tables
        subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
    (folder / "mine.csv").write_text(variables)
    (folder / "new.csv").write_text(new)
    lines = "".join(blocks("console")).splitlines()
    done = run_all(folder, [shlex.split(line.removeprefix("$ ")) for line in lines])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"my_hospital: {STAYS} stays, 12 deaths, {STAYS * 16} observed cells (0 stays left out)" in done.stdout
    risk = pd.read_csv(folder / "risks.csv")
    assert (risk["RecordID"].tolist(), risk["observed_cells"].tolist()) == ([1], [2])
    assert risk["risk"].between(0, 1).all()
    day = read_cohort(folder / "data/my_day")
    assert (day.values_NTD.shape, int(day.observed_NTD.sum())) == ((STAYS, 12, 2), STAYS * 8)
    assert day.static["gender"].tolist() == [patient % 2 for patient in range(1, STAYS + 1)]
