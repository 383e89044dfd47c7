"""A served model under load: many clients, each of which asks about one stay at a time, for a minute.

    python -m benchmarks.serving_load [--json] [--dataset NAME] [--model WORD] [--clients N] [--seconds N] [--workers N]

It starts `mlflow models serve` on the registered model, as in README.md, and waits until the server answers. Then every
client posts generated records without a pause, one stay in each request. An answer with a status other than 200, or
without the stay's risk, counts as an error.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from benchmarks import Parser, Result, report, run
from imputune.data.raw.synthetic import write_synthetic_records
from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.registry.names import classifier_name
from imputune.registry.versions import Registry
from imputune.runtime.console import print_table
from imputune.settings.file import find_root

STAYS = 50
STARTED_WITHIN = 120  # seconds
ANSWERED_WITHIN = 60  # seconds, a request


@dataclass
class Answers:
    """The answers of all clients: seconds of each answered request, and a text for each error."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Load(Result):
    """The answers under load; seconds until the last answer, and until the server was ready."""

    model: str
    clients: int
    workers: int
    seconds: float
    ready_after_seconds: float
    stays: int
    errors: int
    first_error: str | None
    stays_per_second: float
    median_seconds: float | None
    p99_seconds: float | None


def main() -> None:
    """Run the command line; raises UserError for bad input."""
    parser = Parser("benchmarks.serving_load", "A served model under load.")
    parser.add_argument("--dataset", default=None, help="dataset of the model; without it, that of params.yaml")
    parser.add_argument("--model", default="champion", help="alias or version number")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2, help="processes of the server")
    arguments = parser.parse_args()
    if min(arguments.clients, arguments.seconds, arguments.workers) < 1:
        parser.error("--clients, --seconds and --workers must be at least 1")
    project = Project.open(find_root(Path.cwd()), arguments.dataset)
    registry = Registry(project.root, classifier_name(project.dataset))
    version = registry.find(arguments.model)
    bodies = list(_bodies())
    with served(f"models:/{version.name}/{version.number}", registry.uri, arguments.workers) as (port, ready_in):
        answers, seconds = _load(port, bodies, arguments.clients, arguments.seconds)
    load = Load(
        model=f"{version.name} version {version.number}",
        clients=arguments.clients,
        workers=arguments.workers,
        seconds=seconds,
        ready_after_seconds=ready_in,
        stays=len(answers.seconds),
        errors=len(answers.errors),
        first_error=answers.errors[0] if answers.errors else None,
        stays_per_second=len(answers.seconds) / seconds,
        median_seconds=float(np.median(answers.seconds)) if answers.seconds else None,
        p99_seconds=float(np.quantile(answers.seconds, 0.99)) if answers.seconds else None,
    )
    report(load, _show, arguments.json)
    if answers.errors:
        sys.exit(1)


def _show(load: Load) -> None:
    lines = [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value)) for name, value in load
    ]
    print_table("Serving", ("", ""), lines)


def _bodies() -> Iterator[tuple[int, bytes]]:
    """Yield requests about generated stays, each with its stay id."""
    with TemporaryDirectory() as folder:
        write_synthetic_records(Path(folder), STAYS, 1)
        for path in sorted(Path(folder).glob("set-s/*.txt")):
            table = pd.read_csv(path).assign(RecordID=int(path.stem)).astype({"Value": float})
            table = table[["RecordID", "Time", "Parameter", "Value"]]
            yield int(path.stem), json.dumps({"dataframe_split": table.to_dict("split")}).encode()


@contextmanager
def served(model: str, uri: str, workers: int) -> Iterator[tuple[int, float]]:
    """Serve a model on a free port; yield the port and the seconds until the server answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local"]
    command += ["--port", str(port), "--workers", str(workers)]
    started = time.perf_counter()
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": path}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            while not _answers(port):
                if server.poll() is not None or time.perf_counter() - started > STARTED_WITHIN:
                    log.seek(0)
                    raise UserError(f"the server did not start: {' '.join(log.read().split())[-300:]}")
                time.sleep(0.1)
            yield port, time.perf_counter() - started
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # mlflow's command and the server that it started
            server.wait(30)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _load(port: int, bodies: list[tuple[int, bytes]], clients: int, seconds: int) -> tuple[Answers, float]:
    """Let clients send requests until the time is up; return the answers and the seconds until the last one."""
    answers = Answers()
    started = time.perf_counter()
    threads = [
        threading.Thread(target=_ask, args=(port, bodies[first:] + bodies[:first], started + seconds, answers))
        for first in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - started


def _ask(port: int, bodies: list[tuple[int, bytes]], until: float, answers: Answers) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED_WITHIN)
    count = 0
    while time.perf_counter() < until:
        stay_id, body = bodies[count % len(bodies)]
        count += 1
        started = time.perf_counter()
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            [row] = json.loads(text)["predictions"] if answer.status == 200 else [{}]
            if row.get("RecordID") == stay_id and 0 < row.get("risk", 0) < 1:
                answers.seconds.append(time.perf_counter() - started)
            else:
                answers.errors.append(f"status {answer.status}: {text[:200]!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            answers.errors.append(repr(error))
            connection.close()


if __name__ == "__main__":
    run(main)
