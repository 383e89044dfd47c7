"""Time and memory of `imputune extract meds` on generated events, at several sizes.

    python -m benchmarks.meds_extract --millions 3,9,30

Generated datasets are kept in --datasets for the next time; 30 million events take 0.2 GB. Their codes are those of the
ready variable file mimic4 for 40 % of the events, and 2,000 others; a stay has 3,000 events over its 48 to 120 hours.
"""

import shutil
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks import Parser, Result, report, run
from benchmarks.measured_extraction import GIB, measure_extraction, size_of
from imputune.data.raw.meds.variable_file import read_variable_file
from imputune.errors import UserError
from imputune.runtime.console import print_table

EVENTS_A_STAY = 3_000
STAYS_A_SHARD = 1_000
OTHER_CODES = 2_000


class Size(Result):
    """One extraction: seconds of the whole command, its peak resident memory, and the peak of its temporary files.

    cpu_seconds: of all its threads; two idle cores would take between half as many seconds and as many. load: how many
    processes ran or waited to run when it began, on average over a minute.
    """

    millions: float
    events: int
    in_windows: int
    stays: int
    dataset_gib: float
    seconds: float
    cpu_seconds: float
    million_events_per_second: float
    peak_memory_gib: float
    peak_disk_gib: float
    cohort_gib: float
    load: float


class Sizes(Result):
    """All extractions."""

    sizes: list[Size]


def write_dataset(folder: Path, millions: float) -> None:
    """Write a dataset of this size, the same for the same size; half-written ones are not taken for whole."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "data/train").mkdir(parents=True)
    stays = max(round(millions * 1_000_000 / EVENTS_A_STAY), 3)
    file = read_variable_file("mimic4")
    read = [row.patterns[0].replace("*", "UNK") for each in file.variables for row in each.rows[:1]]
    middle = [(max(each.lowest, 0) + min(each.highest, 200)) / 2 for each in file.variables]
    others = [f"LAB//{900_000 + number}//UNK" for number in range(OTHER_CODES)]
    with duckdb.connect(
        config={"threads": 2, "memory_limit": "1GiB", "temp_directory": str(fresh / "spilled")}
    ) as base:
        base.register("read", pa.table({"place": range(len(read)), "code": read, "middle": middle}))
        base.register("others", pa.table({"place": range(OTHER_CODES), "code": others}))
        for first in range(0, stays, STAYS_A_SHARD):
            after = min(first + STAYS_A_SHARD, stays)
            path = fresh / f"data/train/{first // STAYS_A_SHARD}.parquet"
            base.execute(f"COPY ({_events(first, after, len(read))}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    shutil.rmtree(fresh / "spilled", ignore_errors=True)
    fresh.rename(folder)


def _events(first: int, after: int, read: int) -> str:
    """Return the SQL of the events of some subjects, each with one stay."""
    return f"""
        WITH subjects AS (
            SELECT 10_000_000 + i AS subject_id, 48 + hash(i, 1) % 72 AS hours,
                TIMESTAMP '2150-01-01' + INTERVAL (hash(i) % 1_000_000) MINUTE AS start,
                hash(i, 2) % 8 = 0 AS died FROM range({first}, {after}) r(i)
        ), charted AS (
            SELECT subject_id, start + INTERVAL (hash(subject_id, n) % (hours * 3600)::UBIGINT) SECOND AS time,
                hash(subject_id, n, 1) % 10 < 4 AS is_read, hash(subject_id, n, 2) AS draw
            FROM subjects, range({EVENTS_A_STAY - 5}) t(n)
        )
        SELECT subject_id, time, code, number::FLOAT AS numeric_value, NULL::VARCHAR AS text_value FROM (
            SELECT subject_id, time, r.code, r.middle * (0.5 + draw % 1000 / 1000) AS number
                FROM charted c JOIN read r ON r.place = draw % {read} WHERE is_read
            UNION ALL SELECT subject_id, time, o.code, draw % 1000
                FROM charted c JOIN others o ON o.place = draw % {OTHER_CODES} WHERE NOT is_read
            UNION ALL SELECT subject_id, start - INTERVAL (20 + hash(subject_id) % 60) YEAR, 'MEDS_BIRTH', NULL
                FROM subjects
            UNION ALL SELECT subject_id, NULL, CASE WHEN died THEN 'GENDER//F' ELSE 'GENDER//M' END, NULL FROM subjects
            UNION ALL SELECT subject_id, start, 'ICU_ADMISSION//Medical Intensive Care Unit (MICU)', NULL FROM subjects
            UNION ALL SELECT subject_id, start + INTERVAL (hours) HOUR, 'ICU_DISCHARGE//MICU', NULL FROM subjects
            UNION ALL SELECT subject_id, start + INTERVAL (hours + 24) HOUR,
                CASE WHEN died THEN 'HOSPITAL_DISCHARGE//DIED' ELSE 'HOSPITAL_DISCHARGE//HOME' END, NULL FROM subjects
        ) ORDER BY subject_id, time NULLS FIRST
    """


def measure(datasets: Path, millions: float) -> Size:
    """Extract once from a dataset of this size; generate it first if it is not there."""
    folder = datasets / f"{millions:g}"
    if not folder.is_dir():
        datasets.mkdir(parents=True, exist_ok=True)
        write_dataset(folder, millions)
    words = ["meds", "--raw", str(folder.resolve())]
    extracted = measure_extraction(words, scratch=".meds.scratch", cohort="mimic4")
    counts = [int(word.replace(",", "")) for word in extracted.told.split() if word.replace(",", "").isdigit()]
    return Size(
        millions=millions,
        events=counts[0],
        in_windows=counts[1],
        stays=extracted.stays,
        dataset_gib=size_of(folder) / GIB,
        seconds=extracted.seconds,
        cpu_seconds=extracted.cpu_seconds,
        million_events_per_second=counts[0] / extracted.seconds / 1e6,
        peak_memory_gib=extracted.peak_memory / GIB,
        peak_disk_gib=extracted.peak_disk / GIB,
        cohort_gib=extracted.cohort_bytes / GIB,
        load=extracted.load,
    )


def show(measured: Sizes) -> None:
    """Print a row for each size."""
    header = (
        "events",
        "in windows",
        "stays",
        "dataset",
        "seconds",
        "CPU",
        "rate",
        "memory",
        "temporary",
        "cohort",
        "load",
    )
    lines = [
        (
            f"{size.events:,}",
            f"{size.in_windows:,}",
            f"{size.stays:,}",
            f"{size.dataset_gib:.2f} GiB",
            f"{size.seconds:.1f}",
            f"{size.cpu_seconds:.1f} s",
            f"{size.million_events_per_second:.2f} million/s",
            f"{size.peak_memory_gib:.2f} GiB",
            f"{size.peak_disk_gib:.2f} GiB",
            f"{size.cohort_gib:.2f} GiB",
            f"{size.load:.1f}",
        )
        for size in measured.sizes
    ]
    print_table("imputune extract meds", header, lines)


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.meds_extract", __doc__ or "")
    parser.add_argument("--millions", default="3,9,30", help="sizes in million events, by commas")
    parser.add_argument("--datasets", type=Path, default=Path("build/meds"), help="folder for the generated datasets")
    chosen = parser.parse_args()
    try:
        sizes = [float(word) for word in chosen.millions.split(",")]
    except ValueError:
        raise UserError(
            f"--millions {chosen.millions!r} must be numbers separated by commas; for instance 3,9"
        ) from None
    report(Sizes(sizes=[measure(chosen.datasets, size) for size in sizes]), show, chosen.json)


if __name__ == "__main__":
    run(main)
