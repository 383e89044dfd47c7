import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imports import PACKAGE, Module, circle, imported_names, modules_of, target_module

# The rooms from the ground floor up. A room imports from itself and from those before it.
ROOMS = (
    "__init__",
    "errors",
    "signals",
    "files",
    "settings",
    "protocol",
    "runtime",
    "data",
    "datasets",
    "evaluation",
    "models",
    "imputers",
    "artifacts",
    "training",
    "tracking",
    "registry",
    "reporting",
    "pipeline",
    "api",
    "cli",
)
# The package itself names what it offers to notebooks, and loads each name when it is first used.
FACE = ("__init__",)
# Packages that only some files import: rooms, or one file of a room. What is imported for type checking counts too.
RESERVED = {
    "mlflow": ("tracking", "registry"),
    "dvc": (),
    "optuna": ("training/search.py",),
    "xgboost": ("models/boosters.py", "models/non_neural.py"),
    "captum": ("models/attributions.py",),
    "pypots": ("imputers/pypots.py", "models/faster_pypots.py", "models/rivals/pypots.py"),
    "duckdb": ("data/raw",),
    "matplotlib": ("reporting", "pipeline/compare.py", "tracking/runs.py"),
    "jinja2": ("reporting",),
    "ruamel": ("settings/file.py",),
    "typer": ("cli", "datasets"),
    "ray": ("runtime/ray_cluster.py", "runtime/ray_engine.py"),
    "rich": ("runtime/console.py",),
}
# What a room must not know although it stands earlier: networks know no settings and no files, and so on.
UNKNOWN = {"models": ("settings", "files", "runtime"), "evaluation": ("files",)}
READS_FILES = re.compile(r"\bopen\(|\bpathlib\b|\.read_text\(|\.read_bytes\(|\.glob\(|read_csv|read_parquet")
MOST_PARAMETERS, MOST_POSITIONAL = 7, 3
# Files whose constructor may have more parameters, all by name, and why.
LONG = {"api/imputer.py": "scikit-learn reads an estimator's parameters from its constructor"}
# Where `dict[str, Any]` may stand, and why.
UNTYPED = {
    "data/cohort.py": "what pickle keeps of a cohort",
    "models/non_neural.py": "arguments handed on to XGBoost",
    "registry/serving.py": "MLflow's own signature",
}
Check = Callable[[Path], list[str]]


def import_problems(package: Path) -> list[str]:
    """Return every import that the list of rooms forbids, and the first circle, each as one line."""
    modules = modules_of(package)
    found: list[str] = []
    inside: dict[Module, set[Module]] = {}
    for module, path in modules.items():
        where = path.relative_to(package).as_posix()
        if module[0] not in ROOMS:
            found.append(f"{where} stands in no room")
            continue
        inside[module] = set()
        for name in imported_names(path, (package.name, *module)):
            places = RESERVED.get(name[0], (where,))
            if not any(where == place or where.startswith(f"{place}/") for place in places):
                found.append(f"{where} imports {name[0]}")
            if name[0] != package.name or module == FACE:
                continue
            target = target_module(name[1:], modules)
            if ROOMS.index(target[0]) > ROOMS.index(module[0]):
                found.append(f"{where} imports {'.'.join(target)} from a later room")
            elif target[0] in UNKNOWN.get(module[0], ()) and target != ("settings", "names"):
                found.append(f"{where} imports {'.'.join(target)}, which its room must not know")
            elif target != module:
                inside[module].add(target)
    return sorted(set(found)) + circle(inside)


def file_problems(package: Path) -> list[str]:
    """Return the lines of reporting that read files, and those of evaluation that print."""
    found = []
    for room, pattern, what in (
        ("reporting", READS_FILES, "reads files"),
        ("evaluation", re.compile(r"\bprint\(|\bjinja2\b|\.render\("), "writes words"),
    ):
        for path in sorted((package / room).rglob("*.py")):
            if pattern.search(path.read_text()):
                found.append(f"{path.relative_to(package).as_posix()} {what}")
    return found


