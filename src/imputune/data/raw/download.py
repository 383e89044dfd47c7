"""Download of the challenge's public files over HTTPS, each checked against its published checksum."""

import hashlib
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from imputune.data.raw.physionet2012 import SETS
from imputune.errors import UserError
from imputune.files import FileProgress, no_progress

BASE_URL = "https://physionet.org/files/challenge-2012/1.0.0/"
CHECKSUMS = "SHA256SUMS.txt"
_TIMEOUT_SECONDS = 60
_CHUNK_BYTES = 1 << 20


def download_physionet2012(
    sets: Sequence[str], folder: Path, base_url: str = BASE_URL, progress: FileProgress = no_progress
) -> list[Path]:
    """Download the archives and outcomes of `sets` into `folder` and return the files downloaded now.

    A file that is already there with the published sha256 is kept. A file gets its name only when its bytes are
    complete and match the checksum. Raises UserError if there is no network, a checksum differs, or the system refuses
    to write. Source: https://physionet.org/content/challenge-2012/1.0.0/.
    """
    if unknown := [letter for letter in sets if letter not in SETS]:
        raise UserError(f"unknown set {unknown[0]!r}; the sets are {', '.join(SETS)}")
    names = [name for letter in sets for name in (f"set-{letter}.tar.gz", f"Outcomes-{letter}.txt")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        published = _published_checksums(_fetch(base_url + CHECKSUMS, folder / CHECKSUMS, progress), names)
        wanted = [name for name in names if _sha256(folder / name) != published[name]]
        for name in wanted:
            _fetch(base_url + name, folder / name, progress, published[name])
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"cannot download from {base_url} ({getattr(error, 'reason', None) or error}); fetch "
            f"{', '.join(names)} on another machine, put them in {folder} and leave out --download"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; free the disk or choose another") from error
    return [folder / name for name in wanted]


def _fetch(url: str, path: Path, progress: FileProgress, sha256: str | None = None) -> Path:
    part = path.with_name(path.name + ".part")
    try:
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, part.open("wb") as file:
            size = int(response.headers["Content-Length"]) if response.headers["Content-Length"] else None
            while chunk := response.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
                progress(path.name, file.tell(), size)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise UserError(f"{path.name} from {url} does not match its published sha256; download it again")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _published_checksums(checksums: Path, names: Sequence[str]) -> dict[str, str]:
    pairs = re.findall(r"^([0-9a-f]{64})\s+\*?(?:\./)?(\S+)\s*$", checksums.read_text("utf-8"), re.MULTILINE)
    published = {name: digest for digest, name in pairs}
    if missing := [name for name in names if name not in published]:
        raise UserError(f"{CHECKSUMS} lists no {missing[0]}; check the address it came from")
    return published


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
