import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).parents[1] / "src" / "imputune"
# From the ground up. A room imports from itself and from those before it.
ROOMS = (
    *("__init__", "errors", "files", "settings", "protocol", "runtime", "data", "datasets", "evaluation", "models"),
    *("imputers", "artifacts", "training", "tracking", "registry", "reporting", "pipeline", "cli"),
)
FLOOR_OF = {room: number for number, room in enumerate(ROOMS)}
# Packages that one room alone may import, or (None) no room at all.
RESERVED = {"mlflow": "tracking", "dvc": None}
ROOMS = ("data", "models", "imputers", "evaluation", "training", "catalogue", "cells")
# What changes no result: who is told of it, and on which device it is computed.
NO_RESULT = {("training", "device"), ("training", "recorder")}


def problems(package: Path) -> list[str]:
    """Return every breach of the house plan in a package, each as one line."""
    modules = {path.relative_to(package).with_suffix("").parts: path for path in sorted(package.rglob("*.py"))}
    found, inside = [], {}
    for module, path in modules.items():
        where = path.relative_to(package).as_posix()
        if module[0] not in FLOOR_OF:
            found.append(f"{where} stands in no room")
            continue
        inside[module] = set()
        for imported in imports(path, (package.name, *module)):
            owner = RESERVED.get(imported[0], module[0])
            if owner != module[0]:
                found.append(f"{where} imports {imported[0]}")
            if imported[0] != package.name:
                continue
            target = target_module(imported[1:], modules)
            if FLOOR_OF.get(target[0], len(ROOMS)) > FLOOR_OF[module[0]]:
                found.append(f"{where} imports {'.'.join(target)} from a higher floor")
            elif target != module:
                inside[module].add(target)
    return found + cycle(inside)


def imports(path: Path, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the dotted name of everything that a file imports, anywhere in it, relative imports resolved."""
    package = module[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            source = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*source, alias.name) for alias in node.names)


def target_module(name: tuple[str, ...], modules: dict[tuple[str, ...], Path]) -> tuple[str, ...]:
    """Return the module of the package that an imported name stands for or stands in."""
    for length in range(len(name), 0, -1):
        for module in (name[:length], (*name[:length], "__init__")):
            if module in modules:
                return module
    return ("__init__",)


def cycle(inside: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[str]:
    """Return the first circle of imports, if there is one."""
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        return ["imports go in a circle: " + " <- ".join(".".join(module) for module in error.args[1])]
    return []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small sound package with a file on most floors."""
    files = {
        "__init__.py": '__version__ = "1"',
        "errors.py": "import json",
        "config.py": "from imputune.errors import UserError",
        "data/__init__.py": "",
        "data/cohort.py": "import imputune\nfrom imputune.errors import UserError",
        "data/folds.py": "from imputune.data.cohort import Cohort",
        "models/__init__.py": "",
        "models/csai.py": "import torch\nfrom imputune.data import cohort",
        "training/__init__.py": "",
        "training/loop.py": "from imputune.models.csai import Csai",
        "tracking/__init__.py": "",
        "tracking/runs.py": "import mlflow.entities\nfrom mlflow import MlflowClient",
        "cli.py": "def run():\n    from imputune.tracking.runs import Run",
    }
    package = tmp_path / "imputune"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text + "\n")
    return package


def test_the_package_keeps_the_house_plan() -> None:
    """Every file of imputune imports from its own floor or below, without circles, and only tracking imports mlflow."""
    assert problems(PACKAGE) == []


def test_every_room_is_there() -> None:
    """The plan names no room that the package does not have, so that a renamed one is not forgotten here."""
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms == set(FLOOR_OF)


def test_sound_house_has_no_problems(house: Path) -> None:
    """The checker finds nothing in a package that keeps the plan."""
    assert problems(house) == []


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        (
            "data/folds.py",
            "from imputune.models.csai import Csai",
            "data/folds.py imports models.csai from a higher floor",
        ),
        (
            "models/csai.py",
            "import imputune.training.best_state",
            "models/csai.py imports training.loop from a higher floor",
        ),
        (
            "models/csai.py",
            "from imputune import training",
            "models/csai.py imports training.__init__ from a higher floor",
        ),
        ("models/csai.py", "from ..training import loop", "models/csai.py imports training.loop from a higher floor"),
        ("models/csai.py", "from ..training.loop import x", "models/csai.py imports training.loop from a higher floor"),
        ("config.py", "from . import cli", "config.py imports cli from a higher floor"),
        ("errors.py", "def f():\n    from imputune.cli import run", "errors.py imports cli from a higher floor"),
        ("training/loop.py", "import mlflow", "training/loop.py imports mlflow"),
        ("training/loop.py", "from mlflow.entities import Run", "training/loop.py imports mlflow"),
        ("cli.py", "if True:\n    import mlflow as m", "cli.py imports mlflow"),
        ("tracking/runs.py", "from dvc.api import DVCFileSystem", "tracking/runs.py imports dvc"),
        ("utils.py", "", "utils.py stands in no room"),
        ("shared/text.py", "", "shared/text.py stands in no room"),
    ],
)
def test_forbidden_import_is_found(house: Path, file: str, line: str, problem: str) -> None:
    """A single forbidden import, however it is written, and a file outside the plan are each reported."""
    path = house / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.is_file() else "") + line + "\n")
    assert problems(house) == [problem]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/cohort.py", "from imputune.data.folds import Fold"),
        ("data/cohort.py", "from . import folds"),
        ("errors.py", "from imputune.settings.schema import Params"),
    ],
)
def test_circle_is_found(house: Path, file: str, line: str) -> None:
    """Two files of one room that import each other are reported."""
    path = house / file
    path.write_text(path.read_text() + line + "\n")
    (problem,) = problems(house)
    assert problem.startswith("imports go in a circle: ")


@pytest.mark.parametrize(
    ("stage", "start"),
    [
        ("pretrain", "pretrain"),
        ("finetune_mlp", "finetune"),
        ("finetune_recurrent", "finetune"),
        ("finetune_shallow", "baselines"),
        ("pretrain_others", "pretrain"),
        ("matrix", "finetune"),
        ("matrix", "baselines"),
        ("assess", "assessment"),
    ],
)
def test_stages_depend_on_the_files_they_run(stage: str, start: str) -> None:
    """dvc.yaml names every file that a training stage reaches by imports, so that a change in any runs it again."""
    modules = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
    reached, ahead = set(), {("training", start)}
    while ahead:
        module = ahead.pop()
        reached.add(module)
        names = (name[1:] for name in imports(modules[module], (PACKAGE.name, *module)) if name[0] == PACKAGE.name)
        ahead |= {target for name in names if (target := target_module(name, modules))[0] in ROOMS} - reached
    named = yaml.safe_load((PACKAGE.parents[1] / "dvc.yaml").read_text())["stages"][stage]["deps"]
    paths = {"src/imputune/" + "/".join(module) + ".py" for module in reached - NO_RESULT if module[-1] != "__init__"}
    assert {path for path in paths if path not in named and str(Path(path).parent) not in named} == set()
    assert len(paths) > 8
