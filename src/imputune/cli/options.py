"""Commands with many options: Typer reads them from the fields of a dataclass, the command gets one object."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from imputune.errors import UserError, near_miss
from imputune.runtime.workers import Engine, chosen_engine
from imputune.settings.file import find_root
from imputune.settings.names import EngineName
from imputune.settings.schema import Params

Options = TypeVar("Options")
EngineOption = Annotated[
    str, typer.Option("--engine", help="Where folds are trained: local or ray (default: engine in params.yaml).")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Folds side by side (default: workers in params.yaml; on a Ray cluster its cores)."
    ),
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of every command that trains folds."""

    engine: EngineOption = ""
    workers: Workers = None

    @contextmanager
    def chosen_engine(self, params: Params) -> Iterator[Engine]:
        """Yield the engine that is meant, after a look at the tracking store if it takes long to start.

        Raises UserError for an unknown engine or a store that cannot be used; see `workers.chosen_engine`.
        """
        known: dict[str, EngineName] = {name: name for name in get_args(EngineName)}
        if self.engine and self.engine not in known:
            raise UserError(
                f"unknown engine {self.engine!r}{near_miss(self.engine, known)}: choose from {', '.join(known)}"
            )
        name = known.get(self.engine) or params.engine
        if name != "local":
            from imputune.tracking.store import open_store

            open_store(find_root(Path.cwd()))
        with chosen_engine(params, name, self.workers) as engine:
            yield engine


def cohort_folder(named: Path) -> Path:
    """Return a cohort's folder: the one that is named, or data/<name> of the project for a name that is no folder."""
    if len(named.parts) != 1 or named.is_dir():
        return named
    try:
        meant = find_root(Path.cwd()) / "data" / named
    except UserError:  # outside a project a name is a folder's
        return named
    return Path(os.path.relpath(meant)) if meant.is_dir() else named


def takes(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Return a decorator that lets a command take its options as one dataclass.

    Each field is an option as Typer declares it; one without a default is required. Fields that a dataclass inherits
    come last.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters = option_parameters(kind)

    def decorate(command: Callable[[Options], None]) -> Callable[..., None]:
        @wraps(command)
        def run(**options: Any) -> None:
            command(kind(**options))

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = hints
        del run.__wrapped__
        return run

    return decorate


def option_parameters(kind: type[object]) -> list[inspect.Parameter]:
    """Return the fields of a dataclass as parameters that Typer reads; inherited ones come last."""
    hints = get_type_hints(kind, include_extras=True)
    parameters = []
    declared = fields(kind)  # type: ignore[arg-type]  # every kind that is given is a dataclass
    own = vars(kind)["__annotations__"]
    for each in sorted(declared, key=lambda each: each.name not in own):
        default = inspect.Parameter.empty if each.default is MISSING else each.default
        parameters.append(
            inspect.Parameter(
                each.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hints[each.name]
            )
        )
    return parameters
