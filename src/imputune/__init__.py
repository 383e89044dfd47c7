"""imputune: pretrain a clinical time-series imputer, fine-tune small heads on it, compare every run.

In a notebook, `import imputune` offers the names below. docs/python.md shows how to use them. Each is loaded when it is
first used, so that the import itself takes no time.
"""

TYPE_CHECKING = False  # type checkers read it as true; importing it from typing would take ten times as long
if TYPE_CHECKING:
    from imputune.api.champion import RiskModel, load_champion
    from imputune.api.imputer import CSAIImputer
    from imputune.api.tables import read_cohort, read_comparison, synthetic_cohort
    from imputune.api.values import ValuesError
    from imputune.data.cohort import Cohort
    from imputune.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "CSAIImputer",
    "Cohort",
    "RiskModel",
    "UserError",
    "ValuesError",
    "__version__",
    "load_champion",
    "read_cohort",
    "read_comparison",
    "synthetic_cohort",
]
_MODULES = {
    "CSAIImputer": "api.imputer",
    "Cohort": "data.cohort",
    "RiskModel": "api.champion",
    "UserError": "errors",
    "ValuesError": "api.values",
    "load_champion": "api.champion",
    "read_cohort": "api.tables",
    "read_comparison": "api.tables",
    "synthetic_cohort": "api.tables",
}


if not TYPE_CHECKING:  # a type checker would believe that the package has every name

    def __getattr__(name: str) -> object:
        """Load a name when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module 'imputune' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"imputune.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Return the names for completion, those that are not loaded yet among them."""
        return sorted({*globals(), *__all__})
