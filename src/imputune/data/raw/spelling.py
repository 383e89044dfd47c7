"""Unknown parameter names: a suggestion for a misspelling, none where the name may mean something else."""

from collections.abc import Iterable, Mapping, Sequence

from imputune.data.raw.other_quantities import NAMES_NOT_IT

SHORTEST = 4  # letters; in a shorter name such as K or pH, one wrong letter makes another word
SHOWN = 60  # characters of an unknown name
_JOINTS = str.maketrans("", "", " _-.")


def explain_unknown(word: str, known: Sequence[str], listed: Sequence[str]) -> str:
    """Return what is wrong with a parameter name that is not among `known`, and what to do; `listed` are offered.

    "did you mean" is for spelling only: letter case, spaces, or one slip of the pen. A name that is known to be another
    quantity or unit is never to be renamed.
    """
    shown = _shown(word)
    if other := [name for name in known if is_not(word, name)]:
        return (
            f"unknown parameter {shown}: it may be another quantity, specimen or unit than {' or '.join(other)}; "
            f"remove its rows, do not rename them (known parameters: {', '.join(listed)})"
        )
    if meant := spelt_like(word, known):
        return f"unknown parameter {shown} (did you mean {meant!r}?); rename it or remove its rows"
    return f"unknown parameter {shown}; remove its rows, or name it as one of {', '.join(listed)}"


def explain_column(word: str, meaning: Mapping[str, str]) -> str | None:
    """Return what is wrong with a column whose name is a misspelling of one of these words; None if it is not.

    meaning: for each word, the name that the column should have.
    """
    plain = {_plain(each): name for each, name in meaning.items()}
    meant = plain.get(_plain(word)) or spelt_like(word, dict.fromkeys(meaning.values()))
    return f"unknown column {_shown(word)} (did you mean {meant!r}?); rename it or remove it" if meant else None


def _shown(word: str) -> str:
    return repr(word if len(word) <= SHOWN else f"{word[:SHOWN]}...")


def spelt_like(word: str, known: Iterable[str]) -> str | None:
    """Return the one known name of which a word is a misspelling; None if there is no such name, or several."""
    names = list(known)
    if any(is_not(word, name) for name in names):
        return None
    same = [name for name in names if _plain(name) == _plain(word)]
    near = same or [name for name in names if _is_one_slip(_plain(word), _plain(name))]
    return near[0] if len(near) == 1 else None


def is_not(word: str, name: str) -> bool:
    """Whether a word is listed as another quantity or unit than the variable of this name.

    Letter case counts only where it makes the difference, as in mg and Mg.
    """
    plain = _plain(word)
    return any(
        word.strip() == other or (_plain(other) == plain and _plain(other) != _plain(name))
        for other in NAMES_NOT_IT.get(name, ())
    )


def _plain(word: str) -> str:
    return word.casefold().translate(_JOINTS)


def _is_one_slip(word: str, name: str) -> bool:
    """Whether a letter was doubled, left out, mistaken for another or put in, or two were swapped.

    The first letter must be right, and no other letter may have been put at the end: both usually make another word.
    """
    if word[:1] != name[:1]:
        return False
    if len(word) == len(name) + 1:
        places = [at for at in range(1, len(word)) if word[:at] + word[at + 1 :] == name]
        doubled = any(word[at] == word[at - 1] for at in places)
        return doubled or (len(name) >= SHORTEST and bool(places) and places[0] < len(word) - 1)
    if len(name) < SHORTEST:
        return False
    if len(word) == len(name) - 1:
        return any(name[:at] + name[at + 1 :] == word for at in range(len(name)))
    differing = [at for at in range(len(name)) if len(word) == len(name) and word[at] != name[at]]
    swapped = len(differing) == 2 and differing[1] == differing[0] + 1
    return len(differing) == 1 or (
        swapped and word[differing[0]] == name[differing[1]] and word[differing[1]] == name[differing[0]]
    )
