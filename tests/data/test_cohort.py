import errno
import json
import os
from dataclasses import replace
from hashlib import sha256
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imputune.data.cohort import Cohort, Variable, cohort_hash, read_cohort, write_cohort
from imputune.data.cohort_facts import describe
from imputune.data.static import AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT
from imputune.errors import UserError


def resident_bytes(path: Path) -> int:
    """Return how much of a mapped file this process has in memory."""
    sizes = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split(maxsplit=1)
        if not name.endswith(":"):
            inside = line.endswith(f" {path}")
        elif inside and name == "Rss:":
            sizes.append(int(rest[0].removesuffix("kB")) * 1024)
    return sum(sizes)


@pytest.fixture
def cohort() -> Cohort:
    """Two stays, two variables, three observed cells, one death."""
    values_NTD = np.full((2, 48, 2), np.nan, dtype=np.float32)
    values_NTD[0, 3] = (80.5, 1.2)
    values_NTD[1, 47, 0] = 61
    return Cohort(
        dataset="physionet2012",
        stay_ids_N=np.array([7, 9]),
        outcome_N=np.array([0, 1], dtype=np.int8),
        values_NTD=values_NTD,
        variables=(Variable("HR", "beats/min"), Variable("Temp", "°C")),
        static=pd.DataFrame(
            {
                "age_years": [70.0, 54.0],
                "gender": [1.0, np.nan],
                "height_cm": [np.nan, 180.3],
                "icu_type": [3.0, 1.0],
                "weight_kg": [np.nan, np.nan],
            }
        ),
        static_variables=(AGE, GENDER, HEIGHT, ICU_TYPE, WEIGHT),
        source={"command": "imputune extract", "exclusions": {"no measurements": 1}},
    )


def test_read_returns_what_was_written(cohort: Cohort, tmp_path: Path) -> None:
    """Writing and reading a cohort changes nothing, types and NaN included."""
    write_cohort(cohort, tmp_path / "out")
    read = read_cohort(tmp_path / "out")
    assert read.dataset == "physionet2012"
    assert read.stay_ids_N.dtype == np.int64
    assert read.stay_ids_N.tolist() == [7, 9]
    assert read.outcome_N.dtype == np.int8
    assert read.outcome_N.tolist() == [0, 1]
    assert read.values_NTD.dtype == np.float32
    np.testing.assert_array_equal(read.values_NTD, cohort.values_NTD)
    assert read.variables == cohort.variables
    pd.testing.assert_frame_equal(read.static, cohort.static)
    assert read.static_variables == cohort.static_variables
    assert read.source == cohort.source


def test_cells_with_a_value_are_observed(cohort: Cohort) -> None:
    """observed_NTD marks exactly the three cells that have values."""
    assert np.argwhere(cohort.observed_NTD).tolist() == [[0, 3, 0], [0, 3, 1], [1, 47, 0]]
    assert cohort.variable_names == ("HR", "Temp")


def test_describe_counts_by_value(cohort: Cohort) -> None:
    """Describe reports counts and shares that follow from three observed cells of 192, ready for JSON."""
    described = describe(cohort).model_dump()
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "dataset": "physionet2012",
        "stays": 2,
        "hours": 48,
        "bin_hours": 1,
        "variables": 2,
        "observed_cells": 3,
        "observed_share": 3 / 192,
        "subjects": 2,
        "outcome": "in_hospital_death",
        "events": 1,
        "event_share": 0.5,
        "missing_share_by_variable": {"HR": round(1 - 2 / 96, 6), "Temp": round(1 - 1 / 96, 6)},
        "exclusions": {"no measurements": 1},
        "outcomes": {"in_hospital_death": {"labelled": 2, "events": 1, "event_share": 0.5}},
    }


def test_same_cohort_gives_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    """Two folders of one cohort have the same hash; another value, id or source changes it."""
    write_cohort(cohort, tmp_path / "first")
    write_cohort(cohort, tmp_path / "second")
    assert cohort_hash(tmp_path / "first") == cohort_hash(tmp_path / "second")
    moved = cohort.values_NTD + np.float32(1)
    others = [{"values_NTD": moved}, {"stay_ids_N": np.array([7, 10])}, {"source": {"exclusions": {}}}]
    for number, change in enumerate(others):
        write_cohort(replace(cohort, **change), tmp_path / str(number))
        assert cohort_hash(tmp_path / str(number)) != cohort_hash(tmp_path / "first")


