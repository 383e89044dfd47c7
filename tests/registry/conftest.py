import numpy as np
import pytest
import torch

from imputune.artifacts.stage_output import TrainedFold
from imputune.data.cohort import Variable
from imputune.data.scaling import Scaler
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.heads import HEAD_BUILDERS, HeadSizes
from imputune.models.hidden_states import state_size
from imputune.models.weights import module_weights
from imputune.protocol.variants import state_of
from imputune.registry.bundle import BundleAbout

VARIABLES = (Variable("HR", "beats/min"), Variable("Temp", "C"), Variable("pH", "pH"))
SIZES = CsaiSizes(variables=3, hours=48, hidden_size=4, channels=4, attention_heads=2, feedforward=6)


@pytest.fixture
def make_about():
    """Describe a bundle of two mlp2 heads on small imputers; keyword arguments replace fields."""

    def make(**fields):
        mlp2 = {"head": "mlp2", "input": "hidden", "mlp_width": 128, "threshold": 0.1 + 0.2}
        common = {"dataset": "synthetic", "variables": VARIABLES, "sizes": SIZES, "folds": (0, 2)}
        return BundleAbout(**(common | mlp2 | fields))

    return make


@pytest.fixture
def imputers_about(make_about):
    """Describe a bundle of imputers alone."""
    return make_about(head=None, input=None, mlp_width=None, threshold=None)


@pytest.fixture
def train():
    """Return a function that gives each fold of a bundle random weights, other ones for each fold."""

    def trained_folds(about):
        return [_fold(about, fold) for fold in about.folds]

    return trained_folds


def _fold(about, fold):
    torch.manual_seed(fold)
    scaler = Scaler(
        lowest_D=np.array([30, 30, 6], dtype=np.float32),
        highest_D=np.array([200, 42, 8], dtype=np.float32),
        mean_D=np.array([80 + fold, 37, 7.4], dtype=np.float32),
        deviation_D=np.array([15, 1, 0.1], dtype=np.float32),
    )
    weights = scaler.to_arrays() | module_weights("imputer", Csai(about.sizes))
    if about.head is not None:
        sizes = HeadSizes(
            input_size=state_size(state_of(about.input), about.sizes.hidden_size),
            variables=3,
            mlp_width=about.mlp_width,
        )
        weights |= module_weights("head", HEAD_BUILDERS[about.head](sizes))
    scores = {"validation_auc": 0.75 + fold / 100, "test_auc": 0.5}
    return TrainedFold(fold=fold, weights=weights, scores=scores, best_epoch=0, seconds=1.0, history=[])


@pytest.fixture
def values_NTD():
    """Three stays: one with a quarter of its cells observed, one with a single cell, one without any."""
    random = np.random.default_rng(5)
    values_NTD = np.full((3, 48, 3), np.nan, dtype=np.float32)
    values_NTD[0] = np.where(random.random((48, 3)) < 0.25, random.normal([80, 37, 7.4], [15, 1, 0.1], (48, 3)), np.nan)
    values_NTD[1, 7, 0] = 95
    return values_NTD
