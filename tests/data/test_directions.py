import tracemalloc

import numpy as np
import pytest
import torch

from imputune.data.directions import Directions, ObservationCounts, gap_hours, last_observed


def column(*cells: float) -> torch.Tensor:
    """One stay, one variable."""
    return torch.tensor(cells, dtype=torch.float32).reshape(1, -1, 1)


@pytest.mark.parametrize(
    ("observed", "gap"),
    [
        ((0, 1, 0, 0, 1, 0), (1, 1, 2, 3, 1, 2)),
        ((1, 0, 0, 1, 1, 0), (1, 2, 3, 1, 1, 2)),
        ((0, 0, 0, 0), (1, 2, 3, 4)),
        ((1, 1, 1), (1, 1, 1)),
        ((0,), (1,)),
        ((1,), (1,)),
    ],
)
def test_gap_hours_by_hand(observed: tuple[int, ...], gap: tuple[int, ...]) -> None:
    """The example of the docstring, and records observed nowhere, everywhere and for one hour."""
    assert gap_hours(column(*observed)).flatten().tolist() == list(gap)


def test_gap_hours_follows_its_rule() -> None:
    """On random records, hour by hour: gap[0] = 1, gap[t] = 1 + (1 - observed[t]) * gap[t-1]."""
    observed = (torch.rand((2, 3, 48, 5), generator=torch.Generator().manual_seed(0)) < 0.2).float()
    gap = torch.ones_like(observed)
    for t in range(1, 48):
        gap[..., t, :] = 1 + (1 - observed[..., t, :]) * gap[..., t - 1, :]
    assert torch.equal(gap_hours(observed), gap)


def test_last_observed_by_hand() -> None:
    """The latest value strictly before each hour, 0 before the first; the hour's own value does not count."""
    values, observed = column(0, 5, 0, -3, 4, 0), column(0, 1, 0, 1, 1, 0)
    assert last_observed(values, observed).flatten().tolist() == [0, 0, 5, 5, -3, 4]
    assert last_observed(column(9), column(1)).flatten().tolist() == [0]


def test_last_observed_follows_its_rule() -> None:
    """On random records, cell by cell: the value of the latest earlier hour that was observed, bit-equal."""
    generator = torch.Generator().manual_seed(2)
    values = 100 * torch.randn((3, 12, 4), generator=generator)
    observed = (torch.rand((3, 12, 4), generator=generator) < 0.3).float()
    expected = torch.zeros_like(values)
    for b, t, d in np.ndindex(3, 12, 4):
        earlier = observed[b, :t, d].nonzero()
        if len(earlier):
            expected[b, t, d] = values[b, int(earlier.max()), d]
    assert torch.equal(last_observed(values, observed), expected)


def test_last_observed_keeps_stays_and_variables_apart() -> None:
    """Nothing is carried from one stay or variable to another."""
    values = torch.tensor([[[1.0, 0], [0, 0], [0, 2]], [[0, 3], [4, 0], [0, 0]]])
    carried = last_observed(values, (values != 0).float())
    assert carried.tolist() == [[[0, 0], [1, 0], [1, 0]], [[0, 0], [0, 3], [4, 3]]]


def test_directions_by_hand() -> None:
    """The backward direction starts at the end of the record; its gaps and last values follow its own order."""
    directions = Directions.of(column(7, 0, 8, 0), column(1, 0, 1, 0))
    forward, backward = ([field[k].flatten().tolist() for field in vars(directions).values()] for k in (0, 1))
    assert forward == [[7, 0, 8, 0], [1, 0, 1, 0], [1, 2, 1, 2], [0, 7, 7, 8]]
    assert backward == [[0, 8, 0, 7], [0, 1, 0, 1], [1, 1, 2, 1], [0, 0, 8, 8]]


