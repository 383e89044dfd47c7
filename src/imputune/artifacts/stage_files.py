"""A stage's folder in artifacts: result.json, predictions.csv, and per fold a weights file and boosters."""

import hashlib
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
    """Read one fold of a training stage, of which `output` was read.

    with_weights: whether its weights and boosters are read too. Raises UserError as `read_weights` and `read_boosters`.
    """
    [record] = [each for each in output.folds if each.fold == fold]
    variant = output.made_from.variant
    has_weights = not record.failure and (variant is None or variant.has_weights or bool(record.boosters_sha256))
    weights = read_weights(folder, fold) if with_weights and has_weights else {}
    boosters = read_boosters(folder, fold, record.boosters_sha256) if with_weights else ()
    predictions = pd.DataFrame()
    if (folder / PREDICTIONS).is_file():
        # Risks of networks and boosters are float32: read so, they are what training returned, to the last bit.
        kinds = {"risk": "float32"} if has_weights else {}
        table = pd.read_csv(folder / PREDICTIONS, dtype=kinds)
        predictions = table[table["fold"] == fold].drop(columns="fold")
    return TrainedFold(
        weights={name: tensor.numpy() for name, tensor in weights.items()},
        boosters=boosters,
        predictions=predictions,
        **{name: getattr(record, name) for name in FoldRecord.model_fields if name != "boosters_sha256"},
    )


def read_test_risks(folder: Path, remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids, (M,) int64, and risks, (M,), of the test stays of all folds, each stay once.

    Raises UserError with the remedy when the predictions are missing.
    """
    if not (folder / PREDICTIONS).is_file():
        raise UserError(f"{folder / PREDICTIONS} is missing: {remedy}")
    table = pd.read_csv(folder / PREDICTIONS)
    test = each_tested_once(table)
    return test["stay_id"].to_numpy(), test["risk"].to_numpy()


def each_tested_once(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the test stays of all folds, each stay once: a stay that several splits test, by the first of them.

    So each risk is of one model that the stay neither trained nor chose, and no stay counts twice in a curve, an
    interval or the size of a group.
    """
    return predictions[predictions["split"] == "test"].drop_duplicates("stay_id")


def weights_file(folder: Path, fold: int) -> Path:
    """Return the path of a fold's weights in a stage's output."""
    return folder / f"fold-{fold}.safetensors"


def booster_files(folder: Path, fold: int, boosters: int) -> list[Path]:
    """Return the paths of a fold's boosters in a stage's output, given their number."""
    return [folder / f"fold-{fold}-booster-{place}.json" for place in range(boosters)]


def write_weights(folder: Path, folds: Sequence[TrainedFold]) -> None:
    """Write a safetensors file for each fold that has weights, and a file for each booster."""
    for fold in folds:
        for path, booster in zip(booster_files(folder, fold.fold, len(fold.boosters)), fold.boosters, strict=True):
            path.write_bytes(booster)
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


def read_boosters(folder: Path, fold: int, checksums: Sequence[str]) -> tuple[bytes, ...]:
    """Read one fold's boosters; raises UserError when a file is missing or its sha256 is not its checksum."""
    boosters = []
    for path, checksum in zip(booster_files(folder, fold, len(checksums)), checksums, strict=True):
        try:
            booster = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): restore it, or train again") from error
        if hashlib.sha256(booster).hexdigest() != checksum:
            raise UserError(f"{path} has changed since it was written (its sha256 differs): restore it, or train again")
        boosters.append(booster)
    return tuple(boosters)


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
