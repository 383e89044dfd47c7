"""Commands with many options: Typer reads them from the fields of a dataclass, the command gets one object."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, TypeVar, get_type_hints

Options = TypeVar("Options")


def takes(kind: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Return a decorator that lets a command take its options as one dataclass.

    Each field is an option as Typer declares it; one without a default is required.
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
    """Return the fields of a dataclass as parameters that Typer reads."""
    hints = get_type_hints(kind, include_extras=True)
    parameters = []
    for each in fields(kind):  # type: ignore[arg-type]  # every kind that is given is a dataclass
        default = inspect.Parameter.empty if each.default is MISSING else each.default
        parameters.append(
            inspect.Parameter(
                each.name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hints[each.name]
            )
        )
    return parameters
