"""The folder of a saved imputer: imputer.json and weights.safetensors. Reading it unpickles nothing."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load

from imputune.errors import UserError
from imputune.files import replacing_folder

ABOUT, WEIGHTS = "imputer.json", "weights.safetensors"
FORMAT: Literal[1] = 1  # of imputer.json; raised when older versions of imputune would misread it
AGAIN = "restore its files, or fit and save the imputer again"


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class About(_Stored):
    """What a saved imputer is, beside its weights.

    parameters: of the estimator. validation_stays: positions among the stays it was fitted on. history: a row of
    numbers for each epoch.
    """

    parameters: dict[str, JsonValue]
    hours: int
    variables: int
    best_epoch: int
    validation_stays: list[int]
    history: list[dict[str, float]]

    @property
    def sha256(self) -> str:
        """The checksum of this content."""
        return _checksum(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode())


class _File(_Stored):
    """The content of imputer.json; the checksums are of `about` and of the weights file."""

    format: Literal[1]
    about: About
    about_sha256: str
    weights_sha256: str


class _FormatOnly(BaseModel):
    format: int


def write_folder(folder: Path, about: About, weights: dict[str, np.ndarray]) -> None:
    """Write a folder, all or nothing; UserError if it is a file, has other files, or the system refuses."""
    if folder.is_file():
        raise UserError(f"{folder} is a file: choose a folder")
    if folder.is_dir() and (other := sorted({path.name for path in folder.iterdir()} - {ABOUT, WEIGHTS})):
        raise UserError(f"{folder} holds other files ({other[0]}): choose an empty or a new folder")
    # safetensors writes the memory of an array as it lies there, also that of a view with gaps
    content = save({name: np.ascontiguousarray(array) for name, array in weights.items()})
    file = _File(format=FORMAT, about=about, about_sha256=about.sha256, weights_sha256=_checksum(content))
    with replacing_folder(folder) as fresh:
        (fresh / WEIGHTS).write_bytes(content)
        (fresh / ABOUT).write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_folder(folder: Path) -> tuple[About, dict[str, torch.Tensor]]:
    """Return what `write_folder` wrote; UserError, one line, for missing, altered or broken files, or other formats."""
    try:
        text, content = (folder / ABOUT).read_bytes(), (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise UserError(f"{folder} is no saved imputer ({error.strerror}: {error.filename}): {AGAIN}") from None
    try:
        found = _FormatOnly.model_validate_json(text).format
        if found != FORMAT:
            raise UserError(
                f"{folder} was written by another version of imputune (format {found}, this version reads {FORMAT}): "
                "fit and save the imputer again"
            )
        file = _File.model_validate_json(text)
    except ValidationError:
        raise UserError(f"{folder / ABOUT} is broken: {AGAIN}") from None
    for path, checksum, expected in (
        (folder / ABOUT, file.about.sha256, file.about_sha256),
        (folder / WEIGHTS, _checksum(content), file.weights_sha256),
    ):
        if checksum != expected:
            raise UserError(f"{path} has changed since it was saved: {AGAIN}")
    try:
        return file.about, load(content)
    except SafetensorError:
        raise UserError(f"{folder / WEIGHTS} is broken: {AGAIN}") from None


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
