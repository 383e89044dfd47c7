from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from imputune.data.directions import Directions
from imputune.models import small_products, stacked_csai
from imputune.models.csai import Csai, CsaiSizes
from imputune.models.hidden_states import STATES
from imputune.models.small_products import product
from imputune.models.stacked_csai import StackedCsai

Record = tuple[torch.Tensor, torch.Tensor]
MakeRecord = Callable[..., Record]
SIZES = CsaiSizes(variables=5, hours=12, hidden_size=7, channels=8, attention_heads=2, feedforward=16)


def imputers(sizes: CsaiSizes, count: int = 3) -> list[Csai]:
    """Return imputers whose weights and median gaps all differ, also those that training starts at 0 or 1."""
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        imputer = Csai(sizes)
        imputer.median_gap_hours_D += 1.25 + torch.rand(sizes.variables)
        for weight in imputer.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
        found.append(imputer.eval())
    return found


def stays_of(make_record: MakeRecord, stays: int, sizes: CsaiSizes, folds: int = 3) -> Record:
    """Return values of every fold, those of the first moved and stretched, and the mask."""
    values, observed = make_record(stays, sizes.hours, sizes.variables)
    return torch.stack([values * (1 + fold / 10) + fold * observed / 5 for fold in range(folds)]), observed


def check(found: list[Csai], values_FBTD: torch.Tensor, observed: torch.Tensor, state: str = "hidden") -> None:
    """Compare one pass over all folds with each imputer's own pass."""
    read = StackedCsai(found).read(values_FBTD, observed, state)
    for fold, imputer in enumerate(found):
        with torch.no_grad():
            alone = imputer(Directions.of(values_FBTD[fold], observed))
        torch.testing.assert_close(read.state_FBS[fold], alone.state(state), atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(read.imputed_FBTD[fold], alone.imputed_BTD, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("stays", "changed"),
    [(4, {}), (1, {}), (4, {"hours": 1}), (3, {"variables": 1}), (4, {"bin_hours": 3}), (2, {"hidden_size": 108})],
)
def test_one_pass_gives_what_each_imputer_gives(make_record: MakeRecord, stays: int, changed: dict) -> None:
    """The hidden state and the imputed series of every fold are those of its own network."""
    sizes = replace(SIZES, **changed)
    check(imputers(sizes), *stays_of(make_record, stays, sizes))


@pytest.mark.parametrize("name", [name for name, _ in Csai(SIZES).named_parameters()])
def test_no_weight_is_forgotten(make_record: MakeRecord, name: str) -> None:
    """A weight that changes what CSAI gives changes what one pass gives, by more than the comparison allows."""
    record = stays_of(make_record, 4, SIZES, folds=1)
    [imputer] = imputers(SIZES, count=1)
    before = StackedCsai([imputer]).read(*record).imputed_FBTD
    weight = imputer.get_parameter(name)
    weight.data += torch.randn_like(weight)
    after = StackedCsai([imputer]).read(*record).imputed_FBTD
    assert (after - before).abs().max() > 1e-4
    check([imputer], *record)


@pytest.mark.parametrize("state", STATES)
def test_every_hidden_state_is_given(make_record: MakeRecord, state: str) -> None:
    """The state that the heads read is made from the same hours."""
    check(imputers(SIZES), *stays_of(make_record, 3, SIZES), state)


def test_a_large_batch_is_read_fold_by_fold(make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in parts, of which the last is smaller, and gives the same."""
    monkeypatch.setattr(stacked_csai, "SMALL_BATCH", 2)
    monkeypatch.setattr(stacked_csai, "STAYS_AT_ONCE", 3)
    check(imputers(SIZES), *stays_of(make_record, 7, SIZES))


def test_products_of_either_library_are_the_same(make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products above the limit of one thread are PyTorch's, those up to it NumPy's."""
    left, right = torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    for limit in (0, 3 * 4 * 5):
        monkeypatch.setattr(small_products, "OF_ONE_THREAD", limit)
        found = torch.empty(2, 3, 5)
        product(left, right, found)()
        torch.testing.assert_close(found, left @ right)
        check(imputers(SIZES), *stays_of(make_record, 2, SIZES))


def test_large_scores_are_shifted_before_their_powers_are_summed(make_record: MakeRecord) -> None:
    """Scores of thousands, which no exponential of single precision holds, give the same first hidden state."""
    found = imputers(SIZES)
    with torch.no_grad():
        for imputer in found:
            for state in imputer.first_states:
                state.attention.self_attn.in_proj_weight[: 2 * SIZES.channels] *= 60
    values_FBTD, observed = stays_of(make_record, 4, SIZES)
    check(found, values_FBTD, observed)
    assert StackedCsai(found).read(values_FBTD, observed).state_FBS.isfinite().all()


def test_what_stands_under_missing_cells_changes_nothing(make_record: MakeRecord) -> None:
    """The numbers in missing cells have no effect, not even in the imputed series."""
    stacked = StackedCsai(imputers(SIZES))
    values_FBTD, observed = stays_of(make_record, 4, SIZES)
    read = stacked.read(values_FBTD, observed)
    other = stacked.read(torch.where(observed > 0, values_FBTD, 99.0), observed)
    for one, another in zip(read, other, strict=True):
        assert torch.equal(one, another)
    passed = torch.where(observed > 0, read.imputed_FBTD, 0.0)
    assert torch.equal(passed, torch.where(observed > 0, values_FBTD, 0.0))


def test_records_of_another_shape_are_refused(make_record: MakeRecord) -> None:
    """As the network itself refuses them."""
    values_FBTD, observed = stays_of(make_record, 4, replace(SIZES, hours=11))
    with pytest.raises(ValueError, match=r"\(folds, hours, variables\) \(3, 12, 5\), got \(3, 11, 5\)"):
        StackedCsai(imputers(SIZES)).read(values_FBTD, observed)
