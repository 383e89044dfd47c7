"""The errors a user sees: one line, what is wrong and what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input or a missing step; its message is one line, shown as it is, and the exit code is 2."""

    exit_code = 2


def one_line(error: Exception) -> str:
    """Return an exception's message on one line, with other characters than text written as escapes."""
    words = " ".join(str(error).split())
    return words if words.isprintable() else repr(words)[1:-1]


def near_miss(word: str, known: Iterable[str], likeness: float = 0.5) -> str:
    """Return " (did you mean 'x'?)" for the closest known word, or "" when none is of that likeness (0 to 1)."""
    close = get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f" (did you mean {close[0]!r}?)" if close else ""
