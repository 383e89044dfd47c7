"""A tracking server as a group runs it: `mlflow server` on PostgreSQL or SQLite, passwords, artifacts through it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

POSTGRES = Path("/usr/lib/postgresql")
START_SECONDS = 90
USER, DATABASE = "imputune", "runs"
AUTH = """[mlflow]
default_permission = EDIT
database_uri = {database}
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = {cache_seconds}
"""


def postgres_programs() -> Path | None:
    """Return the folder of the newest installed PostgreSQL's programs, None if none is installed."""
    found = sorted(POSTGRES.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres(port: int, password: str) -> Iterator[str]:
    """Run a PostgreSQL of its own in a temporary folder, and give the URI of a database in it.

    It asks for the password. PostgreSQL refuses to run as root, so its own user runs it then. Raises FileNotFoundError
    where PostgreSQL is not installed.
    """
    programs = postgres_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        words: list[str | Path] = []
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            words = ["runuser", "-u", "postgres", "--"]
        secret = folder / "password"
        secret.write_text(password)
        make: list[str | Path] = [
            programs / "initdb",
            "-D",
            folder / "data",
            "-U",
            USER,
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
        ]
        if words:
            shutil.chown(secret, "postgres", "postgres")
        subprocess.run([*words, *make], check=True, capture_output=True)
        secret.unlink()
        serve: list[str | Path] = [
            programs / "postgres",
            "-D",
            folder / "data",
            "-p",
            str(port),
            "-k",
            folder,
            "-h",
            "127.0.0.1",
        ]
        server = subprocess.Popen([*words, *serve], stderr=(folder / "log").open("w"))
        try:
            wait_for(port, server)
            _wait_until_ready(programs, port)
            create: list[str | Path] = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", USER, DATABASE]
            subprocess.run(create, check=True, env=os.environ | {"PGPASSWORD": password}, timeout=START_SECONDS)
            yield f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"
        finally:
            # The fast shutdown. The signal goes to PostgreSQL itself, because runuser does not pass it on.
            number = int((folder / "data/postmaster.pid").read_text().splitlines()[0])
            os.kill(number, signal.SIGINT)
            server.wait(timeout=START_SECONDS)


def _wait_until_ready(programs: Path, port: int) -> None:
    """Wait until PostgreSQL takes connections: a while after it listens, it still refuses them."""
    until = time.monotonic() + START_SECONDS
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode:
        if time.monotonic() > until:
            raise TimeoutError(f"PostgreSQL on port {port} takes no connections")
        time.sleep(0.1)


class TrackingServer:
    """An `mlflow server` that can be killed and started again.

    folder: its own, with the artifacts. database: the URI of its store, a SQLite file in the folder by default.
    password: of the user `imputune`; "" for a server that asks for none. cache_seconds: how long a worker of the server
    trusts a password that it has checked; 0: it checks every request's.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        database: str = "",
        password: str = "",
        workers: int = 1,
        cache_seconds: int = 60,
    ) -> None:
        self.cache_seconds = cache_seconds
        self.folder, self.port, self.password, self.workers = folder, port, password, workers
        self.database = database or f"sqlite:///{folder}/server.db"
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._secret = secrets.token_hex()

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to use the server."""
        login = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": self.password} if self.password else {}
        return {"MLFLOW_TRACKING_URI": self.url, **login}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.workers)]
        words += ["--backend-store-uri", self.database, "--artifacts-destination", str(self.folder / "artifacts")]
        ours = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
        ours |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        if self.password:
            config = self.folder / "auth.ini"
            database = f"sqlite:///{self.folder}/auth.db"
            config.write_text(
                AUTH.format(database=database, user=USER, password=self.password, cache_seconds=self.cache_seconds)
            )
            words += ["--app-name", "basic-auth"]
            ours |= {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": self._secret}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            cwd=self.folder,
            env=ours,
            stdout=(self.folder / "server.log").open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_for(self.port, self._process)
        self._wait_for_answer()

    def kill(self) -> None:
        """Kill the server with all its processes, as a crash of its machine does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask the server to end, and wait until it has ended with all its processes."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def _wait_for_answer(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                urlopen(f"{self.url}/version", timeout=10).close()
            except HTTPError:
                return  # it asks for the password
            except (URLError, OSError):
                time.sleep(0.2)
            else:
                return
        raise TimeoutError(f"the tracking server does not answer; see {self.folder}/server.log")


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a new process listens on a port; TimeoutError if it ends before or takes too long."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
