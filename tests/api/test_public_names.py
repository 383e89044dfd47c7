"""What `import imputune` offers, and what it costs."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import imputune
from imports import PACKAGE
from projects import clean_environment

FACE = PACKAGE / "__init__.py"
LOADS_NOTHING = """
import sys
before = set(sys.modules)
import imputune
assert {name for name in set(sys.modules) - before if name.split(".")[0] != "imputune"} == set(), sys.modules
assert [name for name in sys.modules if name.startswith("imputune.")] == []
assert "CSAIImputer" in dir(imputune)
assert imputune.UserError.__name__ == "UserError"
assert not {"numpy", "torch", "mlflow"} & set(sys.modules)
imputune.Cohort
assert not {"torch", "mlflow"} & set(sys.modules)
"""


def test_there_are_a_dozen_names_at_most():
    """Each is there, documented, and listed once, in alphabetical order."""
    names = [name for name in imputune.__all__ if name != "__version__"]
    assert len(names) <= 12
    assert sorted(set(imputune.__all__)) == imputune.__all__
    for name in names:
        assert len(getattr(imputune, name).__doc__) > 40, name
    assert set(imputune.__all__) <= set(dir(imputune))


def test_type_checkers_read_the_same_names_from_the_same_modules():
    """The imports for type checkers are the names that are loaded, each from the module that has it."""
    [typed] = [node for node in ast.parse(FACE.read_text()).body if isinstance(node, ast.If)][:1]
    declared = {
        alias.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared == {name: f"imputune.{module}" for name, module in imputune._MODULES.items()}
    assert set(declared) | {"__version__"} == set(imputune.__all__)
    for name, module in declared.items():
        assert getattr(imputune, name) is getattr(import_module(module), name)
    assert (PACKAGE / "py.typed").is_file()


def test_the_import_loads_nothing():
    """Not even the standard library: a name loads what it needs when it is first used."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS_NOTHING], capture_output=True, text=True, env=clean_environment(), timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    """As of any module, so that hasattr and `from imputune import x` work."""
    assert not hasattr(imputune, "imputer")
    with pytest.raises(AttributeError, match="module 'imputune' has no attribute 'CsaiImputer'"):
        _ = imputune.CsaiImputer


def test_the_package_is_marked_as_typed_where_it_is_installed():
    """Type checkers read a package's types only if its marker is installed with it."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert 'imputune = ["py.typed", ' in text
