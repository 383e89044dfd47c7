"""Dockerfile, compose.yaml and the Kubernetes job agree with the project's pins and the programs that they call."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from mlflow.cli import server
from mlflow.models.cli import serve
from ruamel.yaml import YAML
from typer.main import get_command

from imputune.cli.commands import app
from projects import ROOT

DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VARIABLE = re.compile(r"\$\{(\w+)(:[?-])?([^}]*)\}")


def parsed(name: str) -> Any:
    """Return a YAML file of deploy/."""
    return YAML(typ="safe", pure=True).load(DEPLOY / name)


def instructions(name: str) -> list[str]:
    """Return the instructions of the Dockerfile of this name, without their name."""
    text = re.sub(r"\\\n", "", re.sub("^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE))
    return [line.removeprefix(f"{name} ") for line in text.splitlines() if line.startswith(f"{name} ")]


def arguments() -> dict[str, str]:
    """Return the Dockerfile's build arguments with their defaults."""
    return dict(line.split("=", 1) for line in instructions("ARG"))


def test_image_has_the_python_of_the_project() -> None:
    """The image's Python is conda.yaml's."""
    conda = YAML(typ="safe", pure=True).load(ROOT / "conda.yaml")
    assert f"python={arguments()['PYTHON']}" in conda["dependencies"]
    assert instructions("FROM") == ["python:${PYTHON}-slim-bookworm"]


@pytest.mark.parametrize("cuda", ["0", "1"])
def test_image_installs_the_pins(cuda: str, tmp_path: Path) -> None:
    """pip gets the pins of the project and its extras, Ray with its dashboard; CUDA=1 takes PyPI's PyTorch."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    pip = tmp_path / "bin/pip"
    pip.parent.mkdir()
    pip.write_text('#!/bin/sh\necho "$@" >> calls\n')
    pip.chmod(0o755)
    (tmp_path / "bin/python").symlink_to(sys.executable)
    [command] = [line for line in instructions("RUN") if "requirements.txt" in line]
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "EXTRAS": arguments()["EXTRAS"], "CUDA": cuda}
    if cuda == "0":
        refused = subprocess.run(["sh", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert refused.returncode != 0
        assert "give the address of PyTorch's index for CPUs, or CUDA=1" in refused.stderr
        assert not (tmp_path / "calls").exists()
        environment["TORCH_INDEX"] = "https://index.example"
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, env=environment, check=True)
    extras = [pin for name in arguments()["EXTRAS"].split(",") for pin in PROJECT["optional-dependencies"][name]]
    expected = [pin.replace("ray==", "ray[default]==") for pin in PROJECT["dependencies"] + extras]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == expected
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[-1] == "install --no-cache-dir --requirement requirements.txt"
    torch = [pin for pin in PROJECT["dependencies"] if pin.startswith("torch==")]
    from_index = [f"install --no-cache-dir --index-url https://index.example {pin}" for pin in torch]
    assert calls[:-1] == (from_index if cuda == "0" else [])


def test_image_has_no_record_and_no_root() -> None:
    """Docker is handed the package's files alone, the image copies these, and its user is not root."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {word for line in instructions("COPY") for word in line.split()[:-1]}
    assert copied == allowed == {"pyproject.toml", "README.md", "src"}
    assert not instructions("ADD")
    assert instructions("USER") == ["1000"]


def test_compose_has_no_password_and_opens_no_door() -> None:
    """Secrets come from deploy/.env, which git ignores, and must not be empty; ports are this machine's alone."""
    text = (DEPLOY / "compose.yaml").read_text()
    lines = (DEPLOY / "environment.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    used = {name: (mark, default) for name, mark, default in VARIABLE.findall(text)}
    assert set(example) == set(used)
    for name, (mark, default) in used.items():
        expected = (":?", "") if re.search("PASSWORD|SECRET|USERNAME", name) else (":-", default)
        assert (mark, example[name]) == expected, name
    ignored = subprocess.run(["git", "check-ignore", "deploy/.env"], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout.strip() == "deploy/.env"
    services = parsed("compose.yaml")["services"]
    for name, service in services.items():
        assert service["image"] == "imputune" or service["user"] == "postgres", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    users = ConfigParser()
    users.read(DEPLOY / "basic-auth.ini")
    assert not [key for key in users["mlflow"] if "password" in key]


def test_compose_calls_mlflow_as_it_is() -> None:
    """MLflow of the pinned version has the commands and options that the services use."""
    services = parsed("compose.yaml")["services"]
    assert services["tracking"]["command"][:2] == ["mlflow", "server"]
    told = server.make_context("server", list(services["tracking"]["command"][2:])).params
    assert (told["app_name"], told["serve_artifacts"]) == ("basic-auth", True)
    assert services["champion"]["command"][:3] == ["mlflow", "models", "serve"]
    told = serve.make_context("serve", list(services["champion"]["command"][3:])).params
    assert told["env_manager"] == "local"
    assert fnmatch(told["model_uri"], "models:/*@champion")


def test_kubernetes_job_has_the_pinned_ray() -> None:
    """Ray's version is the extra's; the command is imputune's; no pod is root's, and workers have no records."""
    spec = parsed("ray-job.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    assert PROJECT["optional-dependencies"]["ray"] == [f"ray=={cluster['rayVersion']}"]
    assert cluster["authOptions"] == {"mode": "token"}
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)
    containers = [pod["containers"][0] for pod in pods]
    assert all({"name": "RAY_task_oom_retries", "value": "3"} in each["env"] for each in containers)
    claims = [[volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume] for pod in pods]
    assert claims == [["project"], []]
    name = re.fullmatch(r'bash -c "cd /project && imputune (\w+) .*"', spec["entrypoint"])
    assert name is not None
    assert name[1] in get_command(app).list_commands(None)


def test_scripts_are_plain_bash() -> None:
    """Every script can be executed and is read by bash without a complaint."""
    scripts = sorted(DEPLOY.glob("*.sh"))
    assert [path.name for path in scripts] == ["slurm-one-node.sh", "slurm-ray.sh"]
    for path in scripts:
        assert os.access(path, os.X_OK)
        subprocess.run(["bash", "-n", str(path)], check=True)
