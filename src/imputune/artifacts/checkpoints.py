"""Finished folds of a cell or an imputer that is not complete, so that work that was interrupted goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

from imputune.artifacts.stage_output import (
    TrainedFold,
    read_fold,
    read_result,
    write_stage,
)
from imputune.errors import UserError
from imputune.files import replace_text, sweep

ABOUT, RUN = "about.json", "run.json"


class Checkpoints:
    """The folder of a cell or an imputer: what it is trained on, the run that tracks it, an output per finished fold.

    Nothing is written before `begin`, which empties a folder that was made for other data or settings.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self._about = about
        self._told = json.dumps(about, sort_keys=True)

    @property
    def is_ours(self) -> bool:
        """Whether the folder was made for this data and these settings."""
        path = self.folder / ABOUT
        return path.is_file() and path.read_text(encoding="utf-8") == self._told

    def begin(self) -> dict[int, TrainedFold]:
        """Make the folder and return the finished folds in it; a fold whose files are broken counts as missing."""
        if not self.is_ours:
            self.remove()
            replace_text(self.folder / ABOUT, self._told)
        sweep(self.folder)
        found: dict[int, TrainedFold] = {}
        for path in sorted(self.folder.glob("fold-*")):
            if not path.is_dir():
                continue
            try:
                [told] = read_result(path, "")["folds"]
                found[told["fold"]] = read_fold(path, told["fold"], "")
            except (UserError, ValueError, KeyError, TypeError):
                shutil.rmtree(path)
        return found

    def save(self, result: TrainedFold) -> None:
        """Keep a finished fold, all or nothing."""
        write_stage(self.folder / f"fold-{result.fold}", self._about, [result])

    @property
    def run_id(self) -> str | None:
        """The run that tracked the cell when its command was interrupted, if it got that far."""
        return read_run_id(self.folder / RUN)

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        write_run_id(self.folder / RUN, run_id)

    def remove(self) -> None:
        """Forget everything, in one step: the cell is complete."""
        if self.folder.exists():
            gone = self.folder.with_name(f".{self.folder.name}.old")
            shutil.rmtree(gone, ignore_errors=True)
            self.folder.rename(gone)
            shutil.rmtree(gone)


def write_run_id(path: Path, run_id: str) -> None:
    """Note which run is under way, for the command after one that is killed."""
    replace_text(path, json.dumps({"run_id": run_id}))


def read_run_id(path: Path) -> str | None:
    """Return the run that was under way, or None where nothing readable says so."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
