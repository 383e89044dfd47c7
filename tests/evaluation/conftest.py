from collections.abc import Callable, Sequence

import pytest

from imputune.evaluation.rows import Row, make_row

PARAMETERS = {"mlp2": 14_081, "mlp5": 63_617, "lstm": 76_721, "gru": 61_061}
MakeRow = Callable[..., Row]


@pytest.fixture
def row_of() -> MakeRow:
    """Return a row of a variant, given its test AUCs by fold; validation AUCs are 0.01 higher."""

    def make(name: str, test_aucs: Sequence[float], dataset: str = "physionet2012") -> Row:
        variant = dict(zip(("head", "mode", "input", "schedule"), name.split("-"), strict=True))
        count = PARAMETERS.get(variant["head"])
        folds = [
            {
                "fold": fold,
                "validation_auc": auc + 0.01,
                "test_auc": auc,
                "test_auprc": 0.5,
                "test_brier": 0.1,
                "test_calibration_error": 0.03,
            }
            for fold, auc in enumerate(test_aucs)
        ]
        points = [{"risk": 0.1, "died": 0.1, "stays": 50}, {"risk": 0.5, "died": 0.4, "stays": 50}]
        counts = {"num_parameters": count, "trainable_parameters": count}
        return make_row(dataset, variant, counts, 60.0, folds, "run", "tracked run", points)

    return make
