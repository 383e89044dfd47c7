"""A stage's folder in artifacts: result.json, predictions.csv, and a weights file per fold."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from imputune.artifacts.stage_output import FORMAT, AssessmentOutput, FoldRecord, TrainedFold, TrainingOutput
from imputune.errors import UserError
from imputune.files import replacing_folder

RESULT, PREDICTIONS = "result.json", "predictions.csv"


def write_training(folder: Path, output: TrainingOutput, folds: Sequence[TrainedFold]) -> None:
    """Write the output of a training stage, all or nothing.

    Raises UserError when the disk is full or the folder cannot be written; an earlier output then stays.
    """
    with replacing_folder(folder) as fresh:
        write_weights(fresh, folds)
        if any(len(fold.predictions) for fold in folds):
            table = pd.concat([fold.predictions.assign(fold=fold.fold) for fold in folds])
            table.to_csv(fresh / PREDICTIONS, index=False)
        _write_result(fresh, output)


def write_assessment(folder: Path, output: AssessmentOutput) -> None:
    """Write the output of an assessment, all or nothing; see `write_training` for the errors."""
    with replacing_folder(folder) as fresh:
        _write_result(fresh, output)


def read_training(folder: Path, remedy: str) -> TrainingOutput:
    """Read the result.json of a training stage.

    Raises UserError with the remedy when the stage has not run, or the file is broken or of another version.
    """
    return _read_result(folder, remedy, TrainingOutput)


def find_training(folder: Path) -> TrainingOutput | None:
    """Return the result.json of a training stage as `read_training` does, None where that raises UserError."""
    found = _result(folder, TrainingOutput)
    return None if isinstance(found, str) else found


def read_assessment(folder: Path, remedy: str) -> AssessmentOutput:
    """Read the result.json of an assessment; see `read_training` for the errors."""
    return _read_result(folder, remedy, AssessmentOutput)


def find_assessment(folder: Path) -> AssessmentOutput | None:
    """Return the result.json of an assessment as `read_assessment` does, None where that raises UserError."""
    found = _result(folder, AssessmentOutput)
    return None if isinstance(found, str) else found


def read_fold(folder: Path, output: TrainingOutput, fold: int, *, with_weights: bool = True) -> TrainedFold:
    """Read one fold of a training stage, of which `output` was read; raises UserError as `read_weights` does."""
    [record] = [each for each in output.folds if each.fold == fold]
    variant = output.made_from.variant
    has_weights = variant is None or variant.has_weights
    weights = read_weights(folder, fold) if with_weights and has_weights else {}
    predictions = pd.DataFrame()
    if (folder / PREDICTIONS).is_file():
        # A network's risks are float32: read so, they are what training returned, to the last bit.
        kinds = {"risk": "float32"} if has_weights else {}
        table = pd.read_csv(folder / PREDICTIONS, dtype=kinds)
        predictions = table[table["fold"] == fold].drop(columns="fold")
    return TrainedFold(
        weights={name: tensor.numpy() for name, tensor in weights.items()},
        predictions=predictions,
        **{name: getattr(record, name) for name in FoldRecord.model_fields},
    )


def read_test_risks(folder: Path, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids, (M,) int64, and risks, (M,), of the test stays of all folds.

    Raises UserError with the remedy when the predictions are missing.
    """
    if not (folder / PREDICTIONS).is_file():
        raise UserError(f"{folder / PREDICTIONS} is missing: {remedy}")
    table = pd.read_csv(folder / PREDICTIONS)
    test = table[table["split"] == "test"]
    return test["stay_id"].to_numpy(), test["risk"].to_numpy()


def weights_file(folder: Path, fold: int) -> Path:
    """Return the path of a fold's weights in a stage's output."""
    return folder / f"fold-{fold}.safetensors"


def write_weights(folder: Path, folds: Sequence[TrainedFold]) -> None:
    """Write a safetensors file for each fold that has weights."""
    for fold in folds:
        if not fold.weights:
            continue
        # safetensors writes an array's memory as it lies, whatever its strides.
        arrays = {name: np.ascontiguousarray(array) for name, array in fold.weights.items()}
        save_file(arrays, weights_file(folder, fold.fold))


def read_weights(folder: Path, fold: int) -> dict[str, torch.Tensor]:
    """Read one fold's weights, as tensors on the CPU; raises UserError when the file is missing or broken."""
    path = weights_file(folder, fold)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or train again") from error


Output = TypeVar("Output", TrainingOutput, AssessmentOutput)


def _write_result(folder: Path, output: BaseModel) -> None:
    text = json.dumps(output.model_dump(mode="json"), indent=1)
    (folder / RESULT).write_text(text + "\n", encoding="utf-8")


def _read_result(folder: Path, remedy: str, kind: Callable[..., Output]) -> Output:
    found = _result(folder, kind)
    if isinstance(found, str):
        raise UserError(f"{found}: {remedy}")
    return found


def _result(folder: Path, kind: Callable[..., Output]) -> Output | str:
    """Return the result.json of a stage, or what is wrong with it in words."""
    path = folder / RESULT
    if not path.is_file():
        return f"{folder} has no result of a finished run"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("format")
    except (ValueError, AttributeError):
        return f"{path} is broken"
    if version != FORMAT:
        return f"{path} is of another version of imputune"
    try:
        return kind(**content)
    except (ValidationError, TypeError):
        return f"{path} is broken"
