"""Experiments of DVC that run outside the project's folder, in a copy of it that DVC makes and deletes."""

import os
import sys
from pathlib import Path

PLACE = (".dvc", "tmp", "exps")
"""Where DVC makes the copies for `dvc exp run --temp` and `--queue`, in the project's folder."""


def owner_of(folder: Path) -> Path | None:
    """Return the project for which DVC made the copy that a folder is in; None if it is in no such copy."""
    for above in folder.resolve().parents:
        if above.parts[-len(PLACE) :] == PLACE:
            return above.parents[len(PLACE) - 1]
    return None


def experiment_of(folder: Path) -> str:
    """Return the name of the experiment for which DVC made the copy that a folder is in; "" if it is in no such copy.

    If DVC does not name the experiment, the name is that of the folder.
    """
    return "" if owner_of(folder) is None else os.environ.get("DVC_EXP_NAME") or folder.resolve().name


def other_experiment(folder: Path, experiment: str) -> str:
    """Return an experiment's name, "" for none and for the one in whose copy the folder is."""
    return "" if experiment == experiment_of(folder) else experiment


def use_code_of_copy(package: Path) -> None:
    """Start this process again with the code of an experiment's copy, if it runs other code; else do nothing.

    An editable install gives every process the code of the project's folder, which may have changed since the
    experiment was queued. `package` is the folder of the package that runs. The copy is the folder with params.yaml,
    at or above the current one.
    """
    here = Path.cwd()
    copy = next((folder for folder in (here, *here.parents) if (folder / "params.yaml").is_file()), here)
    source = copy / "src"
    own = source / package.name
    if owner_of(copy) is None or not (own / "__init__.py").is_file() or own.resolve() == package.resolve():
        return
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, "-m", f"{package.name}.cli", *sys.argv[1:]]
    os.execve(sys.executable, words, environment)
