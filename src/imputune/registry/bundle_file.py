"""A bundle's folder: bundle.json, and per fold a safetensors file and boosters. Loading it unpickles nothing."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from imputune.artifacts.stage_files import read_boosters, read_weights, weights_file, write_weights
from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import Variable
from imputune.data.record_features import RecordScaler, static_of
from imputune.data.scaling import Scaler
from imputune.errors import UserError
from imputune.imputers.csai import CsaiImputer
from imputune.models.blending import Blend
from imputune.models.boosters import Boosters
from imputune.models.classifier import Classifier
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HeadSizes, build_head
from imputune.models.hidden_states import state_size
from imputune.models.weights import load_module
from imputune.protocol.variants import base_of, record_parts, state_of
from imputune.registry.bundle import BOOSTED, Bundle, BundleAbout
from imputune.registry.fold_models import (
    BoosterPredictor,
    FoldModel,
    FoldRecord,
    NeuralPredictor,
    Predictor,
    blended_model,
)
from imputune.registry.names import CHECKSUM_TAG
from imputune.registry.version import Version
from imputune.settings.names import Head, Input

ABOUT = "bundle.json"
FORMAT: Literal[4] = 4  # of bundle.json; raised when older versions of imputune would misread it
MLP_WIDTH_OF_FORMAT_2 = 128
_MISFIT = (ArithmeticError, AssertionError, KeyError, MemoryError, RuntimeError, TypeError, ValueError)
"""What PyTorch raises for sizes that no network can have, or that are not those of the weights."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BundleFile(_Stored):
    """The content of bundle.json. Format 3 had fewer fields.

    sha256: the checksum of each fold's weights file. boosters_sha256: those of each fold's boosters, for xgboost alone.
    members_sha256: the checksum of each member's own bundle.json, for a blend alone.
    """

    format: Literal[3, 4] = FORMAT
    about: BundleAbout
    sha256: dict[int, str]
    boosters_sha256: dict[int, tuple[str, ...]] = {}
    members_sha256: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _folds_have_checksums(self) -> Self:
        if set(self.sha256) != set(self.about.folds):
            raise ValueError("sha256 must have one checksum for each fold")
        boosted = self.about.folds if self.about.head == BOOSTED else ()
        if {fold for fold, checksums in self.boosters_sha256.items() if checksums} != set(boosted):
            raise ValueError(f"boosters_sha256 must have checksums for each fold if the head is {BOOSTED}")
        if len(self.members_sha256) != len(self.about.members):
            raise ValueError("members_sha256 must have one checksum for each member")
        return self


class _SizesOfFormat2(_Stored):
    variables: int
    hours: int
    hidden: int
    channels: int
    attention_heads: int
    feedforward: int


class _BundleFileOfFormat2(_Stored):
    format: Literal[2]
    dataset: str
    variables: tuple[Variable, ...]
    sizes: _SizesOfFormat2
    head: Head | None
    input: Input | None
    folds: tuple[int, ...]
    threshold: float | None
    sha256: dict[int, str]

    def converted(self) -> BundleFile:
        """Return the same content in the present format."""
        sizes = CsaiSizes(
            variables=self.sizes.variables,
            hours=self.sizes.hours,
            hidden_size=self.sizes.hidden,
            channels=self.sizes.channels,
            attention_heads=self.sizes.attention_heads,
            feedforward=self.sizes.feedforward,
        )
        about = BundleAbout(
            dataset=self.dataset,
            variables=self.variables,
            sizes=sizes,
            head=self.head,
            input=self.input,
            mlp_width=None if self.head is None else MLP_WIDTH_OF_FORMAT_2,
            folds=self.folds,
            threshold=self.threshold,
        )
        return BundleFile(about=about, sha256=self.sha256)


class _FormatOnly(BaseModel):
    format: int


@dataclass(frozen=True, eq=False)
class MemberContent:
    """What the bundle of a blend's member is written from."""

    about: BundleAbout
    folds: Sequence[TrainedFold]


def write_bundle(
    folder: Path, about: BundleAbout, folds: Sequence[TrainedFold], members: Sequence[MemberContent] = ()
) -> str:
    """Write the weights of the folds, and bundle.json with their checksums; return the checksum of bundle.json.

    Each member of a blend has a folder of its own in the bundle.
    """
    write_weights(folder, folds)
    checksums_of_members = []
    for place, member in enumerate(members):
        _member_folder(folder, place).mkdir()
        checksums_of_members.append(write_bundle(_member_folder(folder, place), member.about, member.folds))
    checksums = {fold: _checksum(weights_file(folder, fold)) for fold in about.folds}
    boosters = {fold.fold: fold.boosters_sha256 for fold in folds if fold.boosters}
    file = BundleFile(
        about=about, sha256=checksums, boosters_sha256=boosters, members_sha256=tuple(checksums_of_members)
    )
    text = file.model_dump_json(indent=1)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
    return _checksum(folder / ABOUT)


def copy_bundle(source: Path, folder: Path, about: BundleAbout) -> str:
    """Copy a bundle that `read_bundle` accepts, described anew; return the checksum of the new bundle.json.

    Weights, boosters and members stay the same files. Raises UserError when the source cannot be read.
    """
    try:
        stored = _parsed((source / ABOUT).read_bytes())
        shutil.copytree(source, folder, dirs_exist_ok=True)
    except (OSError, ValidationError) as error:
        raise UserError(f"the bundle in {source} cannot be copied ({error}): restore its files") from None
    described = stored.model_copy(update={"about": about, "format": FORMAT})
    text = described.model_dump_json(indent=1)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")
    return _checksum(folder / ABOUT)


