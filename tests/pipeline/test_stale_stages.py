"""Which stages of dvc.yaml a change in a source file makes stale: those that run it, and none besides."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from imports import PACKAGE, Module, reached

ROOT = PACKAGE.parents[1]
GOLDEN = ROOT / "tests/golden/stages_before.json"
FAMILIES = {
    "folds": "folds",
    "pretrain": "pretrain",
    "pretrain_also": "pretrain",
    "finetune_mlp": "finetune_neural",
    "finetune_mlp_imputed": "finetune_neural",
    "finetune_mlp_record": "finetune_neural",
    "finetune_mlp_unfrozen": "finetune_neural",
    "finetune_recurrent": "finetune_neural",
    "finetune_non_neural": "finetune_non_neural",
    "finetune_non_neural_more": "finetune_non_neural",
    "finetune_blend": "finetune_blend",
    "rivals": "rivals",
    "rivals_static": "rivals",
    "assess": "assess",
    "compare": "compare",
    "report": "report",
}
# The rooms whose code decides what a stage writes. Of data, raw records are read before any stage.
TRAINING_ROOMS = ("protocol", "data", "evaluation", "models", "imputers", "artifacts", "training", "runtime")
COMPARISON_ROOMS = ("evaluation", "reporting", "pipeline")
SHOWN = {"protocol/division.py", "protocol/published.py", "protocol/outcome_words.py"}  # which comparisons show
# Rooms that a comparison shows as a whole: their folders stand in dvc.yaml, whatever of them it imports.
WHOLE_ROOMS = {"compare": ("evaluation", "reporting"), "report": ("evaluation", "reporting")}
# Where things lie, how work runs and who is told of it: none of them changes a result.
NO_RESULT: set[Module] = {
    *(
        ("runtime", name)
        for name in ("device", "environment", "recorder", "threads", "console", "time_left", "epoch_lines")
    ),
    *(
        ("runtime", name)
        for name in ("workers", "tasks", "local_pool", "own_ray", "ray_cluster", "ray_engine", "ray_node")
    ),
    *(("pipeline", name) for name in ("project", "tracked", "inputs", "run_subject")),
    ("reporting", "run_notes"),
    ("protocol", "outcome_words"),
    ("protocol", "division"),
}
ENTRIES: dict[str, Module] = {
    "folds": ("data", "folds"),
    "pretrain": ("training", "pretrain"),
    "finetune_neural": ("training", "finetune"),
    "finetune_non_neural": ("training", "non_neural"),
    "finetune_blend": ("training", "blend"),
    "rivals": ("training", "rivals"),
    "assess": ("training", "assess"),
    "compare": ("pipeline", "compare"),
    "report": ("pipeline", "compare_imputers"),
}


def stages() -> Mapping[str, dict]:
    """Return the stages of dvc.yaml by name."""
    return YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]


def named_files(stage: dict) -> set[str]:
    """Return the source files among a stage's dependencies, folders expanded, below the package.

    Left out are __init__.py files that hold a docstring alone.
    """
    found: set[Path] = set()
    for path in (ROOT / name for name in stage["deps"] if name.startswith("src/")):
        assert path.exists(), path
        found |= {path} if path.is_file() else {each for each in path.rglob("*") if each.is_file()}
    files = {path for path in found if not is_made_here(path) and not only_docstring(path)}
    return {path.relative_to(PACKAGE).as_posix() for path in files}


def is_made_here(path: Path) -> bool:
    """Say whether a file is made by Python or at installation; .dvcignore leaves such files out."""
    return "__pycache__" in path.parts or path.suffix in {".so", ".pyd"}


def only_docstring(path: Path) -> bool:
    """Say whether a file is an __init__.py with nothing but a docstring."""
    return path.name == "__init__.py" and len(ast.parse(path.read_text()).body) <= 1


def run_files(family: str) -> set[str]:
    """Return the files that decide the result of a family of stages: what its entry imports, and templates."""
    rooms = COMPARISON_ROOMS if family in ("compare", "report") else TRAINING_ROOMS
    found = reached([ENTRIES[family]], rooms) - NO_RESULT
    files = {"/".join(module) + ".py" for module in found if module[:2] != ("data", "raw")}
    if "models/compiled/library.py" in files:
        files |= {f"models/compiled/source/{path.name}" for path in (PACKAGE / "models/compiled/source").iterdir()}
    if rooms == COMPARISON_ROOMS:
        files |= SHOWN
    if "reporting/page.py" in files:
        files |= {f"reporting/templates/{path.name}" for path in (PACKAGE / "reporting/templates").iterdir()}
    return files


def test_every_stage_is_known_here() -> None:
    """A stage that is added to dvc.yaml is looked at below."""
    assert set(stages()) == set(FAMILIES)


@pytest.mark.parametrize("stage", FAMILIES)
def test_a_stage_depends_on_the_files_it_runs(stage: str) -> None:
    """A change in a file that decides a stage's result runs the stage again; one in any other file does not."""
    named, run = named_files(stages()[stage]), run_files(FAMILIES[stage])
    superfluous = [file for file in named - run if file.split("/")[0] not in WHOLE_ROOMS.get(FAMILIES[stage], ())]
    assert {"missing": sorted(run - named), "superfluous": sorted(superfluous)} == {"missing": [], "superfluous": []}


def test_a_change_makes_no_more_stages_stale_than_before_the_redesign() -> None:
    """For each file, the families of stages that name it are among those that named the files it was made of."""
    before = json.loads(GOLDEN.read_text())
    now: dict[str, set[str]] = {}
    for name, stage in stages().items():
        for file in named_files(stage):
            now.setdefault(file, set()).add(FAMILIES[name])
    more = {file: sorted(families - set(before.get(file, ()))) for file, families in sorted(now.items())}
    assert {file: families for file, families in more.items() if families} == {}


def test_the_checks_expand_folders_and_follow_imports() -> None:
    """By hand: a folder's files, and what a stage's entry imports."""
    stage = {"deps": ["data/synthetic", "src/imputune/data/folds.py", "src/imputune/artifacts"]}
    names = (
        "checkpoints",
        "imputer_file",
        "model_card",
        "results_files",
        "rivals_file",
        "stage_files",
        "stage_output",
        "variant_file",
    )
    artifacts = {f"artifacts/{name}.py" for name in names}
    assert named_files(stage) == {"data/folds.py", *artifacts}
    assert run_files("folds") == {
        "data/cohort.py",
        "data/folds.py",
        "data/outcome_file.py",
        "data/outcome_loss.py",
        "data/static.py",
        "data/static_file.py",
        "data/window.py",
        "data/window_file.py",
        "protocol/outcomes.py",
    }
    assert {"training/search.py", "models/heads.py", "runtime/seeds.py"} < run_files("finetune_neural")
    assert "runtime/workers.py" not in run_files("pretrain")
