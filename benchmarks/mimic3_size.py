"""Time and memory of `imputune extract mimic3` on generated tables, at several fractions of the full database.

    python -m benchmarks.mimic3_size --factors 0.01,0.03,0.1

Generated tables are kept in --tables for the next time; a fraction of 10 % takes 0.7 GB and 3 minutes to generate.
"""

from pathlib import Path

from benchmarks import Parser, Result, report, run
from benchmarks.measured_extraction import GIB, measure_extraction, size_of
from benchmarks.mimic3_tables import ROWS, write_tables
from imputune.errors import UserError
from imputune.runtime.console import print_table

EVENTS = ("chartevents", "labevents", "outputevents", "inputevents_cv", "inputevents_mv")


class Size(Result):
    """One extraction: seconds of the whole command, its peak resident memory, and the peak of its temporary files."""

    factor: float
    chartevents: int
    event_rows: int
    packed_gib: float
    seconds: float
    chartevents_per_second: float
    peak_memory_gib: float
    peak_disk_gib: float
    cohort_gib: float


class Sizes(Result):
    """All extractions."""

    sizes: list[Size]


def measure(tables: Path, factor: float) -> Size:
    """Extract once from tables of this size; generate the tables first if they are not there."""
    folder = tables / f"{factor:g}"
    if not (folder / "INPUTEVENTS_MV.csv.gz").is_file():
        write_tables(folder, factor)
    words = ["mimic3", "--raw", str(folder.resolve())]
    extracted = measure_extraction(words, scratch=".mimic3.scratch", cohort="mimic3")
    charted = round(ROWS["chartevents"] * factor)
    return Size(
        factor=factor,
        chartevents=charted,
        event_rows=sum(round(ROWS[name] * factor) for name in EVENTS),
        packed_gib=size_of(folder) / GIB,
        seconds=extracted.seconds,
        chartevents_per_second=charted / extracted.seconds,
        peak_memory_gib=extracted.peak_memory / GIB,
        peak_disk_gib=extracted.peak_disk / GIB,
        cohort_gib=extracted.cohort_bytes / GIB,
    )


def show(measured: Sizes) -> None:
    """Print a row for each size."""
    header = ("fraction", "CHARTEVENTS rows", "packed", "seconds", "CHARTEVENTS rows/s", "memory", "temporary files")
    lines = [
        (
            f"{size.factor:.0%}",
            f"{size.chartevents:,}",
            f"{size.packed_gib:.2f} GiB",
            f"{size.seconds:.1f}",
            f"{size.chartevents_per_second:,.0f}",
            f"{size.peak_memory_gib:.2f} GiB",
            f"{size.peak_disk_gib:.2f} GiB",
        )
        for size in measured.sizes
    ]
    print_table("imputune extract mimic3", header, lines)


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.mimic3_size", __doc__ or "")
    parser.add_argument("--factors", default="0.01,0.03,0.1", help="fractions of the full database, by commas")
    parser.add_argument("--tables", type=Path, default=Path("build/mimic3"), help="folder for the generated tables")
    chosen = parser.parse_args()
    try:
        factors = [float(word) for word in chosen.factors.split(",")]
    except ValueError:
        raise UserError(
            f"--factors {chosen.factors!r} must be numbers separated by commas; for instance 0.01,0.1"
        ) from None
    report(Sizes(sizes=[measure(chosen.tables, factor) for factor in factors]), show, chosen.json)


if __name__ == "__main__":
    run(main)
