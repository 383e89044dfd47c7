"""docs/notebook.ipynb runs as it stands, and is committed with the outputs of a run.

`jupyter execute --inplace docs/notebook.ipynb` in a project with a champion makes its outputs anew.
"""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from projects import ROOT, clean_environment, invoke

NOTEBOOK = ROOT / "docs/notebook.ipynb"
MOST_BYTES = 60_000
SECONDS = 120  # for one cell; the whole takes about ten


def code_cells(notebook: Any) -> list[Any]:
    """Return the cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """Return what kinds of output a cell has: a stream by its name, a result by its formats, an error by its name."""
    return [
        (each.output_type, *([each.name] if "name" in each else []), *sorted(each.get("data", {})))
        for each in cell.outputs
    ]


@pytest.fixture
def committed() -> Any:
    """The notebook as it is committed."""
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.mark.slow
def test_every_cell_runs(committed, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the folder docs of a project with a champion, each cell has outputs of the kinds that are committed."""
    assert invoke(models, ["promote"], monkeypatch).exit_code == 0
    (models / "docs").mkdir()
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    expected = [kinds(cell) for cell in code_cells(committed)]
    for cell in code_cells(committed):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(committed, timeout=SECONDS, resources={"metadata": {"path": str(models / "docs")}})
    client.execute(env=clean_environment())
    assert [kinds(cell) for cell in code_cells(committed)] == expected
    assert list((models / "docs").iterdir()) == []


def test_the_outputs_are_of_one_run_and_of_no_machine(committed):
    """Cells were run once, in their order, without errors or warnings; no path and no image stands in the file."""
    nbformat.validate(committed)
    cells = code_cells(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    allowed = {("stream", "stdout"), ("execute_result", "text/plain"), ("execute_result", "text/html", "text/plain")}
    assert {kind for cell in cells for kind in kinds(cell)} <= allowed
    text = NOTEBOOK.read_text()
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"/(home|root|tmp|Users|work|usr|mnt)/|[A-Z]:\\\\|\.venv/", text)
    assert set(committed.metadata) <= {"kernelspec", "language_info"}
    assert not any(set(cell.metadata) for cell in committed.cells)
