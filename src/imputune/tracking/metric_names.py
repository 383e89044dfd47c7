"""Names of metrics in the store: with a slash, so that the MLflow UI shows them in groups.

The groups are train, validation, test and imputation, and external for scores on another cohort. Inside the program a
metric is called validation_auc, in the store validation/auc. Others, such as seconds, have the same name in both.
"""

import re
from collections.abc import Mapping

GROUPS = ("train", "validation", "test", "external")
IMPUTATION = "imputation"
_OF_SPLIT = re.compile(rf"({'|'.join(GROUPS)})_(.+)")
_OF_IMPUTATION = re.compile(r"(validation|test)_(mae|mre)_.+|(mae|mre)(_.+)?|batch_difference|seconds_per_1000_stays")


def stored_name(name: str) -> str:
    """Return the name of a metric in the store.

    >>> [stored_name(name) for name in ("test_auc", "test_mae_uniform", "mae_uniform_10", "seconds")]
    ['test/auc', 'imputation/test_mae_uniform', 'imputation/mae_uniform_10', 'seconds']
    """
    if _OF_IMPUTATION.fullmatch(name):
        return f"{IMPUTATION}/{name}"
    split = _OF_SPLIT.fullmatch(name)
    return f"{split[1]}/{split[2]}" if split else name


def program_name(stored: str) -> str:
    """Return the name inside the program of a metric in the store; earlier versions stored that name itself."""
    group, slash, rest = stored.partition("/")
    if not slash or group not in (*GROUPS, IMPUTATION):
        return stored
    return rest if group == IMPUTATION else f"{group}_{rest}"


def program_metrics(stored: Mapping[str, float]) -> dict[str, float]:
    """Return a run's metrics by their names inside the program; of a new and an old name the new one counts."""
    return {program_name(name): value for name, value in sorted(stored.items(), key=lambda item: "/" in item[0])}
