"""The datasets that `imputune extract` knows: each module here is one, and its function `extract` is the command.

The function takes a `Destination` and then the command's options, as Typer declares them. It returns the cohort to
write, or None if it only shows something. See docs/adding-a-dataset.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from imputune.data.cohort import Cohort
from imputune.settings.file import find_root, read_params
from imputune.settings.schema import Params


@dataclass(frozen=True)
class Destination:
    """Where an extraction writes: to the folder `out`, or without one to data/<dataset> of the current project."""

    out: Path | None

    def folder(self, dataset: str) -> Path:
        """Return the cohort's folder; raises UserError outside a project if there is no `out`."""
        return self.out or self.data() / dataset

    def data(self) -> Path:
        """Return the project's data/, also for temporary files; raises UserError outside a project."""
        return find_root(Path.cwd()) / "data"

    def params(self) -> Params:
        """Return the project's params.yaml; raises UserError outside a project or if the file is broken."""
        return read_params(find_root(Path.cwd()) / "params.yaml")


def datasets() -> Iterator[tuple[str, Callable[..., Cohort | None]]]:
    """Yield each dataset's name and its function `extract`."""
    for module in iter_modules(__path__):
        yield module.name, import_module(f"{__name__}.{module.name}").extract
