import numpy as np
import pandas as pd
import pytest
import torch

from imputune.data import record_features as module
from imputune.data.record_features import RecordScaler, feature_names, record_features, static_of
from imputune.data.static import AGE, GENDER
from imputune.data.summary import summarise

FEATURES_NF = np.array([[1, np.nan, np.nan, 7], [3, 4, 1, 7], [5, 6, 2, 7]], dtype=np.float32)


def test_scaled_features_by_value() -> None:
    """Known numbers are standardised, unknown ones 0; two features that are unknown together share an indicator."""
    scaler = RecordScaler.fit(FEATURES_NF)
    root = np.sqrt(1.5)
    expected = [[-root, 0, 0, 0, 1], [0, -1, -1, 0, 0], [root, 1, 1, 0, 0]]
    np.testing.assert_allclose(scaler.standardised(FEATURES_NF).numpy(), expected, atol=1e-6)
    assert scaler.size == 5


def test_only_training_stays_decide() -> None:
    """A stay's numbers do not depend on the other stays that are scaled with it, and far values are cut."""
    scaler = RecordScaler.fit(FEATURES_NF)
    far_NF = np.array([[1e6, 5, 1.5, 7]], dtype=np.float32)
    alone = scaler.standardised(FEATURES_NF[1:2])
    among = scaler.standardised(np.concatenate([far_NF, FEATURES_NF]))
    assert among[2].equal(alone[0])
    assert among[0, 0] == 10
    assert among.isfinite().all()


def test_a_feature_never_known_in_training_changes_nothing() -> None:
    """Its column is 0 whatever its value is later, but for the limit of ten deviations, and its indicator 1."""
    scaler = RecordScaler.fit(np.array([[np.nan, 1], [np.nan, 2]], dtype=np.float32))
    np.testing.assert_array_equal(scaler.standardised(np.array([[np.nan, 1.5]], dtype=np.float32)), [[0, 0, 1]])


def test_stored_and_read_again() -> None:
    """The arrays that are stored with a model give the same scaler."""
    scaler = RecordScaler.fit(FEATURES_NF)
    again = RecordScaler.from_arrays(scaler.to_arrays())
    assert again.standardised(FEATURES_NF).equal(scaler.standardised(FEATURES_NF))


def test_parts_side_by_side() -> None:
    """Static facts come first, then the statistics, each with a name."""
    rng = np.random.default_rng(1)
    values_NTD = rng.normal(size=(2, 48, 3)).astype(np.float32)
    observed_NTD = rng.random((2, 48, 3)) < 0.5
    static_NS = static_of(pd.DataFrame({"age_years": [70.0, 50.0], "gender": [0.0, np.nan]}), (AGE, GENDER), 2)
    features_NF = record_features(values_NTD, observed_NTD, static_NS, ("static", "summary"))
    np.testing.assert_array_equal(features_NF[:, :3], static_NS)
    np.testing.assert_array_equal(features_NF[:, 3:], summarise(values_NTD, observed_NTD))
    names = feature_names(("HR", "Na", "K"), (AGE, GENDER), ("static", "summary"))
    assert len(names) == features_NF.shape[1]
    assert names[:5] == ("age_years", "gender=0", "gender=1", "HR count", "Na count")


def test_without_a_table_all_facts_are_unknown() -> None:
    """A request that gives no static facts is predicted without them."""
    assert np.isnan(static_of(None, (AGE, GENDER), 2)).all()


def test_features_in_blocks_and_stays_in_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on a few features at a time, and used on a few stays at a time, a scaler gives the same bits."""
    random = np.random.default_rng(5)
    features_NF = random.normal(3, 2, (300, 70)).astype(np.float32)
    features_NF[random.random(features_NF.shape) < 0.2] = np.nan
    monkeypatch.setattr(module, "FITTED_AT_ONCE", 1000)
    whole = RecordScaler.fit(features_NF)
    numbers_NR = whole.standardised(features_NF)
    monkeypatch.setattr(module, "FITTED_AT_ONCE", 32)
    monkeypatch.setattr(module, "SCALED_AT_ONCE", 7)
    in_parts = RecordScaler.fit(features_NF)
    for name, array in whole.to_arrays().items():
        np.testing.assert_array_equal(in_parts.to_arrays()[name], array)
    assert torch.equal(in_parts.standardised(features_NF), numbers_NR)
