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


def use_code_of_copy(package: Path) -> None:
    """Start this process again with the code of an experiment's copy, if it runs other code; else do nothing.

    An editable install gives every process the code of the project's folder, which may have changed since the
    experiment was queued. `package` is the folder of the package that runs. The copy is the current folder.
    """
    copy = Path.cwd()
    source = copy / "src"
    own = source / package.name
    if owner_of(copy) is None or not (own / "__init__.py").is_file() or own.resolve() == package.resolve():
        return
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, "-m", f"{package.name}.cli", *sys.argv[1:]]
    os.execve(sys.executable, words, environment)
