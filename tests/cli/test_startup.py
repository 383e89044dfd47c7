import subprocess
import sys

import pytest

# A command, and then which of the slow packages it has loaded.
LOADED = """
import sys
from imputune.cli import main
sys.argv[0] = "imputune"
slow = "torch mlflow sklearn scipy xgboost captum pandas numpy duckdb matplotlib optuna".split()
try:
    main()
except SystemExit as ended:
    print("loaded", *[name for name in slow if name in sys.modules])
    raise
"""


def loaded(*words: str) -> list[str]:
    """Run a command in a new process; return which slow packages it has loaded."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, *names = done.stdout.splitlines()[-1].split()
    assert first == "loaded"
    return names


def test_help_loads_no_slow_package() -> None:
    """`imputune --help` and the help of a command are there at once."""
    assert loaded("--help") == []
    assert loaded("grid", "--help") == []


def test_the_variants_of_a_grid_are_listed_without_slow_packages() -> None:
    """`imputune grid --list` reads params.yaml alone."""
    assert loaded("grid", "--list") == []


def test_describing_a_cohort_loads_no_network_and_no_statistics(small_cohort_folder: str) -> None:
    """`imputune describe` reads tables: pandas and NumPy are enough."""
    assert set(loaded("describe", small_cohort_folder)) <= {"numpy", "pandas"}


@pytest.fixture
def small_cohort_folder(tmp_path) -> str:
    """Write a small cohort."""
    from imputune.data.cohort import write_cohort
    from imputune.data.raw.synthetic import extract_synthetic

    write_cohort(extract_synthetic(20, 1), tmp_path / "small")
    return str(tmp_path / "small")
