import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from imputune.evaluation.card_scores import fold_line, intervals, score_stays
from imputune.evaluation.intervals import percentile_interval
from imputune.evaluation.metrics import risk_scores
from imputune.evaluation.small_groups import ShownSubgroups, countable, is_large_enough, without_small_groups
from imputune.evaluation.subgroups import score_cohort, subgroups

STAYS = 400


@pytest.fixture(scope="module")
def stays() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """400 outcomes and risks with ties; 9 stays of coronary care, 12 of surgery with 4 deaths, and 379 others."""
    generator = np.random.default_rng(0)
    risk_N = generator.beta(2, 5, STAYS).round(2)
    outcome_N = (generator.random(STAYS) < risk_N).astype(np.int8)
    icu_N = np.repeat([1.0, 4.0, 2.0, 3.0], [9, 12, 79, 300])
    outcome_N[:9] = [1, 1, 1, 1, 1, 0, 0, 0, 0]
    outcome_N[9:21] = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    return outcome_N, risk_N, pd.DataFrame({"icu_type": icu_N, "gender": np.nan, "age_years": np.nan})


def test_scores_are_scikit_learns_and_intervals_those_of_a_plain_bootstrap(stays) -> None:
    """Values are scikit-learn's, with ties; each resample's are scikit-learn's on the stays that were drawn."""
    outcome_N, risk_N, _ = stays
    found = intervals(outcome_N, risk_N, resamples=40, seed=3)
    generator = np.random.default_rng(3)
    drawn = [generator.integers(0, STAYS, STAYS) for _ in range(40)]
    plain = {
        "auc": roc_auc_score,
        "auprc": average_precision_score,
        "brier": brier_score_loss,
        "gap": lambda outcome, risk: float(risk.mean() - outcome.mean()),
    }
    for name, score in plain.items():
        expected = percentile_interval(np.array([score(outcome_N[each], risk_N[each]) for each in drawn]))
        assert found[name].value == pytest.approx(score(outcome_N, risk_N))
        assert (found[name].low, found[name].high) == pytest.approx(expected)


def test_intervals_are_those_that_evaluate_gives_for_the_same_stays(stays) -> None:
    """The same seed gives the same intervals in a card and in `imputune evaluate`."""
    outcome_N, risk_N, static = stays
    ours = intervals(outcome_N, risk_N, resamples=150, seed=5)
    [every] = score_cohort(outcome_N, risk_N, static * np.nan, threshold=0.3, resamples=150, seed=5)
    for name in ("auc", "auprc", "brier"):
        assert ours[name].model_dump() == pytest.approx(every.scores[name].model_dump())


def test_stays_without_survivors_have_no_intervals() -> None:
    """A fold in which everybody died, as a very small one may be, has NaN, and raises nothing."""
    found = intervals(np.ones(4), np.array([0.1, 0.4, 0.2, 0.4]), resamples=10, seed=0)
    assert all(np.isnan(list(each.model_dump().values())).all() for each in found.values())


def test_a_fold_keeps_its_recorded_scores(stays) -> None:
    """The scores are those that training recorded; intervals are of three of them."""
    outcome_N, risk_N, _ = stays
    recorded = {f"test_{name}": value for name, value in risk_scores(outcome_N, risk_N).items()}
    line = fold_line(2, recorded, outcome_N, risk_N, resamples=50, seed=0)
    assert (line.fold, line.stays, line.scores) == (2, STAYS, recorded)
    assert set(line.intervals) == {"test_auc", "test_auprc", "test_brier"}
    for name, (low, high) in line.intervals.items():
        assert low < recorded[name] < high


def test_small_groups_are_left_out_and_their_counts_do_not_follow(stays) -> None:
    """Nine stays, or four deaths, are too few; nothing told adds up to the numbers of those left out."""
    outcome_N, risk_N, static = stays
    scores = score_stays(outcome_N, risk_N, static, threshold=0.3, resamples=30, seed=0)
    assert [(line.group, line.level) for line in scores.groups] == [
        ("all", "all"),
        ("ICU type", "cardiac surgery recovery"),
        ("ICU type", "medical"),
    ]
    assert scores.some_left_out
    # 9 + 12 stays with 5 + 4 deaths are large enough together, so that the others may be counted.
    assert [line.stays for line in scores.groups] == [STAYS, 79, 300]
    alone = static.assign(icu_type=np.where(static["icu_type"] == 4, 3.0, static["icu_type"]))
    scores = score_stays(outcome_N, risk_N, alone, threshold=0.3, resamples=30, seed=0)
    assert [line.level for line in scores.groups[1:]] == ["cardiac surgery recovery", "medical"]
    assert [(line.stays, line.events) for line in scores.groups[1:]] == [
        (None, None),
        (312, int(outcome_N[9:21].sum() + outcome_N[100:].sum())),
    ]
    untold = scores.groups[1]
    for number in (untold.mean_risk, untold.outcome_rate, *untold.auc.model_dump().values()):
        assert number == round(number, 2)