def test_backward_is_forward_of_the_flipped_record() -> None:
    """Flipping the record swaps the two directions; every tensor is bit-equal."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn((4, 9, 3), generator=generator)
    observed = (torch.rand((4, 9, 3), generator=generator) < 0.4).float()
    directions, flipped = Directions.of(values, observed), Directions.of(values.flip(1), observed.flip(1))
    for name, tensor in vars(directions).items():
        assert tensor.shape == (2, 4, 9, 3)
        assert torch.equal(tensor.flip(0), getattr(flipped, name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 1, 3), (1, 7, 1), (1, 1, 1)])
def test_memory_is_laid_out_hour_by_hour(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """(K, T, B, D) needs no copy, in either precision, also with one stay, hour or variable."""
    directions = Directions.of(torch.ones(shape, dtype=dtype), torch.ones(shape, dtype=dtype))
    for name, tensor in vars(directions).items():
        assert tensor.shape == (2, *shape), name
        assert tensor.dtype == dtype, name
        assert tensor.transpose(1, 2).is_contiguous(), name


def test_gradient_in_values_by_hand() -> None:
    """A value's gradient sums over all cells that use it, in both directions; for missing cells it is 0."""
    nan = float("nan")
    values = column(nan, 5, nan, -3, 4, nan).requires_grad_()
    directions = Directions.of(values, column(0, 1, 0, 1, 1, 0))
    weight = column(1, 10, 100, 1_000, 10_000, 100_000)
    (of_values,) = torch.autograd.grad((directions.values * weight).sum(), values, retain_graph=True)
    (of_last,) = torch.autograd.grad((directions.last_observed * weight).sum(), values)
    assert of_values.flatten().tolist() == [0, 10 + 10_000, 0, 1_000 + 100, 10_000 + 10, 0]
    assert of_last.flatten().tolist() == [0, 1_100 + 100_000, 0, 10_000 + 11_000, 100_000 + 100, 0]
    assert not directions.observed.requires_grad
    assert not directions.gap_hours.requires_grad


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e9])
def test_numbers_in_missing_cells_have_no_effect(junk: float) -> None:
    """NaN and any number in missing cells give the same directions as 0."""
    observed = column(1, 0, 1, 0)
    clean, junky = Directions.of(column(7, 0, 8, 0), observed), Directions.of(column(7, junk, 8, junk), observed)
    for name, tensor in vars(clean).items():
        assert torch.equal(tensor, getattr(junky, name)), name


def medians_of(observed_NTD: np.ndarray, at_once: int = 7) -> np.ndarray:
    """Return the median gaps, counted over batches of a few stays."""
    batches = (observed_NTD[start : start + at_once] for start in range(0, len(observed_NTD), at_once))
    return ObservationCounts.of(batches, *observed_NTD.shape[1:]).median_gap_hours()


def test_median_gap_hours_by_hand() -> None:
    """Gaps 1, 3 of one stay and 4 of another have median 3; the time before the first observation is not a gap."""
    observed_NTD = np.zeros((2, 6, 3), dtype=bool)
    observed_NTD[0, [1, 2, 5], 0] = True
    observed_NTD[1, [0, 4], 0] = True
    observed_NTD[0, [0, 2], 1] = True  # 2
    observed_NTD[1, [0, 1, 2, 3], 1] = True  # 1, 1, 1
    observed_NTD[0, [0, 2, 3], 2] = True  # 2, 1
    medians = medians_of(observed_NTD)
    assert medians.tolist() == [3, 1, 1.5]
    assert medians.dtype == np.float32


def test_median_gap_of_a_variable_never_observed_twice_is_the_whole_record() -> None:
    """Observed once in each of two stays, or never: there is no gap, so the median is T."""
    observed_NTD = np.zeros((2, 6, 2), dtype=bool)
    observed_NTD[:, 3, 0] = True
    assert medians_of(observed_NTD).tolist() == [6, 6]


def test_median_gap_hours_follows_its_rule() -> None:
    """On random stays, the median of the hours between successive observations of the same stay."""
    observed_NTD = np.random.default_rng(0).random((40, 24, 5)) < np.array([0.02, 0.1, 0.3, 0.7, 1])
    medians = medians_of(observed_NTD)
    for d in range(5):
        gaps = [gap for stay in observed_NTD[:, :, d] for gap in np.diff(np.flatnonzero(stay))]
        assert medians[d] == np.median(gaps)


def test_median_gap_of_one_hour() -> None:
    """A record of one hour has no gap, however many stays are observed."""
    assert medians_of(np.ones((3, 1, 2), dtype=bool)).tolist() == [1, 1]


def test_median_gap_hours_needs_little_memory() -> None:
    """With 40 variables and every cell observed, it uses less than two bytes per cell beside its input."""
    observed_NTD = np.ones((500, 48, 40), dtype=bool)
    tracemalloc.start()
    medians_of(observed_NTD)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * observed_NTD.size
