"""Marks planted in raw records, and the search for copies of them outside data/."""

import re
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import numpy as np

MARKED_TEXT = "PlantedDiagnosis"
MARKED_VALUES = [123.4567 + n * (n + 1) for n in range(40)]  # one for each stay
MARKED_ID = 987_650_000  # patients from here; admissions and stays a thousand and two thousand on
STAYS = len(MARKED_VALUES)


def cached_data(folder: Path) -> set[Path]:
    """Return the objects of DVC's own cache that are files of data/, by their hash and, as a check, their bytes."""
    objects = set()
    for path in (folder / "data").rglob("*"):
        if path.is_file():
            digest = md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            copy = folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
            assert copy.read_bytes() == path.read_bytes()
            objects.add(copy)
    return objects


def copies(folder: Path) -> Iterator[Path]:
    """Yield every file outside data/, the program aside, in which something marked stands as text or as a number."""
    numbers = [np.array(value, kind).tobytes() for kind in ("<f4", "<f8") for value in MARKED_VALUES[::4]]
    ids = [MARKED_ID + kind + n for kind in (0, 1000, 2000) for n in range(0, STAYS, 4)]
    numbers += [np.array(each, kind).tobytes() for each in ids for kind in ("<i8", "<i4", "<f8")]
    # Digits of scores must not be taken for a mark: ids begin a number, values have hundreds before the point.
    texts = re.compile(rb"%b|\d{3}\.4567|(?<![\d.])%b|2077-07-07" % (MARKED_TEXT.encode(), str(MARKED_ID)[:5].encode()))
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] not in ("data", "src"):
            content = path.read_bytes()
            if texts.search(content) or any(mark in content for mark in numbers):
                yield path
