"""The tiny project whose commands benchmarks.stops stops: making it, and comparing what two of them came to."""

import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
DATASET = "synthetic"
TINY: dict[str, Any] = {
    "dataset": DATASET,
    "workers": 2,
    "synthetic": {"stays": 60},
    "folds": {"count": 3},
    "budget": {DATASET: {"pretrain_epochs": 2, "frozen_epochs": 3, "unfrozen_epochs": 2}},
    "csai": {"hidden_size": 8, "channels": 8, "attention_heads": 2, "feedforward": 8},
    "heads": {"mlp_width": 8},
    "promote": {"resamples": 30, "minimum_auc": 0.001, "auc_margin": 9.0, "calibration_margin": 9.0},
}
"""Sizes of params.yaml with which training takes a second or two, and gates that let anything pass."""
OF_ONE_RUN = {"run_id", "imputer_run_id", "seconds"}
"""What two runs that come to the same have of their own in result.json."""
TEMPORARY = re.compile(r"^\..*\.(new|old)$|\.new$")
TAGS = "head", "mode", "input", "schedule"


def make_project(folder: Path) -> Path:
    """Make a project of tiny sizes without data."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    editor = YAML()
    content = editor.load(ROOT / "params.yaml")
    _change(content, TINY)
    editor.dump(content, folder / "params.yaml")
    return folder


def differences(project: Path, reference: Path) -> list[str]:
    """Return what differs from the reference, what is there twice or not at all, and what is unfinished, as lines."""
    found = [f"{path} is left over" for path in sorted({*temporary_files(project), *_unfinished(project)})]
    found += [f"{count} runs are left RUNNING" for count in [running(project)] if count]
    ours, theirs = _contents(project), _contents(reference)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            found.append(f"{name} {'differs' if name in ours and name in theirs else 'is in one of the two only'}")
    return found


def temporary_files(project: Path) -> set[str]:
    """Return the paths of unfinished files and folders."""
    return {str(path.relative_to(project)) for path in project.rglob("*") if TEMPORARY.search(path.name)}


def running(project: Path) -> int:
    """Return how many runs are marked as running."""
    return sum(row[0] for row in _rows(project, "SELECT count(*) FROM runs WHERE status = 'RUNNING'"))


def _change(content: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _change(content[key], value)
        else:
            content[key] = value


def _unfinished(project: Path) -> Iterator[str]:
    """Yield the folders of unfinished work, and notes of commands that run."""
    folder = project / "artifacts" / DATASET / "unfinished"
    for path in [*folder.glob("*-*"), *folder.glob("runs/*")]:
        yield str(path.relative_to(project))


def _contents(project: Path) -> dict[str, Any]:
    """Return what a project came to, by name: its files, finished runs, versions and aliases."""
    contents: dict[str, Any] = {}
    for path in [project / "params.yaml", *(project / "data").rglob("*"), *(project / "artifacts").rglob("*")]:
        if path.is_file() and "lock" not in path.name and "unfinished" not in path.parts:
            content = path.read_bytes()
            is_result = path.name == "result.json"
            contents[str(path.relative_to(project))] = _own(json.loads(content)) if is_result else content
    if (project / "mlflow.db").exists():
        contents |= _tracked(project)
    return contents


def _own(content: Any) -> Any:
    """Return a result without what two runs have of their own."""
    if isinstance(content, dict):
        return {key: _own(value) for key, value in content.items() if key not in OF_ONE_RUN}
    return [_own(each) for each in content] if isinstance(content, list) else content


def _tracked(project: Path) -> dict[str, Any]:
    """Return the store's part: runs of each work, and whose output is in artifacts; metrics; versions; aliases."""
    names = {}
    finished = {run_id for (run_id,) in _rows(project, "SELECT run_uuid FROM runs WHERE status = 'FINISHED'")}
    for run_id in finished:
        tags = dict(_rows(project, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
        if "imputune.trial" in tags:
            continue  # those of a fold that a stop cut off stay, and count in the fold's next run again
        command, fold = tags.get("imputune.command"), tags.get("imputune.fold")
        # A stopped command's run is KILLED; folds that it had finished stay finished, and count in the next run again.
        if command in ("pretrain", "finetune") and (not fold or tags["mlflow.parentRunId"] in finished):
            parts = (command, *(tags.get(f"imputune.{name}", "") for name in ("imputer", *TAGS)))
            names[run_id] = " ".join(filter(None, parts)) + (f" fold {fold}" if fold else "")
    contents: dict[str, Any] = {f"runs of {name}": count for name, count in Counter(names.values()).items()}
    for run_id, name in names.items():
        points = (
            "SELECT key, value, step FROM metrics WHERE run_uuid = ? AND key != 'seconds' ORDER BY key, step, value"
        )
        contents[f"metrics of {name}"] = list(_rows(project, points, run_id))
    for path in (project / "artifacts").rglob("result.json"):
        if "unfinished" not in path.parts:
            name = names.get(json.loads(path.read_text())["run_id"], "no finished run")
            contents[f"run of {path.relative_to(project)}"] = name
    versions = _rows(
        project, "SELECT name, version, run_id FROM model_versions WHERE current_stage != 'Deleted_Internal'"
    )
    by_number = {(model, number): names.get(run_id, "no finished run") for model, number, run_id in versions}
    contents["versions"] = sorted(f"{model}: {name}" for (model, _), name in by_number.items())
    for model, alias, number in _rows(project, "SELECT name, alias, version FROM registered_model_aliases"):
        contents[f"{alias} of {model}"] = by_number.get((model, number))
    return contents


def _rows(project: Path, query: str, *values: object) -> list[Any]:
    """Return the rows of a query, none while there is no store."""
    if not (project / "mlflow.db").exists():
        return []
    with closing(sqlite3.connect(project / "mlflow.db", timeout=20)) as store:
        return store.execute(query, values).fetchall()
