"""The job scripts of deploy/, submitted to a Slurm of two nodes on this machine."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

from imputune.data.cohort import write_cohort
from imputune.data.raw.synthetic import extract_synthetic
from projects import (
    ROOT,
    STAYS,
    clean_environment,
    client_of,
    finished,
    grid_of,
    imputer_folder,
    new_project,
    set_params,
)
from servers import free_port, wait_for

pytestmark = pytest.mark.cluster  # Slurm's daemons, Ray's processes, commands in processes of their own
SBIN = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
ONE_NODE, ON_RAY = ROOT / "deploy/slurm-one-node.sh", ROOT / "deploy/slurm-ray.sh"
SMALL = ("--cpus-per-task=1", "--mem-per-cpu=0", "--time=10")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
MailProg=/bin/true
NodeName=first NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=100
NodeName=second NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=100
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm, as its commands find it."""

    configuration: Path

    def type(self, folder: Path, *words: str) -> str:
        """Run a command of Slurm in a folder; return what it printed."""
        environment = clean_environment() | {"SLURM_CONF": str(self.configuration)}
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, project: Path, script: Path, *words: str) -> str:
        """Submit a job script for one core of each node; return the job's number."""
        return self.type(project, "sbatch", "--parsable", *SMALL, str(script), *words)

    def facts(self, project: Path, job: str) -> dict[str, str]:
        """Return what Slurm knows of a job."""
        shown = self.type(project, "scontrol", "--oneliner", "show", "job", job)
        return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)

    def end_of(self, project: Path, job: str, seconds: float = 240) -> dict[str, str]:
        """Wait until a job has ended and its nodes are free; return what Slurm knows of it."""
        deadline = time.monotonic() + seconds
        while (facts := self.facts(project, job))["JobState"] not in ENDED or self.type(
            project, "squeue", "--noheader"
        ):
            assert time.monotonic() < deadline, log_of(project, job)
            time.sleep(0.3)
        return facts


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A controller and two nodes of one core, which Debian's slurmd can be on one machine."""
    if not all(shutil.which(name, path=SBIN) for name in ("slurmctld", "slurmd", "sbatch")):
        pytest.skip("no Slurm here: it is in Debian's packages slurmctld, slurmd and slurm-client")
    folder, ports = tmp_path_factory.mktemp("slurm"), [free_port() for _ in range(3)]
    for name in ("state", "first", "second"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, ports=ports, user=getuser(), folder=folder))
    commands = {"slurmctld": ["slurmctld"], "first": ["slurmd", "-N", "first"], "second": ["slurmd", "-N", "second"]}
    environment = clean_environment() | {"SLURM_CONF": str(configuration)}
    with ExitStack() as stack:
        for port, (name, words) in zip(ports, commands.items(), strict=True):
            log, program = folder / f"{name}.out", shutil.which(words[0], path=SBIN)
            assert program is not None
            with log.open("w") as written:
                server = subprocess.Popen([program, "-D", *words[1:]], env=environment, stdout=written, stderr=written)
            stack.callback(server.wait)
            stack.callback(server.terminate)
            wait_for(port, server, log)
        running = Slurm(configuration)
        while running.type(folder, "sinfo", "--noheader", "--format=%T") != "idle":
            time.sleep(0.1)
        yield running


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny project with a cohort and folds."""
    folder = new_project(tmp_path / "project", workers=1, imputers=["mean"], **grid_of())
    write_cohort(extract_synthetic(STAYS, 2012), folder / "data/synthetic")
    finished(folder, ["folds"])
    return folder


def log_of(project: Path, job: str) -> str:
    """Return what a job has printed so far."""
    path = project / f"slurm-{job}.log"
    return path.read_text() if path.exists() else ""


def wait_for_text(slurm: Slurm, project: Path, job: str, text: str, seconds: float = 180) -> None:
    """Wait until a job's log has this text; fail with the log if the job ends before."""
    deadline = time.monotonic() + seconds
    while text not in log_of(project, job):
        assert slurm.facts(project, job)["JobState"] not in ENDED, log_of(project, job)
        assert time.monotonic() < deadline, log_of(project, job)
        time.sleep(0.2)


