import re
import sys
from pathlib import Path

import pytest

from imputune.cli import links
from imputune.tracking.comparison_view import ComparisonView, share_view
from projects import ROOT


def test_make_ui_prints_the_stored_links(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the port that it is told; a store that cannot be read is one line."""
    link = share_view(models, ComparisonView(dataset="synthetic", kind="heads"))
    monkeypatch.setattr(sys, "argv", ["links", "5001"])
    capsys.readouterr()
    links.main()
    printed = capsys.readouterr().out.splitlines()
    assert f"runs side by side: {link.replace('5000', '5001')}" in printed
    assert all(line.startswith("runs side by side: http://127.0.0.1:5001/#/experiments/") for line in printed)
    (models / "mlflow.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(SystemExit, match=r"^error: no links to the runs: the tracking store .*mlflow\.db failed"):
        links.main()


def test_make_ui_hides_no_error() -> None:
    """The recipe calls this module, and nothing that it says goes astray."""
    [recipe] = re.findall(r"^ui:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"python -m {links.__name__} $(or $(PORT),5000)\n" in recipe
    assert "/dev/null" not in recipe