def test_write_replaces_an_earlier_cohort(cohort: Cohort, tmp_path: Path) -> None:
    """A second write replaces the first and leaves nothing beside it."""
    write_cohort(cohort, tmp_path / "out")
    write_cohort(replace(cohort, outcome_N=np.array([1, 1], dtype=np.int8)), tmp_path / "out")
    assert read_cohort(tmp_path / "out").outcome_N.tolist() == [1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("broken", ["mkdir", "write_text", "rename"])
def test_full_disk_leaves_the_earlier_cohort(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """If the disk is full at any step, the earlier folder stays and no temporary one does."""
    write_cohort(cohort, tmp_path / "out")
    before = cohort_hash(tmp_path / "out")
    original = getattr(Path, broken)

    def fail(self: Path, *args: object, **options: object) -> object:
        # Moving the earlier folder away works; moving the new one in does not.
        if broken == "rename" and self.suffix != ".new":
            return original(self, *args, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, broken, fail)
    with pytest.raises(UserError, match=r"out: No space left on device; free the disk"):
        write_cohort(replace(cohort, outcome_N=1 - cohort.outcome_N), tmp_path / "out")
    monkeypatch.undo()
    assert cohort_hash(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_write_refuses_a_folder_with_other_files(cohort: Cohort, tmp_path: Path) -> None:
    """A folder with files that are not a cohort's is refused and keeps its files."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(thesis.txt\); choose"):
        write_cohort(cohort, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file; choose a folder"):
        write_cohort(cohort, tmp_path / "thesis.txt")


def test_read_names_the_remedy_for_a_missing_folder(tmp_path: Path) -> None:
    """A missing folder is a one-line error with the command that makes a cohort."""
    with pytest.raises(UserError, match="no such folder; run `imputune extract") as caught:
        read_cohort(tmp_path / "none")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="imputune extract"):
        cohort_hash(tmp_path / "none")


@pytest.mark.parametrize("name", ["values.npy", "stays.csv", "variables.csv", "source.json"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\xff\n\nx,y\n1"])
def test_read_refuses_a_broken_file(cohort: Cohort, tmp_path: Path, name: str, content: bytes | None) -> None:
    """Each file that is missing, empty or garbled is a one-line error with the remedy."""
    write_cohort(cohort, tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    if content is not None:
        (tmp_path / "out" / name).write_bytes(content)
    with pytest.raises(UserError, match=r"is no cohort: .*imputune extract") as caught:
        read_cohort(tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_read_refuses_tables_that_disagree(cohort: Cohort, tmp_path: Path) -> None:
    """A table of stays with another length or order, or an outcome other than 0 and 1, is refused."""
    write_cohort(cohort, tmp_path / "out")
    stays = tmp_path / "out" / "stays.csv"
    header, first, second = stays.read_text().splitlines()
    for rows, cause in (
        ([first], "values.npy must be float32"),
        ([second, first], "ascending"),
        ([first, second.replace("9,1", "9,2")], "0, 1 or empty"),
    ):
        stays.write_text("\n".join([header, *rows]) + "\n")
        with pytest.raises(UserError, match=cause):
            read_cohort(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (("9,1,", "9,NA,"), "died in stays.csv must be 0, 1 or empty"),
        (("9,1,", "9,0.5,"), "died in stays.csv must be 0, 1 or empty"),
        (("9,1,", "9,256,"), "died in stays.csv must be 0, 1 or empty"),
        (("9,1,", "9.5,1,"), "stay_id in stays.csv must be a whole number, got '9.5'"),
        (("54.0", "NA"), "age_years in stays.csv must be a number or empty"),
        (("54.0", "inf"), "age_years in stays.csv must be a number or empty"),
        (("54.0,,180.3,1.0,\n", "54.0\n"), "row 3 of stays.csv has 3 fields, not 7"),
        (("180.3,1.0,\n", "180.3,1.0,"), "stays.csv is cut off"),
        (("180.3,1.0,\n", "180.3,1.0,,9\n"), "row 3 of stays.csv has 8 fields, not 7"),
        (("height_cm", "gender"), "stays.csv names a column twice"),
    ],
)
def test_read_changes_no_cell_of_the_stays(cohort: Cohort, tmp_path: Path, change: tuple[str, str], cause: str) -> None:
    """A cell that is no number, a short row or a missing end is an error, never read as another number."""
    write_cohort(cohort, tmp_path / "cohort")
    path = tmp_path / "cohort/stays.csv"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError) as caught:
        read_cohort(tmp_path / "cohort")
    assert cause in str(caught.value)


def test_read_refuses_a_source_without_exclusions(cohort: Cohort, tmp_path: Path) -> None:
    """source.json must count the exclusions, as whole numbers by reason."""
    write_cohort(cohort, tmp_path / "out")
    for source in ({"dataset": "a"}, {"dataset": "a", "exclusions": {"too short": "many"}}):
        (tmp_path / "out" / "source.json").write_text(json.dumps({"format": 2, **source}))
        with pytest.raises(UserError, match=r"is no cohort: .*exclusions.*imputune extract"):
            read_cohort(tmp_path / "out")


@pytest.mark.parametrize("number", [None, 1, 3])
def test_a_cohort_of_another_format_names_the_command_that_makes_it_anew(
    cohort: Cohort, tmp_path: Path, number: int | None
) -> None:
    """Cohorts of versions before static facts were typed had no format number."""
    write_cohort(cohort, tmp_path / "out")
    path = tmp_path / "out" / "source.json"
    source = json.loads(path.read_text())
    del source["format"]
    path.write_text(json.dumps(source if number is None else source | {"format": number}))
    (tmp_path / "out" / "static.csv").unlink()
    with pytest.raises(UserError, match=rf"\(format {number or 1}, this version reads 2\): run `imputune extract`"):
        read_cohort(tmp_path / "out")


def test_outcome_of_stays(cohort: Cohort) -> None:
    """Outcomes come in the order of the stay ids; an unknown id is a one-line error with the remedy."""
    assert cohort.outcome_of(np.array([9, 7, 9])).tolist() == [1, 0, 1]
    with pytest.raises(UserError) as caught:
        cohort.outcome_of(np.array([7, 8]))
    assert str(caught.value) == (
        "stay 8 is in saved predictions but not in cohort physionet2012: run fine-tuning again"
    )


def test_read_never_unpickles(cohort: Cohort, tmp_path: Path) -> None:
    """An array of objects, which only pickle can load, is refused."""
    write_cohort(cohort, tmp_path / "out")
    np.save(tmp_path / "out" / "values.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects"):
        read_cohort(tmp_path / "out")


def test_values_are_mapped_and_read_only(cohort: Cohort, tmp_path: Path) -> None:
    """The values stay in their file, and no assignment can change them."""
    write_cohort(cohort, tmp_path / "out")
    read = read_cohort(tmp_path / "out")
    assert isinstance(read.values_NTD, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        read.values_NTD[0] = 0


def test_released_values_can_be_read_again(cohort: Cohort, tmp_path: Path) -> None:
    """Releasing memory loses nothing, for mapped values, for a slice of them, and for values in memory."""
    write_cohort(cohort, tmp_path / "out")
    read = read_cohort(tmp_path / "out")
    for each in (read, replace(read, values_NTD=read.values_NTD[:1]), cohort):
        before_NTD = each.values_NTD.copy()
        each.release()
        np.testing.assert_array_equal(each.values_NTD, before_NTD)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="this system does not report mapped memory")
def test_release_gives_memory_back(cohort: Cohort, tmp_path: Path) -> None:
    """The values that were read are in memory before the release, and not after it."""
    many = replace(cohort, values_NTD=np.repeat(cohort.values_NTD, 2000, axis=2), variables=cohort.variables * 2000)
    write_cohort(many, tmp_path / "out")
    read = read_cohort(tmp_path / "out")
    np.testing.assert_array_equal(read.values_NTD, many.values_NTD)
    path = (tmp_path / "out" / "values.npy").resolve()
    assert resident_bytes(path) >= many.values_NTD.nbytes
    read.release()
    assert resident_bytes(path) == 0


def test_pickling_leaves_mapped_values_in_their_file(cohort: Cohort, tmp_path: Path) -> None:
    """The pickle of a cohort read from a folder is smaller than its values, and maps the same values again."""
    many = replace(cohort, values_NTD=np.repeat(cohort.values_NTD, 200, axis=2), variables=cohort.variables * 200)
    write_cohort(many, tmp_path / "out")
    pickled = ForkingPickler.dumps(read_cohort(tmp_path / "out"))
    assert len(pickled) < many.values_NTD.nbytes / 4
    again = ForkingPickler.loads(pickled)
    assert isinstance(again.values_NTD, np.memmap)
    np.testing.assert_array_equal(again.values_NTD, many.values_NTD)
    assert again.outcome_N.tolist() == [0, 1]


def test_pickling_keeps_values_that_are_not_a_whole_file(cohort: Cohort, tmp_path: Path) -> None:
    """Values in memory, a slice or a copy of mapped ones, and those of another file are pickled as they are."""
    write_cohort(cohort, tmp_path / "out")
    write_cohort(replace(cohort, values_NTD=cohort.values_NTD * 2), tmp_path / "other")
    read, other = read_cohort(tmp_path / "out"), read_cohort(tmp_path / "other")
    for values_NTD in (cohort.values_NTD, read.values_NTD[:1], read.values_NTD + 1, other.values_NTD):
        again = ForkingPickler.loads(ForkingPickler.dumps(replace(read, values_NTD=values_NTD)))
        np.testing.assert_array_equal(again.values_NTD, values_NTD)


@pytest.mark.parametrize("rewritten", [True, False])
def test_values_changed_since_reading_are_refused(cohort: Cohort, tmp_path: Path, rewritten: bool) -> None:
    """A worker that finds another file than the command read, or none, stops with one line."""
    write_cohort(cohort, tmp_path / "out")
    pickled = ForkingPickler.dumps(read_cohort(tmp_path / "out"))
    values = tmp_path / "out" / "values.npy"
    if rewritten:
        os.utime(values, ns=(0, 0))
    else:
        values.unlink()
    with pytest.raises(UserError, match=r"values.npy has changed since the command began: start the command again"):
        ForkingPickler.loads(pickled)


def test_hash_does_not_depend_on_how_much_is_read_at_once(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is the same whether the files are read at once or seven bytes at a time."""
    write_cohort(cohort, tmp_path / "out")
    digest = sha256()
    for name in ("source.json", "static.csv", "stays.csv", "values.npy", "variables.csv"):
        content = (tmp_path / "out" / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    assert cohort_hash(tmp_path / "out") == digest.hexdigest()
    monkeypatch.setattr("imputune.data.cohort.HASHED_AT_ONCE", 7)
    assert cohort_hash(tmp_path / "out") == digest.hexdigest()
