import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imputune.signals import LINE, LINE_AT_ONCE, STOPS

PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
from imputune import signals
def stop(number=signal.SIGTERM): os.kill(os.getpid(), number)
def say(text): print(text, flush=True)
signals.install()
"""
STOPPED_LATER = """
try:
    with signals.held():
        stop()
        say("written")
    say("too far")
except KeyboardInterrupt:
    say("stopped")
"""
UNDOING = """
with signals.held():
    try:
        with signals.released():
            say("working")
            time.sleep(60)
    finally:
        time.sleep(0.3)
        say("undone")
"""
STUCK = """
signals.LONGEST_SECONDS = float(sys.argv[1])
with signals.held():
    say("writing")
    time.sleep(60)
"""
LOADING = """
Path("slow.py").write_text("import time\\nprint('loading', flush=True)\\ntime.sleep(60)")
sys.path.insert(0, "")
import slow
"""
LOADING_LATER = """
Path("slow.py").write_text("stop()\\ntime.sleep(0.2)\\nsay('loaded')")
sys.path.insert(0, "")
import builtins
builtins.stop, builtins.time, builtins.say = stop, time, say
signals.loaded()
try:
    try:
        import slow
        time.sleep(60)
    finally:
        say("undone")
except KeyboardInterrupt:
    say("stopped")
"""
COMMAND_THAT_IMPORTS = """
Path("slow.py").write_text("import time\\nprint('importing', flush=True)\\ntime.sleep(0.5)")
sys.path.insert(0, "")
import types
from tempfile import TemporaryDirectory
from imputune import cli
def app():
    with TemporaryDirectory(dir="."):
        import slow
        time.sleep(60)
sys.modules["imputune.cli.commands"] = types.SimpleNamespace(app=app)
cli.main()
"""
IN_DEL = """
class Thing:
    def __del__(self):
        stop()
        time.sleep(0.1)
        say("deleted")
try:
    Thing()
    time.sleep(60)
except KeyboardInterrupt:
    say("stopped")
"""
SWALLOWED = """
try:
    stop()
except BaseException:
    say("swallowed")
try:
    signals.check()
except KeyboardInterrupt:
    say("stopped")
"""
OVER = """
signals.over(3)
stop()
say("printed")
sys.exit(3)
"""


def started(folder: Path, code: str, *words: str, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
    """Start a program that has taken over its signals, some of which were ignored before."""

    def as_in_a_terminal() -> None:
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_a_terminal,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return a program's exit code and what it printed on both streams, once it has ended."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        (STOPPED_LATER, "written\nstopped\n"),
        (LOADING_LATER, "loaded\nundone\nstopped\n"),
        (IN_DEL, "deleted\nstopped\n"),
        (SWALLOWED, "swallowed\nstopped\n"),
    ],
)
def test_a_stop_waits_where_it_would_do_harm(tmp_path, code, printed):
    """A held section, an import and __del__ end first; a loop asks again when something swallowed the exception."""
    assert ended(started(tmp_path, code)) == (0, printed, "")


@pytest.mark.parametrize("number", STOPS)
def test_repeats_within_a_second_are_one_stop(tmp_path, number):
    """Six signals in a row do not disturb what is undone."""
    process = started(tmp_path, UNDOING)
    assert process.stdout.readline() == "working\n"
    for _ in range(6):
        process.send_signal(number)
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, out, err = ended(process)
    assert out == "undone\n"
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_second_signal_ends_at_once(tmp_path):
    """It does so while the main thread waits in a held section."""
    process = started(tmp_path, STUCK, "60")
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (130, "", f"{LINE_AT_ONCE}\n")
    assert time.monotonic() - sent < 5


def test_a_stop_that_takes_too_long_ends_at_once(tmp_path):
    """A held section that does not end, as with a locked store, is left."""
    process = started(tmp_path, STUCK, "0.3")
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGHUP)
    assert ended(process) == (130, "", f"{LINE_AT_ONCE}\n")


def test_a_stop_while_loading_ends_at_once(tmp_path):
    """Before the command is loaded, an import is not waited for."""
    process = started(tmp_path, LOADING)
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", f"{LINE}\n")


def test_a_command_that_imports_undoes_what_it_began(tmp_path):
    """Once the command is loaded, a stop during an import waits, and a temporary folder is removed."""
    process = started(tmp_path, COMMAND_THAT_IMPORTS)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (130, "", f"{LINE}\n")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("", (0, "")), ("3", (3, "")), ("'no licence'", (1, "no licence\n")), ("1.5", (1, "1.5\n"))],
)
def test_a_library_that_ends_the_process_is_heard(tmp_path, reason, expected):
    """The exit code and the message are those that Python gives without this command line."""
    code = (
        "import types\nfrom imputune import cli\n"
        f"sys.modules['imputune.cli.commands'] = types.SimpleNamespace(app=lambda: sys.exit({reason}))\ncli.main()"
    )
    code_and_error = expected[0], "", expected[1]
    assert ended(started(tmp_path, code)) == code_and_error


def test_what_was_ignored_stays_ignored(tmp_path):
    """Under nohup, SIGHUP does nothing."""
    process = started(tmp_path, "stop(signal.SIGHUP)\nsay('going on')", ignored=(signal.SIGHUP,))
    assert ended(process) == (0, "going on\n", "")


def test_a_stop_after_the_end_changes_nothing(tmp_path):
    """A command that is over keeps its exit code."""
    assert ended(started(tmp_path, OVER)) == (3, "printed\n", "")


@pytest.mark.parametrize("number", STOPS)
def test_a_command_that_loads_is_stopped_with_one_line(tmp_path, number):
    """From its first moments on, a command answers every signal in the same way."""
    code = "from imputune import cli\nsignals.install = lambda: say('ready')\nsys.argv[1:] = ['--version']\ncli.main()"
    process = started(tmp_path, code)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert ended(process) == (130, "", f"{LINE}\n")
