"""Servers that tests start: a free port, and waiting until one answers."""

import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest


def free_port() -> int:
    """Return a port that nobody uses at present."""
    with closing(socket.socket()) as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path, seconds: float = 180) -> None:
    """Wait until a server answers; fail with its log if it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        with closing(socket.socket()) as opened:
            if opened.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"the server on port {port} does not answer: {log.read_text()}")
