import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

PARAMS = Path(__file__).parents[2] / "params.yaml"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the project's params.yaml."""
    return Path(shutil.copy(PARAMS, tmp_path))


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Change], Path]:
    """Write the project's params.yaml with a change made to its content; return its path."""

    def write(change: Change) -> Path:
        content = YAML(typ="safe", pure=True).load(PARAMS)
        change(content)
        path = tmp_path / "params.yaml"
        YAML().dump(content, path)
        return path

    return write
