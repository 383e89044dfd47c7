"""docs/python.md names what there is."""

import ast
import inspect
import re
from typing import Any

import imputune
from imputune.api.champion import RiskModel
from projects import ROOT

PAGE = (ROOT / "docs/python.md").read_text()
OBJECTS: dict[str, Any] = {
    "imputune": imputune,
    "imputer": imputune.CSAIImputer,
    "champion": RiskModel,
    "cohort": imputune.Cohort,
}


def calls() -> list[ast.Call]:
    """Return every call in the page's examples, which are read as Python."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 5
    return [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]


def found(node: ast.expr) -> Any:
    """Return what a dotted name of an example means; AttributeError if there is no such thing."""
    if isinstance(node, ast.Attribute):
        return getattr(found(node.value), node.attr)
    assert isinstance(node, ast.Name)
    return OBJECTS[node.id]


def test_the_table_has_all_names():
    """Each public name has a row, and no row has another."""
    table = PAGE.partition("| name |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(imputune.__all__) - {"__version__"}


def test_each_call_of_an_example_can_be_made():
    """The function is there, and takes the arguments that it is given."""
    examples = calls()
    for call in examples:
        function = found(call.func)
        arguments: list[Any] = list(call.args)
        if inspect.isfunction(function) and "self" in inspect.signature(function).parameters:
            arguments.insert(0, None)
        keywords = {keyword.arg: None for keyword in call.keywords}
        inspect.signature(function).bind(*arguments, **keywords)
    assert len(examples) >= 15


def test_attributes_that_are_named_are_there(fitted):
    """What the page says an imputer has after fit, and its own parameters with their defaults."""
    after = PAGE.partition("**After `fit`**")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+_)`", after)
    assert set(names) == {name for name in vars(fitted) if name.endswith("_")} - {"imputer_", "scaler_"}
    rows = re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", PAGE, re.MULTILINE)
    defaults = imputune.CSAIImputer().get_params()
    assert {name: str(defaults[name]) for name, _ in rows if name in defaults} == {
        name: default for name, default in rows if name in defaults
    }
    assert len(rows) == 3
