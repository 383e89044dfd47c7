from functools import partial

import torch

from imputune.data.batches import batches_in_order
from imputune.data.splits import fit_and_split
from imputune.training import fixed_masks
from imputune.training.fixed_masks import fixed_mask


def test_masks_do_not_depend_on_how_many_stays_are_drawn_at_once(cohort, folds, make_params, monkeypatch):
    """A split's fixed mask is one stream of draws; only observed cells are masked, at the expected rate."""
    data = fit_and_split(cohort, folds[0], 0.001)
    masks = []
    for at_once in (256, 7):
        monkeypatch.setattr(fixed_masks, "batches_in_order", partial(batches_in_order, batch_size=at_once))
        masks.append(fixed_mask(data, "test", make_params(masking={"rate": 0.4}), "uniform"))
    assert torch.equal(*masks)
    assert 0.3 < masks[0].sum() / data.test.observed_NTD.sum() < 0.5
    assert not (masks[0] & ~data.test.observed_NTD).any()


def test_validation_and_test_masks_are_different_draws(cohort, folds, make_params):
    """With the same stays in both splits, different cells are masked."""
    data = fit_and_split(cohort, folds[0], 0.001)
    object.__setattr__(data, "validation", data.test)
    validation, test = (fixed_mask(data, split, make_params(), "uniform") for split in ("validation", "test"))
    assert validation.shape == test.shape
    assert not torch.equal(validation, test)
