"""What a stage leaves in its artifacts folder: a weights file per fold, and result.json with all else."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from imputune.errors import UserError
from imputune.files import replacing_folder
from imputune.protocol.imputers import PRETRAINED
from imputune.runtime.recorder import Trial

FORMAT = 2  # of result.json; raised when a reader of older files would misread them
RESULT, PREDICTIONS = "result.json", "predictions.csv"


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """What training one fold returns.

    weights: arrays under the prefixes `scaler.`, `imputer.` and, after fine-tuning, `head.`; empty where a head is no
    network. scores: final scores by name. history: one row of curves per epoch. imputation: scores on held-out
    validation and test cells (pretraining). predictions: stay_id, partition, risk of validation and test stays
    (fine-tuning). learning_rate and trials: what a search found, and tried.
    """

    fold: int
    weights: dict[str, np.ndarray]
    scores: dict[str, float]
    best_epoch: int
    seconds: float
    history: list[dict[str, float]]
    imputation: list[dict[str, Any]] = field(default_factory=list)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    learning_rate: float | None = None
    trials: list[Trial] = field(default_factory=list)

    @property
    def final_metrics(self) -> dict[str, float]:
        """What a recorder hears of the fold at its end: scores, best epoch and seconds."""
        return self.scores | {"best_epoch": float(self.best_epoch), "seconds": self.seconds}


def write_stage(folder: Path, about: dict[str, Any], folds: list[TrainedFold]) -> None:
    """Write a stage's outputs, all or nothing.

    `about` holds what the folds share (dataset, variables, params, run_id, ...). Raises UserError when the disk is
    full or the folder cannot be written; an earlier output then stays.
    """
    content = {"format": FORMAT} | about | {"folds": [_told(result) for result in folds]}
    with replacing_folder(folder) as new:
        write_weights(new, folds)
        if any(len(result.predictions) for result in folds):
            _write_predictions(new, folds)
        (new / RESULT).write_text(json.dumps(content, indent=1) + "\n")


def write_result(folder: Path, content: dict[str, Any]) -> None:
    """Write an output that is a result.json alone, all or nothing; see `write_stage` for the errors."""
    with replacing_folder(folder) as new:
        (new / RESULT).write_text(json.dumps({"format": FORMAT} | content, indent=1) + "\n")


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the dotted names of what differs between two outputs' descriptions, as far as `wanted` goes."""
    names = []
    for key, value in wanted.items():
        if isinstance(value, dict):
            names += [f"{key}.{name}" for name in differences(found.get(key) or {}, value)]
        elif found.get(key) != value:
            names.append(key)
    return names


def read_result(folder: Path, remedy: str) -> dict[str, Any]:
    """Read a stage's result.json.

    Raises UserError with the remedy when the stage has not run, or the file is broken or of another version.
    """
    path = folder / RESULT
    if not path.is_file():
        raise UserError(f"{folder} has no result of a finished run: {remedy}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is broken: {remedy}") from None
    if content.get("format") != FORMAT:
        raise UserError(f"{path} is of another version of imputune: {remedy}")
    if "cell" in content:
        content["cell"].setdefault("imputer", PRETRAINED)  # as outputs did not say when there was no other
    return content


def read_fold(folder: Path, fold: int, remedy: str, with_weights: bool = True) -> TrainedFold:
    """Read one fold of a stage's outputs back; raises UserError as `read_result` and `read_weights` do."""
    result = read_result(folder, remedy)
    [told] = [each for each in result["folds"] if each["fold"] == fold]
    has_weights = result.get("cell", {}).get("schedule") != "none"  # a head that is no network keeps none
    weights = read_weights(folder, fold) if with_weights and has_weights else {}
    predictions = pd.DataFrame()
    if (folder / PREDICTIONS).is_file():
        table = pd.read_csv(folder / PREDICTIONS)
        predictions = table[table["fold"] == fold].drop(columns="fold")
    trials = [Trial(**trial) for trial in told.pop("trials")]
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    return TrainedFold(weights=arrays, predictions=predictions, trials=trials, **told)


def _told(result: TrainedFold) -> dict[str, Any]:
    """Return what result.json says of a fold: all but its weights and predictions."""
    names = [each.name for each in fields(TrainedFold) if each.name not in ("weights", "predictions", "trials")]
    return {name: getattr(result, name) for name in names} | {"trials": [asdict(trial) for trial in result.trials]}


def _write_predictions(folder: Path, folds: list[TrainedFold]) -> None:
    table = pd.concat([result.predictions.assign(fold=result.fold) for result in folds])
    table.to_csv(folder / PREDICTIONS, index=False)


def weights_file(folder: Path, fold: int) -> Path:
    """Return where a stage's output has a fold's weights."""
    return folder / f"fold-{fold}.safetensors"


def write_weights(folder: Path, folds: list[TrainedFold]) -> None:
    """Write a safetensors file for each fold that has weights."""
    for result in folds:
        if not result.weights:
            continue
        # safetensors writes an array's memory as it lies, whatever its strides.
        arrays = {name: np.ascontiguousarray(array) for name, array in result.weights.items()}
        save_file(arrays, weights_file(folder, result.fold))


def read_weights(folder: Path, fold: int) -> dict[str, torch.Tensor]:
    """Read one fold's weights, as tensors on the CPU; raises UserError when the file is missing or broken."""
    path = weights_file(folder, fold)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or train again") from error


@dataclass(frozen=True)
class Origin:
    """What a stage was trained on: the data, how it was divided, and which variables in which order."""

    dataset: str
    cohort_hash: str
    folds_hash: str
    variables: tuple[str, ...]

    def check(self, result: dict[str, Any], folder: Path, remedy: str) -> None:
        """Raise UserError when the output in `folder` was trained on other variables, data or folds than these."""
        theirs, ours = result["variables"], list(self.variables)
        if theirs != ours:
            differing = sorted(set(theirs) ^ set(ours)) or ["their order"]
            raise UserError(
                f"the imputer in {folder} was trained on other variables ({len(theirs)}, the cohort has {len(ours)}; "
                f"differing: {', '.join(differing[:5])}): {remedy}"
            )
        for what, key in (("data", "cohort_hash"), ("folds", "folds_hash")):
            if result[key] != getattr(self, key):
                raise UserError(f"{folder} was trained on other {what} than {self.dataset} now has: {remedy}")
