"""Fine-tuning one fold by this version and another: frozen and unfrozen mlp2 and gru, the two versions in turn.

    python -m benchmarks.finetune_speed [--json] [--repetitions N] [--epochs N] [--project DIR] OTHER_SRC

Run it in a project with an extracted cohort and folds. OTHER_SRC is the folder src of another version, for instance of
a git worktree. If that version cannot read this project's params.yaml, --project is a folder with a params.yaml and the
same cohort. Each training is a process of its own, on one core: --epochs of frozen training, then all epochs of
unfrozen training that params.yaml has, without early stopping, so both versions take the same steps. The imputer has
random weights, which cost the same. Loading the libraries and the cohort is not part of the seconds.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

import imputune
from benchmarks import Parser, Result, Spread, report, run
from imputune.data.cohort import read_cohort
from imputune.data.folds import draw_folds
from imputune.data.splits import fit_and_split
from imputune.errors import UserError
from imputune.imputers.build import new_csai
from imputune.models.weights import module_weights
from imputune.protocol.variants import make_variant
from imputune.runtime.console import print_table
from imputune.runtime.recorder import SilentRecorder
from imputune.runtime.threads import use_one_thread
from imputune.settings.file import read_params
from imputune.training.finetune import FinetuneJob, finetune_fold

HEADS, MODES = ("mlp2", "gru"), ("frozen", "unfrozen")
CHILD = "--train"
OWN_SRC, ROOT = Path(imputune.__file__).parents[1], Path(__file__).parents[1]


class Training(Result):
    """A head and mode in both versions; ratio: this version's seconds over the other's, by medians."""

    head: str
    mode: str
    seconds_this: Spread
    seconds_other: Spread
    ratio: float


class Comparison(Result):
    """All trainings, and the compiled code of both versions; "unknown" if a version does not report it."""

    trainings: list[Training]
    epochs_frozen: int
    compiled_this: str
    compiled_other: str


def train(head: str, epochs: int) -> dict[str, float]:
    """Train a head on fold 0 of the present folder's project; return the seconds of each mode."""
    use_one_thread()
    params = read_params(Path("params.yaml"))
    budget = params.budget_of(params.dataset).model_copy(update={"frozen_epochs": epochs})
    params = params.model_copy(update={"budget": {**params.budget, params.dataset: budget}, "device": "cpu"})
    cohort = read_cohort(Path("data") / params.dataset)
    fold = draw_folds(cohort, params.folds.count, params.seed)[0]
    data = fit_and_split(cohort, fold, params.scaling.clip_quantile)
    arrays = data.scaler.to_arrays() | module_weights("imputer", new_csai(data, params))
    pretrained = {name: torch.from_numpy(array) for name, array in arrays.items()}
    seconds, frozen = {}, None
    for mode in MODES:
        variant = make_variant(head, mode)
        job = FinetuneJob(
            cohort=cohort,
            fold=fold,
            params=params,
            variant=variant,
            pretrained=pretrained,
            frozen=frozen,
            early_stopping=False,
        )
        started = time.perf_counter()
        frozen = finetune_fold(job, SilentRecorder())
        seconds[mode] = time.perf_counter() - started
    return seconds


def train_apart(source: Path, project: Path, head: str, epochs: int) -> dict[str, float]:
    """Train a head by the package in `source` in a process of its own; UserError, with its last line, if it fails."""
    done = subprocess.run(  # -P: the project may have benchmarks of its own
        [
            sys.executable,
            "-P",
            "-m",
            "benchmarks.finetune_speed",
            CHILD,
            head,
            str(epochs),
        ],
        cwd=project,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"{head} of {source}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(other: Path, project: Path, repetitions: int, epochs: int) -> Comparison:
    """Train every head of both versions in turn."""
    trainings = []
    for head in HEADS:
        pairs = [
            (train_apart(OWN_SRC, Path.cwd(), head, epochs), train_apart(other, project, head, epochs))
            for _ in range(repetitions)
        ]
        for mode in MODES:
            this, theirs = (Spread.of([pair[number][mode] for pair in pairs]) for number in range(2))
            ratio = this.median / theirs.median
            trainings.append(Training(head=head, mode=mode, seconds_this=this, seconds_other=theirs, ratio=ratio))
    return Comparison(
        trainings=trainings,
        epochs_frozen=epochs,
        compiled_this=compiled_code(OWN_SRC),
        compiled_other=compiled_code(other),
    )


def compiled_code(source: Path) -> str:
    """Return what `imputune --version` says of compiled code; a git worktree has none, because it was not installed."""
    done = subprocess.run(
        [sys.executable, "-m", "imputune.cli", "--version"],
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    return done.stdout.partition("compiled code: ")[2].strip() or "unknown"


def show(comparison: Comparison) -> None:
    """Print the measurements as a table."""
    print_table(
        f"One fold on one core, {comparison.epochs_frozen} epochs of frozen training; compiled code: "
        f"{comparison.compiled_this}, of the other version: {comparison.compiled_other}",
        ("head", "mode", "seconds", "lowest", "highest", "other version", "lowest", "highest", "ratio"),
        [
            (each.head, each.mode, *each.seconds_this.as_text(), *each.seconds_other.as_text(), f"{each.ratio:.2f}")
            for each in comparison.trainings
        ],
    )


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.finetune_speed", (__doc__ or "").splitlines()[0])
    parser.add_other_version()
    parser.add_argument("--repetitions", type=int, default=3, help="of each head (%(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="of frozen training (%(default)s)")
    parser.add_argument("--project", type=Path, default=Path(), help="folder for the other version (this one)")
    given = parser.parse_args()
    if not (given.project / "params.yaml").is_file():
        raise UserError(f"--project {given.project} has no params.yaml: give a project's folder")
    if given.repetitions < 1 or given.epochs < 1:
        raise UserError("--repetitions and --epochs must be 1 or more")
    project = given.project.resolve()
    report(measure(given.other, project, given.repetitions, given.epochs), show, given.json)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        print(json.dumps(train(sys.argv[2], int(sys.argv[3]))))
    else:
        run(main)
