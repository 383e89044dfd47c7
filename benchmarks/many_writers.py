"""Commands that record at once to one tracking server: whether each metric arrives, once, and how long it takes.

`python -m benchmarks.many_writers` starts an `mlflow server` on PostgreSQL, with passwords, and 16 processes. Each
tracks a command as training does: its folds report epochs, and every run gets parameters, tags and artifacts.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

import benchmarks
from benchmarks.tracking_server import TrackingServer, postgres, postgres_programs
from imputune.errors import UserError

WRITER = """
import sys, time
sys.tracebacklimit = 0
from pathlib import Path
from imputune.tracking.runs import tracked_run

root, number, folds, epochs, pause = Path(sys.argv[1]), *map(float, sys.argv[2:])
folds = range(int(folds))
begun = time.monotonic()
with tracked_run(
    root, experiment="writers", command="pretrain", params={"number": int(number)}, tags={}, folds=folds
) as run:
    for epoch in range(int(epochs)):
        for fold in folds:
            run.epoch(fold, epoch, {"train_loss": number, "validation_loss": epoch, "validation_mae": fold})
        time.sleep(pause)
    worked = time.monotonic() - begun
    for fold in folds:
        run.fold_finished(fold, {"test_mae_uniform": number})
    run.log_metrics({"seconds": worked})
    run.log_dict({"number": int(number)}, "scores.json")
print(worked, time.monotonic() - begun)
"""
CURVES = {"train/loss", "validation/loss", "validation/mae"}


def main() -> None:
    """Start the server and the writers, compare what they reported with what is stored, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=16, help="commands at once")
    parser.add_argument("--folds", type=int, default=5, help="of each command")
    parser.add_argument("--epochs", type=int, default=100, help="of each fold, three metrics each")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds from one epoch to the next")
    parser.add_argument("--port", type=int, default=24200, help="of the server; PostgreSQL gets the next one")
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    parser.add_argument("--no-password", action="store_true", help="a server that asks for no password")
    parser.add_argument("--cache-seconds", type=int, default=60, help="a checked password is trusted; 0: not at all")
    chosen = parser.parse_args()
    password = "" if chosen.no_password else secrets.token_hex(8)
    if postgres_programs() is None:
        raise UserError("PostgreSQL is not installed: install the package postgresql")
    with tempfile.TemporaryDirectory() as temporary, postgres(chosen.port + 1, secrets.token_hex(8)) as database:
        folder = Path(temporary)
        server = TrackingServer(
            folder / "server",
            chosen.port,
            database=database,
            password=password,
            workers=chosen.workers,
            cache_seconds=chosen.cache_seconds,
        )
        server.start()
        try:
            os.environ |= server.environment
            print(json.dumps(measure(folder, chosen), indent=1))
        finally:
            server.kill()


def measure(folder: Path, chosen: argparse.Namespace) -> dict[str, float]:
    """Run the writers at once; return counts of metrics and seconds."""
    MlflowClient().create_experiment("writers")
    sizes = [str(chosen.folds), str(chosen.epochs), str(chosen.pause)]
    begun = time.monotonic()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(number), *sizes], stdout=subprocess.PIPE, text=True
        )
        for number in range(chosen.writers)
    ]
    seconds = [[float(word) for word in writer.communicate()[0].split()] for writer in writers]
    whole = time.monotonic() - begun
    ended = [writer.returncode for writer in writers]
    reported = chosen.writers * (chosen.folds * (chosen.epochs * len(CURVES) + 1) + 1)
    stored, doubled, unfinished = stored_points()
    return {
        "writers": chosen.writers,
        "writers_that_failed": sum(code != 0 for code in ended),
        "metrics_reported": reported,
        "metrics_stored": stored,
        "metrics_doubled": doubled,
        "runs_not_finished": unfinished,
        "seconds_of_work_without_server": chosen.epochs * chosen.pause,
        "seconds_of_work_median": round(statistics.median(each[0] for each in seconds if each), 1),
        "seconds_to_the_end_median": round(statistics.median(each[1] for each in seconds if each), 1),
        "seconds_of_all": round(whole, 1),
    }


def stored_points() -> tuple[int, int, int]:
    """Return how many metrics the server has, how many of them twice, and how many runs did not finish."""
    client = MlflowClient()
    [experiment] = [each for each in client.search_experiments() if each.name == "writers"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    stored = doubled = 0
    for run in runs:
        for key in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            stored += len(steps)
            doubled += len(steps) - len(set(steps))
    return stored, doubled, sum(run.info.status != "FINISHED" for run in runs)


if __name__ == "__main__":
    benchmarks.run(main)
