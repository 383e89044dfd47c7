"""The tracking server of compose.yaml, with its own command and settings, on a PostgreSQL of this machine."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from pwd import getpwnam
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import requests
from ruamel.yaml import YAML

from projects import ROOT, clean_environment
from servers import free_port, wait_for

pytestmark = pytest.mark.cluster  # a database and a server
PROGRAMS = os.pathsep.join([os.environ["PATH"], *(str(path) for path in Path("/usr/lib/postgresql").glob("*/bin"))])
SETTINGS = {
    "DATABASE_PASSWORD": "planted-database-password",
    "TRACKING_SECRET_KEY": "planted-key",
    "MLFLOW_TRACKING_USERNAME": "head",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-of-head",
    "TRACKING_HOST": "tracking.example.org",
}
SEARCH = "/api/2.0/mlflow/experiments/search"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[int]:
    """A PostgreSQL that asks for compose.yaml's password; yields its port."""
    pytest.importorskip("psycopg", reason="the tracking server needs the extra `server`")
    pytest.importorskip("flask_wtf", reason="the tracking server needs the extra `server`")
    initdb, postgres = (shutil.which(name, path=PROGRAMS) for name in ("initdb", "postgres"))
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL here: it is in Debian's package postgresql")
    as_user: dict[str, Any] = {}
    with TemporaryDirectory(prefix="imputune-database-") as name:
        folder, port, log = Path(name), free_port(), tmp_path / "database.log"
        secret = folder / "secret"
        secret.write_text(SETTINGS["DATABASE_PASSWORD"])
        if os.getuid() == 0:  # PostgreSQL refuses root
            nobody = getpwnam("nobody")
            as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (folder, secret):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        make = [initdb, "-D", f"{folder}/data", "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={secret}"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **as_user)
        start = [postgres, "-D", f"{folder}/data", "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        with log.open("w") as written:
            run = subprocess.Popen(start, stdout=written, stderr=written, cwd=folder, **as_user)
        try:
            wait_for(port, run, log)
            yield port
        finally:
            run.terminate()
            run.wait()


def service(name: str, **places: str) -> tuple[list[str], list[str], dict[str, str]]:
    """Return command, health check and environment of a service, with settings filled in and its places moved here."""

    def here(text: str) -> str:
        text = re.sub(r"\$\{(\w+)[^}]*\}", lambda found: SETTINGS[found[1]], text)
        for place, moved in places.items():
            text = text.replace(place, moved)
        return text

    found = YAML(typ="safe", pure=True).load(ROOT / "deploy/compose.yaml")["services"][name]
    health = [here(word) for word in found["healthcheck"]["test"][1:]]
    return (
        [here(word) for word in found["command"]],
        health,
        {key: here(text) for key, text in found["environment"].items()},
    )


def test_tracking_server_starts_and_lets_in_who_has_the_password(database: int, tmp_path: Path) -> None:
    """It is healthy, asks for the password, knows its hosts' names, and passes artifacts on; its log has no secret."""
    import psycopg

    address = f"postgresql://mlflow:{SETTINGS['DATABASE_PASSWORD']}@127.0.0.1:{database}"
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    port, files, users = free_port(), tmp_path / "volume", tmp_path / "basic-auth.ini"
    files.mkdir()
    users.write_text((ROOT / "deploy/basic-auth.ini").read_text().replace("/mlflow/users.db", f"{files}/users.db"))
    places = {
        "@database:5432": f"@127.0.0.1:{database}",
        "0.0.0.0": "127.0.0.1",
        "port=5000": f"port={port}",
        "127.0.0.1:5000": f"127.0.0.1:{port}",
        "/mlflow/artifacts": f"{files}/artifacts",
        "/etc/mlflow/basic-auth.ini": str(users),
    }
    command, health, environment = service("tracking", **places)
    log = tmp_path / "server.log"
    with ExitStack() as stack:
        written = stack.enter_context(log.open("w"))
        run = subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment() | environment, stdout=written, stderr=written
        )
        stack.callback(run.wait)
        stack.callback(run.terminate)
        wait_for(port, run, log)
        assert health[0] == "python"
        subprocess.run([sys.executable, *health[1:]], check=True)

        who = (SETTINGS["MLFLOW_TRACKING_USERNAME"], SETTINGS["MLFLOW_TRACKING_PASSWORD"])
        base = f"http://127.0.0.1:{port}"
        asked = {"params": {"max_results": 5}, "timeout": 30}
        assert requests.get(f"{base}{SEARCH}", **asked).status_code == 401
        for host, status in {"tracking:5000": 200, "tracking.example.org": 200, "other.example.org": 403}.items():
            assert requests.get(f"{base}{SEARCH}", headers={"Host": host}, auth=who, **asked).status_code == status, (
                host
            )
        artifact = f"{base}/api/2.0/mlflow-artifacts/artifacts/shared/file.txt"
        assert requests.put(artifact, data=b"weights", auth=who, timeout=30).status_code == 200
        assert (files / "artifacts/shared/file.txt").read_bytes() == b"weights"
    assert not [text for name, text in SETTINGS.items() if "planted" in text and text in log.read_text()]
