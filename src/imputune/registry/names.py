"""The names of registered models, of their tags, and of the folder in a version that has the bundle."""

from imputune.protocol.outcomes import DEFAULT_OUTCOME
from imputune.settings.names import ImputerName

FOLD_SCORES = "fold_scores"
FOLD_SCORES_TAG = f"imputune.{FOLD_SCORES}"
CHECKSUM_TAG = "imputune.bundle_sha256"
BUNDLE_FOLDER = "artifacts/bundle"  # where mlflow puts a model's own artifacts


def imputer_name(imputer: ImputerName, dataset: str) -> str:
    """Return the name under which the fold models of an imputer on a dataset are registered."""
    return f"imputune-{imputer}-{dataset}"


def classifier_name(dataset: str, outcome: str = DEFAULT_OUTCOME) -> str:
    """Return the name under which a dataset's classifiers of an outcome are registered."""
    return f"imputune-{'mortality' if outcome == DEFAULT_OUTCOME else outcome}-{dataset}"
