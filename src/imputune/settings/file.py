"""The file params.yaml: reading it with errors that name the near miss, setting its dataset, finding its folder."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from imputune.errors import UserError, near_miss
from imputune.files import replace_text
from imputune.settings.schema import Params


def read_params(path: Path) -> Params:
    """Read params.yaml.

    Raises UserError, one line, when the file is missing or no YAML, a key is unknown (with the near miss), missing, or
    of the wrong type or range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run inside the project's folder") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(_first_problem(path.name, error)) from None


def use_dataset(path: Path, dataset: str) -> bool:
    """Set `dataset:` in params.yaml, leaving every other byte as it is; return whether it changed.

    Raises UserError when the file has no plain line `dataset: <name>`, or cannot be written.
    """
    text = path.read_bytes().decode()
    changed, lines = re.subn(r"^dataset: *[^\s#]+", f"dataset: {dataset}", text, count=1, flags=re.MULTILINE)
    if not lines:
        raise UserError(f"{path} has no line `dataset: <name>`: add `dataset: {dataset}`")
    if changed != text:
        replace_text(path, changed)
    return changed != text


def add_budget(path: Path, dataset: str, like: str = "physionet2012") -> str:
    """Give a dataset that params.yaml has no budget for that of another; return that other, or "" if nothing changed.

    Every other byte stays as it is. Raises UserError when the file has no line with the other's budget, or cannot be
    written.
    """
    if dataset in read_params(path).budget:
        return ""
    text = path.read_bytes().decode()
    line = re.search(rf"^budget:[^\n]*\n(?:  [^\n]*\n)*?  {like}: *({{[^}}\n]*}})[^\n]*\n", text, flags=re.MULTILINE)
    if not line:
        raise UserError(f"{path} has no budget for {dataset}: add it under budget, as the other datasets have one")
    replace_text(path, f"{text[: line.end()]}  {dataset}: {line[1]}\n{text[line.end() :]}")
    return like


def _first_problem(name: str, error: ValidationError) -> str:
    problems = error.errors()
    problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *above, key = (str(part) for part in problem["loc"])
        known = list(_keys_at(above))
        return f"{name}: unknown key {place!r}{near_miss(key, known)}: known here are {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{name}: key {place!r} is missing: add it, README.md explains params.yaml"
    hint = " (YAML reads 1e-3 as text: write 1.0e-3 or 0.001)" if problem["type"] == "float_type" else ""
    where = f"{place} = " if place else "the file holds "
    return f"{name}: {where}{problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}{hint}"


def _keys_at(place: list[str]) -> Iterator[str]:
    """Yield the keys allowed under a place such as ["schedules", "plateau"]."""
    model: type[BaseModel] = Params
    for key in place:
        field = model.model_fields.get(key)
        if field is None:
            continue
        annotation = field.annotation
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[-1]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    yield from model.model_fields


def find_root(start: Path) -> Path:
    """Return the project folder at or above `start`, the one that holds params.yaml and dvc.yaml.

    Raises UserError when there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"{start} is in no imputune project (no params.yaml and dvc.yaml): cd into your clone")
