"""Finished folds of a cell that is not complete, so that work that was interrupted goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

from imputune.errors import UserError
from imputune.training.outputs import TrainedFold, read_fold, read_result, write_stage

ABOUT, RUN = "about.json", "run.json"


class Checkpoints:
    """The folder of one cell: what it is trained on, the run that tracks it, a stage output for every finished fold.

    A folder that was made for other data or settings is emptied when it is opened.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self._about = about
        told = json.dumps(about, sort_keys=True)
        if folder.exists() and _read(folder / ABOUT) != told:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).write_text(told, encoding="utf-8")

    def load(self) -> dict[int, TrainedFold]:
        """Return the finished folds by number; a fold whose files are broken counts as not finished."""
        found: dict[int, TrainedFold] = {}
        for path in sorted(self.folder.glob("fold-*")):
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
        text = _read(self.folder / RUN)
        return json.loads(text)["run_id"] if text else None

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        (self.folder / RUN).write_text(json.dumps({"run_id": run_id}), encoding="utf-8")

    def remove(self) -> None:
        """Forget everything: the cell is complete."""
        shutil.rmtree(self.folder)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
