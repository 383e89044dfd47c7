from dataclasses import replace

import numpy as np
import pytest
import torch

from imputune.data.splits import fit_and_split
from imputune.imputers.csai import CsaiImputer
from imputune.protocol.variants import Variant
from imputune.training import kept_inputs
from imputune.training.finetune import finetune_fold
from imputune.training.kept_inputs import key_of


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Start each test without kept tensors."""
    kept_inputs._kept.clear()
    yield
    kept_inputs._kept.clear()


@pytest.fixture
def made():
    """The keys whose tensors were made, in order."""
    return []


@pytest.fixture
def take(made):
    """Take the tensor of four bytes times `size` under a key, and note if it is made."""

    def take_one(key, size=1):
        def make():
            made.append(key)
            return (torch.full((size,), float(len(made))),)

        return kept_inputs.kept_inputs(key, make)[0]

    return take_one


def test_each_key_is_made_once(take, made):
    """The second time a key gives the same tensors; another key makes its own."""
    assert take("a")[0] is take("a")[0]
    assert take("b")[0].item() == 2
    assert made == ["a", "b"]


def test_what_was_used_longest_ago_goes_first(take, made, monkeypatch):
    """Beyond the limit of two tensors, the one used longest ago is made again; one beyond the limit is never kept."""
    monkeypatch.setattr(kept_inputs, "BYTES", 8)
    for key in ("a", "b", "a", "c", "a", "b"):
        take(key)
    assert made == ["a", "b", "c", "b"]
    take("large", size=3)
    take("large", size=3)
    take("b")
    assert made[4:] == ["large", "large"]


def test_the_time_of_making_is_told_when_it_is_saved(monkeypatch):
    """A variant's seconds do not depend on which heads came before it."""
    clock = iter([10.0, 13.5])
    monkeypatch.setattr(kept_inputs.time, "perf_counter", lambda: next(clock))
    saved = [kept_inputs.kept_inputs("a", lambda: (torch.zeros(1),))[1] for _ in range(3)]
    assert saved == [0, 3.5, 3.5]


def test_a_key_tells_everything_apart(cohort, folds):
    """Another part, weight, value of the split's own stays, scaling or split gives another key; the same, the same."""
    data = fit_and_split(cohort, folds[0], 0.0)
    split, weights = data.train, {"imputer.w": torch.ones(2)}
    key = key_of(("csai", "hidden"), weights, split)
    values = split.recorded_CTD.copy()
    values[split.rows_N[-1], -1, -1] = 123.0
    scaler = replace(split.scaler, mean_D=split.scaler.mean_D + np.float32(1))
    others = [
        key_of(("csai", "imputed"), weights, split),
        key_of(("csai", "hidden"), {"imputer.w": torch.tensor([1.0, 2.0])}, split),
        key_of(("csai", "hidden"), weights, replace(split, recorded_CTD=values)),
        key_of(("csai", "hidden"), weights, replace(split, scaler=scaler)),
        key_of(("csai", "hidden"), weights, data.validation),
    ]
    assert len({key, *others}) == len(others) + 1
    assert key == key_of(("csai", "hidden"), dict(weights), replace(split))
    values = split.recorded_CTD.copy()
    values[data.test.rows_N[0]] = 5.0
    assert key == key_of(("csai", "hidden"), weights, replace(split, recorded_CTD=values))


def test_heads_on_one_imputer_represent_the_stays_once(make_finetune_job, recorder, monkeypatch):
    """A second head with the same input represents nothing, and learns the same bits as one that does; others do."""
    calls = []
    represent = CsaiImputer.represent
    monkeypatch.setattr(CsaiImputer, "represent", lambda *given: calls.append(1) or represent(*given))

    def train(head, input):
        calls.clear()
        variant = Variant(imputer="csai", mode="frozen", head=head, input=input, schedule="plateau")
        return finetune_fold(make_finetune_job(variant), recorder), len(calls)

    assert train("mlp2", "hidden")[1] > 0
    for key, (inputs, _) in kept_inputs._kept.items():
        kept_inputs._kept[key] = kept_inputs.Kept(inputs, 1000.0)
    after, count = train("mlp5", "hidden")
    assert count == 0
    assert after.seconds > 3000  # of three splits
    assert train("mlp5", "hidden_both")[1] > 0
    assert train("gru", "imputed")[1] > 0
    kept_inputs._kept.clear()
    alone, count = train("mlp5", "hidden")
    assert count > 0
    assert after.history == alone.history
    for name, array in alone.weights.items():
        np.testing.assert_array_equal(array, after.weights[name], err_msg=name)
