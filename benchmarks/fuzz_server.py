"""A registered model's server without a network: mlflow's own web application, asked in this process."""

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import scoring_server

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.raw.physionet2012_parameters import VARIABLES
from imputune.data.scaling import Scaler
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HEAD_BUILDERS, HeadSizes
from imputune.models.weights import module_weights
from imputune.registry import serving
from imputune.registry.bundle import BundleAbout
from imputune.registry.bundle_file import write_bundle
from imputune.registry.register import serving_requirements, signature_of

FOLDS = (0, 1)
HIDDEN = 4
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"  # mlflow's server sets it in the process


class Server:
    """A model's web application, and the loop that runs it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()

    def post(self, body: bytes, content_type: str) -> tuple[int, Any]:
        """Send a request to /invocations; return the status and the answer. An exception counts as status 500."""
        try:
            status, content = self.loop.run_until_complete(self._ask(body, content_type))
        except Exception as error:
            return 500, f"{type(error).__name__}: {error}"
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode(errors="replace")

    async def _ask(self, body: bytes, content_type: str) -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not parts:
                await asyncio.Event().wait()  # the client waits
            return parts.pop()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/invocations",
            "raw_path": b"/invocations",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", content_type.encode())],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@dataclass(frozen=True)
class Served:
    """A server, and the checksum of its model's bundle."""

    server: Server
    checksum: str


@contextmanager
def small_server(folder: Path) -> Iterator[Served]:
    """Serve a model of random weights; its bundle is in `folder`/bundle."""
    checksum = write_small_bundle(folder / "bundle")
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=serving.__file__,
        artifacts={"bundle": str(folder / "bundle")},
        signature=signature_of(small_about()),
        pip_requirements=serving_requirements(small_about()),
    )
    before = os.environ.get(SERVING)
    server = Server(scoring_server.init(mlflow.pyfunc.load_model(str(folder / "model"))))
    try:
        yield Served(server, checksum)
    finally:
        server.loop.run_until_complete(server.loop.shutdown_default_executor())
        server.loop.close()
        os.environ.pop(SERVING, None)
        if before is not None:
            os.environ[SERVING] = before


def small_about() -> BundleAbout:
    """Describe a bundle of two small mlp2 heads that read the challenge's variables."""
    sizes = CsaiSizes(
        variables=len(VARIABLES), hours=48, hidden_size=HIDDEN, channels=4, attention_heads=2, feedforward=4
    )
    return BundleAbout(
        dataset="synthetic",
        variables=VARIABLES,
        sizes=sizes,
        head="mlp2",
        input="hidden",
        mlp_width=8,
        folds=FOLDS,
        threshold=0.5,
    )


def write_small_bundle(folder: Path) -> str:
    """Write a bundle of random weights; return its checksum."""
    folder.mkdir(parents=True)
    about = small_about()
    return write_bundle(folder, about, [_random_fold(about, fold) for fold in about.folds])


def _random_fold(about: BundleAbout, fold: int) -> TrainedFold:
    generator_state = torch.get_rng_state()
    torch.manual_seed(fold)
    ones = np.ones(len(VARIABLES), dtype=np.float32)
    scaler = Scaler(lowest_D=0 * ones, highest_D=200 * ones, mean_D=80 * ones, deviation_D=40 * ones)
    head = HEAD_BUILDERS["mlp2"](HeadSizes(input_size=HIDDEN, variables=len(VARIABLES), mlp_width=8))
    weights = scaler.to_arrays() | module_weights("imputer", Csai(about.sizes)) | module_weights("head", head)
    torch.set_rng_state(generator_state)
    return TrainedFold(fold=fold, weights=weights, scores={}, best_epoch=0, seconds=0.0, history=[])


def sentence(answer: Any) -> str:
    """Return the sentence of imputune in a refusal, without what mlflow puts before it."""
    message = str(answer.get("message", answer)) if isinstance(answer, dict) else str(answer)
    return message.rpartition("\nError: ")[2]


def rows_of(answer: Any) -> Sequence[dict[str, Any]]:
    """Return the rows of an answer."""
    return answer["predictions"]
