from functools import partial

import numpy as np
import pytest

from imputune.models.blend_fitting import GROUPS, BlendFit, fit_sigmoid, groups_of
from imputune.models.blending import Blend, Ranks, Sigmoid, logit, sigmoid

SCALES, WEIGHTS = ("calibrated", "ranks"), ("equal", "cross_fitted")


def drawn(stays: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return true risks, (N,), and outcomes drawn from them, (N,)."""
    random = np.random.default_rng(seed)
    true_N = sigmoid(random.normal(-1.5, 1.5, stays))
    return true_N, (random.random(stays) < true_N).astype(int)


def two_views(stays: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Return the risks of two members, (2, N), that each see half of the truth, and outcomes, (N,)."""
    random = np.random.default_rng(1)
    seen_2N = random.normal(0, 1.5, (2, stays))
    outcome_N = (random.random(stays) < sigmoid(seen_2N.sum(axis=0) - 1.5)).astype(int)
    return sigmoid(seen_2N - 1), outcome_N


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (4.0, 1.0), (0.3, -2.0)])
def test_a_sigmoid_undoes_what_was_done_to_true_risks(slope: float, intercept: float) -> None:
    """Risks made over-confident or shifted are calibrated back: slope and intercept are the inverse, to sampling."""
    true_N, outcome_N = drawn(200_000)
    found = fit_sigmoid(sigmoid(slope * logit(true_N) + intercept), outcome_N)
    assert found.slope == pytest.approx(1 / slope, rel=0.02)
    assert found.intercept == pytest.approx(-intercept / slope, abs=0.05)


def test_a_sigmoid_keeps_the_mean_and_never_turns_the_order_round() -> None:
    """The mean risk is the fraction with the outcome; of a member that is always wrong, the slope stays above 0."""
    true_N, outcome_N = drawn()
    calibrated_N = fit_sigmoid(true_N, outcome_N)(true_N)
    assert calibrated_N.mean() == pytest.approx(outcome_N.mean(), abs=1e-3)
    wrong = fit_sigmoid(1 - true_N, outcome_N)
    assert wrong.slope == pytest.approx(0.01)
    assert wrong(1 - true_N).mean() == pytest.approx(outcome_N.mean(), abs=5e-3)


@pytest.mark.parametrize("outcome", [0, 1])
def test_a_sigmoid_of_one_outcome_or_of_one_risk_is_finite(outcome: int) -> None:
    """Stays that all have the same outcome get the smoothed rate of that outcome; so do stays of one risk."""
    risk_N = np.linspace(0, 1, 18)
    rate = 1 / 20 if outcome == 0 else 19 / 20
    assert fit_sigmoid(risk_N, np.full(18, outcome))(risk_N).mean() == pytest.approx(rate, abs=0.01)
    same_N = np.full(18, 0.4)
    assert fit_sigmoid(same_N, np.full(18, outcome))(same_N) == pytest.approx(rate)


def test_ranks_by_hand() -> None:
    """The fraction with a lower risk, equal ones counted half; interpolated between known risks, the last beyond."""
    ranks = Ranks.of(np.array([0.2, 0.1, 0.2, 0.4]))
    assert ranks(np.array([0.1, 0.2, 0.4])).tolist() == [0.125, 0.5, 0.875]
    assert ranks(np.array([0.15, 0.3, 0.0, 1.0])).tolist() == pytest.approx([0.3125, 0.6875, 0.125, 0.875])


def test_ranks_do_not_change_when_a_member_is_stretched() -> None:
    """A member's risks, cubed, give the same blend: only their order counts."""
    risk_MN, outcome_N = two_views()
    for weights in WEIGHTS:
        fitting = BlendFit("ranks", weights, seed=3)
        stretched_MN = np.stack([risk_MN[0] ** 3, risk_MN[1]])
        blended_N = fitting.fit(risk_MN, outcome_N).risk(risk_MN)
        # Fitted weights rank stays that were left out, between others: there, interpolation depends on the risks.
        precision = 1e-9 if weights == "equal" else 1e-5
        assert fitting.fit(stretched_MN, outcome_N).risk(stretched_MN) == pytest.approx(blended_N, abs=precision)


