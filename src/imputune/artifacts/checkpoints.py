"""Finished folds of a variant or an imputer that is not complete, so that interrupted work can go on."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from imputune.artifacts.stage_files import find_training, read_fold, write_training
from imputune.artifacts.stage_output import MadeFrom, TrainedFold, TrainingOutput
from imputune.errors import UserError
from imputune.files import remove_leftovers, replace_text
from imputune.runtime.recorder import Recorder, Trial

MADE_FROM, RUN = "made_from.json", "run.json"


class Checkpoints:
    """The folder of unfinished work: what it is made from, the run that tracks it, and an output per finished fold.

    Nothing is written before `begin`, which empties a folder that was made for other data or settings.
    """

    def __init__(self, folder: Path, made_from: MadeFrom) -> None:
        self.folder = folder
        self._made_from = made_from
        self._description = json.dumps(made_from.model_dump(mode="json"), sort_keys=True)

    @property
    def is_ours(self) -> bool:
        """Whether the folder was made for this data and these settings, by this version or an earlier one."""
        try:
            kept = MadeFrom.model_validate_json((self.folder / MADE_FROM).read_bytes())
        except (OSError, ValueError):
            return False
        return kept == MadeFrom.model_validate_json(self._description)

    def begin(self) -> dict[int, TrainedFold]:
        """Make the folder and return the finished folds in it; a fold whose files are broken counts as missing."""
        if not self.is_ours:
            self.remove()
            replace_text(self.folder / MADE_FROM, self._description)
        remove_leftovers(self.folder)
        folds: dict[int, TrainedFold] = {}
        for path in sorted(self.folder.glob("fold-*")):
            if not path.is_dir():
                continue
            if fold := _finished_fold(path):
                folds[fold.fold] = fold
            else:
                shutil.rmtree(path)
        return folds

    def save(self, fold: TrainedFold) -> None:
        """Keep a finished fold, all or nothing."""
        output = TrainingOutput(made_from=self._made_from, run_id="", folds=(fold.record,))
        write_training(self.folder / f"fold-{fold.fold}", output, [fold])

    def keep_trial(self, fold: int, trial: Trial) -> None:
        """Keep a trial of a fold's search that has ended, if it follows on those kept already."""
        kept = self.trials(fold)
        if trial.number == len(kept):
            lines = [json.dumps(asdict(each)) for each in (*kept, trial)]
            replace_text(self._trials_file(fold), "\n".join(lines))

    def trials(self, fold: int) -> tuple[Trial, ...]:
        """Return the trials of a fold's search that are kept, by number; a broken line ends them."""
        path = self._trials_file(fold)
        found: list[Trial] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                found.append(Trial(**json.loads(line)))
            except (ValueError, TypeError):
                break
        return tuple(found)

    def _trials_file(self, fold: int) -> Path:
        return self.folder / f"trials-fold-{fold}.jsonl"

    @property
    def run_id(self) -> str | None:
        """The run that tracked the work when its command was interrupted, if it got that far."""
        return read_run_id(self.folder / RUN)

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        write_run_id(self.folder / RUN, run_id)

    def remove(self) -> None:
        """Remove everything, in one step: the work is complete."""
        if self.folder.exists():
            gone = self.folder.with_name(f".{self.folder.name}.old")
            shutil.rmtree(gone, ignore_errors=True)
            self.folder.rename(gone)
            shutil.rmtree(gone)


class TrialKeeper:
    """A recorder that keeps the trials of searches among the checkpoints, and passes every report on."""

    def __init__(self, inner: Recorder, checkpoints: Checkpoints) -> None:
        self.inner, self.checkpoints = inner, checkpoints

    def epoch(self, fold: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Pass an epoch on."""
        self.inner.epoch(fold, epoch, metrics)

    def trial_finished(self, fold: int, trial: Trial) -> None:
        """Keep a trial, and pass it on."""
        self.checkpoints.keep_trial(fold, trial)
        self.inner.trial_finished(fold, trial)

    def fold_finished(self, fold: int, metrics: Mapping[str, float]) -> None:
        """Pass a fold's scores on."""
        self.inner.fold_finished(fold, metrics)


def _finished_fold(folder: Path) -> TrainedFold | None:
    """Return the only fold of an output, None if its files are broken."""
    output = find_training(folder)
    if output is None:
        return None
    try:
        [record] = output.folds
        return read_fold(folder, output, record.fold)
    except (UserError, ValueError):
        return None


def write_run_id(path: Path, run_id: str) -> None:
    """Note which run is under way, for the next command if this one is killed."""
    replace_text(path, json.dumps({"run_id": run_id}))


def read_run_id(path: Path) -> str | None:
    """Return the run that was under way, or None where the file is missing or broken."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
