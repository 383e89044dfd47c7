import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from imputune.data.raw.download import download_physionet2012
from imputune.errors import UserError

CONTENT = {"set-a.tar.gz": b"the archive", "Outcomes-a.txt": b"the outcomes"}


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder like the publisher's, with invented contents and their checksums."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    sums = "".join(f"{hashlib.sha256(content).hexdigest()} {name}\n" for name, content in CONTENT.items())
    (folder / "SHA256SUMS.txt").write_text(sums)
    return folder


@pytest.fixture
def base_url(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a loopback server of that folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(site)))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_files_are_downloaded_and_checked(tmp_path: Path, base_url: str) -> None:
    """The archive, the outcomes and the checksums are in a new folder, and nothing else."""
    folder = tmp_path / "new" / "raw"
    fetched = download_physionet2012(("a",), folder, base_url)
    assert [path.name for path in fetched] == ["set-a.tar.gz", "Outcomes-a.txt"]
    assert {name: (folder / name).read_bytes() for name in CONTENT} == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == sorted([*CONTENT, "SHA256SUMS.txt"])


def test_progress_is_reported(tmp_path: Path, base_url: str) -> None:
    """Progress is reported for each file, at the end with all its bytes."""
    reported: dict[str, tuple[int, int | None]] = {}
    download_physionet2012(("a",), tmp_path, base_url, lambda name, done, size: reported.update({name: (done, size)}))
    assert {name: reported[name] for name in CONTENT} == {name: (len(b), len(b)) for name, b in CONTENT.items()}


def test_files_with_the_right_hash_are_kept(tmp_path: Path, base_url: str) -> None:
    """A second download fetches nothing; only a damaged file is fetched again."""
    download_physionet2012(("a",), tmp_path, base_url)
    assert download_physionet2012(("a",), tmp_path, base_url) == []
    (tmp_path / "Outcomes-a.txt").write_bytes(b"damaged")
    assert download_physionet2012(("a",), tmp_path, base_url) == [tmp_path / "Outcomes-a.txt"]
    assert (tmp_path / "Outcomes-a.txt").read_bytes() == CONTENT["Outcomes-a.txt"]


def test_a_wrong_hash_is_an_error_and_leaves_no_file(tmp_path: Path, site: Path, base_url: str) -> None:
    """Bytes that do not match the published checksum never get the file's name."""
    (site / "set-a.tar.gz").write_bytes(b"another archive")
    with pytest.raises(UserError, match=r"set-a.tar.gz from .* does not match its published sha256; download"):
        download_physionet2012(("a",), tmp_path / "raw", base_url)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["SHA256SUMS.txt"]


def test_without_a_network_the_error_says_what_to_fetch(tmp_path: Path) -> None:
    """Without a server, one line names the files, the folder and what to do."""
    with pytest.raises(UserError) as caught:
        download_physionet2012(("a",), tmp_path, "http://127.0.0.1:1/")
    message = str(caught.value)
    assert message.startswith("cannot download from http://127.0.0.1:1/ (")
    assert "; fetch set-a.tar.gz, Outcomes-a.txt on another machine" in message
    assert message.endswith(f"put them in {tmp_path} and leave out --download")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_site_lacks_is_named(tmp_path: Path, site: Path, base_url: str) -> None:
    """A set without a published checksum, an unpublished file and an unknown letter are errors."""
    with pytest.raises(UserError, match="lists no set-b"):
        download_physionet2012(("b",), tmp_path, base_url)
    (site / "Outcomes-a.txt").unlink()
    with pytest.raises(UserError, match="cannot download"):
        download_physionet2012(("a",), tmp_path, base_url)
    with pytest.raises(UserError, match="unknown set 'x'; the sets are a, b, c"):
        download_physionet2012(("x",), tmp_path, base_url)