def test_no_group_is_left_out_of_large_ones(stays) -> None:
    """Large groups have their counts; numbers are of these stays."""
    outcome_N, risk_N, static = stays
    large = static.assign(icu_type=np.where(static["icu_type"] == 2, 2.0, 3.0))
    scores = score_stays(outcome_N, risk_N, large, threshold=0.3, resamples=30, seed=0)
    assert not scores.some_left_out
    surgery_N = (large["icu_type"] == 2).to_numpy()
    line = scores.groups[1]
    assert (line.stays, line.events) == (79, outcome_N[surgery_N].sum())
    assert line.auc.value == pytest.approx(roc_auc_score(outcome_N[surgery_N], risk_N[surgery_N]), abs=5e-4)
    assert line.gap.value == pytest.approx(risk_N[surgery_N].mean() - outcome_N[surgery_N].mean(), abs=1e-3)
    every = scores.all_stays
    assert (every.mean_risk, every.outcome_rate) == pytest.approx((risk_N.mean(), outcome_N.mean()))
    expected = risk_scores(outcome_N, risk_N)
    assert scores.calibration == pytest.approx(
        {name: expected[f"calibration_{name}"] for name in ("error", "slope", "intercept")}
    )
    assert scores.sensitivity == pytest.approx((risk_N[outcome_N == 1] >= 0.3).mean())
    assert scores.specificity == pytest.approx((risk_N[outcome_N == 0] < 0.3).mean())


def test_the_worst_groups_are_named(stays) -> None:
    """Turning a group's risks round makes it the worst ranked; raising another's makes it the furthest off."""
    outcome_N, risk_N, static = stays
    planted = risk_N.copy()
    planted[21:100] = 1 - planted[21:100]
    planted[100:] = np.minimum(planted[100:] + 0.5, 1)
    scores = score_stays(outcome_N, planted, static, threshold=0.3, resamples=30, seed=0)
    assert scores.worst_ranked is not None
    assert scores.worst_ranked.level == "cardiac surgery recovery"
    assert scores.furthest_off is not None
    assert scores.furthest_off.level == "medical"
    nobody = score_stays(outcome_N, risk_N, static * np.nan, threshold=0.3, resamples=30, seed=0)
    assert (nobody.worst_ranked, nobody.furthest_off, nobody.some_left_out) == (None, None, False)


def test_files_of_evaluate_lack_what_cards_do_not_tell(stays) -> None:
    """No subgroup whose counts a card hides, and no calibration point of fewer than five stays."""
    outcome_N, risk_N, static = stays
    alone = static.assign(icu_type=np.where(static["icu_type"] == 4, 3.0, static["icu_type"]))
    sexes = alone.assign(gender=np.where(np.arange(STAYS) < 45, 0.0, 1.0))
    scored = score_cohort(outcome_N, risk_N, sexes, threshold=0.3, resamples=5, seed=0)
    kept = without_small_groups(scored, sexes, outcome_N)
    # Coronary care is too small, and recovery's counts would give it away; 45 women have points of four or five.
    assert [each.level for each in kept] == ["all", "medical", "female", "male"]
    assert len(scored) == len(kept) + 2
    women = kept[2]
    assert (women.stays, women.calibration) == (45, ())
    assert kept[0] == scored[0]
    assert kept[3].calibration


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([(100, 20), (50, 10)], [True, True]),
        ([(100, 20), (8, 3)], [False, False]),
        ([(100, 20), (8, 3), (50, 10)], [True, False, False]),
        ([(4, 1), (5, 3), (50, 10), (40, 10)], [False, False, True, False]),
        ([(12, 6), (9, 5), (8, 5), (100, 20)], [True, False, False, True]),
        ([(9, 5)], [False]),
    ],
)
def test_counts_are_told_unless_a_small_groups_would_follow(groups, told) -> None:
    """What is not told is nothing, or two groups or more that are large enough together."""
    assert countable(groups) == told


@pytest.mark.parametrize(
    ("stays", "events", "enough"), [(10, 5, True), (9, 5, False), (30, 4, False), (30, 26, False), (30, 25, True)]
)
def test_the_limits_of_small_groups(stays, events, enough) -> None:
    """Ten stays, five with the outcome and five without it are enough; one fewer is not."""
    assert is_large_enough(stays, events) is enough


def test_shown_subgroups_are_those_of_the_cohort(stays) -> None:
    """The subgroups are those of evaluate, less the small ones."""
    outcome_N, _, static = stays
    found = ShownSubgroups.of(static, outcome_N)
    assert [each.level for each, _ in found.shown] == ["cardiac surgery recovery", "medical"]
    [every, *divided] = subgroups(static, STAYS)
    assert [each.level for each in divided] == ["coronary care", "cardiac surgery recovery", "medical", "surgical"]
    whole = ShownSubgroups.of(static.iloc[21:], outcome_N[21:])
    assert (len(whole.shown), whole.some_left_out) == (2, False)
    assert every.member_N.all()
