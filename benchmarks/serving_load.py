"""A served model under load: clients that each ask about one stay at a time, for a minute.

    python -m benchmarks.serving_load [--json] [--dataset NAME] [--model WORD] [--clients N] [--seconds N] [--workers N]

Starts `mlflow models serve` on the registered model, as README.md does, waits until it answers, lets every client post
generated records without a pause, one stay in each request, and stops the server. An answer other than 200, or one
without that stay's risk, counts as an error.
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
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import Parser, report, run
from imputune.data.raw.synthetic import write_synthetic_records
from imputune.errors import UserError
from imputune.pipeline.project import Project
from imputune.registry.register import classifier_name
from imputune.registry.versions import Registry
from imputune.runtime.console import print_table
from imputune.settings.file import find_root

STAYS = 50
STARTED_WITHIN = 120  # seconds
ANSWERED_WITHIN = 60  # seconds, a request


@dataclass
class Heard:
    """What the clients heard: seconds of each answered request, and what each error was."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    """Parse, measure, print."""
    parser = Parser("benchmarks.serving_load", "A served model under load.")
    parser.add_argument("--dataset", default=None, help="whose model; without it, the one params.yaml names")
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
        heard, seconds = _load(port, bodies, arguments.clients, arguments.seconds)
    found = {
        "model": f"{version.name} version {version.number}",
        "clients": arguments.clients,
        "workers": arguments.workers,
        "seconds": seconds,
        "ready_after_seconds": ready_in,
        "stays": len(heard.seconds),
        "errors": len(heard.errors),
        "first_error": heard.errors[0] if heard.errors else None,
        "stays_per_second": len(heard.seconds) / seconds,
        "median_seconds": float(np.median(heard.seconds)) if heard.seconds else None,
        "p99_seconds": float(np.quantile(heard.seconds, 0.99)) if heard.seconds else None,
    }
    report(found, _show, arguments.json)
    if heard.errors:
        sys.exit(1)


def _show(found: dict[str, Any]) -> None:
    lines = [
        (name.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in found.items()
    ]
    print_table("Serving", ("", ""), lines)


def _bodies() -> Iterator[tuple[int, bytes]]:
    """Yield requests about generated stays, each with the id it asks about."""
    with TemporaryDirectory() as folder:
        write_synthetic_records(Path(folder), STAYS, 1)
        for path in sorted(Path(folder).glob("set-s/*.txt")):
            table = pd.read_csv(path).assign(RecordID=int(path.stem)).astype({"Value": float})
            table = table[["RecordID", "Time", "Parameter", "Value"]]
            yield int(path.stem), json.dumps({"dataframe_split": table.to_dict("split")}).encode()


@contextmanager
def served(model: str, uri: str, workers: int) -> Iterator[tuple[int, float]]:
    """Serve a model on a free port; give the port, and how long it took until it answered."""
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
            os.killpg(server.pid, signal.SIGTERM)  # mlflow's command, and the server that it started
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


def _load(port: int, bodies: list[tuple[int, bytes]], clients: int, seconds: int) -> tuple[Heard, float]:
    """Let clients ask until the time is up; return what they heard, and the seconds until the last answer."""
    heard = Heard()
    started = time.perf_counter()
    threads = [
        threading.Thread(target=_ask, args=(port, bodies[first:] + bodies[:first], started + seconds, heard))
        for first in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard, time.perf_counter() - started


def _ask(port: int, bodies: list[tuple[int, bytes]], until: float, heard: Heard) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERED_WITHIN)
    turn = 0
    while time.perf_counter() < until:
        stay_id, body = bodies[turn % len(bodies)]
        turn += 1
        started = time.perf_counter()
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            told = answer.read()
            [row] = json.loads(told)["predictions"] if answer.status == 200 else [{}]
            if row.get("RecordID") == stay_id and 0 < row.get("risk", 0) < 1:
                heard.seconds.append(time.perf_counter() - started)
            else:
                heard.errors.append(f"status {answer.status}: {told[:200]!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            heard.errors.append(repr(error))
            connection.close()


if __name__ == "__main__":
    run(main)