def read_bundle(folder: Path, checksum: str = "") -> Bundle:
    """Load a bundle from its folder: the networks are built by this package's code, their weights are safetensors.

    `checksum` is the one of bundle.json when it was registered, "" if it is not known. Raises UserError when a file is
    missing, broken or was altered, or when bundle.json has an unknown format.
    """
    try:
        content = (folder / ABOUT).read_bytes()
        if checksum and hashlib.sha256(content).hexdigest() != checksum:
            raise UserError(f"{folder / ABOUT} has changed since it was registered: restore it, or fine-tune again")
        file = _parsed(content)
        for fold in file.about.folds:
            path = weights_file(folder, fold)
            if _checksum(path) != file.sha256[fold]:
                raise UserError(
                    f"the weights of fold {fold} have changed since they were registered (their sha256 differs): "
                    f"restore {path}, or fine-tune again"
                )
    except (OSError, ValidationError) as error:
        cause = _first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"the bundle cannot be read ({cause}): restore its files, or fine-tune again") from None
    members = tuple(
        read_bundle(_member_folder(folder, place), checksum) for place, checksum in enumerate(file.members_sha256)
    )
    try:
        read = (
            [_read_blend(folder, file.about, fold, members) for fold in file.about.folds]
            if members
            else [_read_model(folder, file, fold) for fold in file.about.folds]
        )
        return Bundle(file.about, tuple(read))
    except _MISFIT as error:
        raise UserError(
            f"the bundle's weights do not fit the sizes, head or width in {ABOUT} ({type(error).__name__}): restore "
            "its files, or fine-tune again"
        ) from None


def load_version(version: Version, folder: Path) -> Bundle:
    """Load a registered version's bundle from its folder.

    Raises UserError when its files are missing, were altered, or have an unknown format.
    """
    try:
        return read_bundle(folder, version.tags.get(CHECKSUM_TAG, ""))
    except UserError as error:
        raise UserError(f"{version.name} version {version.number}: {error}") from None


def _parsed(content: bytes) -> BundleFile:
    number = _FormatOnly.model_validate_json(content).format
    if number in (3, FORMAT):
        return BundleFile.model_validate_json(content)
    if number == 2:
        return _BundleFileOfFormat2.model_validate_json(content).converted()
    raise UserError(
        f"the bundle is of another version of imputune (format {number}, this version reads 2 to {FORMAT}): "
        "run `imputune finetune` again, or load it with that version"
    )


def _member_folder(folder: Path, place: int) -> Path:
    return folder / f"member-{place}"


def _read_blend(folder: Path, about: BundleAbout, fold: int, members: Sequence[Bundle]) -> FoldModel:
    for member in members:
        same = (member.about.dataset, member.about.variables) == (about.dataset, about.variables)
        if not same or member.about.static not in ((), about.static):
            raise ValueError("a blend and its members must read the same variables and static facts")
    arrays = {name: tensor.numpy() for name, tensor in read_weights(folder, fold).items()}
    return blended_model(fold, Blend.from_arrays(arrays), [member.models for member in members])


def _read_model(folder: Path, file: BundleFile, fold: int) -> FoldModel:
    about, weights = file.about, read_weights(folder, fold)
    scaler, imputer = Scaler.from_arrays(weights), _read_imputer(about, weights)
    predictor: Predictor | None = None
    if checksums := file.boosters_sha256.get(fold):
        predictor = _read_boosted(about, scaler, imputer, read_boosters(folder, fold, checksums))
    elif imputer is not None:
        predictor = _read_neural(about, scaler, imputer, weights)
    return FoldModel(fold=fold, scaler=scaler, imputer=imputer, predictor=predictor)


def _read_imputer(about: BundleAbout, weights: dict[str, torch.Tensor]) -> Csai | None:
    if not about.reads_imputer:
        return None
    imputer = Csai(about.sizes)
    load_module("imputer", imputer, weights)
    return imputer.eval()


def _read_boosted(
    about: BundleAbout, scaler: Scaler, imputer: Csai | None, texts: Sequence[bytes]
) -> BoosterPredictor | None:
    if about.input is None:
        return None
    predictor = BoosterPredictor(
        scaler=scaler,
        imputer=CsaiImputer(imputer, state=state_of(about.input)) if imputer else None,
        boosters=Boosters.from_texts(texts),
        input=about.input,
    )
    empty_1TD = np.full((1, about.sizes.hours, about.sizes.variables), np.nan, dtype=np.float32)
    wanted = predictor.features(FoldRecord(scaler, empty_1TD, static_of(None, about.static, 1))).shape[1]
    if predictor.boosters.features != wanted:
        raise ValueError(f"boosters of {predictor.boosters.features} features cannot read {wanted}")
    return predictor


def _read_neural(
    about: BundleAbout, scaler: Scaler, imputer: Csai, weights: dict[str, torch.Tensor]
) -> NeuralPredictor | None:
    if about.head is None or about.input is None or about.mlp_width is None:
        return None
    parts = record_parts(about.input)
    record_scaler = RecordScaler.from_arrays(weights) if parts else None
    sizes = HeadSizes(
        input_size=state_size(state_of(about.input), about.sizes.hidden_size),
        variables=about.sizes.variables,
        mlp_width=about.mlp_width,
        record=record_scaler.size if record_scaler else 0,
    )
    head = build_head(about.head, sizes)
    load_module("head", head, weights)
    classifier = Classifier(imputer, head, freeze_imputer=True, input=base_of(about.input)).eval()
    return NeuralPredictor(scaler=scaler, classifier=classifier, record_scaler=record_scaler, record_parts=parts)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join([ABOUT, *map(str, problem["loc"])])
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
