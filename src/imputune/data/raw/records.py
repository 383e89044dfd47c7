"""Sets of text records: finding a set on disk, reading its files or archive, parsing its lines.

Letters: F record files, R rows of the records.
"""

import csv
import gzip
import hashlib
import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from imputune.data.raw.text import is_utf16, without_mark
from imputune.errors import UserError

_HEADER = b"Time,Parameter,Value"
_QUOTED_HEADER = b'"Time","Parameter","Value"'
_END_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """One set as bytes: (name, content) of each record, the outcomes, and the sha256 of each file that was read."""

    name: str
    records: tuple[tuple[str, bytes], ...]
    outcomes_name: str
    outcomes: bytes
    sha256: dict[str, str]


@dataclass(frozen=True)
class RecordTable:
    """All rows of some record files in one table, with the files' names and the first row of each."""

    table: pd.DataFrame
    names: tuple[str, ...]
    first_row_F: npt.NDArray[np.int64]

    @property
    def file_R(self) -> npt.NDArray[np.int64]:
        """The index of each row's file among the names."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.first_row_F, append=len(self.table)))

    def locate(self, row: int) -> str:
        """Return the file and line of a row as text."""
        return _locate(self.names, self.first_row_F, row)


def read_record_set(raw: Path, letter: str) -> RecordSet:
    """Read set-<letter> (archive or folder) and Outcomes-<letter>.txt from the folder `raw`.

    `raw` may also be the archive or the folder of the set itself; the outcomes are then read from beside it. If there
    are both an archive and a folder, the archive is read. Raises UserError if something is missing, or the archive is
    truncated or not an archive.
    """
    name = f"set-{letter}"
    if not raw.exists():
        raise UserError(f"{raw} does not exist; point --raw at the folder with {name}.tar.gz or {name}/")
    one_set = re.fullmatch(r"set-(\w)(\.tar\.gz)?", raw.name)
    if one_set and one_set[1] != letter:
        raise UserError(f"{raw} is set {one_set[1]}, not the wanted set {letter}; add --sets {one_set[1]}")
    home = raw.parent if one_set else raw
    outcomes_path = _in_any_case(home / f"Outcomes-{letter}.txt")
    archive, folder = _in_any_case(home / f"{name}.tar.gz"), _in_any_case(home / name)
    if not archive.is_file() and not folder.is_dir():
        raise UserError(f"{home} holds neither {name}.tar.gz nor {name}/; put one there or add --download")
    if not outcomes_path.is_file():
        raise UserError(f"{outcomes_path} is missing; put it beside {name} or add --download")
    try:
        outcomes = outcomes_path.read_bytes()
        if archive.is_file() and raw != folder:
            content = archive.read_bytes()
            records, source = _unpack(archive, content), archive.name
            digest = hashlib.sha256(content).hexdigest()
        else:
            records = tuple((f"{name}/{path.name}", path.read_bytes()) for path in _record_paths(folder))
            source, digest = f"{name}/", _digest_of_files(records)
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot read {error.filename or home}: {cause}; check the file") from error
    if not records:
        raise UserError(f"{home / source} holds no .txt record; unpack or download it again")
    sha256 = {source: digest, outcomes_path.name: hashlib.sha256(outcomes).hexdigest()}
    return RecordSet(name=name, records=records, outcomes_name=outcomes_path.name, outcomes=outcomes, sha256=sha256)


def read_record_files(path: Path) -> tuple[tuple[str, bytes], ...]:
    """Read the text records of a folder or a .tar.gz archive, or one text record, as (name, content).

    Files named Outcomes-... are ignored. Raises UserError if there is no record, or it cannot be read.
    """
    try:
        if path.is_dir():
            records = tuple((each.name, each.read_bytes()) for each in _record_paths(path))
        elif _is_record(path):
            return ((path.name, path.read_bytes()),)
        else:
            records = _unpack(path, path.read_bytes())
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot read {error.filename or path}: {cause}; check the file") from error
    records = tuple(each for each in records if not PurePosixPath(each[0]).name.lower().startswith("outcomes-"))
    if not records:
        raise UserError(f"{path} holds no .txt record; name the folder or the archive that holds them")
    return records


def parse_records(records: tuple[tuple[str, bytes], ...]) -> RecordTable:
    """Parse records with the header Time,Parameter,Value into one table, in the given order.

    Time and Parameter become categories. Value is float64, or text if some value is not a number. Raises UserError for
    an empty file, a missing header, or a line that does not have three fields.
    """
    names = tuple(name for name, _ in records)
    bodies = [_body(name, content) for name, content in records]
    blob = b"".join(bodies)
    row_counts_F = np.array([body.count(b"\n") for body in bodies], dtype=np.int64)
    first_row_F = np.cumsum(row_counts_F) - row_counts_F
    characters = np.frombuffer(blob, dtype=np.uint8)
    line_ends, commas = (np.flatnonzero(characters == ord(mark)) for mark in "\n,")
    fields_R = 1 + np.diff(np.searchsorted(commas, line_ends), prepend=0)
    if (fields_R != 3).any():
        row = int((fields_R != 3).argmax())
        raise UserError(
            f"{_locate(names, first_row_F, row)}: {fields_R[row]} fields, not Time,Parameter,Value; "
            "correct or remove the line"
        )
    try:
        table = _read_csv(blob, value="float64")
    except ValueError:
        # Some value is not a number: keep all values as text, so that `check_rows` can name the line.
        table = _read_csv(blob, value="str")
    return RecordTable(table, names, first_row_F)


def _is_record(path: PurePath) -> bool:
    return path.suffix.lower() == ".txt"


def _record_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_record(path) and not path.name.startswith("."))


def _in_any_case(path: Path) -> Path:
    """Return the path, or the only one beside it whose name differs in upper and lower case alone."""
    if path.exists() or not path.parent.is_dir():
        return path
    others = [other for other in path.parent.iterdir() if other.name.lower() == path.name.lower()]
    return others[0] if len(others) == 1 else path


def _unpack(archive: Path, content: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        tape = gzip.decompress(content)
        # tarfile does not notice if an archive is cut between two members; a complete one ends in zeros.
        if not tape.endswith(bytes(_END_BYTES)):
            raise tarfile.ReadError("its end is missing")
        with tarfile.open(fileobj=io.BytesIO(tape), mode="r:") as tar:
            return tuple(sorted(_members(tar)))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive} is truncated or not a tar.gz archive ({error}); download it again") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        path = PurePosixPath(member.name)
        # Archives made on a Mac have a second file, with ._ before its name, beside each file.
        file = tar.extractfile(member)
        if file is not None and _is_record(path) and not path.name.startswith("."):
            yield member.name, file.read()


def _digest_of_files(records: tuple[tuple[str, bytes], ...]) -> str:
    # One digest for the folder, over the list that sha256sum would print.
    listing = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in records)
    return hashlib.sha256(listing.encode()).hexdigest()


def _body(name: str, content: bytes) -> bytes:
    lines = without_mark(content).replace(b"\r\n", b"\n").strip()
    if lines.partition(b"\n")[0] == _QUOTED_HEADER:
        lines = lines.replace(b'"', b"")  # no parameter, time or number needs quotation marks
    header, _, body = lines.partition(b"\n")
    if header != _HEADER:
        raise UserError(f"{name} line 1: {_fault_of_header(content, header)}; restore or remove the file")
    return body + b"\n" if body else b""


def _fault_of_header(content: bytes, header: bytes) -> str:
    if is_utf16(content):
        return "the file is UTF-16 text, not UTF-8"
    for mark, word in ((b";", "semicolons"), (b"\t", "tabs")):
        if header.replace(b'"', b"").replace(mark, b",") == _HEADER:
            return f"{word} separate the fields, not commas"
    return f"the header {_HEADER.decode()} is missing" if header else "the file is empty"


def _read_csv(blob: bytes, value: str) -> pd.DataFrame:
    return pd.read_csv(
        io.BytesIO(blob),
        names=["Time", "Parameter", "Value"],
        dtype={"Time": "category", "Parameter": "category", "Value": value},
        na_filter=False,
        quoting=csv.QUOTE_NONE,
        lineterminator="\n",
        skip_blank_lines=False,
        encoding_errors="replace",
        low_memory=False,
    )


def _locate(names: tuple[str, ...], first_row_F: npt.NDArray[np.int64], row: int) -> str:
    file = int(np.searchsorted(first_row_F, row, side="right")) - 1
    return f"{names[file]} line {row - int(first_row_F[file]) + 2}"
