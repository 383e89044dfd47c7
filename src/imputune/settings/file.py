"""The file params.yaml: reading it with errors that name the near miss, editing it, finding its folder."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from imputune.errors import UserError, near_miss
from imputune.files import replace_text
from imputune.settings.schema import Params

LINE_WIDTH = 10_000  # a line of the user is never broken
RENAMED = {
    "masking.hiding": "masking.pattern",
    "masking.share": "masking.rate",
    "scaling.tail_share": "scaling.clip_quantile",
    "csai.hidden": "csai.hidden_size",
    "finetune.hidden_share": "finetune.masking_rate",
    "finetune.unfrozen_rate_share": "finetune.unfrozen_rate_factor",
    "shallow": "non_neural",
    "non_neural.xgboost.stay_share": "non_neural.xgboost.stay_fraction",
    "non_neural.xgboost.feature_share": "non_neural.xgboost.feature_fraction",
    "grid.shallow": "grid.non_neural",
    "matrix": "imputers, and the blocks of grid",
    "assess.hiding": "assess.patterns",
    "assess.shares": "assess.rates",
}
"""Keys of earlier versions, and what they are called now."""


def read_params(path: Path) -> Params:
    """Read params.yaml.

    Raises UserError, one line, when the file is missing or not YAML, or when a key is listed twice, unknown (the line
    has its new name or the near miss), missing, or of the wrong type or range.
    """
    try:
        return Params.model_validate(YAML(typ="safe", pure=True).load(_read(path)))
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        key = str(error.problem).partition('"')[2].partition('"')[0]
        raise UserError(f"{path.name}, line {line}: key {key!r} is there twice: remove one of the two") from None
    except YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UserError(_first_problem(path.name, error)) from None


def use_dataset(path: Path, dataset: str) -> bool:
    """Set `dataset:` in params.yaml, comments and order kept; return whether it changed.

    Raises UserError for a file that `read_params` refuses, or that cannot be written.
    """
    if read_params(path).dataset == dataset:
        return False
    editor, content = _open(path)
    content["dataset"] = dataset
    _save(path, editor, content)
    return True


def use_outcome(path: Path, known: Sequence[str]) -> str:
    """Set `outcome:` in params.yaml to the first of a cohort's outcomes if it has not the one that stands there.

    Return it, "" if nothing changed. Comments and order are kept. Raises UserError as `use_dataset` does.
    """
    if read_params(path).outcome in ("", *known):
        return ""
    editor, content = _open(path)
    content["outcome"] = known[0]
    _save(path, editor, content)
    return known[0]


def add_budget(path: Path, dataset: str, like: str = "physionet2012") -> str:
    """Give a dataset without a budget the budget of another; return the other's name, or "" if nothing changed.

    Comments and order are kept. Raises UserError for a file that `read_params` refuses, that has no budget for the
    other dataset either, or that cannot be written.
    """
    params = read_params(path)
    if dataset in params.budget:
        return ""
    params.budget_of(like)
    editor, content = _open(path)
    budget = CommentedMap(content["budget"][like])
    budget.fa.set_flow_style()
    content["budget"][dataset] = budget
    _save(path, editor, content)
    return like


def find_root(start: Path) -> Path:
    """Return the project folder at or above `start`, the one that holds params.yaml and dvc.yaml.

    Raises UserError when there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"{start} is in no imputune project (no params.yaml and dvc.yaml): cd into your clone")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run inside the project's folder") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _open(path: Path) -> tuple[YAML, CommentedMap]:
    editor = YAML()
    editor.width = LINE_WIDTH
    editor.preserve_quotes = True
    return editor, editor.load(_read(path))


def _save(path: Path, editor: YAML, content: CommentedMap) -> None:
    text = io.StringIO()
    editor.dump(content, text)
    replace_text(path, text.getvalue())


def _first_problem(name: str, error: ValidationError) -> str:
    problems = error.errors()
    unknown = [each for each in problems if each["type"] == "extra_forbidden"]
    if unknown:
        return f"{name}: {_unknown_key(unknown[0])}"
    problem = problems[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{name}: key {place!r} is missing: add it (the committed params.yaml explains it)"
    message = problem["msg"].removeprefix("Value error, ")
    where = f"{place} = {problem['input']!r}: " if place else ""  # a rule across sections would quote the whole file
    return f"{name}: {where}{message[0].lower()}{message[1:]}"


def _unknown_key(problem: ErrorDetails) -> str:
    *above, key = (str(part) for part in problem["loc"])
    place = ".".join([*above, key])
    if place in RENAMED:
        return f"unknown key {place!r}: it is now {RENAMED[place]}"
    known = list(_keys_at(above))
    return f"unknown key {place!r}{near_miss(key, known)}: known here are {', '.join(known)}"


def _keys_at(place: Sequence[str]) -> Iterator[str]:
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
