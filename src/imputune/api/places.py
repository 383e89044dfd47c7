"""Where a notebook's data lie: a folder that is named, or a dataset of the project that the notebook is in."""

from pathlib import Path

from imputune.errors import UserError
from imputune.settings.file import find_root, read_params


def project_root(project: str | Path | None) -> Path:
    """Return the project folder at or above `project`, or above the current folder; UserError if there is none."""
    start = (Path.cwd() if project is None else Path(project)).resolve()
    if not start.is_dir():
        raise UserError(f"there is no folder {project}: name an imputune project")
    return find_root(start)


def named_folder(named: str | Path | None, marker: str, *, inside: str, project: str | Path | None) -> Path:
    """Return a folder that is named, or <project>/<inside>/<dataset>.

    `named` is a folder, with the file `marker` in it, or a dataset's name; None means the dataset that params.yaml
    names. Whether the folder is sound is left to its reader. Raises UserError outside a project if one is needed.
    """
    if named is not None:
        folder = Path(named)
        if isinstance(named, Path) or len(folder.parts) > 1 or (folder / marker).is_file():
            return folder
    root = project_root(project)
    return root / inside / (named or read_params(root / "params.yaml").dataset)
