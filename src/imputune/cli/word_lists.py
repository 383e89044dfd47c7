"""Options that are lists separated by commas: words, imputers, folds."""

from imputune.errors import UserError
from imputune.protocol.imputers import known_imputer
from imputune.settings.names import ImputerName
from imputune.settings.schema import Params


def imputer_names(text: str, params: Params) -> list[ImputerName]:
    """Return the imputers of a list separated by commas, each once; UserError for an unknown one."""
    words = list(params.all_imputers) if text.strip() == "all" else split_words(text)
    if text and not words:
        raise UserError(f"--imputer takes names separated by commas, such as mean,locf, or all: got {text!r}")
    return list(dict.fromkeys(map(known_imputer, words)))


def split_words(text: str) -> list[str]:
    """Return the words of a list separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def fold_numbers(text: str) -> list[int] | None:
    """Return the numbers of folds in a list separated by commas, None for an empty one."""
    words = split_words(text)
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--fold takes numbers separated by commas, such as 0,1: got {text!r}")
    return sorted({int(word) for word in words}) or None