def test_calibration_makes_over_confident_members_equal() -> None:
    """A member whose logits are 2.5 times too large blends as it does without the factor; a plain mean would not."""
    risk_MN, outcome_N = two_views()
    fitting = BlendFit("calibrated", "equal", seed=3)
    loud_MN = np.stack([sigmoid(2.5 * logit(risk_MN[0])), risk_MN[1]])
    blended_N = fitting.fit(risk_MN, outcome_N).risk(risk_MN)
    assert fitting.fit(loud_MN, outcome_N).risk(loud_MN) == pytest.approx(blended_N, abs=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_equal_members_blend_to_themselves(scale: str) -> None:
    """Two members with the same risks give what one of them gives; a risk is always in [0, 1] and follows the order."""
    true_N, outcome_N = drawn()
    blend = BlendFit(scale, "equal", seed=1).fit(np.stack([true_N, true_N]), outcome_N)
    risk_N = blend.risk(np.stack([true_N, true_N]))
    assert np.array_equal(np.argsort(risk_N, kind="stable"), np.argsort(true_N, kind="stable"))
    assert ((risk_N >= 0) & (risk_N <= 1)).all()
    assert risk_N.mean() == pytest.approx(outcome_N.mean(), abs=0.01)
    if scale == "calibrated":
        assert risk_N == pytest.approx(fit_sigmoid(true_N, outcome_N)(true_N))


@pytest.mark.parametrize("scale", SCALES)
def test_fitted_weights_follow_what_members_know(scale: str) -> None:
    """All weight goes to a perfect member, about half to each of two equally good ones; they are equal if asked for."""
    risk_MN, outcome_N = two_views()
    perfect_N = np.where(outcome_N > 0, 0.9, 0.1)
    noise_N = np.random.default_rng(5).random(len(outcome_N))
    fitting = BlendFit(scale, "cross_fitted", seed=2)
    assert fitting.fit(np.stack([noise_N, perfect_N]), outcome_N).weight_M == pytest.approx([0, 1], abs=1e-3)
    assert fitting.fit(risk_MN, outcome_N).weight_M == pytest.approx([0.5, 0.5], abs=0.1)
    three = fitting.fit(np.stack([*risk_MN, noise_N]), outcome_N).weight_M
    assert three.sum() == pytest.approx(1)
    assert (three >= 0).all()
    assert three[2] < 0.1
    equal = BlendFit(scale, "equal", seed=2).fit(np.stack([noise_N, perfect_N]), outcome_N)
    assert equal.weight_M.tolist() == [0.5, 0.5]


def held(group_N: np.ndarray, outcome_N: np.ndarray, seed: int) -> np.ndarray:
    """Return the known groups for all stays, drawn ones for some of them."""
    return group_N if len(outcome_N) == len(group_N) else groups_of(outcome_N, seed)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_no_stay_s_own_outcome_enters_its_cross_fitted_risk(scale: str, weights: str) -> None:
    """With a group's outcomes turned round, the risks of that group stay as they are, and others change.

    The groups depend on the outcomes, so they are held as they were.
    """
    risk_MN, outcome_N = two_views(300)
    fitting = BlendFit(scale, weights, seed=4)
    group_N = groups_of(outcome_N, 4)
    before_N = fitting.cross_fitted_risk(risk_MN, outcome_N)
    for group in range(GROUPS):
        other_N = np.where(group_N == group, 1 - outcome_N, outcome_N)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("imputune.models.blend_fitting.groups_of", partial(held, group_N))
            after_N = fitting.cross_fitted_risk(risk_MN, other_N)
        assert np.array_equal(after_N[group_N == group], before_N[group_N == group])
        assert not np.array_equal(after_N[group_N != group], before_N[group_N != group])


def test_groups_have_equal_sizes_and_outcomes() -> None:
    """By count: five groups, each of 20 or 21 stays and 2 or 3 with the outcome; another seed draws others."""
    outcome_N = (np.arange(103) % 9 == 0).astype(int)
    group_N = groups_of(outcome_N, 1)
    assert set(np.bincount(group_N, minlength=GROUPS)) == {20, 21}
    assert set(np.bincount(group_N[outcome_N > 0], minlength=GROUPS)) == {2, 3}
    assert np.array_equal(group_N, groups_of(outcome_N, 1))
    assert not np.array_equal(group_N, groups_of(outcome_N, 2))


@pytest.mark.parametrize("scale", SCALES)
def test_a_blend_survives_its_arrays_and_a_stay_alone_is_the_same(scale: str) -> None:
    """Arrays make a new blend with the same risks, to the bit; a stay alone has the risk it has among others."""
    risk_MN, outcome_N = two_views(200)
    blend = BlendFit(scale, "cross_fitted", seed=1).fit(risk_MN, outcome_N)
    arrays = blend.arrays()
    assert all(name.startswith("blend.") and array.dtype == np.float64 for name, array in arrays.items())
    again = Blend.from_arrays(arrays | {"scaler.mean": np.zeros(3)})
    risk_N = blend.risk(risk_MN)
    assert np.array_equal(again.risk(risk_MN), risk_N)
    assert [blend.risk(risk_MN[:, [stay]])[0] for stay in (0, 7, 199)] == [risk_N[stay] for stay in (0, 7, 199)]
    with pytest.raises(KeyError):
        Blend.from_arrays({name: array for name, array in arrays.items() if not name.startswith("blend.1.")})


def test_a_sigmoid_by_hand() -> None:
    """Risk 0.5 has logit 0, so the calibrated risk is that of the intercept; 0 and 1 stay finite."""
    calibration = Sigmoid(slope=2.0, intercept=np.log(3))
    assert calibration(np.array([0.5, 0.75])).tolist() == pytest.approx([0.75, 27 / 28])
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()