def signature_problems(package: Path) -> list[str]:
    """Return functions of too many parameters, and constructors of more than three that take them by position."""
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package).as_posix()
        for function in functions(ast.parse(path.read_text())):
            names = parameters(function)
            may_be_long = function.name == "__init__" and where in LONG
            if len(names) > MOST_PARAMETERS and not may_be_long:
                found.append(f"{where}: {function.name} has {len(names)} parameters")
            positional = [each for each in names if each not in {arg.arg for arg in function.args.kwonlyargs}]
            if function.name == "__init__" and len(positional) > MOST_POSITIONAL:
                found.append(f"{where}: a constructor takes {len(positional)} arguments by position")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and positional_fields(node) > MOST_POSITIONAL:
                found.append(f"{where}: {node.name} has {positional_fields(node)} fields by position")
    return found


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters without self and cls."""
    listed = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    stars = [each for each in (function.args.vararg, function.args.kwarg) if each]
    return [each.arg for each in (*listed, *stars) if each.arg not in ("self", "cls")]


def positional_fields(node: ast.ClassDef) -> int:
    """Return how many fields the constructor of a dataclass takes by position, 0 for any other class."""
    for decorator in node.decorator_list:
        name = decorator.func if isinstance(decorator, ast.Call) else decorator
        if not (isinstance(name, ast.Name) and name.id == "dataclass"):
            continue
        keywords = {each.arg: each.value for each in decorator.keywords} if isinstance(decorator, ast.Call) else {}
        if "kw_only" in keywords:
            return 0
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        return sum(
            "ClassVar" not in ast.dump(each.annotation) and "init=False" not in ast.unparse(each) for each in fields
        )
    return 0


def untyped_problems(package: Path) -> list[str]:
    """Return the files in which `dict[str, Any]` stands without a reason in the list above."""
    texts = {path.relative_to(package).as_posix(): path.read_text() for path in sorted(package.rglob("*.py"))}
    return [
        f"{name} has dict[str, Any]" for name, text in texts.items() if "dict[str, Any]" in text and name not in UNTYPED
    ]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small sound package with a file in most rooms."""
    files = {
        "__init__.py": '__version__ = "1"',
        "errors.py": "import json",
        "settings/__init__.py": "",
        "settings/names.py": "",
        "settings/schema.py": "from imputune.errors import UserError",
        "data/__init__.py": "",
        "data/cohort.py": "import imputune\nfrom imputune.errors import UserError",
        "data/folds.py": "from imputune.data.cohort import Cohort",
        "models/__init__.py": "",
        "models/csai.py": "import torch\nfrom imputune.data import cohort\nfrom imputune.settings.names import Head",
        "training/__init__.py": "",
        "training/loop.py": "from imputune.models.csai import Csai",
        "training/search.py": "import optuna.samplers",
        "tracking/__init__.py": "",
        "tracking/runs.py": "import mlflow.entities\nfrom mlflow import MlflowClient",
        "reporting/__init__.py": "",
        "reporting/tables.py": "from dataclasses import dataclass",
        "cli/__init__.py": "def run():\n    from imputune.tracking.runs import Run",
    }
    package = tmp_path / "imputune"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text + "\n")
    return package


def test_a_room_imports_earlier_rooms_alone() -> None:
    """No file imports from a later room, in a circle, or a package that belongs to other rooms."""
    assert import_problems(PACKAGE) == []


def test_every_room_is_there() -> None:
    """The list names no room that the package does not have, so that a renamed one is not forgotten here."""
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms == set(ROOMS)


def test_reporting_reads_no_files_and_evaluation_prints_nothing() -> None:
    """What a report shows is handed to it; evaluation computes numbers."""
    assert file_problems(PACKAGE) == []


def test_signatures_are_short_and_constructors_take_names() -> None:
    """No function has more than seven parameters; with more than three, a constructor takes them by keyword."""
    assert signature_problems(PACKAGE) == []


def test_what_is_handed_on_is_typed() -> None:
    """`dict[str, Any]` stands nowhere but where a reason is listed, and no reason is left over."""
    assert untyped_problems(PACKAGE) == []
    assert all("dict[str, Any]" in (PACKAGE / name).read_text() for name in UNTYPED)


def test_the_package_itself_may_name_what_any_room_has(house: Path) -> None:
    """It loads these names when they are first used, so that no import goes in a circle."""
    assert import_problems(added(house, "__init__.py", "from imputune.training.loop import Csai")) == []


def test_long_constructors_are_long() -> None:
    """No exception is left over: without the list, each of its files would be reported."""
    for name in LONG:
        constructors = [each for each in functions(ast.parse((PACKAGE / name).read_text())) if each.name == "__init__"]
        assert any(len(parameters(each)) > MOST_PARAMETERS for each in constructors), name


@pytest.mark.parametrize("check", [import_problems, file_problems, signature_problems, untyped_problems])
def test_a_sound_house_has_no_problems(house: Path, check: Check) -> None:
    """The checkers find nothing in a package that keeps the rules."""
    assert check(house) == []


def added(house: Path, file: str, text: str) -> Path:
    """Append lines to a file of the house, which may be a new one."""
    path = house / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.is_file() else "") + text + "\n")
    return house


