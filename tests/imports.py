"""What the files of the package import, read from their source."""

import ast
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "imputune"
Module = tuple[str, ...]
"""A module by the parts of its name below the package: ("data", "folds")."""


def modules_of(package: Path) -> dict[Module, Path]:
    """Return every module of a package and its file."""
    return {path.relative_to(package).with_suffix("").parts: path for path in sorted(package.rglob("*.py"))}


def imported_names(path: Path, module: Module) -> Iterator[tuple[str, ...]]:
    """Yield the dotted name of everything that a file imports, anywhere in it, relative imports resolved.

    `module` is the file's own name with the package before it.
    """
    package = module[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            source = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*source, alias.name) for alias in node.names)


def target_module(name: tuple[str, ...], modules: Collection[Module]) -> Module:
    """Return the module of the package that an imported name stands for or stands in."""
    for length in range(len(name), 0, -1):
        for module in (name[:length], (*name[:length], "__init__")):
            if module in modules:
                return module
    return ("__init__",)


def circle(inside: Mapping[Module, Collection[Module]]) -> list[str]:
    """Return the first circle of imports as one line, if there is one."""
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        return ["imports go in a circle: " + " <- ".join(".".join(module) for module in error.args[1])]
    return []


def reached(entries: Collection[Module], rooms: Collection[str], package: Path = PACKAGE) -> set[Module]:
    """Return the modules that entries reach by imports, through modules of these rooms alone; the entries included."""
    modules = modules_of(package)
    found: set[Module] = set()
    ahead = set(entries)
    while ahead:
        module = ahead.pop()
        found.add(module)
        names = (
            name[1:] for name in imported_names(modules[module], (package.name, *module)) if name[0] == package.name
        )
        ahead |= {target for name in names if (target := target_module(name, modules))[0] in rooms} - found
    return {module for module in found if module[-1] != "__init__"}
