"""Remotes of a group: push over SSH and to an S3-compatible store, pull in another clone, no record on the remote."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from getpass import getuser
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest

from dvc_projects import dvc, git, hashes, objects, ran
from projects import ROOT
from servers import free_port, wait_for

pytestmark = pytest.mark.cluster  # processes of dvc, and servers
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
PLANTED = b"planted-79331-record"


@dataclass(frozen=True)
class Remote:
    """A remote as docs/cluster.md adds it.

    commands: what dvc is told once. content: returns what the remote has, by its key.
    """

    commands: tuple[str, ...]
    content: Callable[[], dict[str, bytes]]


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[Remote]:
    """A server of this user alone, with a host key and one authorised key made here."""
    pytest.importorskip("dvc_ssh", reason="SSH remotes need the extra `remotes`")
    if SSHD is None:
        pytest.skip("no sshd here: it is in Debian's package openssh-server")
    folder, store, port = tmp_path / "ssh", tmp_path / "remote", free_port()
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    settings = {
        "AuthorizedKeysFile": folder / "user.pub",
        "HostKey": folder / "host",
        "PasswordAuthentication": "no",
        "PidFile": "none",
        "StrictModes": "no",
        "Subsystem": "sftp internal-sftp",
        "UsePAM": "no",
    }
    words = [text for key, value in settings.items() for text in ("-o", f"{key} {value}")]
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd demands it of root
    log = folder / "log"
    place = ["-o", "ListenAddress 127.0.0.1", "-p", str(port), "-f", "/dev/null", "-E", str(log)]
    with subprocess.Popen([SSHD, "-D", *place, *words]) as server:
        try:
            wait_for(port, server, log)
            yield Remote(
                commands=(
                    f"remote add --default store ssh://127.0.0.1:{port}{store}",
                    f"remote modify --local store user {getuser()}",
                    f"remote modify --local store keyfile {folder / 'user'}",
                ),
                content=lambda: {
                    str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()
                },
            )
        finally:
            server.terminate()


@pytest.fixture
def s3() -> Iterator[Remote]:
    """moto's server, which keeps its objects in memory."""
    pytest.importorskip("dvc_s3", reason="S3 remotes need the extra `remotes`")
    moto = pytest.importorskip("moto.server", reason="the S3 remote of this test is moto, of the extra `dev`")
    import boto3

    port, secrets = free_port(), ("key-of-the-group", "planted-secret")
    server, address = (
        moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False),
        f"http://127.0.0.1:{port}",
    )
    server.start()
    session = boto3.Session(*secrets, region_name="us-east-1")
    bucket = session.resource("s3", endpoint_url=address).create_bucket(Bucket="group")
    try:
        yield Remote(
            commands=(
                "remote add --default store s3://group/imputune",
                f"remote modify store endpointurl {address}",
                f"remote modify --local store access_key_id {secrets[0]}",
                f"remote modify --local store secret_access_key {secrets[1]}",
            ),
            content=lambda: {item.key: item.get()["Body"].read() for item in bucket.objects.all()},
        )
    finally:
        server.stop()


def tracked(folder: Path) -> set[str]:
    """Return the hashes of a folder's files, without the empty ones: locks, which no stage has as an output."""
    return hashes(folder) - {md5(b"", usedforsecurity=False).hexdigest()}


@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_a_group_shares_artifacts_and_no_record(
    kind: str, owner: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The remote gets the artifacts, no file of data/ and no value of a record; a clone pulls and runs nothing.

    Keys are in .dvc/config.local alone, which git ignores.
    """
    remote: Remote = request.getfixturevalue(kind)
    page = (ROOT / "docs/cluster.md").read_text()
    assert not [words for words in remote.commands if f"$ dvc {words.rpartition(' ')[0]} " not in page]
    (owner / "data/notes.txt").write_bytes(PLANTED)
    rows = [row.tobytes() for row in np.load(owner / "data/synthetic/values.npy")]
    dvc(owner, *remote.commands, "commit --force data.dvc", "push")
    git(owner, "commit", "--all", "--quiet", "--message", "remote")

    records, artifacts, stored = hashes(owner / "data"), tracked(owner / "artifacts"), remote.content()
    keys = {"".join(key.split("/")[-2:]) for key in stored}
    assert records <= objects(owner / ".dvc/cache")
    assert len(artifacts) > 10
    assert artifacts <= keys
    assert not records & keys
    everything = b"\0".join(stored.values())
    assert not [text for text in (PLANTED, *rows) if text in everything]

    git(tmp_path, "clone", "--quiet", str(owner), "clone")
    clone, private = tmp_path / "clone", [words for words in remote.commands if "--local" in words]
    printed = dvc(clone, *private, "pull dvc.yaml", "repro --allow-missing")
    assert ran(printed) == []
    assert not (clone / "data").exists()
    assert tracked(clone / "artifacts") == artifacts
    assert git(clone, "status", "--porcelain") == ""
    secret = private[-1].split()[-1]
    assert secret in (clone / ".dvc/config.local").read_text()
    assert secret not in (clone / ".dvc/config").read_text()