def test_a_command_runs_on_one_node(slurm: Slurm, tiny: Path) -> None:
    """The command runs in the folder where the job was submitted, and its exit code is the job's."""
    job = slurm.submit(tiny, ONE_NODE, "imputune", "pretrain", "--imputer", "mean")
    refused = slurm.submit(tiny, ONE_NODE, "imputune", "pretrain", "--imputer", "none")
    facts = slurm.end_of(tiny, job)
    assert facts["JobState"] == "COMPLETED", log_of(tiny, job)
    assert json.loads((imputer_folder(tiny, "mean") / "result.json").read_text())
    assert slurm.end_of(tiny, refused)["ExitCode"] == "2:0", log_of(tiny, refused)


def test_a_cancelled_command_keeps_its_work(slurm: Slurm, tiny: Path) -> None:
    """After scancel the command ends by itself, long before Slurm kills it, and marks its run KILLED."""
    set_params(tiny, {"budget.synthetic.pretrain_epochs": 9999})
    job = slurm.submit(tiny, ONE_NODE, "imputune", "pretrain", "--imputer", "csai")
    wait_for_text(slurm, tiny, job, "epoch")
    slurm.type(tiny, "scancel", job)
    assert slurm.end_of(tiny, job, seconds=25)["ExitCode"] == "130:0"
    assert "interrupted: finished work is kept; run the same command again to continue" in log_of(tiny, job)
    found = client_of(tiny).search_runs(["1"], "tags.`imputune.command` = 'pretrain'")
    assert {run.info.status for run in found} == {"KILLED"}


def test_ray_spans_the_nodes_and_leaves_nothing(slurm: Slurm, tiny: Path) -> None:
    """A fold is trained on each node; after scancel the command ends by itself, and neither Ray nor its files are left.

    The cluster asks for a token: the command uses the one that the job has set.
    """
    pytest.importorskip("ray", reason="this script needs the extra `ray`")
    set_params(tiny, {"budget.synthetic.pretrain_epochs": 9999})
    job = slurm.submit(tiny, ON_RAY, "imputune", "--verbose", "pretrain", "--imputer", "csai", "--engine", "ray")
    for fold in (0, 1):
        wait_for_text(slurm, tiny, job, f"fold {fold}: epoch ")
    assert "Ray: 2 nodes, 2 cores" in log_of(tiny, job)
    assert "fold 2: epoch " not in log_of(tiny, job)
    folders = list(Path("/tmp").glob(f"ray-{job}-*"))
    assert len(folders) == 2
    slurm.type(tiny, "scancel", job)
    facts = slurm.end_of(tiny, job)
    assert facts["JobState"] == "CANCELLED"
    assert "interrupted: finished work is kept; run the same command again to continue" in log_of(tiny, job)
    assert not [folder for folder in folders if folder.exists()]
    assert not [text for text in command_lines() if f"ray-{job}-" in text]


def command_lines() -> list[str]:
    """Return the command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("script", [ONE_NODE, ON_RAY], ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("words", "inside", "line"),
    [
        (["imputune"], False, "this script runs inside a Slurm job: type sbatch"),
        ([], True, "no command: type sbatch deploy/"),
        (["imputune"], True, "has no params.yaml: submit the job in the project's folder"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(
    script: Path, words: list[str], inside: bool, line: str, tmp_path: Path
) -> None:
    """Each script says what is missing before it starts anything."""
    job = {"SLURM_JOB_ID": "1", "SLURM_SUBMIT_DIR": str(tmp_path)} if inside else {}
    environment = {key: text for key, text in clean_environment().items() if not key.startswith("SLURM_")} | job
    done = subprocess.run([str(script), *words], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    [told] = done.stderr.splitlines()
    assert told.startswith("error: ")
    assert line in told