@pytest.mark.parametrize(
    ("file", "line", "problem"),
    [
        (
            "data/folds.py",
            "from imputune.models.csai import Csai",
            "data/folds.py imports models.csai from a later room",
        ),
        ("models/csai.py", "import imputune.training.loop", "models/csai.py imports training.loop from a later room"),
        (
            "models/csai.py",
            "from imputune import training",
            "models/csai.py imports training.__init__ from a later room",
        ),
        ("models/csai.py", "from ..training import loop", "models/csai.py imports training.loop from a later room"),
        ("models/csai.py", "from ..training.loop import x", "models/csai.py imports training.loop from a later room"),
        ("errors.py", "from . import cli", "errors.py imports cli.__init__ from a later room"),
        (
            "errors.py",
            "def f():\n    from imputune.cli import run",
            "errors.py imports cli.__init__ from a later room",
        ),
        (
            "models/csai.py",
            "from imputune.settings.schema import Params",
            "models/csai.py imports settings.schema, which its room must not know",
        ),
        ("training/loop.py", "import mlflow", "training/loop.py imports mlflow"),
        ("training/loop.py", "from mlflow.entities import Run", "training/loop.py imports mlflow"),
        ("training/loop.py", "import optuna", "training/loop.py imports optuna"),
        ("cli/__init__.py", "if True:\n    import mlflow as m", "cli/__init__.py imports mlflow"),
        ("tracking/runs.py", "from dvc.api import DVCFileSystem", "tracking/runs.py imports dvc"),
        ("utils.py", "", "utils.py stands in no room"),
        ("shared/text.py", "", "shared/text.py stands in no room"),
    ],
)
def test_a_forbidden_import_is_found(house: Path, file: str, line: str, problem: str) -> None:
    """A single forbidden import, however it is written, and a file in no room are each reported."""
    assert import_problems(added(house, file, line)) == [problem]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/cohort.py", "from imputune.data.folds import Fold"),
        ("data/cohort.py", "from . import folds"),
        ("settings/names.py", "from imputune.settings import schema\n"),
    ],
)
def test_a_circle_is_found(house: Path, file: str, line: str) -> None:
    """Two files of one room that import each other are reported."""
    if file == "settings/names.py":
        added(house, "settings/schema.py", "from imputune.settings import names")
    (problem,) = import_problems(added(house, file, line))
    assert problem.startswith("imports go in a circle: ")


@pytest.mark.parametrize(
    ("check", "file", "text", "problem"),
    [
        (file_problems, "reporting/tables.py", "from pathlib import Path", "reporting/tables.py reads files"),
        (file_problems, "reporting/tables.py", "text = open('x').read()", "reporting/tables.py reads files"),
        (file_problems, "evaluation/rows.py", "print('AUC')", "evaluation/rows.py writes words"),
        (
            signature_problems,
            "data/folds.py",
            "def f(self, a, b, c, *, d, e, g, h): ...\n",
            "data/folds.py: f has 7 parameters",
        ),
        (
            signature_problems,
            "data/folds.py",
            "def f(a, b, c, d, e, f, g, **h): ...",
            "data/folds.py: f has 8 parameters",
        ),
        (
            signature_problems,
            "data/folds.py",
            "class A:\n    def __init__(self, a, b, c, d): ...",
            "data/folds.py: a constructor takes 4 arguments by position",
        ),
        (
            signature_problems,
            "data/folds.py",
            "@dataclass(frozen=True)\nclass A:\n    a: int\n    b: int\n    c: int\n    d: int = 1",
            "data/folds.py: A has 4 fields by position",
        ),
        (untyped_problems, "data/folds.py", "x: dict[str, Any] = {}", "data/folds.py has dict[str, Any]"),
    ],
)
def test_a_breach_is_found(house: Path, check: Check, file: str, text: str, problem: str) -> None:
    """Each rule reports one line that breaks it."""
    expected = [] if problem.endswith("has 7 parameters") else [problem]
    assert check(added(house, file, text)) == expected


def test_what_keeps_the_rules_is_let_pass(house: Path) -> None:
    """Keyword-only fields and arguments, fields set later, named tuples, and three by position."""
    text = (
        "@dataclass(kw_only=True)\nclass A:\n    a: int\n    b: int\n    c: int\n    d: int\n"
        "@dataclass\nclass B:\n    a: int\n    b: int\n    c: int\n    d: int = field(init=False)\n"
        "class C(NamedTuple):\n    a: int\n    b: int\n    c: int\n    d: int\n"
        "class D:\n    def __init__(self, a, b, c, *, d, e): ...\n"
    )
    assert signature_problems(added(house, "data/folds.py", text)) == []
