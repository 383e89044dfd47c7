"""Mutated inputs by the thousand: each must be kept with its values, refused in one line, or kept and counted.

    python -m benchmarks.fuzz --cases 10000 --seed 1 [--first 0] [--kind records,csv] [--json]
    python -m benchmarks.fuzz --seed 1 --only 4711

Kinds: text records, CSV and Parquet tables, JSON requests, MIMIC-III's tables, params.yaml, cohort folders and bundle
folders. Records and tables go through `predict`, `extract` and a served model, which must agree. The case of a
seed, kinds and number is always the same, so --only repeats one. Exit code 1 if a case failed.
"""

import logging
import shutil
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks import Parser, Result, report, run
from benchmarks.fuzz_bench import Bench
from benchmarks.fuzz_files import fuzz_bundles, fuzz_cohorts, fuzz_mimic3, fuzz_params
from benchmarks.fuzz_inputs import FuzzError
from benchmarks.fuzz_requests import fuzz_requests
from benchmarks.fuzz_server import small_server
from benchmarks.fuzz_tables import fuzz_csv, fuzz_parquet, fuzz_records
from imputune.errors import UserError
from imputune.registry.bundle_file import read_bundle
from imputune.runtime import threads
from imputune.runtime.console import print_table
from imputune.settings.file import find_root

KINDS: dict[str, tuple[Callable[[Random, Bench], str], int]] = {
    "records": (fuzz_records, 20),
    "csv": (fuzz_csv, 27),
    "parquet": (fuzz_parquet, 14),
    "requests": (fuzz_requests, 20),
    "mimic3": (fuzz_mimic3, 1),
    "params": (fuzz_params, 6),
    "cohorts": (fuzz_cohorts, 6),
    "bundles": (fuzz_bundles, 6),
}
"""For each kind, its function and its share of all cases in percent."""
OUTCOMES = ("kept", "refused", "counted")
SHOWN = 300  # characters of a failure


class Failed(Result):
    """A case that failed, by its number, and what happened."""

    number: int
    kind: str
    what: str


class Kind(Result):
    """How many cases of a kind there were, and what became of them."""

    kind: str
    cases: int
    kept: int
    refused: int
    counted: int
    failures: int


class Fuzzed(Result):
    """All cases of a seed."""

    seed: int
    cases: int
    seconds: float
    kinds: list[Kind]
    failed: list[Failed]


@contextmanager
def opened() -> Iterator[Bench]:
    """Start the server that the cases ask, in a temporary folder."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with TemporaryDirectory() as home, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(home)
        with small_server(folder / "models") as served:
            yield Bench(
                server=served.server,
                bundle=read_bundle(folder / "models/bundle"),
                checksum=served.checksum,
                models=folder / "models",
                params=find_root(Path(__file__).parent) / "params.yaml",
                templates=folder / "templates",
                case=folder / "case",
            )


def fuzz(bench: Bench, seed: int, numbers: Sequence[int], kinds: Sequence[str]) -> Fuzzed:
    """Run the cases of these numbers, each of one of the kinds."""
    started = time.perf_counter()
    outcomes, failed = defaultdict[str, Counter[str]](Counter), list[Failed]()
    for number in numbers:
        random = Random(f"{seed} {number}")
        [kind] = random.choices(kinds, [KINDS[name][1] for name in kinds])
        bench.case.mkdir(parents=True)
        try:
            outcomes[kind][KINDS[kind][0](random, bench)] += 1
        except Exception as error:
            what = str(error) if isinstance(error, FuzzError) else f"the second reading: {error!r}"
            outcomes[kind]["failures"] += 1
            failed.append(Failed(number=number, kind=kind, what=" ".join(what.split())[:SHOWN]))
        finally:
            shutil.rmtree(bench.case)
    rows = [
        Kind(
            kind=kind,
            cases=outcomes[kind].total(),
            kept=outcomes[kind]["kept"],
            refused=outcomes[kind]["refused"],
            counted=outcomes[kind]["counted"],
            failures=outcomes[kind]["failures"],
        )
        for kind in kinds
    ]
    seconds = time.perf_counter() - started
    return Fuzzed(seed=seed, cases=len(numbers), seconds=seconds, kinds=rows, failed=failed)


def _show(fuzzed: Fuzzed) -> None:
    header = ("kind", "cases", *OUTCOMES, "failures")
    lines = [tuple(str(cell) for _, cell in kind) for kind in fuzzed.kinds]
    sums = [sum(int(line[place]) for line in lines) for place in range(1, len(header))]
    title = f"Seed {fuzzed.seed}: {fuzzed.cases:,} cases in {fuzzed.seconds:.0f} s"
    print_table(title, header, [*lines, ("all", *map(str, sums))])
    kinds = ",".join(kind.kind for kind in fuzzed.kinds)
    for failed in fuzzed.failed:
        print(f"--seed {fuzzed.seed} --kind {kinds} --only {failed.number}: {failed.kind}: {failed.what}")


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.fuzz", "Mutated inputs, each to be kept, refused or counted.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", default=",".join(KINDS), help="kinds, separated by commas")
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to divide the cases")
    parser.add_argument("--only", type=int, default=None, help="number of the one case to run")
    chosen = parser.parse_args()
    kinds = chosen.kind.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"unknown kind {unknown[0]!r}: choose from {', '.join(KINDS)}")
    if chosen.cases < 1:
        raise UserError(f"--cases must be at least 1, got {chosen.cases}")
    threads.use_one_thread()
    numbers = range(chosen.first, chosen.first + chosen.cases) if chosen.only is None else [chosen.only]
    with opened() as bench:
        fuzzed = fuzz(bench, chosen.seed, numbers, kinds)
    report(fuzzed, _show, chosen.json)
    if fuzzed.failed:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
